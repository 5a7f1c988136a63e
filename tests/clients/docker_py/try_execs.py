import socket
import struct
import unittest

import docker

from case import SLEEP, Case
from try_streams import frames, read_all


class Execs(Case):
    def setUp(self):
        super().setUp()
        self.box = self.run_it(SLEEP, environment={"OWN": "own"})

    def test_result(self):
        self.assertEqual(self.exec(self.box, "echo hello"), (0, b"hello\n"))
        self.assertEqual(self.exec(self.box, "echo err >&2; exit 3"), (3, b"err\n"))

    def test_one_stream(self):
        script = "echo out; echo err >&2"
        self.assertEqual(self.exec(self.box, script, stderr=False).output, b"out\n")
        self.assertEqual(self.exec(self.box, script, stdout=False).output, b"err\n")
        self.assertEqual(self.exec(self.box, script, demux=True).output, (b"out\n", b"err\n"))

    def test_stream(self):
        code, stream = self.exec(self.box, "for n in 1 2 3; do echo $n; sleep 0.1; done", stream=True)
        self.assertIsNone(code)
        self.assertEqual(b"".join(stream), b"1\n2\n3\n")

    def test_stream_of_both(self):
        _, stream = self.exec(self.box, "echo out; echo err >&2", stream=True, demux=True)
        parts = list(stream)
        self.assertEqual(b"".join(out for out, _ in parts if out), b"out\n")
        self.assertEqual(b"".join(err for _, err in parts if err), b"err\n")

    def test_surroundings(self):
        code, out = self.exec(
            self.box, "id -u; id -g; pwd; echo $OWN $MORE", user="33:70", workdir="/etc", environment={"MORE": "more"}
        )
        self.assertEqual((code, out), (0, b"33\n70\n/etc\nown more\n"))

    def test_terminal(self):
        self.assertEqual(self.exec(self.box, "tty > /dev/null && echo yes", tty=True), (0, b"yes\r\n"))

    def test_privileged(self):
        def rights(**options):
            return self.exec(self.box, "grep CapEff /proc/self/status", **options).output

        self.assertNotEqual(rights(), rights(privileged=True))

    def test_detached(self):
        self.assertFalse(self.box.exec_run(["sh", "-c", "echo x > /tmp/x"], detach=True).output)
        self.eventually("its work", lambda: self.exec(self.box, "cat /tmp/x") == (0, b"x\n"))

    def test_socket(self):
        exec_id = self.api.exec_create(self.box.id, ["sh", "-c", "cat; echo end >&2; exit 6"], stdin=True)["Id"]
        attached = self.api.exec_start(exec_id, socket=True)
        raw = attached._sock
        raw.settimeout(20)
        raw.sendall(b"in\n")
        raw.shutdown(socket.SHUT_WR)
        self.assertEqual(frames(read_all(raw)), {1: b"in\n", 2: b"end\n"})
        attached.close()
        self.eventually("its end", lambda: not self.api.exec_inspect(exec_id)["Running"])
        inspected = self.api.exec_inspect(exec_id)
        self.assertEqual((inspected["ExitCode"], inspected["OpenStdin"], inspected["ContainerID"]), (6, True, self.box.id))
        self.assertEqual(inspected["ProcessConfig"]["entrypoint"], "sh")
        self.assertEqual(inspected["ProcessConfig"]["arguments"], ["-c", "cat; echo end >&2; exit 6"])

    def test_resize(self):
        exec_id = self.api.exec_create(self.box.id, ["sh"], stdin=True, tty=True)["Id"]
        attached = self.api.exec_start(exec_id, socket=True, tty=True)
        raw = attached._sock
        raw.settimeout(20)
        self.api.exec_resize(exec_id, height=44, width=88)
        raw.sendall(b"stty size; exit\n")
        self.assertIn(b"44 88", read_all(raw))
        attached.close()

    def test_refusals(self):
        with self.assertRaises(docker.errors.NotFound) as absent:
            self.api.exec_inspect("0" * 64)
        self.assertIn("No such exec instance: " + "0" * 64, absent.exception.explanation)
        self.box.pause()
        with self.assertRaises(docker.errors.APIError) as paused:
            self.box.exec_run("true")
        self.assertEqual(paused.exception.status_code, 409)
        self.assertIn(f"ontainer {self.box.id} is paused, unpause the container before exec", paused.exception.explanation)
        self.box.unpause()
        self.box.kill()
        self.box.wait()
        with self.assertRaises(docker.errors.APIError) as stopped:
            self.box.exec_run("true")
        self.assertEqual(stopped.exception.status_code, 409)
        self.assertIn(f"ontainer {self.box.id} is not running", stopped.exception.explanation)

    def test_no_such_command(self):
        code, _ = self.box.exec_run("/no/such/command")
        self.assertEqual(code, 126)

    def test_many_at_once(self):
        streams = [self.box.exec_run(["sh", "-c", f"sleep 0.2; echo {n}"], stream=True).output for n in range(10)]
        self.assertEqual([b"".join(stream) for stream in streams], [b"%d\n" % n for n in range(10)])


if __name__ == "__main__":
    unittest.main()
