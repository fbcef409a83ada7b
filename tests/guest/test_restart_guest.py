#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""sluiced is killed under a guest's verified load, and started again by a service manager: QEMU keeps
its connection, and neither it nor the guest notices."""

import os
import signal
import sys
import unittest

from daemon import Daemon
from guest import SOURCE, Disk, wait_until
from host import MIB, Host, make_image

N_CRASHES = 20 if os.environ.get("SLUICE_LONG") else 4  # tools/check --long


class Managed(Daemon):
    """Under tests/service_manager.py, which starts it again."""

    def command(self):
        return [sys.executable, SOURCE / "tests/service_manager.py", self.folder, *super().command()]

    def pid(self):
        path = self.folder / "pid"
        return int(path.read_text()) if path.exists() else 0

    def n_kept(self):
        return len((self.folder / "stored").read_text().split())

    def kill(self):
        before = self.pid()
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: self.pid() != before, what="another sluiced is ready")

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class OneGuest:
    packed = False
    daemon_class = Managed

    def test_guest_and_qemu_notice_nothing(self):
        f = self.folder
        make_image(f / "main.img", 256 * MIB)
        self.serve(f"disk main socket={f}/main.sock file={f}/main.img queues=2")
        guest = self.boot("guest", [Disk(f"{f}/main.sock", 2, self.packed)], cpus=2)
        guest.run("mkfs.ext4 -q -F /dev/vda && mount -t ext4 /dev/vda /mnt")
        peer = self.daemon.ctl("show", "main")["peer_pid"]
        for _ in range(N_CRASHES):
            self.run_load(guest, "/mnt", writers=2, disturb=lambda: self.daemon.kill_busy("main"))
        self.assertEqual(self.daemon.ctl("show", "main")["peer_pid"], peer)
        log = self.daemon.log.read_text()
        self.assertEqual(log.count("disk main: the session goes on"), N_CRASHES)
        self.assertNotIn("the front end left", log)
        self.assert_healthy(guest)


class Classic(OneGuest, Host):
    pass


class Packed(OneGuest, Host):
    packed = True


if __name__ == "__main__":
    unittest.main()
