# SPDX-License-Identifier: Apache-2.0
"""The back ends that are compared: how each is started, and what its own books say.

A back end is a context manager. busy_cycles() is what it says it worked, in ticks of the
time-stamp counter; cpu_seconds() is what the kernel says its threads ran, as a check on that.
"""

import contextlib
import json
import pathlib
import re
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
START_SECONDS = 30


class Missing(Exception):
    """This back end cannot run here; the text says why."""


def wait_for(condition, what):
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise Missing(f"{what} did not start in {START_SECONDS} s")
        time.sleep(0.01)


class Backend:
    """What all have: a folder of their own, a process, sockets."""

    name = ""
    threads = ()  # name prefixes of the threads that count for cpu_seconds(); (): all

    def __init__(self, machine):
        self.machine = machine

    @contextlib.contextmanager
    def run(self):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            self.folder = pathlib.Path(folder)
            self.log = open(self.folder / "log", "wb")
            self.process = None
            try:
                self.start()
                yield self
            finally:
                self.stop()
                self.log.close()

    def spawn(self, command, **options):
        command = [str(word) for word in command]
        try:
            return subprocess.Popen(command, stderr=self.log, **options)
        except FileNotFoundError as error:
            raise Missing(f"{command[0]} is not installed") from error

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait()

    def cpu_seconds(self):
        total = 0
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            name = (task / "comm").read_text()
            if not self.threads or name.startswith(self.threads):
                total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def busy_cycles(self):
        """Interrupt-driven: what it ran is what it worked."""
        return self.cpu_seconds() * self.machine.ticks_per_second


class Sluice(Backend):
    name = "sluice"
    threads = ("worker-",)
    poll = "busy"

    def __init__(self, machine, lines, build):
        super().__init__(machine)
        self.lines, self.build = lines, build

    def start(self):
        command = [self.build / "tools/sluiced", "--control", self.folder / "control"]
        command += ["--workers", self.machine.server_cpu, "--poll", self.poll]
        for line in self.lines:
            command += ["--add", line.format(folder=self.folder)]
        self.process = self.spawn(command, stdout=subprocess.PIPE)
        if b"ready" not in self.process.stdout.readline():
            self.log.flush()
            raise Missing((self.folder / "log").read_text().strip().splitlines()[-1])

    def busy_cycles(self):
        command = [self.build / "tools/sluicectl", "--control", self.folder / "control"]
        stats = json.loads(subprocess.check_output([*command, "--json", "stats"]))
        return sum(worker["busy_cycles"] for worker in stats["workers"])

    def sockets(self):
        words = (word for line in self.lines for word in line.split())
        return [word.removeprefix("socket=").format(folder=self.folder)
                for word in words if word.startswith("socket=")]


class QemuStorageDaemon(Backend):
    name = "qemu-storage-daemon"

    def __init__(self, machine, blockdev):
        super().__init__(machine)
        self.blockdev = blockdev

    def start(self):
        socket = self.folder / "q.sock"
        self.process = self.spawn(
            ["taskset", "-c", self.machine.server_cpu, "qemu-storage-daemon",
             "--blockdev", self.blockdev + ",node-name=n",
             "--export", "type=vhost-user-blk,id=e,node-name=n,addr.type=unix,writable=on,"
                         f"addr.path={socket}"], stdout=self.log)
        wait_for(socket.exists, self.name)

    def sockets(self):
        return [str(self.folder / "q.sock")]


class Testpmd(Backend):
    """Vhost ports, each forwarded to its neighbour: no switch, not even an address is read."""

    name = "testpmd"

    def __init__(self, machine, n_ports=2, queues=1):
        super().__init__(machine)
        self.n_ports, self.queues = n_ports, queues

    def start(self):
        server, load = self.machine.server_cpu, self.machine.load_cpu
        command = ["stdbuf", "-oL", "dpdk-testpmd", "--lcores", f"0@{load},1@{server}", "-n", 1,
                   "--no-pci", "--no-telemetry", *self.machine.dpdk_memory("bench-testpmd")]
        for i, socket in enumerate(self.sockets()):
            command += ["--vdev", f"net_vhost{i},iface={socket},queues={self.queues}"]
        command += ["--", "-i", "--forward-mode=io", "--port-topology=paired", "--nb-cores=1",
                    "--burst=32", f"--rxq={self.queues}", f"--txq={self.queues}"]
        self.process = self.spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.read_until("testpmd>")
        self.order("set record-core-cycles on")
        self.order("start")

    def sockets(self):
        return [str(self.folder / f"{i}.sock") for i in range(self.n_ports)]

    def read_until(self, mark):
        text = ""
        while mark not in text:
            piece = self.process.stdout.read(1)
            if not piece:
                raise Missing("dpdk-testpmd ended: " + " ".join(text.split()[-12:]))
            text += piece
        return text

    def order(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.read_until("testpmd>")

    def busy_cycles(self):
        """Since the start of forwarding, by its own count of ticks in bursts that had packets."""
        text = self.order("show fwd stats all")
        match = re.search(r"total cycles=(\d+)", text)
        return int(match.group(1)) if match else 0

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()


class OpenVSwitch(Backend):
    """A switch like ours: a userspace bridge with vhost-user ports, which learns addresses."""

    name = "OVS-DPDK"
    packages = ("openvswitch-switch-dpdk", "openvswitch-switch", "openvswitch-common")

    def __init__(self, machine, n_ports=2):
        super().__init__(machine)
        self.n_ports, self.database = n_ports, None

    def unpack(self):
        """The packages are unpacked, not installed: installing starts services."""
        root = self.machine.cache / "ovs"
        if not (root / "usr/bin/ovs-vsctl").exists():
            with tempfile.TemporaryDirectory() as folder:
                done = subprocess.run(["apt-get", "download", *self.packages], cwd=folder,
                                      capture_output=True, check=False)
                if done.returncode:
                    raise Missing("its packages cannot be downloaded")
                for package in pathlib.Path(folder).glob("*.deb"):
                    subprocess.run(["dpkg", "-x", package, root], check=True)
        return root

    def start(self):
        if not self.machine.has_huge_pages:
            raise Missing("needs huge pages: echo 512 > /proc/sys/vm/nr_hugepages")
        self.root = self.unpack()
        folder, tool = self.folder, self.root / "usr/bin"
        subprocess.run([tool / "ovsdb-tool", "create", folder / "conf.db",
                        self.root / "usr/share/openvswitch/vswitch.ovsschema"], check=True)
        self.database = self.spawn([self.root / "usr/sbin/ovsdb-server", folder / "conf.db",
                                    f"--remote=punix:{folder}/db.sock",
                                    f"--unixctl={folder}/db.ctl"], stdout=self.log)
        wait_for((folder / "db.sock").exists, "ovsdb-server")
        self.control("--no-wait", "init")
        self.control("--no-wait", "set", "Open_vSwitch", ".", "other_config:dpdk-init=true",
                     'other_config:dpdk-extra="-m 512 --no-telemetry --no-pci"',
                     f"other_config:pmd-cpu-mask={1 << self.machine.server_cpu:#x}",
                     f"other_config:dpdk-lcore-mask={1 << self.machine.load_cpu:#x}")
        self.process = self.spawn(
            [self.root / "usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk",
             f"unix:{folder}/db.sock", f"--unixctl={folder}/ovs.ctl"],
            stdout=self.log, env={"OVS_RUNDIR": str(folder)})
        self.control("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
        for i in range(self.n_ports):
            self.control("add-port", "br0", f"p{i}", "--", "set", "Interface", f"p{i}",
                         "type=dpdkvhostuser")
        wait_for(lambda: all(pathlib.Path(s).exists() for s in self.sockets()), self.name)

    def control(self, *words):
        subprocess.run([self.root / "usr/bin/ovs-vsctl", f"--db=unix:{self.folder}/db.sock",
                        "-t", "20", *words], check=True, stdout=subprocess.DEVNULL,
                       env={"OVS_RUNDIR": str(self.folder)})

    def sockets(self):
        return [str(self.folder / f"p{i}") for i in range(self.n_ports)]

    def busy_cycles(self):
        command = [self.root / "usr/bin/ovs-appctl", "-t", self.folder / "ovs.ctl"]
        text = subprocess.check_output([*command, "dpif-netdev/pmd-stats-show"], text=True)
        return int(re.search(r"processing cycles: (\d+)", text).group(1))

    def stop(self):
        super().stop()
        if self.database:
            self.database.terminate()
            self.database.wait()


class Running(Backend):
    """Somebody else's, already running: its sockets are all we know."""

    def __init__(self, machine, name, sockets):
        super().__init__(machine)
        self.name, self.given = name, sockets

    def start(self):
        pass

    def stop(self):
        pass

    def sockets(self):
        return self.given

    def cpu_seconds(self):
        return None

    def busy_cycles(self):
        return None
