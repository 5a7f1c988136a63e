import os
import tempfile
import unittest

import docker
from docker.types import Mount

from case import SLEEP, Case


class Volumes(Case):
    def make(self, name=None, **options):
        return self.client.volumes.create(name, labels=self.labels(), **options)

    def cat(self, path, **options):
        return self.client.containers.run("busybox", ["cat", path], remove=True, **options)

    def test_attributes(self):
        volume = self.make(self.mark, driver="local")
        self.assertEqual((volume.name, volume.id), (self.mark, self.mark))
        attrs = self.client.volumes.get(self.mark).attrs
        self.assertEqual((attrs["Driver"], attrs["Scope"], attrs["Labels"], attrs["Options"]), ("local", "local", self.labels(), None))
        self.assertTrue(attrs["Mountpoint"].endswith(f"/volumes/{self.mark}/_data"))
        self.assertEqual(self.make(self.mark).attrs["CreatedAt"], attrs["CreatedAt"])
        self.assertRegex(self.make().name, r"^[0-9a-f]{64}$")

    def test_shared(self):
        self.make(self.mark)
        writer = self.sh("echo shared > /data/file", volumes={self.mark: {"bind": "/data", "mode": "rw"}})
        writer.wait()
        self.assertEqual(self.cat("/other/file", volumes=[f"{self.mark}:/other:ro"]), b"shared\n")
        self.assertEqual(self.cat("/heir/file", mounts=[Mount("/heir", self.mark)]), b"shared\n")
        self.assertEqual(self.cat("/data/file", volumes_from=[writer.id]), b"shared\n")
        with self.assertRaises(docker.errors.ContainerError) as refused:
            self.client.containers.run("busybox", ["touch", "/data/x"], remove=True, volumes=[f"{self.mark}:/data:ro"])
        self.assertIn(b"Read-only file system", refused.exception.stderr)

    def test_what_the_image_has_there_is_copied(self):
        self.make(self.mark)
        self.assertIn(b"root:", self.cat("/etc/passwd", volumes=[f"{self.mark}:/etc"]))
        self.make(self.mark + "-empty")
        with self.assertRaises(docker.errors.ContainerError):
            self.cat("/etc/passwd", volumes=[f"{self.mark}-empty:/etc:nocopy"])

    def test_driver_options(self):
        self.make(self.mark, driver="local", driver_opts={"type": "tmpfs", "device": "tmpfs", "o": "size=3m,mode=0711"})
        self.assertEqual(self.client.volumes.get(self.mark).attrs["Options"], {"type": "tmpfs", "device": "tmpfs", "o": "size=3m,mode=0711"})
        box = self.sh("df -k /data | tail -1 | awk '{print $2}'; stat -c %a /data; exec sleep 600", volumes=[f"{self.mark}:/data"])
        self.eventually("its words", lambda: box.logs().count(b"\n") == 2)
        self.assertEqual(box.logs(), b"3072\n711\n")

    def test_driver_options_of_a_folder(self):
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "file"), "w") as file:
                file.write("of the folder\n")
            self.make(self.mark, driver_opts={"type": "none", "device": folder, "o": "bind"})
            self.assertEqual(self.cat("/data/file", volumes=[f"{self.mark}:/data"]), b"of the folder\n")
            self.client.volumes.get(self.mark).remove()
            self.assertEqual(os.listdir(folder), ["file"])

    def test_binds(self):
        with tempfile.TemporaryDirectory() as folder:
            box = self.sh("echo from inside > /bound/file", volumes=[f"{folder}:/bound", f"{folder}/made:/made"])
            box.wait()
            with open(os.path.join(folder, "file")) as file:
                self.assertEqual(file.read(), "from inside\n")
            self.assertTrue(os.path.isdir(os.path.join(folder, "made")))
            with self.assertRaises(docker.errors.APIError) as absent:
                self.run_it(SLEEP, mounts=[Mount("/bound", folder + "/no-such", type="bind")])
            self.assertEqual(absent.exception.status_code, 400)
            self.assertIn("bind source path does not exist: " + folder + "/no-such", absent.exception.explanation)

    def test_mounts(self):
        self.make(self.mark)
        box = self.run_it(SLEEP, mounts=[Mount("/data", self.mark, read_only=True), Mount("/scratch", None, type="tmpfs", tmpfs_size="2m", tmpfs_mode=0o700), Mount("/anonymous", None)])
        mounts = {mount["Destination"]: mount for mount in box.attrs["Mounts"]}
        self.assertEqual((mounts["/data"]["Name"], mounts["/data"]["RW"], mounts["/data"]["Type"]), (self.mark, False, "volume"))
        self.assertRegex(mounts["/anonymous"]["Name"], r"^[0-9a-f]{64}$")
        self.assertEqual(self.exec(box, "df -k /scratch | tail -1 | awk '{print $2}'; stat -c %a /scratch").output, b"2048\n700\n")
        box.remove(force=True, v=True)
        with self.assertRaises(docker.errors.NotFound):
            self.client.volumes.get(mounts["/anonymous"]["Name"])
        self.client.volumes.get(self.mark)

    def test_list(self):
        used, unused = self.make(self.mark + "-used"), self.make(self.mark + "-unused")
        box = self.run_it(SLEEP, volumes=[f"{used.name}:/data"])

        def found(**filters):
            return {volume.name for volume in self.client.volumes.list(filters=filters)}

        self.assertEqual(found(label="mark=" + self.mark), {used.name, unused.name})
        self.assertEqual(found(name=self.mark + "-us"), {used.name})
        self.assertIn(unused.name, found(dangling=True))
        self.assertNotIn(used.name, found(dangling=True))
        box.remove(force=True)

    def test_refusals(self):
        with self.assertRaises(docker.errors.APIError) as name:
            self.make("not a name")
        self.assertEqual(name.exception.status_code, 400)
        self.assertIn('"not a name" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed', name.exception.explanation)
        with self.assertRaises(docker.errors.APIError) as option:
            self.make(self.mark, driver_opts={"no-such": "option"})
        self.assertEqual(option.exception.status_code, 400)
        self.assertIn('invalid option: "no-such"', option.exception.explanation)

    def test_prune(self):
        volume = self.make()
        kept = self.make(self.mark)
        pruned = self.client.volumes.prune(filters={"label": "mark=" + self.mark})
        self.assertEqual(pruned["VolumesDeleted"], [volume.name])
        pruned = self.client.volumes.prune(filters={"label": "mark=" + self.mark, "all": True})
        self.assertEqual(pruned["VolumesDeleted"], [kept.name])


if __name__ == "__main__":
    unittest.main()
