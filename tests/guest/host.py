# SPDX-License-Identifier: Apache-2.0
"""What the disk tests share: a folder with images, one sluiced, guests and a verified load."""

import hashlib
import os
import pathlib
import tempfile
import unittest

from daemon import Daemon
from guest import Guest, wait_until

MIB = 1 << 20
N_ROUNDS = 3  # that each writer of a load must get done


def make_image(path, size, fill=0):
    """A sparse file that starts with @fill random bytes; returns them."""
    content = os.urandom(fill)
    with open(path, "wb") as file:
        file.write(content)
        file.truncate(size)
    return content


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Host(unittest.TestCase):
    """A folder with one sluiced and some guests, set up once for the class."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="sluice-guest-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)

    daemon_class = Daemon

    @classmethod
    def serve(cls, *lines):
        cls.daemon = cls.daemon_class(cls.folder, lines)
        cls.addClassCleanup(cls.daemon.close)
        cls.daemon.start()

    @classmethod
    def boot(cls, name, devices, **options):
        guest = Guest(cls.folder, name, devices, **options)
        cls.addClassCleanup(guest.stop)
        guest.start()
        return guest

    def assert_healthy(self, guest):
        self.assertEqual(guest.run("complaints"), "")

    def run_load(self, guest, folder, writers, disturb):
        """A verified load that goes on before, during and after disturb()."""
        guest.run(f"load_start {folder} {writers}")
        self.more_rounds(guest)
        disturb()
        self.more_rounds(guest)
        guest.run("load_stop")

    def more_rounds(self, guest):
        """Waits until each writer of the load got some more done."""
        before = int(guest.run("load_rounds"))
        wait_until(lambda: int(guest.run("load_rounds")) >= before + N_ROUNDS, what="the load goes on")
