#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""pin=on, end to end: data is right, memory is pinned while a guest has it, and no longer."""

import os
import pathlib
import re
import select
import subprocess
import tempfile
import time
import unittest

BUILD = pathlib.Path(os.environ["SLUICE_BUILD"])
DEADLINE = 60
IMAGE_BYTES = 16 << 20


def kernel_lends():
    """Linux 6.13: rings share buffers, each beside those it has."""
    numbers = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return tuple(map(int, numbers.groups())) >= (6, 13)


@unittest.skipUnless(kernel_lends(), "this kernel's rings cannot share buffers (before Linux 6.13)")
class Pinned(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="sluice-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        image = self.folder / "image"
        with open(image, "wb") as file:
            file.truncate(IMAGE_BYTES)
        try:
            os.close(os.open(image, os.O_RDWR | os.O_DIRECT))
        except OSError:
            self.skipTest(f"no direct I/O in {self.folder}")
        line = f"disk d socket={self.folder}/s file={image} queues=2 pin=on"
        self.daemon = subprocess.Popen(
            [BUILD / "tools/sluiced", "--control", self.folder / "control", "--workers", "1",
             "--add", line], stdout=subprocess.PIPE)
        self.addCleanup(self.end, self.daemon)
        ready, _, _ = select.select([self.daemon.stdout], [], [], DEADLINE)
        self.assertEqual(ready and self.daemon.stdout.readline(), b"sluiced: ready\n")

    @staticmethod
    def end(process):
        process.kill()
        process.communicate()

    def is_pinned(self):
        """Rings of their own have a few pages."""
        status = pathlib.Path(f"/proc/{self.daemon.pid}/status").read_text()
        return int(re.search(r"VmPin:\s+(\d+) kB", status)[1]) >= 1024

    def wait_pinned(self, expected):
        end = time.monotonic() + DEADLINE
        while self.is_pinned() != expected:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)

    def bench(self, *args):
        process = subprocess.Popen(
            [BUILD / "tools/sluice-bench", "blk", self.folder / "s", "--rw", "randrw", "--verify",
             "--queues", "2", *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.addCleanup(self.end, process)
        return process

    def test_verified_load(self):
        for ring in "split", "packed":
            self.assertFalse(self.is_pinned())
            process = self.bench("--ring", ring, "--time", "1", "--regions", "3")
            self.wait_pinned(True)
            self.assertEqual(process.wait(DEADLINE), 0, process.stdout.read())
            self.wait_pinned(False)


if __name__ == "__main__":
    unittest.main()
