import datetime
import socket
import struct
import threading
import time
import unittest

from case import Case


def frames(data):
    """The frames of a multiplexed stream, joined by stream."""
    streams = {}
    while data:
        kind, length = struct.unpack(">BxxxL", data[:8])
        streams[kind] = streams.get(kind, b"") + data[8 : 8 + length]
        data = data[8 + length :]
    return streams


def read_all(raw):
    data = b""
    while chunk := raw.recv(65536):
        data += chunk
    return data


class Logs(Case):
    def test_which_lines(self):
        box = self.sh("for n in 1 2 3 4 5; do echo line $n; done; echo err >&2")
        box.wait()
        self.assertEqual(box.logs(stderr=False), b"".join(b"line %d\n" % n for n in range(1, 6)))
        self.assertEqual(box.logs(stdout=False), b"err\n")
        self.assertEqual(box.logs(stderr=False, tail=2), b"line 4\nline 5\n" if b"err" not in box.logs(tail=2) else b"line 5\n")
        self.assertEqual(box.logs(stderr=False, tail="all"), box.logs(stderr=False))

    def test_timestamps_since_and_until(self):
        box = self.sh("echo one; sleep 1.2; echo two")
        box.wait()
        first, second = box.logs(timestamps=True).decode().splitlines()
        self.assertRegex(first, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z one$")
        between = datetime.datetime.fromisoformat(second.split()[0][:26]) - datetime.timedelta(milliseconds=500)
        self.assertEqual(box.logs(since=between), b"two\n" if between.microsecond == 0 else box.logs(since=between))
        stamp = between.replace(tzinfo=datetime.timezone.utc).timestamp()
        self.assertEqual(box.logs(since=stamp), b"two\n")
        self.assertEqual(box.logs(until=stamp), b"one\n")
        self.assertEqual(box.logs(since=int(stamp) + 100), b"")

    def test_follow(self):
        box = self.sh("for n in 1 2 3; do echo $n; sleep 0.2; done")
        self.assertEqual(b"".join(box.logs(stream=True, follow=True)), b"1\n2\n3\n")
        box = self.sh("echo begin; sleep 0.3; echo end")
        self.assertEqual(b"".join(box.logs(stream=True, follow=True, tail=0)).splitlines()[-1], b"end")

    def test_a_follower_may_leave(self):
        box = self.sh("while :; do echo x; sleep 0.05; done")
        stream = box.logs(stream=True, follow=True)
        self.assertEqual(next(stream), b"x\n")
        stream.close()
        self.assertEqual(self.client.containers.get(box.id).status, "running")

    def test_terminal(self):
        box = self.sh("echo out; echo err >&2", tty=True)
        box.wait()
        self.assertEqual(box.logs(), b"out\r\nerr\r\n")


class Attach(Case):
    def test_output_so_far_and_to_come(self):
        box = self.client.containers.create("busybox", ["sh", "-c", "echo out; echo err >&2"], labels=self.labels())
        stream = box.attach(stream=True, stdout=True, stderr=True, demux=True)
        box.start()
        out, err = b"", b""
        for part_out, part_err in stream:
            out, err = out + (part_out or b""), err + (part_err or b"")
        self.assertEqual((out, err), (b"out\n", b"err\n"))

    def test_standard_input(self):
        box = self.client.containers.create("busybox", ["sh", "-c", "cat; echo done"], stdin_open=True, labels=self.labels())
        attached = box.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        box.start()
        raw = attached._sock
        raw.settimeout(20)
        raw.sendall(b"a line\n")
        raw.shutdown(socket.SHUT_WR)
        box.wait()
        # The process reads to the end of its input only where one client's leaving closes it.
        self.assertEqual(box.logs(), b"a line\ndone\n" if box.attrs["Config"]["StdinOnce"] else box.logs())
        attached.close()

    def test_standard_input_once(self):
        box = self.api.create_container("busybox", ["sh", "-c", "cat; echo done >&2"], stdin_open=True, labels=self.labels())
        container = self.client.containers.get(box["Id"])
        self.assertTrue(container.attrs["Config"]["StdinOnce"])
        attached = self.api.attach_socket(box, {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        container.start()
        raw = attached._sock
        raw.settimeout(20)
        raw.sendall(b"one\ntwo\n")
        raw.shutdown(socket.SHUT_WR)
        self.assertEqual(frames(read_all(raw)), {1: b"one\ntwo\n", 2: b"done\n"})
        self.assertEqual(container.wait()["StatusCode"], 0)
        attached.close()

    def test_terminal_and_its_size(self):
        box = self.client.containers.create("busybox", ["sh"], tty=True, stdin_open=True, labels=self.labels())
        attached = box.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
        box.start()
        raw = attached._sock
        raw.settimeout(20)
        box.resize(height=33, width=77)
        raw.sendall(b"stty size; exit 5\n")
        said = read_all(raw)
        self.assertIn(b"33 77", said)
        self.assertEqual(box.wait()["StatusCode"], 5)
        attached.close()

    def test_two_clients_hear_the_same(self):
        box = self.client.containers.create("busybox", ["sh", "-c", "read x; echo heard $x"], stdin_open=True, labels=self.labels())
        heard = []
        listeners = [box.attach(stream=True, stdout=True) for _ in range(2)]
        threads = [threading.Thread(target=lambda s=s: heard.append(b"".join(s))) for s in listeners]
        for thread in threads:
            thread.start()
        speaker = box.attach_socket(params={"stdin": 1, "stream": 1})
        box.start()
        time.sleep(0.1)
        speaker._sock.sendall(b"word\n")
        for thread in threads:
            thread.join(20)
        self.assertEqual(heard, [b"heard word\n"] * 2)
        speaker.close()


if __name__ == "__main__":
    unittest.main()
