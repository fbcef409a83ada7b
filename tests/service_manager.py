#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Start a program as a service manager does, and again whenever it is killed.

service_manager.py FOLDER PROGRAM [ARGUMENT]...

It has a notification socket (sd_notify) and keeps what the program stores there (FDSTORE), to
hand it over at the next start (LISTEN_FDS). FOLDER/pid holds the program's process id once it said
READY=1, FOLDER/stored the names of what is kept. SIGTERM goes to the program, whose end is then ours.
"""
import array
import ctypes
import os
import signal
import socket
import sys
import time

PR_SET_PDEATHSIG = 1
DESCRIPTORS_MAX = 253


class Manager:
    def __init__(self, folder, command):
        self.folder, self.command = folder, command
        self.path = os.path.join(folder, "notify")
        self.stored = []  # (name, descriptor)
        self.pid = 0
        self.is_ending = False
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(0.02)
        signal.signal(signal.SIGTERM, self.end)

    def end(self, *_):
        self.is_ending = True
        os.kill(self.pid, signal.SIGTERM)

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path + ".new", "w", encoding="ascii") as out:
            out.write(text)
        os.rename(path + ".new", path)

    def start(self):
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid:
            return
        try:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            self.hand_over()
            os.execv(self.command[0], self.command)
        finally:
            os._exit(127)

    def hand_over(self):
        """The descriptors from 3 on, in the child."""
        high = [os.dup(fd) for _, fd in self.stored]
        high = [fd if fd > 2 + len(high) else self.dup_above(fd, 2 + len(high)) for fd in high]
        for i, fd in enumerate(high):
            os.dup2(fd, 3 + i, inheritable=True)
        os.environ["NOTIFY_SOCKET"] = self.path
        if high:
            os.environ["LISTEN_FDS"] = str(len(high))
            os.environ["LISTEN_FDNAMES"] = ":".join(name for name, _ in self.stored)
            os.environ["LISTEN_PID"] = str(os.getpid())

    @staticmethod
    def dup_above(fd, least):
        import fcntl
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least + 1)

    def read(self):
        """Until nothing is left to read."""
        while True:
            try:
                data, control, _, _ = self.socket.recvmsg(
                    4096, socket.CMSG_SPACE(4 * DESCRIPTORS_MAX))
            except (socket.timeout, BlockingIOError, InterruptedError):
                return
            descriptors = array.array("i")
            for _, _, part in control:
                descriptors.frombytes(part)
            self.handle(dict(line.split("=", 1) for line in data.decode().split("\n") if line),
                        list(descriptors))

    def handle(self, fields, descriptors):
        name = fields.get("FDNAME", "stored")
        if fields.get("FDSTORE") == "1":
            self.stored += [(name, fd) for fd in descriptors]
        elif fields.get("FDSTOREREMOVE") == "1":
            for _, fd in [s for s in self.stored if s[0] == name]:
                os.close(fd)
            self.stored = [s for s in self.stored if s[0] != name]
        if "FDSTORE" in fields or "FDSTOREREMOVE" in fields:
            self.write("stored", "\n".join(name for name, _ in self.stored))
        if fields.get("READY") == "1":
            self.write("pid", str(self.pid))

    def run(self):
        """Start it until it ends by itself; returns its exit status."""
        while True:
            self.start()
            status = self.wait()
            if self.is_ending or not os.WIFSIGNALED(status):
                return os.waitstatus_to_exitcode(status)
            if os.WTERMSIG(status) != signal.SIGKILL:
                print(f"service_manager: signal {os.WTERMSIG(status)}", file=sys.stderr)
                return 99

    def wait(self):
        while True:
            self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.read()
                return status
            time.sleep(0.001)


if __name__ == "__main__":
    sys.exit(Manager(sys.argv[1], sys.argv[2:]).run())
