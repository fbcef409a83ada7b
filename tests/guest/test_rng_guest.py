#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Linux takes its random numbers from sluiced's rng."""

import pathlib
import tempfile
import unittest

from daemon import Daemon
from guest import Guest, Rng

N_BYTES = 4096


class RngGuest(unittest.TestCase):
    def check(self, packed):
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="sluice-guest-")))
        daemon = Daemon(folder, [f"rng r socket={folder}/r.sock"])
        self.addCleanup(daemon.close)
        daemon.start()
        guest = Guest(folder, "guest", [Rng(f"{folder}/r.sock", packed)])
        self.addCleanup(guest.stop)
        guest.start()

        self.assertIn("virtio_rng", guest.run("cat /sys/class/misc/hw_random/rng_current"))
        read = f"dd if=/dev/hwrng bs={N_BYTES} count=1 iflag=fullblock status=none | tee /tmp/bytes | wc -c"
        self.assertEqual(guest.run(read), str(N_BYTES))
        # Random bytes do not get smaller; zeros or a repeated buffer do.
        self.assertGreater(int(guest.run("gzip -c /tmp/bytes | wc -c")), N_BYTES)
        # They came from sluiced.
        served = [q for q in daemon.ctl("stats")["queues"] if q["device"] == "r"]
        self.assertEqual(len(served), 1)
        self.assertGreaterEqual(served[0]["bytes_in"], N_BYTES)
        self.assertEqual(served[0]["faults"], 0)
        daemon.stop()

    def test_split_ring(self):
        self.check(packed=False)

    def test_packed_ring(self):
        self.check(packed=True)


if __name__ == "__main__":
    unittest.main(verbosity=2)
