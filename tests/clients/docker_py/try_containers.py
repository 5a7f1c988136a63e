import datetime
import unittest

import docker

from case import SLEEP, Case


class Containers(Case):
    def test_run_gives_the_output(self):
        out = self.client.containers.run("busybox", "echo hello", remove=True)
        self.assertEqual(out, b"hello\n")

    def test_run_gives_one_stream_or_both(self):
        script = ["sh", "-c", "echo out; echo err >&2"]
        run = self.client.containers.run
        self.assertEqual(run("busybox", script, remove=True, stderr=False, stdout=True), b"out\n")
        self.assertEqual(run("busybox", script, remove=True, stderr=True, stdout=False), b"err\n")
        self.assertEqual(sorted(run("busybox", script, remove=True, stderr=True).split()), [b"err", b"out"])

    def test_run_streams(self):
        lines = self.client.containers.run("busybox", ["sh", "-c", "echo one; echo two"], stream=True, remove=True)
        self.assertEqual(b"".join(lines), b"one\ntwo\n")

    def test_a_failing_run_tells_its_end(self):
        with self.assertRaises(docker.errors.ContainerError) as failed:
            self.client.containers.run("busybox", ["sh", "-c", "echo why >&2; exit 3"], labels=self.labels())
        self.assertEqual(failed.exception.exit_status, 3)
        self.assertEqual(failed.exception.stderr, b"why\n")

    def test_attributes(self):
        box = self.run_it(
            SLEEP, name=self.mark, hostname="a-host", environment={"A": "1", "B": ""}, user="70", working_dir="/tmp",
            mem_limit="32m", nano_cpus=500_000_000, cap_drop=["ALL"], tmpfs={"/scratch": "size=1m"},
            extra_hosts={"other": "10.1.2.3"}, stop_signal="SIGINT", ports={"80/tcp": None}, read_only=True,
            restart_policy={"Name": "on-failure", "MaximumRetryCount": 3}, shm_size="8m", pids_limit=40,
            security_opt=["no-new-privileges"], dns=["10.9.9.9"], ulimits=[docker.types.Ulimit(name="nofile", soft=100, hard=200)],
            sysctls={"net.core.somaxconn": "77"}, log_config=docker.types.LogConfig(type="json-file", config={"max-size": "1m"}),
        )
        self.assertEqual(box.name, self.mark)
        self.assertEqual(box.short_id, box.id[:12])
        self.assertEqual(box.image.tags, ["busybox:latest"])
        self.assertEqual(box.labels["mark"], self.mark)
        self.assertEqual(box.status, "created")
        box.reload()
        self.assertEqual(box.status, "running")
        config, host = box.attrs["Config"], box.attrs["HostConfig"]
        self.assertEqual(config["Hostname"], "a-host")
        self.assertIn("A=1", config["Env"])
        self.assertIn("B=", config["Env"])
        self.assertEqual((config["User"], config["WorkingDir"], config["StopSignal"]), ("70", "/tmp", "SIGINT"))
        self.assertEqual((host["Memory"], host["NanoCpus"], host["PidsLimit"]), (32 << 20, 500_000_000, 40))
        self.assertEqual(host["Ulimits"], [{"Name": "nofile", "Soft": 100, "Hard": 200}])
        self.assertEqual(host["RestartPolicy"], {"Name": "on-failure", "MaximumRetryCount": 3})
        self.assertEqual(host["LogConfig"], {"Type": "json-file", "Config": {"max-size": "1m"}})
        self.assertTrue(box.ports["80/tcp"][0]["HostPort"].isdigit())
        script = "hostname; id -u; pwd; cat /proc/sys/net/core/somaxconn; grep other /etc/hosts; touch /x"
        code, (out, err) = self.exec(box, script, demux=True)
        self.assertEqual(code, 1)
        self.assertEqual(out.decode().split("\n")[:5], ["a-host", "70", "/tmp", "77", "10.1.2.3\tother"])
        self.assertIn(b"Read-only file system", err)

    def test_get_and_list(self):
        one = self.run_it(SLEEP, name=self.mark + "-one", labels={"which": "one"})
        two = self.sh("exit 5", name=self.mark + "-two", labels={"which": "two"})
        two.wait()
        self.assertEqual(self.client.containers.get(one.id[:12]).id, one.id)
        self.assertEqual(self.client.containers.get(self.mark + "-two").id, two.id)

        def found(all=True, **filters):
            both = [f"mark={self.mark}"] + ([filters.pop("label")] if "label" in filters else [])
            listed = self.client.containers.list(all=all, filters={"label": both, **filters})
            return [box.name.removeprefix(self.mark + "-") for box in listed]

        self.assertEqual(found(), ["two", "one"])
        self.assertEqual(found(all=False), ["one"])
        self.assertEqual(found(status="exited"), ["two"])
        self.assertEqual(found(exited=5), ["two"])
        self.assertEqual(found(exited=0), [])
        self.assertEqual(found(label="which=one"), ["one"])
        self.assertEqual(found(name=self.mark + "-tw"), ["two"])
        self.assertEqual(found(ancestor="busybox"), ["two", "one"])
        self.assertEqual(found(before=two.id), ["one"])
        self.assertEqual(found(since=one.id), ["two"])
        self.assertEqual(found(id=one.id[:8]), ["one"])
        mine = {"label": f"mark={self.mark}"}
        self.assertEqual(len(self.client.containers.list(all=True, limit=1, filters=mine)), 1)
        sparse = self.client.containers.list(all=True, sparse=True, filters=mine)
        self.assertEqual({box.status for box in sparse}, {"running", "exited"})
        sized = self.api.containers(all=True, size=True, filters=mine)
        self.assertTrue(all("SizeRootFs" in box for box in sized))

    def test_from_create_to_remove(self):
        box = self.client.containers.create("busybox", SLEEP, init=True, labels=self.labels())
        self.assertEqual(box.status, "created")
        box.start()
        box.start()
        box.rename(self.mark + "-renamed")
        box.reload()
        self.assertEqual(box.name, self.mark + "-renamed")
        box.pause()
        box.reload()
        self.assertEqual(box.status, "paused")
        box.unpause()
        box.restart(timeout=1)
        box.reload()
        self.assertEqual(box.status, "running")
        box.kill("SIGKILL")
        self.assertEqual(box.wait()["StatusCode"], 137)
        box.start()
        box.stop(timeout=5)
        box.stop(timeout=5)
        box.reload()
        self.assertEqual((box.status, box.attrs["State"]["ExitCode"]), ("exited", 143))
        box.remove()
        with self.assertRaises(docker.errors.NotFound):
            box.reload()

    def test_wait_for_each_condition(self):
        box = self.sh("sleep 0.3; exit 4")
        self.assertEqual(box.wait(condition="not-running")["StatusCode"], 4)
        self.assertEqual(box.wait()["StatusCode"], 4)
        gone = self.sh("sleep 0.3; exit 6", auto_remove=True)
        self.assertEqual(gone.wait(condition="removed")["StatusCode"], 6)
        with self.assertRaises(docker.errors.NotFound):
            gone.reload()
        slow = self.run_it(SLEEP)
        with self.assertRaises(Exception) as late:
            slow.wait(timeout=0.5)
        self.assertIn("timed out", str(late.exception).lower())

    def test_top(self):
        box = self.run_it(["sh", "-c", "sleep 600 & exec sleep 601"])
        self.eventually("both processes", lambda: sum("sleep 60" in row[-1] for row in box.top()["Processes"]) >= 2)
        top = box.top()
        self.assertEqual(top["Titles"], ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"])
        top = box.top(ps_args="-o pid,comm")
        self.assertEqual(top["Titles"], ["PID", "COMMAND"])
        self.assertIn("sleep", [row[1] for row in top["Processes"]])

    def test_stats(self):
        box = self.run_it(["sh", "-c", "while :; do :; done"], mem_limit="64m")
        once = box.stats(stream=False)
        self.assertEqual(once["id"], box.id)
        self.assertEqual(once["name"], "/" + box.name)
        self.assertEqual(once["memory_stats"]["limit"], 64 << 20)
        self.assertGreater(once["memory_stats"]["usage"], 0)
        self.assertGreater(once["cpu_stats"]["cpu_usage"]["total_usage"], 0)
        self.assertGreater(once["cpu_stats"]["system_cpu_usage"], once["precpu_stats"]["system_cpu_usage"])
        self.assertGreaterEqual(once["pids_stats"]["current"], 2)
        self.assertIn("eth0", once["networks"])
        stream = box.stats(decode=True, stream=True)
        first, second = next(stream), next(stream)
        stream.close()
        self.assertGreater(second["cpu_stats"]["cpu_usage"]["total_usage"], first["cpu_stats"]["cpu_usage"]["total_usage"])
        self.assertEqual(second["precpu_stats"]["cpu_usage"], first["cpu_stats"]["cpu_usage"])
        fast = self.api.stats(box.id, stream=False, one_shot=True)
        self.assertEqual(fast["precpu_stats"]["cpu_usage"]["total_usage"], 0)

    def test_diff(self):
        box = self.sh("echo new > /tmp/new; rm /etc/shadow; echo more >> /etc/group")
        box.wait()
        kinds = {change["Path"]: change["Kind"] for change in box.diff()}
        # An init stands in the container's files for as long as it runs.
        kinds = {path: kind for path, kind in kinds.items() if not path.startswith("/sbin")}
        self.assertEqual(kinds, {"/tmp": 0, "/tmp/new": 1, "/etc": 0, "/etc/shadow": 2, "/etc/group": 0})

    def test_update(self):
        box = self.run_it(SLEEP, mem_limit="64m", memswap_limit="64m")
        box.update(mem_limit="32m", memswap_limit="32m", cpu_shares=512, restart_policy={"Name": "always"})
        box.reload()
        host = box.attrs["HostConfig"]
        self.assertEqual((host["Memory"], host["CpuShares"], host["RestartPolicy"]["Name"]), (32 << 20, 512, "always"))

    def test_health(self):
        box = self.run_it(
            SLEEP,
            healthcheck={"test": ["CMD-SHELL", "test -e /tmp/well"], "interval": 100_000_000, "retries": 2, "timeout": 5_000_000_000},
        )

        def health():
            box.reload()
            return box.health

        self.eventually("ill health", lambda: health() == "unhealthy")
        self.exec(box, "touch /tmp/well")
        self.eventually("health", lambda: health() == "healthy")
        log = box.attrs["State"]["Health"]["Log"]
        self.assertEqual(log[-1]["ExitCode"], 0)

    def test_restart_policy(self):
        box = self.sh("exit 1", restart_policy={"Name": "on-failure", "MaximumRetryCount": 2})

        def over():
            box.reload()
            return box.status == "exited" and box.attrs["RestartCount"] == 2

        self.eventually("the last of its tries", over)

    def test_prune(self):
        box = self.sh("true", labels={"prune": self.mark})
        box.wait()
        pruned = self.client.containers.prune(filters={"label": "prune=" + self.mark})
        self.assertEqual(pruned["ContainersDeleted"], [box.id])

    def test_times(self):
        box = self.sh("sleep 0.2")
        box.wait()
        box.reload()
        state = box.attrs["State"]
        begun, ended = (datetime.datetime.fromisoformat(state[key][:26].rstrip("Z")) for key in ("StartedAt", "FinishedAt"))
        self.assertLess(begun, ended)

    def test_namespaces(self):
        host = self.run_it(SLEEP, ipc_mode="shareable")
        guest = self.run_it(
            SLEEP, network_mode="container:" + host.id, ipc_mode="container:" + host.id, pid_mode="container:" + host.id
        )
        for kind in ("net", "ipc", "pid"):
            links = [box.exec_run(["readlink", "/proc/self/ns/" + kind]).output for box in (host, guest)]
            self.assertEqual(links[0], links[1], kind)


if __name__ == "__main__":
    unittest.main()
