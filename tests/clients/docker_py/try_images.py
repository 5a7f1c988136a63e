import gzip
import io
import os
import tarfile
import tempfile
import unittest

import docker

from case import IMAGES, Case


class Images(Case):
    def name(self, tag="1"):
        return f"{self.mark}:{tag}"

    def build(self, text, **options):
        options.setdefault("tag", self.name())
        return self.client.images.build(fileobj=io.BytesIO(text.encode()), labels=self.labels(), rm=True, **options)

    def test_build_of_a_file(self):
        image, log = self.build("FROM busybox\nENV A=1\nLABEL own=yes\nEXPOSE 80\nCMD [\"echo\", \"built\"]\n")
        said = "".join(line.get("stream", "") for line in log)
        self.assertIn("Successfully built", said)
        self.assertIn(f"Successfully tagged {self.name()}", said)
        self.assertEqual(image.tags, [self.name()])
        self.assertEqual(image.labels, {"own": "yes", "mark": self.mark})
        self.assertEqual(image.attrs["Config"]["Cmd"], ["echo", "built"])
        self.assertEqual(self.client.containers.run(self.name(), remove=True), b"built\n")

    def test_build_of_a_folder(self):
        with tempfile.TemporaryDirectory() as folder:
            for name, text in {"Other": "FROM busybox\nARG WORD=none\nENV WORD=$WORD\nCOPY . /given/\nWORKDIR /given\nCMD cat file; echo $WORD; ls\n", "file": "a file\n", "left.tmp": "", ".dockerignore": "*.tmp\nOther\n.dockerignore\n"}.items():
                with open(os.path.join(folder, name), "w") as file:
                    file.write(text)
            image, _ = self.client.images.build(path=folder, dockerfile="Other", tag=self.name(), buildargs={"WORD": "word"}, labels=self.labels(), rm=True)
        self.assertEqual(self.client.containers.run(image, remove=True), b"a file\nword\nfile\n")

    def test_build_of_a_context(self):
        packed = io.BytesIO()
        with gzip.GzipFile(fileobj=packed, mode="w") as pressed, tarfile.open(fileobj=pressed, mode="w") as tar:
            for name, text in {"Dockerfile": b"FROM busybox AS one\nCOPY file /file\nFROM one AS two\nENV TWO=2\n", "file": b"packed\n"}.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(text)
                tar.addfile(entry, io.BytesIO(text))
        packed.seek(0)
        image, _ = self.client.images.build(fileobj=packed, custom_context=True, encoding="gzip", target="one", tag=self.name(), labels=self.labels(), rm=True)
        self.assertNotIn("TWO=2", image.attrs["Config"]["Env"])
        self.assertEqual(self.client.containers.run(image, ["cat", "/file"], remove=True), b"packed\n")

    def test_build_that_fails(self):
        with self.assertRaises(docker.errors.BuildError) as failed:
            self.build("FROM busybox\nCOPY no-such-file /\n")
        self.assertIn("no-such-file", failed.exception.msg)
        with self.assertRaises(docker.errors.APIError) as failed:
            self.build("NOT AN INSTRUCTION\n")
        self.assertEqual(failed.exception.status_code, 400)
        self.assertIn("unknown instruction: NOT", failed.exception.explanation)

    def test_tags(self):
        image, _ = self.build("FROM busybox\nENV TAGS=1\n")
        self.assertTrue(image.tag(self.mark, tag="2"))
        self.assertTrue(image.tag(f"registry.example:5000/{self.mark}/deep", tag="3"))
        image.reload()
        self.assertEqual(sorted(image.tags), sorted([self.name(), self.name("2"), f"registry.example:5000/{self.mark}/deep:3"]))
        self.client.images.remove(self.name("2"))
        image.reload()
        self.assertNotIn(self.name("2"), image.tags)
        self.assertEqual(self.client.images.get(image.short_id).id, image.id)
        with self.assertRaises(docker.errors.APIError) as several:
            self.client.images.remove(image.id)
        self.assertEqual(several.exception.status_code, 409)
        self.assertIn("image is referenced in multiple repositories", several.exception.explanation)
        self.client.images.remove(image.id, force=True)
        with self.assertRaises(docker.errors.ImageNotFound):
            self.client.images.get(image.id)

    def test_list(self):
        one, _ = self.build("FROM busybox\nENV LIST=1\nLABEL which=one\n")
        two, _ = self.build("FROM busybox\nENV LIST=2\nLABEL which=two\n", tag=self.name("two"))

        def found(**filters):
            both = ["mark=" + self.mark] + filters.pop("label", [])
            return {image.id for image in self.client.images.list(filters={"label": both, **filters})}

        self.assertEqual(found(), {one.id, two.id})
        self.assertEqual(found(label=["which=one"]), {one.id})
        self.assertEqual(found(reference=self.name("two")), {two.id})
        self.assertEqual(found(reference=self.mark + ":*"), {one.id, two.id})
        self.assertEqual(found(dangling=True), set())
        self.assertEqual({image.id for image in self.client.images.list(name=self.mark)}, {one.id, two.id})
        self.client.images.get(one.id).tag(self.mark, tag="two")
        self.assertEqual(found(dangling=True), {two.id})

    def test_history(self):
        image, _ = self.build("FROM busybox\nENV H=1\nCMD [\"true\"]\n")
        history = image.history()
        self.assertEqual(history[0]["Tags"], [self.name()])
        said = [entry["CreatedBy"] for entry in history]
        self.assertTrue(any("CMD [\"true\"]" in line for line in said), said)
        self.assertTrue(any("ENV H=1" in line for line in said), said)
        self.assertTrue(all({"Id", "Created", "CreatedBy", "Tags", "Size", "Comment"} <= set(entry) for entry in history))

    def test_save_and_load(self):
        image, _ = self.build("FROM busybox\nENV SAVED=1\n")
        saved = b"".join(image.save(named=True))
        with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
            self.assertIn("manifest.json", tar.getnames())
        self.client.images.remove(self.name())
        loaded = self.client.images.load(saved)
        self.assertEqual([one.tags for one in loaded], [[self.name()]])
        self.assertEqual(loaded[0].id, image.id)
        unnamed = b"".join(image.save())
        self.client.images.remove(self.name())
        self.assertEqual([one.id for one in self.client.images.load(unnamed)], [image.id])

    def test_load_of_a_file(self):
        with open(os.path.join(IMAGES, "hello-world.tar"), "rb") as file:
            loaded = self.client.images.load(file)
        self.assertEqual(loaded[0].tags, ["hello-world:latest"])
        self.assertIn(b"Hello from Docker!", self.client.containers.run("hello-world", remove=True))

    def test_load_of_rubbish(self):
        with self.assertRaises((docker.errors.APIError, docker.errors.ImageLoadError)):
            self.client.images.load(b"this is no archive")

    def test_attributes(self):
        image = self.client.images.get("busybox")
        self.assertTrue(image.id.startswith("sha256:"))
        self.assertEqual(image.short_id, image.id[:19])
        self.assertGreater(image.attrs["Size"], 100_000)
        self.assertEqual((image.attrs["Os"], image.attrs["RootFS"]["Type"]), ("linux", "layers"))
        self.assertEqual(image.attrs["Config"]["Cmd"], ["sh"])

    def test_prune(self):
        image, _ = self.build("FROM busybox\nENV PRUNED=1\nLABEL prune=" + self.mark + "\n")
        kept = self.client.images.prune(filters={"label": "prune=" + self.mark})
        self.assertEqual(kept["ImagesDeleted"] or [], [])
        pruned = self.client.images.prune(filters={"dangling": False, "label": "prune=" + self.mark})
        self.assertIn({"Untagged": self.name()}, pruned["ImagesDeleted"])
        self.assertIn({"Deleted": image.id}, pruned["ImagesDeleted"])

    def test_in_use(self):
        image, _ = self.build("FROM busybox\nENV USED=1\nCMD [\"sleep\", \"600\"]\n")
        box = self.client.containers.run(image, detach=True, init=True, labels=self.labels())
        with self.assertRaises(docker.errors.APIError) as used:
            self.client.images.remove(self.name())
        self.assertEqual(used.exception.status_code, 409)
        self.assertIn(f"container {box.short_id} is using its referenced image", used.exception.explanation)
        box.remove(force=True)


if __name__ == "__main__":
    unittest.main()
