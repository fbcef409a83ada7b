# SPDX-License-Identifier: Apache-2.0
"""A Linux guest under QEMU that a test talks to.

    guest = Guest(folder, "g0", disks=[Disk(socket="/run/d.sock", queues=4, packed=True)])
    guest.start()
    guest.run("mkfs.ext4 -q /dev/vda")        # its output; an AssertionError if it fails
    guest.reboot()                            # in the same QEMU
    other.receive(guest)                      # live migration
    guest.stop()

The kernel's messages go to FOLDER/NAME.console; commands go over the second serial port to
agent.sh. Every wait ends at a deadline, at the end of QEMU or at a kernel panic, whichever
is first, and then says what the console said.
"""

import dataclasses
import json
import os
import pathlib
import re
import select
import shutil
import socket
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE.parent.parent
# No machine is so slow; a guest that is stuck fails here.
BOOT_DEADLINE_S = 240
COMMAND_DEADLINE_S = 240
# A test that is killed leaves no program behind.
TIED = ("setpriv", "--pdeathsig", "KILL")


@dataclasses.dataclass
class Disk:
    """A vhost-user-blk device. The first one is /dev/vda, and so on."""

    socket: str
    queues: int = 1
    packed: bool = False

    def options(self, name):
        return [
            *("-chardev", f"socket,id=c-{name},path={self.socket},reconnect=1"),
            # A root port of its own, so that it can be unplugged.
            *("-device", f"pcie-root-port,id=port-{name},slot={name[4:]},chassis={name[4:]}"),
            *("-device", ",".join(f"{k}={v}" for k, v in self.device(name).items())),
        ]

    def device(self, name):
        return {
            "driver": "vhost-user-blk-pci",
            "id": name,
            "bus": f"port-{name}",
            "chardev": f"c-{name}",
            "num-queues": self.queues,
            "packed": "on" if self.packed else "off",
        }


@dataclasses.dataclass
class Rng:
    """A vhost-user-rng device."""

    socket: str
    packed: bool = False

    def options(self, name):
        return [
            *("-chardev", f"socket,id=c-{name},path={self.socket}"),
            *("-device", f"vhost-user-rng-pci,id={name},chardev=c-{name},packed={'on' if self.packed else 'off'}"),
        ]


@dataclasses.dataclass
class Nic:
    """A vhost-user network device. The first one is eth0, and so on."""

    socket: str
    mac: str
    queues: int = 1
    packed: bool = False
    mergeable: bool = True

    def options(self, name):
        device = {
            "driver": "virtio-net-pci",
            "id": name,
            "netdev": f"n-{name}",
            "mac": self.mac,
            "mq": "on" if self.queues > 1 else "off",
            # QEMU 7.2 that emulates the processor dies of MSI-X here, whatever the back end.
            "vectors": 0 if "tcg" in run_tool("guest-accel") else 2 * self.queues + 2,
            "packed": "on" if self.packed else "off",
            "mrg_rxbuf": "on" if self.mergeable else "off",
            "romfile": "",
        }
        return [
            *("-chardev", f"socket,id=c-{name},path={self.socket},reconnect=1"),
            *("-netdev", f"vhost-user,id=n-{name},chardev=c-{name},queues={self.queues}"),
            *("-device", ",".join(f"{k}={v}" for k, v in device.items())),
        ]


@dataclasses.dataclass
class Raw:
    """A disk of QEMU's own, for guests that run sluiced themselves. They too are /dev/vda and so on."""

    path: str

    def options(self, name):
        return [
            *("-drive", f"if=none,id=d-{name},format=raw,discard=unmap,file={self.path}"),
            *("-device", f"virtio-blk-pci,id={name},drive=d-{name}"),
        ]


def run_tool(name):
    done = subprocess.run([SOURCE / "tools" / name], stdout=subprocess.PIPE, check=True, text=True)
    return done.stdout.strip()


def pack_programs(programs):
    """A cpio archive with the programs in /bin and their libraries where they look for them."""
    with tempfile.TemporaryDirectory(prefix="sluice-initrd-") as folder:
        root = pathlib.Path(folder)
        for program in programs:
            copy_to(root / "bin" / pathlib.Path(program).name, program)
            told = subprocess.run(["ldd", program], stdout=subprocess.PIPE, check=True, text=True).stdout
            for library in re.findall(r"(/\S+) \(0x", told):
                copy_to(root / library.lstrip("/"), library)
        names = "\n".join(str(p.relative_to(root)) for p in sorted(root.rglob("*")))
        pack = ["cpio", "--create", "--format=newc", "--owner=0:0", "--quiet"]
        return subprocess.run(pack, cwd=root, input=names.encode(), stdout=subprocess.PIPE, check=True).stdout


def copy_to(target, source):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


class Guest:
    def __init__(self, folder, name, devices, cpus=1, memory="512M", most_memory=None, programs=()):
        """With @most_memory, DIMMs can be plugged until the guest has that much. @programs of the host
        are there in the guest's /bin."""
        self.name = name
        self.console = pathlib.Path(folder) / f"{name}.console"
        kinds = {Rng: "rng", Nic: "nic"}
        self.devices = {f"{kinds.get(type(d), 'disk')}{i}": d for i, d in enumerate(devices, 1)}
        self.programs = programs
        self.cpus = cpus
        self.memory = memory
        self.slots = f",slots=2,maxmem={most_memory}" if most_memory else ""
        self.qemu = None
        self.number = 0
        self.heard = b""

    # life

    def start(self):
        self.launch()
        self.wait_ready()

    def receive(self, source):
        """Starts as the destination of @source's live migration; once it is over, the guest is here."""
        uri = f"unix:{self.console.with_suffix('.migration')}"
        self.launch(("-incoming", uri))
        source.control("migrate", uri=uri)

        def is_over():
            status = source.control("query-migrate").get("status")
            if status in ("failed", "cancelled"):
                raise AssertionError(f"{self.name}: the migration {status}\n{self.console_tail()}")
            return status == "completed" and self.control("query-status")["status"] == "running"

        wait_until(is_over, what="the migration is over")
        self.number = source.number

    def launch(self, more=()):
        self.agent, agent_end = socket.socketpair()
        self.monitor, monitor_end = socket.socketpair()
        with agent_end, monitor_end, self.console.with_suffix(".qemu").open("wb") as log:
            fds = (agent_end.fileno(), monitor_end.fileno())
            self.qemu = subprocess.Popen(
                [*self.command_line(*fds), *more],
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.replies = self.monitor.makefile("rb")
        self.monitor.settimeout(COMMAND_DEADLINE_S)
        self.replies.readline()  # QEMU's greeting
        self.control("qmp_capabilities")

    def initrd(self, image):
        """The image's; the kernel takes archives one after the other."""
        if not self.programs:
            return image / "initrd.cpio"
        path = self.console.with_suffix(".initrd")
        path.write_bytes((image / "initrd.cpio").read_bytes() + pack_programs(self.programs))
        return path

    def command_line(self, agent_fd, monitor_fd):
        image = pathlib.Path(run_tool("guest-image"))
        line = [
            *(*TIED, "qemu-system-x86_64", "-name", self.name, "-nodefaults", "-no-user-config", "-display", "none"),
            *run_tool("guest-accel").split(),
            # memfd is shared with the back end and needs no huge pages.
            *("-object", f"memory-backend-memfd,id=mem,size={self.memory},share=on"),
            *("-machine", "q35,memory-backend=mem", "-m", self.memory + self.slots, "-smp", str(self.cpus)),
            *("-kernel", f"{image}/vmlinuz", "-initrd", self.initrd(image)),
            # On a loaded machine an emulated timer is late, which the kernel's check takes for a broken one.
            *("-append", "console=ttyS0 quiet loglevel=5 no_timer_check"),
            *("-fw_cfg", f"name=opt/org.sluice/script,file={HERE / 'agent.sh'}"),
            *("-serial", f"file:{self.console}"),
            *("-chardev", f"socket,id=agent,fd={agent_fd}", "-serial", "chardev:agent"),
            *("-chardev", f"socket,id=monitor,fd={monitor_fd}", "-mon", "chardev=monitor,mode=control"),
        ]
        for name, device in self.devices.items():
            line += device.options(name)
        return line

    def stop(self):
        """Ends QEMU, whatever state the guest is in."""
        if self.qemu is None:
            return
        self.qemu.kill()
        self.qemu.wait()
        for end in (self.replies, self.monitor, self.agent):
            end.close()
        self.qemu = None

    def reboot(self):
        """What the guest did not sync is lost."""
        self.agent.sendall(b"0 reboot -f\n")
        self.wait_ready()

    # commands in the guest

    def run(self, command, deadline_s=COMMAND_DEADLINE_S):
        status, output = self.attempt(command, deadline_s)
        if status != 0:
            raise AssertionError(f"{self.name}: '{command}' ended with {status}\n{output}\n{self.console_tail()}")
        return output

    def attempt(self, command, deadline_s=COMMAND_DEADLINE_S):
        """(status, output) of a command that may fail."""
        assert "\n" not in command
        self.number += 1
        self.agent.sendall(f"{self.number} {command}\n".encode())
        output = self.wait_for(f"::{self.number} ", deadline_s, command)
        status = self.wait_for("::", deadline_s, command)
        return int(status), output.strip()

    def wait_ready(self):
        self.wait_for("::ready::", BOOT_DEADLINE_S, "boot")
        self.heard = b""

    def wait_for(self, marker, deadline_s, doing):
        """What the agent says before the marker."""
        deadline = time.monotonic() + deadline_s
        while marker.encode() not in self.heard:
            ready, _, _ = select.select([self.agent], [], [], 1.0)
            new = self.agent.recv(65536) if ready else None
            self.heard += new or b""
            if new == b"":
                self.give_up(f"QEMU ended with {self.qemu.wait()}", doing)
            if b"Kernel panic" in self.console.read_bytes():
                self.give_up("the guest panicked", doing)
            if time.monotonic() > deadline:
                self.give_up(f"no answer in {deadline_s} s", doing)
        before, _, self.heard = self.heard.partition(marker.encode())
        return before.decode(errors="replace").replace("\r", "")

    def give_up(self, why, doing):
        raise AssertionError(f"{self.name}: {why} during '{doing}'; heard {self.heard!r}\n{self.console_tail()}")

    def console_tail(self):
        said = self.console.read_text(errors="replace") + self.console.with_suffix(".qemu").read_text(errors="replace")
        return "\n".join(said.splitlines()[-30:])

    # commands to QEMU

    def control(self, command, **arguments):
        self.control_later(command, **arguments)
        return self.control_result(command)

    def control_later(self, command, **arguments):
        """For what may take long; the answer is control_result()'s."""
        request = {"execute": command, "arguments": arguments}
        self.monitor.sendall(json.dumps(request).encode() + b"\n")

    def control_result(self, command):
        while True:
            reply = json.loads(self.replies.readline())
            if "error" in reply:
                raise AssertionError(f"{self.name}: {command}: {reply['error']}")
            if "return" in reply:
                return reply["return"]

    def wait_event(self, name):
        while True:
            message = json.loads(self.replies.readline())
            if message.get("event") == name:
                return message["data"]

    def unplug(self, name):
        self.control("device_del", id=name)
        while self.wait_event("DEVICE_DELETED").get("device") != name:
            pass

    def plug(self, name):
        self.control("device_add", **self.devices[name].device(name))

    def plug_memory(self, name, size):
        """A DIMM, shared like the rest. The guest takes it up as memory that it can give back."""
        backend = f"backend-{name}"
        self.control("object-add", **{"qom-type": "memory-backend-memfd", "id": backend, "size": size, "share": True})
        self.control("device_add", driver="pc-dimm", id=name, memdev=backend)
        self.run(f"memory_online {size}")

    def unplug_memory(self, name):
        self.run("memory_offline")
        self.unplug(name)
        self.control("object-del", id=f"backend-{name}")


def wait_until(condition, deadline_s=COMMAND_DEADLINE_S, what="the condition", pause_s=0.05):
    """Polls until the condition is true; returns its value."""
    deadline = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {deadline_s} s")
        time.sleep(pause_s)
