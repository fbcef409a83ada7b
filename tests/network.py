# SPDX-License-Identifier: Apache-2.0
"""A sluiced in a network namespace of the test's own, and guests that exchange frames over it."""

import ctypes
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest

BUILD = pathlib.Path(os.environ.get("SLUICE_BUILD", pathlib.Path(__file__).parents[1] / "build"))
CLONE_NEWNET = 0x40000000
DEADLINE_S = 60


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


def bridge(name, *interfaces):
    ip("link", "add", "name", name, "type", "bridge", "mcast_snooping", "0")
    for interface in interfaces:
        ip("link", "set", interface, "master", name)
    for interface in (*interfaces, name):
        ip("link", "set", interface, "up")


def veth(*interfaces):
    ip("link", "add", "name", interfaces[0], "type", "veth", "peer", "name", interfaces[1])
    for interface in interfaces:
        ip("link", "set", interface, "up")


def wait_until(condition, what):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {DEADLINE_S} s: {what}")
        time.sleep(0.02)


class Network(unittest.TestCase):
    def setUp(self):
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
            self.skipTest("no network namespace: " + os.strerror(ctypes.get_errno()))
        folder = tempfile.TemporaryDirectory(prefix="sluice-test-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def need_plugin(self):
        if not (BUILD / "devices/sluice_dpdk.so").exists():
            self.skipTest("the plug-in was not built (package dpdk-dev)")

    def start(self, *lines):
        """sluiced with these lines, and a guest's port on the first and on the last switch."""
        switches = [line.split()[1] for line in lines if line.startswith("switch ")]
        lines = [*lines, self.port("g0", switches[0]), self.port("g1", switches[-1])]
        adds = [word for line in lines for word in ("--add", line)]
        command = [BUILD / "tools/sluiced", "--control", f"{self.folder}/control", *adds]
        with open(f"{self.folder}/log", "w") as log:
            self.daemon = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        self.addCleanup(self.daemon.stdout.close)
        self.addCleanup(self.daemon.wait)
        self.addCleanup(self.daemon.kill)
        self.assertEqual(self.daemon.stdout.readline(), "sluiced: ready\n")

    def port(self, name, switch, rest=""):
        return f"port {name} switch={switch} socket={self.folder}/{name} {rest}"

    def show(self, name):
        command = [BUILD / "tools/sluicectl", "--control", f"{self.folder}/control", "--json"]
        done = subprocess.run([*command, "show", name], check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    def exchange(self, *options):
        """Frames from g0 to g1 and back, each byte compared. None is lost."""
        command = [BUILD / "tools/sluice-bench", "net", f"{self.folder}/g0", f"{self.folder}/g1"]
        options = ["--mode", "echo", "--verify", "--frames", "2000", *options]
        done = subprocess.run(
            [*command, *options], capture_output=True, text=True, timeout=4 * DEADLINE_S
        )
        said = done.stdout + done.stderr
        self.assertEqual(done.returncode, 0, said)
        self.assertRegex(said, r"\b4000 sent, 4000 received, 0 lost\b")

    def stop(self):
        self.daemon.send_signal(signal.SIGTERM)
        self.assertEqual(self.daemon.wait(DEADLINE_S), 0)
