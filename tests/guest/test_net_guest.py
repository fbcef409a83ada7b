#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Two Linux guests on one switch: ping, files, iperf3, large frames, VLANs, ports that come and go."""

import json
import unittest

from guest import Nic, wait_until
from host import Host

FILE_MIB = 16
PORT = 5000
PROGRAMS = ("/usr/sbin/ethtool",)


class NetHost(Host):
    """Two guests with the same devices, each on a switch of its own."""

    # name of the switch: device options
    WAYS = {}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        lines = []
        for way, options in cls.WAYS.items():
            lines.append(f"switch {way}")
            for side in "ab":
                lines.append(f"port {way}-{side} switch={way} socket={cls.folder}/{way}-{side} "
                             f"queues={options.get('queues', 1)}")
        cls.serve(*lines)
        cpus = max(options.get("queues", 1) for options in cls.WAYS.values())
        cls.a, cls.b = (cls.boot(side, cls.nics(side), cpus=cpus, programs=PROGRAMS) for side in "ab")
        for i, way in enumerate(cls.WAYS):
            for guest, last in ((cls.a, 1), (cls.b, 2)):
                guest.run(f"net_up eth{i} 10.0.{i}.{last}/24")

    @classmethod
    def nics(cls, side):
        last = "ab".index(side) + 1
        return [Nic(f"{cls.folder}/{way}-{side}", f"02:00:00:00:{i:02x}:{last:02x}", **options)
                for i, (way, options) in enumerate(cls.WAYS.items())]

    def address(self, way, side="b"):
        return f"10.0.{list(self.WAYS).index(way)}.{'ab'.index(side) + 1}"

    def device(self, way):
        return f"eth{list(self.WAYS).index(way)}"

    def ping(self, address, size=56):
        self.a.run(f"ping -c 5 -s {size} -W 20 {address}")

    def send_file(self, sender, receiver, address):
        """Byte by byte: a checksum that is left to the device does not see what changes on the way."""
        receiver.run(f"receive_file {PORT} &")
        sent = sender.run(f"send_file {address} {PORT} {FILE_MIB}")
        wait_until(lambda: receiver.run(f"cat /tmp/received.{PORT} 2>/dev/null || true"), what="the file is there")
        self.assertEqual(receiver.run(f"cat /tmp/received.{PORT} && rm /tmp/received.{PORT}"), sent)

    def iperf(self, address, streams=1):
        """Bits a second that arrived."""
        self.b.run("iperf3 -s -1 -D")
        told = json.loads(self.a.run(f"iperf3 -c {address} -t 2 -P {streams} -J --connect-timeout 20000"))
        rate = told["end"]["sum_received"]["bits_per_second"]
        self.assertGreater(rate, 1e6)
        return rate

    def figures(self, port):
        return self.daemon.ctl("show", port)


class Ways(NetHost):
    WAYS = {
        "split": {},
        "packed": {"packed": True},
        "split4": {"queues": 4},
        "packed4": {"queues": 4, "packed": True},
        "plain": {"mergeable": False},
    }

    def test_files_and_rates(self):
        for way, options in self.WAYS.items():
            with self.subTest(way):
                address = self.address(way)
                self.ping(address)
                self.send_file(self.a, self.b, address)
                self.send_file(self.b, self.a, self.address(way, "a"))
                print(f"{way}: {self.iperf(address, options.get('queues', 1)) / 1e6:.0f} Mbit/s")

    def test_without_offloads(self):
        """One side cuts and sums its segments itself, the other leaves both to the device."""
        for way in ("split", "packed"):
            for guest in (self.a, self.b):
                with self.subTest(way, without=guest.name):
                    off = f"ethtool -K {self.device(way)} tso off gso off tx off"
                    guest.run(off)
                    self.send_file(self.a, self.b, self.address(way))
                    self.send_file(self.b, self.a, self.address(way, "a"))
                    guest.run(off.replace("off", "on"))

    def test_large_frames(self):
        for way in ("split", "packed", "plain"):
            with self.subTest(way):
                for guest in (self.a, self.b):
                    guest.run(f"ip link set {self.device(way)} mtu 9000")
                self.ping(self.address(way), 8900)
                self.send_file(self.a, self.b, self.address(way))
                for guest in (self.a, self.b):
                    guest.run(f"ip link set {self.device(way)} mtu 1500")

    def test_tagged_frames(self):
        device = self.device("split")
        for guest, last in ((self.a, 1), (self.b, 2)):
            guest.run(f"modprobe 8021q && vconfig add {device} 7 && net_up {device}.7 10.7.0.{last}/24")
        self.ping("10.7.0.2")
        self.send_file(self.a, self.b, "10.7.0.2")

    def test_ports_come_and_go(self):
        """A port is removed and added while frames flow; QEMU connects again, and so does the guest."""
        port = "packed-b"
        self.a.run(f"ping -q -i 0.1 {self.address('packed')} >/tmp/ping 2>&1 &")
        line = self.figures(port)["line"]
        for _ in range(3):
            self.daemon.ctl("remove", port)
            self.daemon.ctl("add", line)
            self.ping(self.address("packed"))
        self.a.run("killall ping")
        self.send_file(self.a, self.b, self.address("packed"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
