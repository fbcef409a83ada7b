# SPDX-License-Identifier: Apache-2.0
"""sluiced runs inside a guest, on disks that the kernel makes fail, wait and remember.

Our own front end (disk_tool) is the only client. A write log that the kernel kept is read on the
host, after the guest is gone.
"""

import json
import pathlib
import subprocess
import tempfile
import unittest

from daemon import BUILD
from guest import Guest, Raw, wait_until

MIB = 1 << 20
DATA_MIB = 2
DATA_SECTORS = DATA_MIB * MIB // 512
N_MARKS = 60
TOOL = BUILD / "tests/disk_tool"
DATA, LOG, LEDGER = "/dev/vda", "/dev/vdb", "/dev/vdc"


class Inside(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="sluice-guest-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        for name, mib in (("data", DATA_MIB), ("log", 256), ("ledger", 8)):
            with (cls.folder / f"{name}.img").open("wb") as file:
                file.truncate(mib * MIB)
        cls.guest = Guest(
            cls.folder,
            "inside",
            [Raw(cls.folder / f"{name}.img") for name in ("data", "log", "ledger")],
            cpus=2,
            programs=(BUILD / "tools/sluiced", BUILD / "tools/sluicectl", TOOL, "/usr/sbin/dmsetup"),
        )
        cls.addClassCleanup(cls.guest.stop)
        cls.guest.start()
        cls.guest.run("modprobe -a dm_flakey dm_delay dm_log_writes loop")

    def setUp(self):
        self.served = None

    def tearDown(self):
        run = self.guest.run
        if self.served:
            run("daemon_stop")
        # A daemon that is gone may leave the kernel a moment's work on its files.
        run("for d in $(dmsetup ls | awk '/:/ { print $1 }'); do dmsetup resume $d && dmsetup remove --retry $d; done")
        run("rm -f /tmp/*.sock")

    def make(self, name, table):
        self.guest.run(f"dmsetup create {name} --table '{table}'")

    def serve(self, *disks):
        """Each is (name, the rest of its line)."""
        lines = " ".join(f"'disk {name} socket=/tmp/{name}.sock {rest}'" for name, rest in disks)
        self.guest.run(f"daemon_start {lines}")
        self.served = True

    def attempt(self, name, *operations, layout=""):
        """What became of each operation: a dictionary of numbers."""
        words = " ".join(f"'{o}'" for o in operations)
        lines = self.guest.run(f"disk_tool {layout} try /tmp/{name}.sock {words}").splitlines()
        return [dict(pair.split("=") for pair in line.split()[1:]) for line in lines]

    def assert_done(self, result, n=1, generation=None):
        self.assertEqual((result["ok"], result["failed"]), (str(n), "0"))
        if generation is not None:
            self.assertEqual(result["generations"], f"{generation}-{generation}")
            self.assertEqual(result["torn"], "0")

    # what was acknowledged as flushed is there

    def keep_ledger(self, keys="", how="", layout=""):
        self.make("slow", f"0 {DATA_SECTORS} delay {DATA} 0 0 {DATA} 0 3")
        self.make("logged", f"0 {DATA_SECTORS} log-writes /dev/mapper/slow {LOG}")
        self.serve(("d", f"file=/dev/mapper/logged {keys}"))
        self.guest.run(f"disk_tool {layout} ledger /tmp/d.sock {LEDGER} logged {N_MARKS} {how}")
        self.guest.run("daemon_stop")
        self.served = False
        self.guest.run("dmsetup remove --retry logged && sync")
        check = [TOOL, "check", self.folder / "ledger.img", self.folder / "log.img"]
        done = subprocess.run(check, capture_output=True, text=True)
        self.assertEqual((done.stderr, done.stdout), ("", f"{N_MARKS} marks hold\n"))

    def test_flushed_blocks_are_there_split(self):
        self.keep_ledger()

    def test_flushed_blocks_are_there_buffered(self):
        self.keep_ledger(keys="cache=buffered")

    def test_flushed_blocks_are_there_packed(self):
        self.keep_ledger(layout="--packed")

    # The driver turned the cache off: what is acknowledged is stable, with no flush.

    def test_written_blocks_are_there_without_a_cache(self):
        self.keep_ledger(keys="cache=direct", how="through")

    def test_written_blocks_are_there_without_a_cache_buffered(self):
        self.keep_ledger(keys="cache=buffered", how="through", layout="--packed")

    # failing disks

    def test_errors_are_told_and_pass(self):
        """A disk that refuses writes, then everything, then works again."""
        works = f"0 {DATA_SECTORS} linear {DATA} 0"
        self.make("bad", works)
        self.serve(("d", "file=/dev/mapper/bad"))
        write, flush = self.attempt("d", "write 0 32 1", "flush")
        self.assert_done(write, 32)
        self.assert_done(flush)

        self.guest.run(f"table bad '0 {DATA_SECTORS} flakey {DATA} 0 0 3600 1 error_writes'")
        write, flush, read = self.attempt("d", "write 0 8 2", "flush", "read 8 24")
        # Through a page cache the flush has to say it.
        self.assertTrue(write["failed"] == "8" or flush["failed"] == "1", (write, flush))
        self.assert_done(read, 24, generation=1)

        self.guest.run(f"table bad '0 {DATA_SECTORS} error' && echo 3 >/proc/sys/vm/drop_caches")
        (read,) = self.attempt("d", "read 32 8")
        self.assertEqual((read["ok"], read["failed"]), ("0", "8"))

        self.guest.run(f"table bad '{works}'")
        write, flush, read = self.attempt("d", "write 0 64 3", "flush", "read 0 64")
        self.assert_done(write, 64)
        self.assert_done(flush)
        self.assert_done(read, 64, generation=3)

    def test_dropped_writes_are_not_invented(self):
        """A disk that lies: what a guest reads afterwards is what the disk has."""
        self.make("liar", f"0 {DATA_SECTORS} linear {DATA} 0")
        self.serve(("d", "file=/dev/mapper/liar"))
        self.assert_done(self.attempt("d", "write 0 16 5", "flush")[0], 16)
        self.guest.run(f"table liar '0 {DATA_SECTORS} flakey {DATA} 0 0 3600 1 drop_writes'")
        self.assert_done(self.attempt("d", "write 0 16 6", "flush")[1])
        self.guest.run("daemon_stop && echo 3 >/proc/sys/vm/drop_caches")
        self.serve(("d", "file=/dev/mapper/liar"))
        self.assert_done(self.attempt("d", "read 0 16")[0], 16, generation=5)

    def fill(self, path):
        """ENOSPC for a sparse image is an error of that write or its flush; with space it goes on."""
        self.serve(("d", f"file={path}"))
        write, flush = self.attempt("d", "write 0 32 1", "flush")
        self.assert_done(write, 32)
        self.assert_done(flush)
        rest = [f"write {i} 64 1" for i in range(32, 288, 64)]
        *results, read = self.attempt("d", *rest, "flush", "read 0 32")
        self.assertTrue(any(r["failed"] != "0" for r in results), results)
        self.assert_done(read, 32, generation=1)
        self.guest.run("rm /tmp/small/ballast && sync")
        write, flush, read = self.attempt("d", "write 40 32 2", "flush", "read 40 32")
        self.assert_done(write, 32)
        self.assert_done(flush)
        self.assert_done(read, 32, generation=2)
        self.guest.run("daemon_stop")
        self.served = False

    def make_small(self):
        self.guest.run("mkdir -p /tmp/small && mount -t tmpfs -o size=1m small /tmp/small")
        self.addCleanup(lambda: self.guest.run("umount -l /tmp/small"))
        self.guest.run("truncate -s 4M /tmp/small/image && head -c 512k /dev/zero >/tmp/small/ballast")

    def test_full_file_system(self):
        self.make_small()
        self.fill("/tmp/small/image")

    def test_full_loop_device(self):
        self.make_small()
        self.guest.run("losetup /dev/loop0 /tmp/small/image")
        self.fill("/dev/loop0")
        self.guest.run("losetup -d /dev/loop0")

    # slow and hung disks

    def show(self, name):
        """(in_flight, oldest_ms) of all queues of a disk."""
        import json

        queues = json.loads(self.guest.run(f"sluicectl --control /tmp/control --json show {name}"))["queues"]
        return sum(q["in_flight"] for q in queues), max((q["oldest_ms"] for q in queues), default=0)

    def test_slow_disk_holds_up_nobody_else(self):
        self.make("slow", f"0 {DATA_SECTORS} delay {DATA} 0 4000 {DATA} 0 4000")
        self.serve(("slow", "file=/dev/mapper/slow"), ("quick", "ram=2M"))
        self.guest.run("disk_tool try /tmp/slow.sock 'write 0 8 1' flush 'read 0 8' >/tmp/told & echo $! >/tmp/pid")
        wait_until(lambda: self.show("slow")[0] > 0, what="writes, or their flush, are under way")
        for _ in range(10):
            self.assert_done(self.attempt("quick", "write 0 64 1", "read 0 64")[1], 64, generation=1)
        self.assertEqual(self.show("quick")[0], 0)
        wait_until(lambda: self.show("slow")[1] >= 1000, what="their age is shown")
        self.guest.run("wait $(cat /tmp/pid)")
        told = self.guest.run("cat /tmp/told").splitlines()
        self.assertEqual([line.split()[:2] for line in told],
                         [["write", "ok=8"], ["flush", "ok=1"], ["read", "ok=8"]])

    def test_end_with_a_hung_disk(self):
        """SIGTERM waits for its deadline, names the disk, and exits."""
        self.make("hung", f"0 {DATA_SECTORS} linear {DATA} 0")
        self.serve(("hung", "file=/dev/mapper/hung"), ("quick", "ram=2M"))
        self.guest.run("dmsetup suspend --noflush --nolockfs hung")
        self.addCleanup(lambda: self.guest.run("kill $(cat /tmp/pid); true"))
        self.guest.run("disk_tool try /tmp/hung.sock 'read 0 8' flush >/tmp/told 2>&1 & echo $! >/tmp/pid")
        wait_until(lambda: self.show("hung")[0] > 0, what="requests are under way")
        self.assert_done(self.attempt("quick", "write 0 64 1", "read 0 64")[1], 64, generation=1)
        self.guest.run("kill $(cat /tmp/sluiced.pid)")
        self.served = False
        status, _ = self.guest.attempt("wait $(cat /tmp/sluiced.pid)")
        self.assertEqual(status, 1)
        said = self.guest.run("grep error: /tmp/sluiced.log")
        self.assertRegex(said, r"disk hung: queue \d is given up with \d+ requests in flight, the oldest for \d+ ms")
        self.assertNotIn("quick", said)


if __name__ == "__main__":
    unittest.main(verbosity=2)
