import io
import tarfile
import unittest

import docker

from case import SLEEP, Case


def archive(**files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, (mode, owner, text) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.uid, entry.gid, entry.mtime = len(text), mode, owner, owner, 1_000_000_000
            tar.addfile(entry, io.BytesIO(text))
    return packed.getvalue()


def opened(chunks):
    return tarfile.open(fileobj=io.BytesIO(b"".join(chunks)))


class Archives(Case):
    def test_in_and_out(self):
        box = self.run_it(SLEEP)
        self.assertTrue(box.put_archive("/tmp", archive(one=(0o640, 70, b"one\n"), two=(0o755, 0, b"#!/bin/sh\necho two\n"))))
        self.assertEqual(self.exec(box, "stat -c '%a %u %g %Y' /tmp/one; cat /tmp/one; /tmp/two").output, b"640 70 70 1000000000\none\ntwo\n")
        chunks, stat = box.get_archive("/tmp/one")
        self.assertEqual((stat["name"], stat["size"], stat["mode"] & 0o777, stat["linkTarget"]), ("one", 4, 0o640, ""))
        with opened(chunks) as tar:
            self.assertEqual(tar.getnames(), ["one"])
            entry = tar.getmember("one")
            self.assertEqual((entry.mode, entry.uid, tar.extractfile(entry).read()), (0o640, 70, b"one\n"))

    def test_a_folder(self):
        box = self.run_it(SLEEP)
        self.exec(box, "mkdir -p /tmp/tree/deep; echo x > /tmp/tree/deep/file; ln -s deep/file /tmp/tree/link")
        chunks, stat = box.get_archive("/tmp/tree")
        self.assertEqual(stat["name"], "tree")
        with opened(chunks) as tar:
            self.assertEqual(sorted(tar.getnames()), ["tree", "tree/deep", "tree/deep/file", "tree/link"])
            self.assertEqual(tar.getmember("tree/link").linkname, "deep/file")

    def test_of_one_that_does_not_run(self):
        box = self.client.containers.create("busybox", ["cat", "/tmp/given"], labels=self.labels())
        box.put_archive("/tmp", archive(given=(0o644, 0, b"given before it began\n")))
        box.start()
        box.wait()
        self.assertEqual(box.logs(), b"given before it began\n")
        with opened(box.get_archive("/tmp/given")[0]) as tar:
            self.assertEqual(tar.extractfile("given").read(), b"given before it began\n")

    def test_into_a_volume(self):
        volume = self.client.volumes.create(labels=self.labels())
        box = self.client.containers.create("busybox", SLEEP, init=True, labels=self.labels(), volumes={volume.name: {"bind": "/data", "mode": "rw"}})
        box.put_archive("/data", archive(kept=(0o644, 0, b"kept\n")))
        box.start()
        self.assertEqual(self.exec(box, "cat /data/kept").output, b"kept\n")
        box.remove(force=True)

    def test_links_lead_nowhere_else(self):
        box = self.run_it(SLEEP)
        self.exec(box, "ln -s /etc /tmp/link")
        with opened(box.get_archive("/tmp/link")[0]) as tar:
            self.assertTrue(tar.getmember("link").issym())
        with opened(box.get_archive("/tmp/link/passwd")[0]) as tar:
            self.assertIn(b"root:", tar.extractfile("passwd").read())

    def test_refusals(self):
        box = self.run_it(SLEEP)
        with self.assertRaises(docker.errors.NotFound) as absent:
            box.get_archive("/no/such/file")
        self.assertEqual(absent.exception.explanation, f"Could not find the file /no/such/file in container {box.id}")
        with self.assertRaises(docker.errors.NotFound) as absent:
            box.put_archive("/no/such/folder", archive(a=(0o644, 0, b"a")))
        self.assertEqual(absent.exception.explanation, f"Could not find the file /no/such/folder in container {box.id}")
        with self.assertRaises(docker.errors.APIError) as no_folder:
            box.put_archive("/etc/passwd", archive(a=(0o644, 0, b"a")))
        self.assertEqual(no_folder.exception.explanation, "extraction point is not a directory")
        still = self.run_it(SLEEP, read_only=True)
        with self.assertRaises(docker.errors.APIError) as read_only:
            still.put_archive("/etc", archive(a=(0o644, 0, b"a")))
        self.assertEqual(read_only.exception.explanation, "container rootfs is marked read-only")

    def test_export(self):
        box = self.sh("echo exported > /exported; rm /etc/shadow")
        box.wait()
        with opened(box.export()) as tar:
            names = set(tar.getnames())
            self.assertEqual(tar.extractfile("exported").read(), b"exported\n")
        self.assertIn("bin/busybox", names)
        self.assertNotIn("etc/shadow", names)


if __name__ == "__main__":
    unittest.main()
