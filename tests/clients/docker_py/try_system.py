import threading
import time
import unittest

import docker

from case import SLEEP, Case


class System(Case):
    def test_ping_and_version(self):
        self.assertTrue(self.client.ping())
        version = self.client.version()
        self.assertGreaterEqual(float(version["ApiVersion"].split(".")[1]), 40)
        self.assertEqual((version["Os"], version["Components"][0]["Name"]), ("linux", "Engine"))
        self.assertEqual(version["Components"][0]["Version"], version["Version"])

    def test_info(self):
        info = self.client.info()
        for key in ("Containers", "ContainersRunning", "ContainersPaused", "ContainersStopped", "Images", "NCPU", "MemTotal"):
            self.assertIsInstance(info[key], int, key)
        self.assertEqual((info["OSType"], info["Swarm"]["LocalNodeState"]), ("linux", "inactive"))
        self.assertIn("local", info["Plugins"]["Volume"])
        self.assertIn("bridge", info["Plugins"]["Network"])
        self.assertIn("json-file", info["Plugins"]["Log"])

    def test_older_versions(self):
        for number in ("1.40", "1.41", "1.43", "1.44"):
            client = docker.from_env(version=number)
            self.assertTrue(client.ping())
            self.assertEqual(client.containers.run("busybox", "echo " + number, remove=True).decode().strip(), number)
            client.close()

    def test_space(self):
        box = self.sh("echo x > /file")
        box.wait()
        volume = self.client.volumes.create(labels=self.labels())
        used = self.client.df()
        self.assertIn(box.id, [one["Id"] for one in used["Containers"]])
        self.assertIn(volume.name, [one["Name"] for one in used["Volumes"]])
        busybox = next(one for one in used["Images"] if "busybox:latest" in (one["RepoTags"] or []))
        self.assertGreater(busybox["Size"], 100_000)
        mine = next(one for one in used["Containers"] if one["Id"] == box.id)
        self.assertEqual(mine["SizeRw"], 2)

    def test_events_of_the_past(self):
        since = time.time() - 0.01
        box = self.sh("exit 3", name=self.mark)
        box.wait()
        box.remove()
        self.eventually(
            "its removal",
            lambda: any(
                event["Action"] == "destroy"
                for event in self.client.events(decode=True, since=since, until=time.time(), filters={"container": self.mark})
            ),
        )
        told = list(self.client.events(decode=True, since=since, until=time.time(), filters={"container": self.mark, "type": "container"}))
        actions = [event["Action"] for event in told]
        self.assertEqual([action for action in actions if action in ("create", "start", "die", "destroy")], ["create", "start", "die", "destroy"])
        die = next(event for event in told if event["Action"] == "die")
        self.assertEqual((die["Type"], die["Actor"]["ID"], die["id"], die["status"], die["from"]), ("container", box.id, box.id, "die", "busybox"))
        attributes = die["Actor"]["Attributes"]
        self.assertEqual((attributes["exitCode"], attributes["name"], attributes["image"], attributes["mark"]), ("3", self.mark, "busybox", self.mark))
        self.assertEqual(die["timeNano"] // 1_000_000_000, die["time"])

    def test_events_while_they_happen(self):
        stream = self.client.events(decode=True, filters={"label": "mark=" + self.mark, "event": ["start", "die"]})
        told = []

        def listen():
            for event in stream:
                told.append(event["Action"])
                if len(told) == 2:
                    return

        listener = threading.Thread(target=listen)
        listener.start()
        time.sleep(0.2)
        self.sh("true").wait()
        listener.join(15)
        stream.close()
        self.assertEqual(told, ["start", "die"])

    def test_no_swarm(self):
        for ask in (self.client.services.list, self.client.nodes.list, self.client.secrets.list, self.client.configs.list):
            with self.assertRaises(docker.errors.APIError) as refused:
                ask()
            self.assertEqual(refused.exception.status_code, 503)
            self.assertIn("This node is not a swarm manager.", refused.exception.explanation)

    def test_low_level(self):
        box = self.api.create_container(
            "busybox", ["sh", "-c", "cat /given"], labels=self.labels(),
            host_config=self.api.create_host_config(binds=["/etc/hostname:/given:ro"], auto_remove=False),
        )
        self.assertEqual(set(box), {"Id", "Warnings"})
        self.api.start(box["Id"])
        self.assertEqual(self.api.wait(box["Id"])["StatusCode"], 0)
        with open("/etc/hostname", "rb") as file:
            self.assertEqual(self.api.logs(box["Id"]), file.read())


if __name__ == "__main__":
    unittest.main()
