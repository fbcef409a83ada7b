#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Two guests on two switches that only the host joins: TAPs on a bridge, DPDK on a veth."""

import ctypes
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import unittest

BUILD = pathlib.Path(os.environ.get("SLUICE_BUILD", pathlib.Path(__file__).parents[1] / "build"))
CLONE_NEWNET = 0x40000000
DEADLINE_S = 60


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Uplinks(unittest.TestCase):
    def setUp(self):
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
            self.skipTest("no network namespace: " + os.strerror(ctypes.get_errno()))
        folder = tempfile.TemporaryDirectory(prefix="uplinks-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def start(self, *uplinks):
        """sluiced with a guest's port and an uplink on each of two switches."""
        lines = []
        for i, uplink in enumerate(uplinks):
            lines += [f"switch s{i}", f"port g{i} switch=s{i} socket={self.folder}/g{i}"]
            lines += [f"port u{i} switch=s{i} {uplink}"]
        adds = [word for line in lines for word in ("--add", line)]
        command = [BUILD / "tools/sluiced", "--control", f"{self.folder}/control", *adds]
        with open(f"{self.folder}/log", "w") as log:
            self.daemon = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        self.addCleanup(self.daemon.stdout.close)
        self.addCleanup(self.daemon.wait)
        self.addCleanup(self.daemon.kill)
        self.assertEqual(self.daemon.stdout.readline(), "sluiced: ready\n")

    def show(self, name):
        command = [BUILD / "tools/sluicectl", "--control", f"{self.folder}/control", "--json"]
        done = subprocess.run([*command, "show", name], check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    def exchange(self, *options):
        """Frames there and back, each byte compared. A host's network may lose some: when the machine
        stands still they are late, which the load takes for lost, and sends others."""
        command = [BUILD / "tools/sluice-bench", "net", f"{self.folder}/g0", f"{self.folder}/g1"]
        options = ["--mode", "echo", "--verify", "--frames", "2000", *options]
        done = subprocess.run(
            [*command, *options], capture_output=True, text=True, timeout=4 * DEADLINE_S
        )
        said = [line for line in done.stderr.splitlines() if line.startswith("sluice-bench:")]
        wrong = [line for line in said if "frames were lost" not in line]
        self.assertEqual(wrong, [], done.stdout + done.stderr)
        self.assertEqual(done.returncode, 1 if said else 0, done.stdout + done.stderr)
        self.assertRegex(done.stdout, r"\b4000 received")

    def stop(self):
        self.daemon.send_signal(signal.SIGTERM)
        self.assertEqual(self.daemon.wait(DEADLINE_S), 0)

    def test_tap(self):
        self.start("tap=t0", "tap=t1")
        ip("link", "add", "name", "between", "type", "bridge", "mcast_snooping", "0")
        for i in range(2):
            ip("link", "set", f"t{i}", "master", "between")
            ip("link", "set", f"t{i}", "up")
        ip("link", "set", "between", "up")
        self.exchange("--size", "64")
        self.exchange("--size", "1514", "--ring", "packed", "--mergeable")
        self.assertIn('"interface": "open"', json.dumps(self.show("u0")))
        self.stop()

    def test_dpdk(self):
        if not (BUILD / "devices/sluice_dpdk.so").exists():
            self.skipTest("the plug-in was not built (package dpdk-dev)")
        ip("link", "add", "name", "v0", "type", "veth", "peer", "name", "v1")
        for i in range(2):
            ip("link", "set", f"v{i}", "up")
        self.start("dpdk=net_af_packet0,iface=v0", "dpdk=net_af_packet1,iface=v1")
        self.exchange("--size", "64")
        self.exchange("--size", "1514", "--ring", "packed", "--mergeable")
        self.stop()


if __name__ == "__main__":
    unittest.main()
