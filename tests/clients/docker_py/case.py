"""What the scripts share: a client of the engine that DOCKER_HOST names, and names of their own.

Another script may be using the same engine, so nothing here counts what it did not make.
"""

import os
import time
import unittest
import uuid

import docker

IMAGES = os.environ["IMAGES"]
SLEEP = ["sleep", "600"]


class Case(unittest.TestCase):
    def setUp(self):
        self.client = docker.from_env(version="auto", timeout=30)
        self.api = self.client.api
        self.mark = "dp" + uuid.uuid4().hex[:10]
        self.addCleanup(self.clear)

    def clear(self):
        mine = {"label": "mark=" + self.mark}
        for container in self.client.containers.list(all=True, filters=mine, ignore_removed=True):
            container.remove(force=True, v=True)
        for network in self.client.networks.list(filters=mine):
            network.remove()
        for volume in self.client.volumes.list(filters=mine):
            volume.remove(force=True)
        for image in self.client.images.list(filters=mine):
            self.client.images.remove(image.id, force=True)
        self.client.close()

    def labels(self, **more):
        return {"mark": self.mark, **more}

    def run_it(self, command, **options):
        """A container of this test's, in the background."""
        options.setdefault("detach", True)
        options.setdefault("init", True)
        options["labels"] = self.labels(**options.get("labels", {}))
        return self.client.containers.run("busybox", command, **options)

    def sh(self, script, **options):
        return self.run_it(["sh", "-c", script], **options)

    def exec(self, box, script, **options):
        """Of a session's output this SDK loses what arrives with the head of the answer, so it begins with a pause."""
        return box.exec_run(["sh", "-c", "sleep 0.2; " + script], **options)

    def eventually(self, what, condition, patience=15):
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            answer = condition()
            if answer:
                return answer
            time.sleep(0.05)
        self.fail(what + " did not come about")
