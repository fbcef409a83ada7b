#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""dpdk-testpmd as a guest: two of its virtio-user ports join two switches, with our guests at the ends."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import unittest

from network import DEADLINE_S, Network, bridge, veth, wait_until

# name: options of each port, options of testpmd, what its driver says that it receives with.
WAYS = {
    "split": ("mrg_rxbuf=1,in_order=0", [], "using mergeable buffer Rx"),
    "split, in order": ("mrg_rxbuf=1,in_order=1", [], "using inorder Rx"),
    "split, no merging": ("mrg_rxbuf=0,in_order=0", [], "using standard Rx"),
    "split, no merging, in order": ("mrg_rxbuf=0,in_order=1", [], "using inorder Rx"),
    "split, vectorised": ("mrg_rxbuf=0,in_order=0,vectorized=1", [], "using vectorized Rx"),
    "packed": ("packed_vq=1,in_order=0", [], "using packed ring mergeable buffer Rx"),
    "packed, in order": ("packed_vq=1,in_order=1", [], "using packed ring mergeable buffer Rx"),
    "packed, no merging": ("packed_vq=1,mrg_rxbuf=0,in_order=0", [], "using packed ring standard Rx"),
    "packed, vectorised": (
        "packed_vq=1,mrg_rxbuf=0,in_order=1,vectorized=1",
        ["--force-max-simd-bitwidth=512"],
        "using packed ring vectorized Rx",
    ),
}
# Of our side, taken in turn: split and packed meet both layouts of testpmd.
OURS = (["--size", "60"], ["--size", "1514", "--ring", "packed", "--mergeable"], ["--size", "imix", "--ring", "packed"])


def end(process):
    process.terminate()
    try:
        process.wait(DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdin.close()


class Testpmd(Network):
    def setUp(self):
        if not shutil.which("dpdk-testpmd"):
            self.skipTest("no dpdk-testpmd (package dpdk-dev)")
        super().setUp()

    @contextlib.contextmanager
    def run_testpmd(self, ports, port_options="", options=(), queues=1):
        """Forwards between each two of these ports, without huge pages, until it is ended."""
        vdevs = []
        for i, port in enumerate(ports):
            vdevs += ["--vdev", f"net_virtio_user{i},path={self.folder}/{port},queues={queues},{port_options}"]
        command = ["dpdk-testpmd", "--no-huge", "-m", "256", "--no-pci", "--no-telemetry", "--lcores=0@0,1@0"]
        command += ["--log-level=pmd.net.virtio.init:info", *options, *vdevs, "--", "--forward-mode=io"]
        command += ["--port-topology=paired", "--total-num-mbufs=16384", f"--rxq={queues}", f"--txq={queues}"]
        with open(f"{self.folder}/testpmd", "w") as said:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=said, stderr=said,
                env=dict(os.environ, RUNTIME_DIRECTORY=self.folder),
            )
        try:
            for port in ports:
                has_ended = lambda: process.poll() is not None
                wait_until(lambda: self.is_up(port) or has_ended(), f"{port} is up")
                self.assertFalse(has_ended(), self.said())
            yield
        finally:
            end(process)

    def said(self):
        return pathlib.Path(f"{self.folder}/testpmd").read_text()

    def is_up(self, port):
        return self.show(port)["details"]["link"] == "up"

    def start_two(self, rest=""):
        self.start("switch s0", "switch s1", self.port("a", "s0", rest), self.port("b", "s1", rest))

    def test_ways(self):
        self.start_two()
        for i, (way, (port_options, options, receives)) in enumerate(WAYS.items()):
            with self.subTest(way), self.run_testpmd("ab", port_options, options):
                for ours in OURS[i % 3], OURS[(i + 1) % 3]:
                    self.exchange(*ours)
                if "vectorized path for requirements not met" in self.said():
                    self.skipTest(f"{way}: this processor has no AVX-512")
                self.assertIn(receives, self.said())
            wait_until(lambda: not self.is_up("a") and not self.is_up("b"), "both left")
        self.stop()

    def test_two_pairs(self):
        self.start_two("queues=2")
        for layout in ("packed_vq=0", "packed_vq=1"):
            with self.subTest(layout), self.run_testpmd("ab", layout, queues=2):
                self.exchange("--size", "imix")
        self.stop()

    def test_as_server(self):
        """sluiced connects; it ends or is killed, is started again and connects: testpmd goes on."""
        lines = ["switch s0", "switch s1"]
        lines += [self.port(name, f"s{i}", "mode=client") for i, name in enumerate("ab")]
        for layout in ("packed_vq=0", "packed_vq=1"):
            self.start(*lines)
            with self.subTest(layout), self.run_testpmd("ab", f"server=1,{layout}"):
                for end_it in ("terminate", "kill"):
                    self.exchange("--size", "imix")
                    getattr(self.daemon, end_it)()
                    self.daemon.wait(DEADLINE_S)
                    self.start(*lines)
                self.exchange("--size", "1514", "--mergeable")
            self.stop()

    def test_chain(self):
        """On each switch two that differ meet: guest, testpmd, TAP, DPDK, testpmd, guest."""
        self.need_plugin()
        veth("v2", "v3")
        self.start(
            "switch s0", self.port("a", "s0"),
            "switch s1", self.port("b", "s1"), "port t1 switch=s1 tap=t1",
            "switch s2", "port t2 switch=s2 tap=t2", "port d2 switch=s2 dpdk=net_af_packet0,iface=v2",
            "switch s3", "port d3 switch=s3 dpdk=net_af_packet1,iface=v3", self.port("c", "s3"),
            "switch s4", self.port("d", "s4"),
        )
        bridge("between", "t1", "t2")
        with self.run_testpmd("abcd"):
            self.exchange("--size", "60")
            self.exchange("--size", "1514", "--ring", "packed", "--mergeable")
        self.stop()

    def test_chain_of_the_same(self):
        """On each switch two of a kind meet, but at the ends: testpmd, TAP, DPDK."""
        self.need_plugin()
        veth("v4", "v5")
        veth("v6", "v7")
        self.start(
            "switch s0", self.port("a", "s0"),
            "switch s1", self.port("b", "s1"), self.port("c", "s1"),
            "switch s2", self.port("d", "s2"), "port t2 switch=s2 tap=t2",
            "switch s3", "port t3 switch=s3 tap=t3", "port t4 switch=s3 tap=t4",
            "switch s5", "port t5 switch=s5 tap=t5", "port d4 switch=s5 dpdk=net_af_packet0,iface=v4",
            "switch s6", "port d5 switch=s6 dpdk=net_af_packet1,iface=v5",
            "port d6 switch=s6 dpdk=net_af_packet2,iface=v6",
            "switch s7", "port d7 switch=s7 dpdk=net_af_packet3,iface=v7",
        )
        bridge("near", "t2", "t3")
        bridge("far", "t4", "t5")
        with self.run_testpmd("abcd", "packed_vq=1"):
            self.exchange("--size", "imix")
        self.stop()


if __name__ == "__main__":
    unittest.main()
