import unittest

import docker
from docker.types import IPAMConfig, IPAMPool

from case import SLEEP, Case


class Networks(Case):
    def make(self, subnet=None, **options):
        ipam = IPAMConfig(pool_configs=[IPAMPool(subnet=subnet)]) if isinstance(subnet, str) else subnet
        return self.client.networks.create(options.pop("name", self.mark), ipam=ipam, labels=self.labels(), **options)

    def test_attributes(self):
        pool = IPAMPool(subnet="10.210.1.0/24", iprange="10.210.1.128/25", gateway="10.210.1.254", aux_addresses={"reserved": "10.210.1.129"})
        network = self.make(IPAMConfig(pool_configs=[pool]), options={"com.docker.network.driver.mtu": "1400"}, internal=True, attachable=True)
        self.assertEqual(network.name, self.mark)
        attrs = self.client.networks.get(network.id).attrs
        self.assertEqual((attrs["Driver"], attrs["Scope"], attrs["Internal"], attrs["Attachable"]), ("bridge", "local", True, True))
        self.assertEqual(attrs["IPAM"]["Config"], [{"Subnet": "10.210.1.0/24", "IPRange": "10.210.1.128/25", "Gateway": "10.210.1.254", "AuxiliaryAddresses": {"reserved": "10.210.1.129"}}])
        self.assertEqual(attrs["Options"], {"com.docker.network.driver.mtu": "1400"})
        box = self.run_it(SLEEP, network=self.mark)
        box.reload()
        address = box.attrs["NetworkSettings"]["Networks"][self.mark]["IPAddress"]
        self.assertIn(int(address.split(".")[3]), set(range(128, 255)) - {129})
        self.assertEqual(self.exec(box, "cat /sys/class/net/eth0/mtu").output, b"1400\n")
        box.remove(force=True)

    def test_connect(self):
        network = self.make("10.210.2.0/24")
        server = self.run_it(["httpd", "-f", "-h", "/etc"])
        client = self.run_it(SLEEP, network=self.mark)
        network.connect(server, aliases=["www", "other"], ipv4_address="10.210.2.42")
        network.reload()
        self.assertEqual({box.id for box in network.containers}, {server.id, client.id})
        server.reload()
        endpoint = server.attrs["NetworkSettings"]["Networks"][self.mark]
        self.assertEqual(endpoint["IPAddress"], "10.210.2.42")
        self.assertLessEqual({"www", "other"}, set(endpoint["Aliases"]))
        self.assertEqual(endpoint["IPAMConfig"], {"IPv4Address": "10.210.2.42"})
        for name in ("www", "other", server.name, server.short_id, "10.210.2.42"):
            self.assertEqual(self.exec(client, f"wget -q -O /dev/null http://{name}/passwd"), (0, b""), name)
        network.disconnect(server)
        self.assertNotEqual(self.exec(client, "wget -T 2 -q -O /dev/null http://10.210.2.42/passwd")[0], 0)
        with self.assertRaises(docker.errors.APIError) as twice:
            network.disconnect(server)
        self.assertIn(f"container {server.id} is not connected to network {self.mark}", twice.exception.explanation)
        network.disconnect(client, force=True)

    def test_connect_before_start(self):
        network = self.make("10.210.3.0/24")
        box = self.client.containers.create("busybox", SLEEP, init=True, labels=self.labels())
        network.connect(box, ipv4_address="10.210.3.9")
        box.start()
        self.assertIn(b"10.210.3.9/24", self.exec(box, "ip -o -4 addr").output)
        box.restart(timeout=1)
        self.assertIn(b"10.210.3.9/24", self.exec(box, "ip -o -4 addr").output)
        box.remove(force=True)

    def test_at_create(self):
        self.make("10.210.4.0/24")
        wanted = self.client.api.create_endpoint_config(aliases=["given"], ipv4_address="10.210.4.7", mac_address="02:42:0a:d2:04:07")
        box = self.run_it(SLEEP, network=self.mark, networking_config={self.mark: wanted})
        box.reload()
        endpoint = box.attrs["NetworkSettings"]["Networks"][self.mark]
        self.assertEqual((endpoint["IPAddress"], endpoint["MacAddress"]), ("10.210.4.7", "02:42:0a:d2:04:07"))
        self.assertIn("given", endpoint["Aliases"])
        self.assertEqual(self.exec(box, "cat /sys/class/net/eth0/address").output, b"02:42:0a:d2:04:07\n")
        box.remove(force=True)

    def test_modes(self):
        self.assertEqual(self.client.containers.run("busybox", ["ls", "/sys/class/net"], network_mode="none", remove=True), b"lo\n")
        self.assertIn(b"lo", self.client.containers.run("busybox", ["ls", "/sys/class/net"], network_mode="host", remove=True))

    def test_list(self):
        network = self.make()
        self.assertEqual([one.id for one in self.client.networks.list(names=[self.mark])], [network.id])
        self.assertEqual([one.id for one in self.client.networks.list(ids=[network.id])], [network.id])
        self.assertEqual([one.id for one in self.client.networks.list(filters={"label": "mark=" + self.mark})], [network.id])
        names = {one.name for one in self.client.networks.list(filters={"type": "builtin"})}
        self.assertLessEqual({"bridge", "host", "none"}, names)
        self.assertNotIn(self.mark, names)
        dangling = {one.name for one in self.client.networks.list(filters={"dangling": True})}
        self.assertIn(self.mark, dangling)
        detailed = self.client.networks.list(names=[self.mark], greedy=True)
        self.assertEqual(detailed[0].attrs["Containers"], {})

    def test_refusals(self):
        self.make("10.210.5.0/24")
        with self.assertRaises(docker.errors.APIError) as taken:
            self.make("10.210.6.0/24")
        self.assertEqual((taken.exception.status_code, taken.exception.explanation), (409, f"network with name {self.mark} already exists"))
        with self.assertRaises(docker.errors.APIError) as overlap:
            self.make("10.210.5.0/25", name=self.mark + "-two")
        self.assertEqual(overlap.exception.status_code, 403)
        self.assertIn("Pool overlaps with other one on this address space", overlap.exception.explanation)
        with self.assertRaises(docker.errors.APIError) as driver:
            self.client.networks.create(self.mark + "-three", driver="no-such-driver")
        self.assertEqual(driver.exception.status_code, 404)
        for builtin in ("bridge", "host", "none"):
            with self.assertRaises(docker.errors.APIError) as kept:
                self.client.networks.get(builtin).remove()
            self.assertEqual(kept.exception.status_code, 403)
            self.assertIn(f"{builtin} is a pre-defined network and cannot be removed", kept.exception.explanation)

    def test_links(self):
        self.make()
        server = self.run_it(["httpd", "-f", "-h", "/etc"], network=self.mark)
        wanted = self.client.api.create_endpoint_config(links={server.name: "linked"})
        box = self.run_it(SLEEP, network=self.mark, networking_config={self.mark: wanted})
        self.assertEqual(self.exec(box, "wget -q -O /dev/null http://linked/passwd"), (0, b""))
        stranger = self.run_it(SLEEP, network=self.mark)
        self.assertNotEqual(self.exec(stranger, "wget -q -O /dev/null http://linked/passwd")[0], 0)
        for one in (server, box, stranger):
            one.remove(force=True)

    def test_prune(self):
        network = self.make()
        pruned = self.client.networks.prune(filters={"label": "mark=" + self.mark})
        self.assertEqual(pruned["NetworksDeleted"], [self.mark])
        with self.assertRaises(docker.errors.NotFound):
            network.reload()


if __name__ == "__main__":
    unittest.main()
