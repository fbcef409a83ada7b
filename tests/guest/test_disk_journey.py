# SPDX-License-Identifier: Apache-2.0
"""One guest does verified I/O through all that may happen to its disk, and sees no error."""

import os
import unittest

from daemon import Daemon
from guest import Disk, Guest, wait_until
from host import MIB, Host, make_image, sha256

SIZE = 128 * MIB
N_KILLS = 20 if os.environ.get("SLUICE_LONG") else 1  # tools/check --long


class Journey:
    packed = False

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.image = cls.folder / "image"
        make_image(cls.image, SIZE)
        cpus = sorted(os.sched_getaffinity(0))[:2]
        cls.workers = ("--workers", ",".join(map(str, cpus)))
        cls.daemon = cls.daemon_in("here")
        cls.guest = cls.boot("here", [cls.disk_in("here")], cpus=2)

    @classmethod
    def daemon_in(cls, place, *keys):
        """A sluiced of its own folder, on the image that all share."""
        folder = cls.folder / place
        folder.mkdir()
        line = " ".join(("disk d", f"socket={folder}/sock", f"file={cls.image}", "queues=2", *keys))
        daemon = Daemon(folder, [line], cls.workers)
        cls.addClassCleanup(daemon.close)
        daemon.start()
        return daemon

    @classmethod
    def disk_in(cls, place):
        return Disk(f"{cls.folder}/{place}/sock", 2, cls.packed)

    def restart(self):
        self.daemon.stop()
        self.daemon.start()

    def kill(self):
        for _ in range(N_KILLS):
            self.daemon.kill_busy("d")
            self.daemon.start()

    def workers_of(self):
        return [q["worker"] for q in self.daemon.ctl("stats")["queues"] if q["device"] == "d"]

    def move(self):
        """Both queues to one worker, to the other, and apart."""
        for words, workers in ((("d", "1"), [1, 1]), (("d", "0"), [0, 0]), (("d:1", "1"), [0, 1])):
            self.daemon.ctl("move", *words)
            wait_until(lambda: self.workers_of() == workers, what=f"move {words}")
            self.more_rounds(self.guest)

    def resize(self):
        size = SIZE + 16 * MIB
        self.daemon.ctl("resize", "d", str(size))
        wait_until(lambda: int(self.guest.run("cat /sys/block/vda/size")) * 512 == size, what="the guest sees it")

    def migrate(self):
        """To another QEMU and another sluiced, which opens the image while it is in use here."""
        there = self.daemon_in("there", "lock=start")
        guest = Guest(self.folder, "there", [self.disk_in("there")], cpus=2)
        self.addCleanup(guest.stop)
        guest.receive(self.guest)
        self.guest.stop()
        self.daemon.stop()
        type(self).guest, type(self).daemon = guest, there

    def test_no_error_on_the_way(self):
        self.guest.run("mkfs.ext4 -q -F /dev/vda && mount -t ext4 /dev/vda /mnt && make_files /mnt/files")
        sums = self.guest.run("sums /mnt/files")
        self.guest.run("load_start /mnt 2")
        for step in (self.restart, self.kill, self.move, self.resize, self.migrate, self.move):
            with self.subTest(step.__name__):
                self.more_rounds(self.guest)
                step()
                self.more_rounds(self.guest)
                self.assert_healthy(self.guest)
        self.guest.run("load_stop")
        self.guest.run("forget")
        self.assertEqual(self.guest.run("sums /mnt/files"), sums)
        self.guest.run("umount /mnt && mount -t ext4 /dev/vda /mnt && cat /mnt/load.* >/dev/null && umount /mnt")
        self.assert_healthy(self.guest)
        # What this guest reads, after all, is what is in the file.
        read = self.guest.run("dd if=/dev/vda bs=1M iflag=direct status=none | sha256sum").split()[0]
        self.assertEqual(read, sha256(self.image.read_bytes()))


class Split(Journey, Host):
    pass


class Packed(Journey, Host):
    packed = True


if __name__ == "__main__":
    unittest.main(verbosity=2)
