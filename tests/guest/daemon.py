# SPDX-License-Identifier: Apache-2.0
"""sluiced as the guest tests run it: in a folder of its own, as any user, with no huge pages."""

import json
import os
import pathlib
import signal
import socket
import subprocess

import guest

BUILD = pathlib.Path(os.environ.get("SLUICE_BUILD", guest.SOURCE / "build"))
START_DEADLINE_S = 60


class Daemon:
    def __init__(self, folder, lines, arguments=()):
        self.folder = pathlib.Path(folder)
        self.lines = lines
        self.arguments = arguments
        self.control_path = self.folder / "control"
        self.log = self.folder / "sluiced.log"
        self.process = None

    def command(self):
        command = [BUILD / "tools/sluiced", "--control", self.control_path, *self.arguments]
        for line in self.lines:
            command += ["--add", line]
        return command

    def start(self):
        """Returns once every socket listens."""
        command = [*guest.TIED, *self.command()]
        with self.log.open("ab") as log:
            log_start = log.tell()
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

        def is_ready():
            if self.process.poll() is not None:
                raise AssertionError(f"sluiced ended with {self.process.returncode}\n{self.tail()}")
            return b"sluiced: ready" in self.log.read_bytes()[log_start:]

        guest.wait_until(is_ready, START_DEADLINE_S, "sluiced is ready")

    def stop(self):
        """SIGTERM: drains and exits 0, whatever the guests do."""
        if self.process is None:
            return
        self.process.terminate()
        status = self.process.wait(START_DEADLINE_S)
        self.process = None
        if status != 0:
            raise AssertionError(f"sluiced ended with {status} on SIGTERM\n{self.tail()}")

    def kill_busy(self, device):
        """SIGKILL, at a moment when the device has requests in the kernel's hands."""
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(self.control_path))
            answers = control.makefile("rb")

            def is_busy():
                control.sendall(b'{"jsonrpc": "2.0", "id": 1, "method": "stats"}\n')
                queues = json.loads(answers.readline())["result"]["queues"]
                return any(q["device"] == device and q["in_flight"] for q in queues)

            guest.wait_until(is_busy, what="a request in flight", pause_s=0)
            self.kill()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def close(self):
        """For the end of a test, whatever happened in it."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def ctl(self, *words):
        """What sluicectl --json answers."""
        command = [BUILD / "tools/sluicectl", "--control", self.control_path, "--json", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_DEADLINE_S)
        if done.returncode != 0:
            raise AssertionError(f"sluicectl {words} ended with {done.returncode}: {done.stderr}\n{self.tail()}")
        return json.loads(done.stdout)

    def tail(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])
