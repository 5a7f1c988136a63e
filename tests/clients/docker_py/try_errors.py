import unittest

import docker
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound

from case import SLEEP, Case


class Errors(Case):
    def refused(self, kind, status, text, call, *args, **options):
        with self.assertRaises(kind) as refusal:
            call(*args, **options)
        self.assertEqual(refusal.exception.status_code, status, refusal.exception)
        self.assertIn(text, refusal.exception.explanation)

    def test_nothing_by_that_name(self):
        absent = "no-such-" + self.mark
        self.refused(NotFound, 404, f"No such container: {absent}", self.client.containers.get, absent)
        self.refused(NotFound, 404, f"No such container: {absent}", self.api.start, absent)
        self.refused(NotFound, 404, f"No such container: {absent}", self.api.remove_container, absent)
        self.refused(ImageNotFound, 404, f"No such image: {absent}:latest", self.client.images.get, absent)
        self.refused(NotFound, 404, f"network {absent} not found", self.client.networks.get, absent)
        self.refused(NotFound, 404, f"get {absent}: no such volume", self.client.volumes.get, absent)
        self.refused(ImageNotFound, 404, f"No such image: {absent}:latest", self.api.create_container, absent, "true")

    def test_run_of_no_image(self):
        with self.assertRaises((ImageNotFound, APIError)):
            self.client.containers.run("localhost:1/no/such/image:1")

    def test_a_name_that_is_taken(self):
        box = self.run_it(SLEEP, name=self.mark)
        taken = f'Conflict. The container name "/{self.mark}" is already in use by container "{box.id}". You have to remove (or rename) that container to be able to reuse that name.'
        self.refused(APIError, 409, taken, self.run_it, SLEEP, name=self.mark)
        other = self.run_it(SLEEP)
        self.refused(APIError, 409, f'The container name "/{self.mark}" is already in use by container "{box.id}"', other.rename, self.mark)

    def test_removal_of_one_that_runs(self):
        box = self.run_it(SLEEP, name=self.mark)
        self.refused(APIError, 409, f'cannot remove container "/{self.mark}": container is running: stop the container before removing or force remove', box.remove)

    def test_verbs_out_of_turn(self):
        box = self.client.containers.create("busybox", SLEEP, labels=self.labels())
        self.refused(APIError, 409, f"ontainer {box.id} is not running", box.kill)
        self.refused(APIError, 409, f"ontainer {box.id} is not running", box.pause)
        self.refused(APIError, 409, f"ontainer {box.id} is not running", box.top)
        box.stop()
        running = self.run_it(SLEEP)
        with self.assertRaises(APIError) as refusal:
            running.unpause()
        self.assertIn(f"ontainer {running.id} is not paused", refusal.exception.explanation)
        running.pause()
        self.refused(APIError, 409, f"ontainer {running.id} is already paused", running.pause)

    def test_what_cannot_be_made(self):
        create = self.client.containers.create
        self.refused(APIError, 400, "Invalid container name (not a name), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", create, "busybox", name="not a name")
        self.refused(APIError, 400, "Minimum memory limit allowed is 6MB", create, "busybox", mem_limit="1m")
        with self.assertRaises(APIError) as refusal:
            create("busybox", volumes=[":/data"])
        self.assertIn("invalid volume specification: ':/data'", refusal.exception.explanation)
        with self.assertRaises(APIError) as refusal:
            create("busybox", volumes={"a-volume": {"bind": "relative"}})
        self.assertIn("invalid mount path: 'relative' mount path must be absolute", refusal.exception.explanation)
        self.refused(APIError, 400, "invalid reference format", create, "Not A Name")

    def test_no_such_command(self):
        for command, words in (("/no/such/file", "no such file or directory"), ("no-such-program", "executable file not found in $PATH")):
            with self.assertRaises(APIError) as refusal:
                self.client.containers.run("busybox", command, labels=self.labels())
            self.assertEqual(refusal.exception.status_code, 400, refusal.exception)
            self.assertIn(f'exec: "{command}"', refusal.exception.explanation)
            self.assertIn(words, refusal.exception.explanation)

    def test_a_container_that_fails(self):
        with self.assertRaises(ContainerError) as failed:
            self.client.containers.run("busybox", ["sh", "-c", "exit 9"], remove=True)
        self.assertEqual(failed.exception.exit_status, 9)

    def test_objects_in_use(self):
        network = self.client.networks.create(self.mark, labels=self.labels())
        volume = self.client.volumes.create(labels=self.labels())
        box = self.run_it(SLEEP, network=self.mark, volumes={volume.name: {"bind": "/data"}})
        self.refused(APIError, 403, f"network {self.mark} id {network.id} has active endpoints", network.remove)
        self.refused(APIError, 409, f"remove {volume.name}: volume is in use - [{box.id}]", volume.remove)

    def test_wrong_arguments(self):
        box = self.run_it(SLEEP)
        self.refused(APIError, 400, "", box.kill, "SIGNONE")
        self.refused(APIError, 400, "", self.api.containers, filters={"no-such-filter": "x"})
        with self.assertRaises(docker.errors.APIError):
            self.api.attach("no-such-" + self.mark)


if __name__ == "__main__":
    unittest.main()
