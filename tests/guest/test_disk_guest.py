#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Debian's unmodified kernel does verified disk I/O through sluiced, on every kind of ring."""

import os
import signal
import subprocess
import unittest

from guest import TIED, Disk, wait_until
from host import MIB, Host, make_image, sha256

DIMM = 512 * MIB
N_CRASHES = 20 if os.environ.get("SLUICE_LONG") else 3  # tools/check --long
F_RING_PACKED = 34  # VIRTIO 1.3, 6


class OneGuest:
    """Each test of it runs on each of the layouts and numbers of queues below."""

    queues = 1
    packed = False
    n_crashes = 2

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        f = cls.folder
        cls.main_size = 256 * MIB
        make_image(f / "main.img", cls.main_size)
        cls.fixed = make_image(f / "fixed.img", 8 * MIB, fill=8 * MIB)
        make_image(f / "raw.img", 3 * MIB + 512)
        cls.serve(
            f"disk main socket={f}/main.sock file={f}/main.img queues={cls.queues} serial=first-disk",
            f"disk fixed socket={f}/fixed.sock file={f}/fixed.img read-only serial=0123456789abcdefghij",
            f"disk raw socket={f}/raw.sock file={f}/raw.img queues={cls.queues}",
        )
        disks = [
            Disk(f"{f}/main.sock", cls.queues, cls.packed),
            Disk(f"{f}/fixed.sock", 1, cls.packed),
            Disk(f"{f}/raw.sock", cls.queues, cls.packed),
        ]
        cls.guest = cls.boot("guest", disks, cpus=cls.queues)

    def setUp(self):
        self.guest.run("dmesg -c >/tmp/old-messages")

    def tearDown(self):
        self.guest.run("! grep -q ' /mnt ' /proc/mounts || umount /mnt")
        self.assert_healthy(self.guest)

    def mount_new(self):
        self.guest.run("mkfs.ext4 -q -F /dev/vda && mount -t ext4 /dev/vda /mnt")

    def test_guest_sees_the_line(self):
        """Capacity, serial number, queues and ring layout are those that were asked for."""
        guest = self.guest
        disks = ("vda", "vdb", "vdc")
        self.assertEqual(
            [guest.run(f"blockdev --getsize64 /dev/{d}") for d in disks],
            [str(self.main_size), str(8 * MIB), str(3 * MIB + 512)],
        )
        self.assertEqual(
            [guest.run(f"cat /sys/block/{d}/serial") for d in disks[:2]],
            ["first-disk", "0123456789abcdefghij"],
        )
        self.assertEqual([guest.run(f"cat /sys/block/{d}/ro") for d in disks], ["0", "1", "0"])
        self.assertEqual(guest.run("cat /sys/block/vda/queue/logical_block_size"), "512")
        self.assertEqual(guest.run("cat /sys/block/vda/queue/write_cache"), "write back")
        self.assertEqual(guest.run("ls /sys/block/vda/mq | wc -l"), str(self.queues))
        features = guest.run("cat /sys/block/vda/device/features")
        self.assertEqual(features[F_RING_PACKED], "1" if self.packed else "0")

    def test_file_system_survives_a_reboot(self):
        guest = self.guest
        self.mount_new()
        guest.run("make_files /mnt/files")
        sums = guest.run("sums /mnt/files")
        guest.run("forget")
        self.assertEqual(guest.run("sums /mnt/files"), sums)
        guest.run("sync")
        self.assert_healthy(guest)
        guest.reboot()
        guest.run("mount -t ext4 /dev/vda /mnt")
        self.assertEqual(guest.run("sums /mnt/files"), sums)

    def test_bytes_are_where_the_host_sees_them(self):
        """What the guest reads is the image; what it writes is in the image, and nowhere else."""
        guest = self.guest
        read = guest.run("dd if=/dev/vdb bs=64k iflag=direct status=none | sha256sum")
        self.assertEqual(read.split()[0], sha256(self.fixed))
        guest.run("dd if=/dev/vdb of=/dev/vdc bs=4k skip=100 seek=7 count=300 oflag=direct status=none && sync")
        # The last sector of a disk whose size is no multiple of a page.
        guest.run("dd if=/dev/vdb of=/dev/vdc bs=512 count=1 seek=6144 oflag=direct status=none && sync")
        raw = (self.folder / "raw.img").read_bytes()
        expected = bytearray(3 * MIB + 512)
        expected[7 * 4096 : 307 * 4096] = self.fixed[100 * 4096 : 400 * 4096]
        expected[3 * MIB :] = self.fixed[:512]
        self.assertEqual(sha256(raw), sha256(expected))

    def test_growth_is_seen_at_once(self):
        """Asked for, and by a file that grew: by a guest in the middle of its work."""
        guest = self.guest
        self.mount_new()

        def grow_to(size, *words):
            self.assertEqual(self.daemon.ctl("resize", "main", *words), {"bytes": size})
            wait_until(lambda: int(guest.run("cat /sys/block/vda/size")) * 512 == size, what="the guest sees it")
            type(self).main_size = size

        def grow():
            size = self.main_size + 32 * MIB
            grow_to(size, str(size))
            size += 32 * MIB
            os.truncate(self.folder / "main.img", size)
            grow_to(size)

        self.run_load(guest, "/mnt", writers=2, disturb=grow)
        self.assertEqual(guest.run("dmesg | grep -c 'virtio_blk.*new size' || true"), "2")
        guest.run("head -c 4096 /dev/urandom >/tmp/end")
        block = self.main_size // 4096 - 1
        guest.run(f"dd if=/tmp/end of=/dev/vda bs=4k seek={block} oflag=direct status=none && sync")
        with (self.folder / "main.img").open("rb") as image:
            image.seek(-4096, os.SEEK_END)
            self.assertEqual(sha256(image.read()), guest.run("sha256sum </tmp/end").split()[0])

    def test_discarded_space_returns_to_the_host(self):
        """A trim makes the image sparse again; other data stays."""
        guest, image = self.guest, self.folder / "main.img"
        self.mount_new()
        guest.run("make_files /mnt/files")
        sums = guest.run("sums /mnt/files")
        guest.run("dd if=/dev/urandom of=/mnt/gone bs=1M count=64 status=none && sync")
        full = image.stat().st_blocks * 512
        guest.run("rm /mnt/gone && sync && fstrim /mnt")
        self.assertLess(image.stat().st_blocks * 512, full - 60 * MIB)
        guest.run("forget")
        self.assertEqual(guest.run("sums /mnt/files"), sums)
        guest.run("umount /mnt")

        guest.run("dd if=/dev/vdb of=/dev/vdc bs=64k count=48 oflag=direct status=none")
        image = self.folder / "raw.img"
        full = image.stat().st_blocks * 512
        guest.run("blkdiscard -o 1M -l 1M /dev/vdc")
        self.assertLess(image.stat().st_blocks * 512, full - MIB // 2)
        expected = self.fixed[:MIB] + bytes(MIB) + self.fixed[2 * MIB : 3 * MIB]
        self.assertEqual(sha256(image.read_bytes()[: 3 * MIB]), sha256(expected))
        guest.run("dd if=/dev/zero of=/dev/vdc bs=64k count=48 oflag=direct status=none")

    def test_read_only_disk_cannot_be_written(self):
        guest = self.guest
        status, _ = guest.attempt("dd if=/dev/zero of=/dev/vdb bs=4k count=1 oflag=direct status=none")
        self.assertNotEqual(status, 0)
        read = guest.run("dd if=/dev/vdb bs=64k iflag=direct status=none | sha256sum")
        self.assertEqual(read.split()[0], sha256(self.fixed))

    def test_restart_under_load(self):
        """SIGTERM or SIGKILL, and a new sluiced on the same sockets: the guest only sees a pause."""
        self.mount_new()
        self.guest.run("make_files /mnt/files")
        sums = self.guest.run("sums /mnt/files")

        def restart():
            self.daemon.stop()
            self.daemon.start()

        def crash():
            self.daemon.kill_busy("main")
            self.daemon.start()

        for disturb in (restart, *[crash] * self.n_crashes):
            with self.subTest(disturb.__name__):
                self.run_load(self.guest, "/mnt", writers=4, disturb=disturb)
        self.guest.run("forget")
        self.assertEqual(self.guest.run("sums /mnt/files"), sums)

    def test_cache_mode_is_the_guests(self):
        """Write-through when the guest says so, also over a crash of sluiced; then write-back again."""
        guest = self.guest

        def check(mode):
            self.assertEqual(guest.run("cat /sys/block/vda/cache_type"), mode)
            self.assertEqual(guest.run("cat /sys/block/vda/queue/write_cache"), mode)
            guest.run("dd if=/dev/urandom of=/tmp/sent bs=64k count=8 status=none")
            guest.run("dd if=/tmp/sent of=/dev/vda bs=64k oflag=direct status=none")
            guest.run("dd if=/dev/vda bs=64k count=8 iflag=direct status=none | cmp - /tmp/sent")

        check("write back")
        for mode in ("write through", "write back"):
            guest.run(f"echo {mode} >/sys/block/vda/cache_type")
            check(mode)
            self.daemon.kill()
            self.daemon.start()
            check(mode)

    def test_unplug_and_plug(self):
        guest = self.guest
        guest.unplug("disk2")
        guest.run("! [ -e /sys/block/vdb ]")
        guest.plug("disk2")
        wait_until(lambda: guest.attempt("[ -b /dev/vdb ]")[0] == 0, what="the disk is back")
        read = guest.run("dd if=/dev/vdb bs=64k iflag=direct status=none | sha256sum")
        self.assertEqual(read.split()[0], sha256(self.fixed))


class Classic1(OneGuest, Host):
    pass


class Classic4(OneGuest, Host):
    queues = 4
    n_crashes = N_CRASHES


class Packed1(OneGuest, Host):
    packed = True


class Packed4(OneGuest, Host):
    queues = 4
    packed = True
    n_crashes = N_CRASHES


class HungFile:
    """A file, over FUSE, whose reads and writes stand still while its server is stopped."""

    def __init__(self, path):
        self.path = path
        path.touch()
        command = [*TIED, "nbdfuse", path, "--command", "nbdkit", "-s", "--exit-with-parent", "memory", str(8 * MIB)]
        with path.with_suffix(".log").open("wb") as log:
            self.server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(lambda: path.stat().st_size == 8 * MIB or self.server.poll() is not None, what="it is mounted")

    def is_there(self):
        return self.server.poll() is None

    def hang(self):
        self.server.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.server.send_signal(signal.SIGCONT)

    def close(self):
        self.go_on()
        self.server.terminate()
        self.server.wait()


class TwoGuests(Host):
    """Of very different shape, on one sluiced."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        f = cls.folder
        make_image(f / "large.img", 256 * MIB)
        cls.hung = HungFile(f / "hung.img")
        cls.addClassCleanup(cls.hung.close)
        cls.serve(
            f"disk large socket={f}/large.sock file={f}/large.img queues=2",
            f"disk small socket={f}/small.sock ram=64M queues=1",
            f"disk spare socket={f}/spare.sock ram=8M",
            f"disk void socket={f}/void.sock null=1T",
            # Without FUSE any other disk stands in, which only that one test notices.
            f"disk hung socket={f}/hung.sock " + (f"file={f}/hung.img" if cls.hung.is_there() else "ram=8M"),
        )
        # Above 2 GiB, q35 memory is two regions with a hole between them.
        cls.large = cls.boot("large", [Disk(f"{f}/large.sock", 2, packed=True)], cpus=2, memory="3G")
        disks = [Disk(f"{f}/{d}.sock") for d in ("small", "spare", "void", "hung")]
        cls.small = cls.boot("small", disks, most_memory="2G")

    def test_one_leaves_while_the_other_works(self):
        large, small = self.large, self.small
        self.assertEqual(small.run("blockdev --getsize64 /dev/vdc"), str(1 << 40))
        for guest in (large, small):
            guest.run("mkfs.ext4 -q -F /dev/vda && mount -t ext4 /dev/vda /mnt")
        small.run("load_start /mnt 2")
        # The pages of a file system in the guest's memory are on both sides of the hole.
        large.run("mount -o remount,size=2800m /tmp && dd if=/dev/zero of=/tmp/low bs=1M count=1800 status=none")
        self.assertGreaterEqual(self.daemon.ctl("show", "large")["memory_regions"], 2)
        self.run_load(large, "/mnt", writers=2, disturb=small.stop)
        self.assert_healthy(large)
        wait_until(lambda: self.daemon.ctl("show", "small")["state"] == "waiting", what="sluiced sees it leave")
        small.start()
        small.run("mount -t ext4 /dev/vda /mnt && dd if=/mnt/load.1 of=/dev/null bs=64k status=none")
        self.assert_healthy(small)

    def test_hung_disk_is_shown_and_waited_for(self):
        """A guest with a hung disk is stopped: that waits, is shown, and touches nobody else."""
        if not self.hung.is_there():
            self.skipTest("nbdfuse cannot mount here")
        large, small = self.large, self.small

        def shown():
            device = self.daemon.ctl("show", "hung")
            return {
                "in_flight": sum(q["in_flight"] for q in device["queues"]),
                "oldest_ms": max((q["oldest_ms"] for q in device["queues"]), default=0),
                "waiting_ms": device["waiting_ms"],
            }

        read = "dd if=/dev/vdd of=/dev/null bs=64k count=1 iflag=direct status=none"
        small.run(read)
        large.run("mkfs.ext4 -q -F /dev/vda && mount -t ext4 /dev/vda /mnt")

        def hang():
            self.hung.hang()
            small.run(f"{read} skip=1 >/tmp/said 2>&1 &")
            wait_until(lambda: shown()["oldest_ms"] > 1000, what="the age of the request is shown")
            self.assertGreater(shown()["in_flight"], 0)
            # QEMU itself stands still now, until the ring has stopped.
            small.control_later("system_reset")
            wait_until(lambda: shown()["waiting_ms"] > 1000, what="it is shown that the guest waits")
            self.more_rounds(large)
            self.assertGreater(shown()["in_flight"], 0)

        self.run_load(large, "/mnt", writers=2, disturb=hang)
        self.assert_healthy(large)
        self.hung.go_on()
        small.control_result("system_reset")
        small.wait_ready()
        self.assertEqual(shown(), {"in_flight": 0, "oldest_ms": 0, "waiting_ms": 0})
        small.run(read)
        self.assert_healthy(small)
        large.run("umount /mnt")

    def test_memory_comes_and_goes_under_load(self):
        """A DIMM is plugged while there is I/O, which then goes to it, and unplugged again."""
        guest = self.small

        def shown():
            device = self.daemon.ctl("show", "small")
            return device["memory_regions"], device["memory_bytes"]

        def add():
            guest.plug_memory("dimm", DIMM)

        guest.run("umount /mnt; mkfs.ext4 -q -F /dev/vda && mount -t ext4 /dev/vda /mnt")
        n_regions, n_bytes = shown()
        self.run_load(guest, "/mnt", writers=2, disturb=add)
        self.assertEqual(shown(), (n_regions + 1, n_bytes + DIMM))
        self.assertGreater(int(guest.run("movable_used")), 0)
        self.run_load(guest, "/mnt", writers=2, disturb=lambda: guest.unplug_memory("dimm"))
        self.assertEqual(shown(), (n_regions, n_bytes))
        guest.run("umount /mnt")
        self.assert_healthy(guest)

    def test_counters_tell_what_the_guest_does(self):
        def total(counter):
            queues = self.daemon.ctl("stats")["queues"]
            return sum(q[counter] for q in queues if q["device"] == "spare")

        before = {name: total(name) for name in ("requests", "bytes_out", "bytes_in")}
        self.small.run("dd if=/dev/zero of=/dev/vdb bs=64k count=32 oflag=direct status=none")
        self.small.run("dd if=/dev/vdb of=/dev/null bs=64k count=32 iflag=direct status=none")
        self.assertGreaterEqual(total("requests"), before["requests"] + 64)
        # Data, and a few bytes of header and status for each request.
        for name in ("bytes_out", "bytes_in"):
            self.assertGreaterEqual(total(name), before[name] + 2 * MIB)


if __name__ == "__main__":
    unittest.main(verbosity=2)
