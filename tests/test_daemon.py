#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""sluiced and sluicectl from outside: lines, files, sockets, signals, the control socket."""

import contextlib
import json
import os
import pathlib
import re
import select
import signal
import socket
import stat
import subprocess
import tempfile
import time
import unittest

BUILD = pathlib.Path(os.environ.get("SLUICE_BUILD", "build"))
SLUICED = str(BUILD / "tools/sluiced")
SLUICECTL = str(BUILD / "tools/sluicectl")
DEADLINE = 30  # seconds; nothing here takes that long
LINE_MAX = 64 * 1024


def wait_until(condition, what):
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"never: {what}")
        time.sleep(0.01)


class Daemon:
    """A running sluiced; its control socket is in the test's folder."""

    def __init__(self, folder, *args, control=True, **popen):
        self.path = str(folder / "control")
        self.log = open(folder / "log", "w+b")
        command = [SLUICED] + (["--control", self.path] if control else []) + list(args)
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.log, **popen
        )

    def wait_ready(self):
        ready, _, _ = select.select([self.process.stdout], [], [], DEADLINE)
        line = self.process.stdout.readline() if ready else b"(nothing)"
        if line != b"sluiced: ready\n":
            raise AssertionError(f"{line!r} instead of the ready notice; {self.text()}")
        return self

    def text(self):
        self.log.flush()
        return pathlib.Path(self.log.name).read_text()

    def end(self, with_signal=signal.SIGTERM):
        self.process.send_signal(with_signal)
        return self.process.wait(DEADLINE)

    def ctl(self, *args):
        return subprocess.run(
            [SLUICECTL, "--control", self.path, *args],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


class Client:
    """A raw connection to the control socket."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())

    def answer(self):
        return json.loads(self.file.readline())

    def call(self, method, **params):
        request = {"jsonrpc": "2.0", "id": 1, "method": method}
        if params:
            request["params"] = params
        self.send(json.dumps(request) + "\n")
        return self.answer()

    def close(self):
        self.file.close()
        self.socket.close()


class Case(unittest.TestCase):
    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        folder = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-"))
        self.folder = pathlib.Path(folder)

    def path(self, name):
        return str(self.folder / name)

    def start(self, *args, **popen):
        daemon = Daemon(self.folder, *args, **popen)
        self.stack.callback(daemon.close)
        return daemon

    def ready(self, *args, **popen):
        return self.start(*args, **popen).wait_ready()

    def client(self, daemon):
        client = Client(daemon.path)
        self.stack.callback(client.close)
        return client

    def disk(self, name="d", rest="null=1M"):
        return f"disk {name} socket={self.path(name + '.sock')} {rest}"

    def refused(self, *args):
        """What sluiced says when it does not start."""
        done = subprocess.run(
            [SLUICED, "--control", self.path("control"), *args],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        self.assertNotEqual(done.returncode, 0, done)
        self.assertNotIn("ready", done.stdout)
        return done.stderr

    def assert_no_sockets(self):
        left = [p.name for p in self.folder.iterdir() if stat.S_ISSOCK(p.stat().st_mode)]
        self.assertEqual(left, [])


def can_connect(path):
    with socket.socket(socket.AF_UNIX) as s:
        return s.connect_ex(path) == 0


class Start(Case):
    def test_ready_means_every_socket_listens(self):
        daemon = self.ready("--add", self.disk("a"), "--add", self.disk("b", "ram=2M queues=4"))
        for name in ("a.sock", "b.sock", "control"):
            self.assertTrue(can_connect(self.path(name)), name)
        self.assertEqual(daemon.end(), 0)
        self.assert_no_sockets()

    def test_notifies_the_service_manager(self):
        for kind in ("path", "abstract"):
            with self.subTest(kind), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                name = self.path("notify")
                address = "\0" + name if kind == "abstract" else name
                manager.bind(address)
                manager.settimeout(DEADLINE)
                env = dict(os.environ, NOTIFY_SOCKET=address.replace("\0", "@"))
                daemon = self.ready("--add", self.disk(), env=env)
                self.assertIn(b"FDSTORE=1", manager.recv(100))  # kept from the start on
                self.assertEqual(manager.recv(100), b"READY=1")
                self.assertEqual(daemon.end(), 0)

    def test_not_ready_when_the_start_fails(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(self.path("notify"))
            os.environ["NOTIFY_SOCKET"] = self.path("notify")
            self.addCleanup(os.environ.pop, "NOTIFY_SOCKET")
            self.refused("--add", self.disk("d", "file=/no/such"))
            manager.setblocking(False)
            self.assertIn(b"FDSTORE=1", manager.recv(100))
            self.assertRaises(BlockingIOError, manager.recv, 100)

    def test_bad_lines_refuse_the_start(self):
        for line, words in (
            ("", ["disk"]),
            ("dsk d socket=/x null=1M", ["dsk", "disk", "rng"]),
            (self.disk("d", ""), ["file=", "ram=", "null="]),
            (self.disk("d", "null=1M ram=1M"), ["null", "ram"]),
            (self.disk("d", "null=1M queues=0"), ["queues", "0", "256"]),
            (self.disk("d", "null=1M colour=red"), ["colour", "queues"]),
            (self.disk("d", "null=lots"), ["null", "lots"]),
            ("disk d null=1M", ["socket"]),
            (self.disk("d", "null=1M mode=both"), ["both", "server", "client"]),
            (self.disk("d", "null=1M socket-mode=999"), ["socket-mode", "999"]),
            ("disk d null=1M socket=/" + "x" * 120, ["socket", "107"]),
        ):
            with self.subTest(line):
                said = self.refused("--add", line)
                for word in words:
                    self.assertIn(word, said)
                self.assert_no_sockets()

    def test_what_cannot_be_opened_refuses_the_start_and_leaves_nothing(self):
        said = self.refused("--add", self.disk("a"), "--add", self.disk("b", "file=/no/such/image"))
        self.assertIn("/no/such/image", said)
        self.assertIn("disk b", said)
        said = self.refused("--add", f"disk a socket={self.path('no/such/a.sock')} null=1M")
        self.assertIn("no/such/a.sock", said)
        self.assert_no_sockets()

    def test_bad_options(self):
        for args, words in (
            (["--poll", "often"], ["often", "busy", "adaptive", "interrupt"]),
            (["--workers", "many"], ["many"]),
            (["--workers", "4095"], ["4095"]),
            (["--config", "/no/such"], ["/no/such"]),
            (["--colour"], ["--colour", "--help"]),
            (["disk"], ["disk", "--add"]),
        ):
            with self.subTest(args):
                said = self.refused(*args)
                for word in words:
                    self.assertIn(word, said)

    def test_help_and_version(self):
        for program in (SLUICED, SLUICECTL):
            done = subprocess.run([program, "--version"], capture_output=True, text=True)
            self.assertRegex(done.stdout, r"^sluice\w+ \d+\.\d+\.\d+\n$")
            done = subprocess.run([program, "--help"], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0)
            self.assertIn("Usage", done.stdout)
        for program, words in (
            (SLUICED, ["--config", "--check-config", "--workers", "--poll", "--add", "read-only"]),
            (SLUICECTL, ["add", "remove", "list", "show", "stats", "--watch", "--json"]),
        ):
            text = subprocess.run([program, "--help"], capture_output=True, text=True).stdout
            for word in words + ["--control", "--help", "--version"]:
                self.assertIn(word, text)

    def test_poll_modes_and_workers(self):
        cpu = max(os.sched_getaffinity(0))
        for poll in ("busy", "adaptive", "interrupt"):
            daemon = self.ready("--poll", poll, "--workers", str(cpu), "--add", self.disk())
            stats = json.loads(daemon.ctl("--json", "stats").stdout)
            self.assertEqual([w["cpu"] for w in stats["workers"]], [cpu])
            self.assertEqual(daemon.end(), 0)

    def test_small_without_guests(self):
        daemon = self.ready("--add", self.disk())
        status = pathlib.Path(f"/proc/{daemon.process.pid}/status").read_text()
        kib = int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])
        program = pathlib.Path(SLUICED).read_bytes()
        is_sanitized = b"__asan_init" in program or b"__tsan_init" in program
        self.assertLess(kib, (256 if is_sanitized else 16) * 1024)

    def test_open_files_limit_is_raised(self):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lower = min(soft, 256)

        def limit():
            resource.setrlimit(resource.RLIMIT_NOFILE, (lower, hard))

        daemon = self.ready(preexec_fn=limit)
        limits = pathlib.Path(f"/proc/{daemon.process.pid}/limits").read_text()
        self.assertEqual(int(re.search(r"Max open files\s+(\d+)", limits)[1]), hard)

    def test_control_runs_off_the_workers_cores(self):
        cpus = sorted(os.sched_getaffinity(0))
        worker = cpus[-1]
        daemon = self.ready("--workers", str(worker))
        expected = set(cpus) - {worker} or set(cpus)
        self.assertEqual(os.sched_getaffinity(daemon.process.pid), expected)


class Config(Case):
    TEXT = """
# a comment
   # another, indented

disk a socket={0}/a.sock null=1M
\tdisk b   socket='{0}/with blank.sock' ram=1M\tqueues=2
disk c socket="{0}/c.sock" null=64K serial='two words'
"""

    def write(self, text, name="conf"):
        path = self.path(name)
        pathlib.Path(path).write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def check(self, *args):
        return subprocess.run(
            [SLUICED, "--check-config", *args], capture_output=True, text=True, timeout=DEADLINE
        )

    def test_comments_and_quotes(self):
        daemon = self.ready("--config", self.write(self.TEXT.format(self.folder)))
        devices = json.loads(daemon.ctl("--json", "list").stdout)["devices"]
        self.assertEqual([d["name"] for d in devices], ["a", "b", "c"])
        self.assertTrue(can_connect(self.path("with blank.sock")))
        self.assertEqual(daemon.end(), 0)

    def test_file_and_command_line_together(self):
        path = self.write(self.TEXT.format(self.folder))
        daemon = self.ready("--config", path, "--add", self.disk("z"))
        self.assertEqual(len(json.loads(daemon.ctl("--json", "list").stdout)["devices"]), 4)

    def test_check_config_opens_nothing(self):
        path = self.write(self.TEXT.format(self.folder) + "disk i socket=/no/such/s file=/no/such")
        done = self.check("--config", path)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assert_no_sockets()

    def test_check_config_reports_every_bad_line(self):
        path = self.write(
            "# 1\n"
            "disk a socket=/tmp/a null=1M\n"
            "disk b null=1M\n"  # 3
            "\n"
            "dsk c socket=/tmp/c null=1M\n"  # 5
            "disk a socket=/tmp/d null=1M\n"  # 6: name again
            "disk e socket=/tmp/a null=1M\n"  # 7: socket again
            "disk f socket='/tmp/f null=1M\n"  # 8: quote
        )
        done = self.check("--config", path, "--add", "rng r")
        self.assertNotEqual(done.returncode, 0)
        lines = done.stderr.splitlines()
        for number in (3, 5, 6, 7, 8):
            self.assertEqual(len([l for l in lines if l.startswith(f"{path}:{number}: ")]), 1, lines)
        self.assertEqual(len([l for l in lines if l.startswith("--add: ")]), 1, lines)
        self.assertEqual(len(lines), 7, lines)  # and a sum
        self.assertIn(f"{path}:2", [l for l in lines if f"{path}:6" in l][0])

    def test_one_bad_line_refuses_the_start(self):
        path = self.write(self.disk("a") + "\n" + self.disk("b", "null=oops") + "\n")
        said = self.refused("--config", path)
        self.assertIn(f"{path}:2: ", said)
        self.assert_no_sockets()

    def test_odd_files(self):
        daemon = self.ready("--config", self.write(""))
        self.assertEqual(daemon.end(), 0)
        daemon = self.ready("--config", self.write(self.disk("a")))  # no newline at the end
        self.assertEqual(daemon.end(), 0)
        daemon = self.ready("--config", self.write(self.disk("a") + "\r\n"))
        self.assertEqual(daemon.end(), 0)
        self.assertIn(":1: ", self.refused("--config", self.write(b"disk a\0 null=1M\n")))
        self.assertIn(":1: ", self.refused("--config", self.write("x" * 100000)))
        self.refused("--config", str(self.folder))


class Sockets(Case):
    def test_modes(self):
        for rest, mode in (("null=1M", 0o660), ("null=1M socket-mode=0600", 0o600),
                           ("null=1M socket-mode=0666", 0o666)):
            for umask in (0, 0o022, 0o077):
                with self.subTest(rest=rest, umask=umask):
                    daemon = self.ready("--add", self.disk("d", rest), umask=umask)
                    self.assertEqual(stat.S_IMODE(os.stat(self.path("d.sock")).st_mode), mode)
                    self.assertEqual(stat.S_IMODE(os.stat(self.path("control")).st_mode), 0o600)
                    self.assertEqual(daemon.end(), 0)

    def test_stale_is_replaced(self):
        daemon = self.ready("--add", self.disk())
        daemon.end(signal.SIGKILL)
        self.assertTrue(os.path.exists(self.path("d.sock")))
        daemon = self.ready("--add", self.disk())
        self.assertTrue(can_connect(self.path("d.sock")))
        self.assertEqual(daemon.end(), 0)

    def test_live_is_refused(self):
        daemon = self.ready("--add", self.disk())
        self.assertIn(str(daemon.process.pid), self.refused())  # the control socket
        other = subprocess.run(
            [SLUICED, "--control", self.path("other"), "--add", self.disk()],
            capture_output=True, text=True, timeout=DEADLINE)
        self.assertEqual(other.returncode, 1)
        self.assertIn(self.path("d.sock"), other.stderr)
        self.assertIn(str(daemon.process.pid), other.stderr)
        self.assertTrue(can_connect(self.path("d.sock")))
        self.assertEqual(daemon.ctl("list").returncode, 0)
        self.assertEqual(daemon.end(), 0)

    def test_a_file_is_not_replaced(self):
        pathlib.Path(self.path("d.sock")).write_text("precious")
        self.assertIn("d.sock", self.refused("--add", self.disk()))
        self.assertEqual(pathlib.Path(self.path("d.sock")).read_text(), "precious")

    def test_image_of_another_device_is_refused(self):
        image = self.path("image")
        with open(image, "wb") as f:
            f.truncate(1 << 20)
        said = self.refused("--add", self.disk("a", f"file={image}"),
                            "--add", self.disk("b", f"file={image}"))
        self.assertIn("disk b", said)
        self.assertIn(image, said)

    def test_second_front_end_is_refused_and_named(self):
        daemon = self.ready("--add", self.disk())
        with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
            first.connect(self.path("d.sock"))
            wait_until(lambda: "connected" in daemon.ctl("list").stdout, "connected")
            second.settimeout(DEADLINE)
            second.connect(self.path("d.sock"))
            self.assertEqual(second.recv(1), b"")
            self.assertIn("disk d", daemon.text())
            self.assertIn(f"process {os.getpid()}", daemon.text())
            self.assertIn("connected", daemon.ctl("list").stdout)
        wait_until(lambda: "waiting" in daemon.ctl("list").stdout, "waiting")
        with socket.socket(socket.AF_UNIX) as third:
            third.connect(self.path("d.sock"))
            wait_until(lambda: "connected" in daemon.ctl("list").stdout, "connected again")
        self.assertEqual(daemon.end(), 0)

    def test_leaving_and_coming_at_once_is_not_refused(self):
        daemon = self.ready("--add", self.disk())
        for _ in range(200):
            s = socket.socket(socket.AF_UNIX)
            s.connect(self.path("d.sock"))
            # GET_FEATURES: served, so the session was opened
            s.sendall(bytes([1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]))
            s.settimeout(DEADLINE)
            self.assertEqual(len(s.recv(20)), 20)
            s.close()
        self.assertNotIn("refused", daemon.text())

    def test_client_mode_connects_and_reconnects(self):
        path = self.path("vmm.sock")
        daemon = self.ready("--add", f"disk d socket={path} null=1M mode=client")
        self.assertFalse(os.path.exists(path))
        for _ in range(3):  # a VMM starts, talks, goes
            with socket.socket(socket.AF_UNIX) as vmm:
                vmm.bind(path)
                vmm.listen()
                vmm.settimeout(DEADLINE)
                connection, _ = vmm.accept()
                with connection:
                    connection.settimeout(DEADLINE)
                    connection.sendall(bytes([1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]))
                    self.assertEqual(len(connection.recv(20)), 20)
            os.unlink(path)
        self.assertEqual(daemon.ctl("remove", "d").returncode, 0)
        self.assertEqual(daemon.end(), 0)


class DefaultPath(Case):
    """As a user; root's default is the host's own /run/sluice."""

    def run_user(self, program, *args, **popen):
        env = dict(os.environ, XDG_RUNTIME_DIR=self.path("run"))
        if os.geteuid() == 0:
            popen.update(user=65534, group=65534, extra_groups=[])
        return subprocess.Popen([program, *args], env=env, text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, **popen)

    def reachable(self):
        """A copy of the programs that a user can run."""
        self.folder.chmod(0o755)
        copies = []
        for program in (SLUICED, SLUICECTL):
            copy = self.path(pathlib.Path(program).name)
            pathlib.Path(copy).write_bytes(pathlib.Path(program).read_bytes())
            os.chmod(copy, 0o755)
            copies.append(copy)
        os.mkdir(self.path("run"), 0o777)
        os.chmod(self.path("run"), 0o777)
        return copies

    def test_user(self):
        sluiced, sluicectl = self.reachable()
        line = f"disk d socket={self.path('run/d.sock')} null=1M"
        daemon = self.run_user(sluiced, "--add", line)
        self.addCleanup(daemon.communicate)
        self.addCleanup(daemon.kill)
        self.assertEqual(daemon.stdout.readline(), "sluiced: ready\n")
        self.assertTrue(can_connect(self.path("run/sluice/control")))
        out, err = self.run_user(sluicectl, "list").communicate(timeout=DEADLINE)
        self.assertIn("d.sock", out, err)
        daemon.terminate()
        self.assertEqual(daemon.wait(DEADLINE), 0)
        out, err = self.run_user(sluicectl, "list").communicate(timeout=DEADLINE)
        self.assertIn(self.path("run/sluice/control"), err)


class Signals(Case):
    def test_either_signal_ends_cleanly(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            daemon = self.ready("--add", self.disk())
            self.assertEqual(daemon.end(number), 0)
            self.assert_no_sockets()

    def test_with_front_ends_and_clients_connected(self):
        daemon = self.ready("--add", self.disk("a"), "--add", self.disk("b"))
        with socket.socket(socket.AF_UNIX) as a:
            a.connect(self.path("a.sock"))
            a.sendall(b"\1\0\0")  # half a header
            client = self.client(daemon)
            client.send("{")
            wait_until(lambda: "connected" in daemon.ctl("list").stdout, "connected")
            self.assertEqual(daemon.end(), 0)
            a.settimeout(DEADLINE)
            self.assertEqual(a.recv(1), b"")
        self.assert_no_sockets()

    def test_sigpipe_is_nothing(self):
        daemon = self.ready("--add", self.disk())
        for _ in range(20):
            client = Client(daemon.path)
            client.send('{"jsonrpc":"2.0","id":1,"method":"list"}\n' * 50)
            client.socket.shutdown(socket.SHUT_RD)
            client.close()
        self.assertEqual(daemon.ctl("list").returncode, 0)
        self.assertEqual(daemon.end(), 0)


class Commands(Case):
    def test_add_list_show_remove(self):
        daemon = self.ready()
        self.assertEqual(daemon.ctl("list").stdout.split(), "NAME TYPE STATE QUEUES REQUESTS SOCKET".split())
        done = daemon.ctl("add", self.disk("a", "ram=1M queues=3 serial='x y'"))
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        self.assertTrue(can_connect(self.path("a.sock")))
        listed = daemon.ctl("list").stdout.splitlines()[1].split()
        self.assertEqual([listed[0], listed[1], listed[5]], ["a", "disk", self.path("a.sock")])
        shown = daemon.ctl("show", "a").stdout
        self.assertIn(self.disk("a", "ram=1M queues=3 serial='x y'"), shown)
        device = json.loads(daemon.ctl("--json", "show", "a").stdout)
        self.assertEqual((device["name"], device["queues_max"]), ("a", 3))
        done = daemon.ctl("remove", "a")
        self.assertEqual((done.returncode, done.stdout), (0, ""))
        self.assertFalse(os.path.exists(self.path("a.sock")))
        self.assertEqual(json.loads(daemon.ctl("--json", "list").stdout), {"devices": []})
        self.assertEqual(daemon.ctl("add", self.disk("a")).returncode, 0)  # the name is free again

    def test_resize(self):
        image = self.folder / "image"
        image.write_bytes(b"x" * 4096)
        daemon = self.ready("--add", self.disk("f", f"file={image}"), "--add", self.disk("n"))
        for args, size in (
            (["n", "3M"], 3 << 20),
            (["f"], 4096),
            (["f", "1M"], 1 << 20),
        ):
            with self.subTest(args):
                done = daemon.ctl("resize", *args)
                self.assertEqual((done.returncode, done.stdout, done.stderr), (0, f"{size} bytes\n", ""))
        self.assertEqual(image.read_bytes(), b"x" * 4096 + bytes((1 << 20) - 4096))
        with image.open("ab") as file:
            file.write(bytes(512))
        resized = json.loads(daemon.ctl("--json", "resize", "f").stdout)
        self.assertEqual(resized, {"bytes": (1 << 20) + 512})
        client = self.client(daemon)
        self.assertEqual(client.call("resize", name="n", size="4M")["result"], {"bytes": 4 << 20})
        for params in ({}, {"size": "5M"}, {"name": "n", "size": 5 << 20}, {"name": "n", "bytes": "5M"},
                       {"name": "n", "size": "5M", "x": 1}, {"name": "n", "size": "0"}, {"name": "n", "size": "5Q"}):
            with self.subTest(params):
                self.assertEqual(client.call("resize", **params)["error"]["code"], -32602)

    def test_refusals_change_nothing(self):
        daemon = self.ready("--add", self.disk("a"), "--add", f"rng r socket={self.path('r.sock')}")
        before = daemon.ctl("--json", "list").stdout
        for args, words in (
            (["add", "disk"], ["disk"]),
            (["add", self.disk("a", "ram=1M")], ["disk a", "name"]),
            (["add", f"disk b socket={self.path('a.sock')} null=1M"], ["disk b", "socket"]),
            (["add", self.disk("b", "null=1M queues=many")], ["queues", "many"]),
            (["add", self.disk("b", "file=/no/such")], ["/no/such"]),
            (["remove", "z"], ["z"]),
            (["show", "z"], ["z"]),
            (["resize", "z"], ["z"]),
            (["resize", "r"], ["rng r", "no size"]),
            (["resize", "a", "512"], ["disk a", "only grows"]),
            (["resize", "a"], ["disk a", "name the size"]),
            (["resize", "a", "lots"], ["lots", "a size"]),
        ):
            with self.subTest(args):
                done = daemon.ctl(*args)
                self.assertEqual((done.returncode, done.stdout), (1, ""))
                for word in words:
                    self.assertIn(word, done.stderr)
        self.assertEqual(daemon.ctl("--json", "list").stdout, before)

    def test_wrong_command_lines(self):
        daemon = self.ready()
        for args in ([], ["fly"], ["add"], ["add", "a", "b"], ["list", "x"], ["show"],
                     ["resize"], ["resize", "a", "1M", "x"], ["show", "a", "b"],
                     ["--watch", "list"], ["--colour", "list"]):
            with self.subTest(args):
                done = daemon.ctl(*args)
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertIn("sluicectl", done.stderr)

    def test_nobody_listens(self):
        done = subprocess.run([SLUICECTL, "--control", self.path("none"), "list"],
                              capture_output=True, text=True, timeout=DEADLINE)
        self.assertEqual(done.returncode, 1)
        self.assertIn(self.path("none"), done.stderr)
        self.assertIn("sluiced --control", done.stderr)

    def test_stats(self):
        daemon = self.ready("--add", self.disk())
        self.assertIn("WORKER", daemon.ctl("stats").stdout)
        stats = json.loads(daemon.ctl("--json", "stats").stdout)
        self.assertGreaterEqual(len(stats["workers"]), 1)
        for name in ("requests", "busy_cycles", "cycles", "turns", "busy_turns", "enters",
                     "sleeps", "cpu", "queues", "parked"):
            self.assertIsInstance(stats["workers"][0][name], int, name)
        self.assertEqual(stats["queues"], [])

    def test_stats_watch(self):
        daemon = self.ready("--add", self.disk())
        for args, pattern in ((["stats", "--watch"], "REQUESTS/S"),
                              (["--json", "stats", "--watch"], '"workers"')):
            watch = subprocess.Popen([SLUICECTL, "--control", daemon.path, *args],
                                     stdout=subprocess.PIPE, text=True)
            self.addCleanup(watch.stdout.close)
            self.addCleanup(watch.wait)
            self.addCleanup(watch.kill)
            seen = 0
            while seen < 2:
                line = watch.stdout.readline()
                self.assertTrue(line, "it ended")
                seen += pattern in line
        self.assertEqual(daemon.end(), 0)
        self.assertEqual(watch.wait(DEADLINE), 1)  # the daemon is gone, and it says so


class Protocol(Case):
    def test_errors(self):
        daemon = self.ready()
        client = self.client(daemon)
        for line, code in (
            ("{", -32700),
            ("[]", -32600),
            ('{"jsonrpc":"2.0","id":1,"method":"fly"}', -32601),
            ('{"jsonrpc":"2.0","id":1,"method":"add"}', -32602),
            ('{"jsonrpc":"2.0","id":1,"method":"add","params":{"line":3}}', -32602),
            ('{"jsonrpc":"2.0","id":1,"method":"show","params":{"name":"x","more":1}}', -32602),
            ('{"jsonrpc":"2.0","id":1,"method":"list","params":{"x":1}}', -32602),
            ('{"jsonrpc":"2.0","id":1,"method":"add","params":{"line":"fly"}}', -32000),
            ('{"jsonrpc":"2.0","id":1,"method":"remove","params":{"name":"x"}}', -32000),
        ):
            with self.subTest(line):
                client.send(line + "\n")
                answer = client.answer()
                self.assertEqual(answer["error"]["code"], code)
                self.assertTrue(answer["error"]["message"])
        self.assertEqual(client.call("list")["result"], {"devices": []})

    def test_huge_line(self):
        daemon = self.ready()
        client = self.client(daemon)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.send(b"x" * (LINE_MAX * 4))
        self.assertEqual(client.answer()["error"]["code"], -32600)
        self.assertEqual(daemon.ctl("list").returncode, 0)

    def test_half_a_line_and_then_silence(self):
        daemon = self.ready("--add", self.disk())
        for _ in range(8):
            self.client(daemon).send('{"jsonrpc":"2.0","id":1,')
        self.assertEqual(daemon.ctl("list").returncode, 0)
        self.assertEqual(daemon.end(), 0)

    def test_one_who_never_reads(self):
        daemon = self.ready("--add", self.disk())
        deaf = self.client(daemon)
        deaf.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                deaf.socket.send(b'{"jsonrpc":"2.0","id":1,"method":"list"}\n' * 100)
        self.assertEqual(daemon.ctl("list").returncode, 0)
        self.assertEqual(daemon.end(), 0)

    def test_64_clients(self):
        daemon = self.ready("--add", self.disk())
        clients = [self.client(daemon) for _ in range(64)]
        for round_ in range(10):
            for i, client in enumerate(clients):
                client.send(json.dumps({"jsonrpc": "2.0", "id": f"{round_}.{i}",
                                        "method": "list"}) + "\n")
            for i, client in enumerate(clients):
                answer = client.answer()
                self.assertEqual(answer["id"], f"{round_}.{i}")
                self.assertEqual(answer["result"]["devices"][0]["name"], "d")

    def test_64_sluicectl_at_once(self):
        daemon = self.ready()
        running = [subprocess.Popen([SLUICECTL, "--control", daemon.path, "add",
                                     self.disk(f"d{i}")], stderr=subprocess.PIPE, text=True)
                   for i in range(64)]
        for process in running:
            _, err = process.communicate(timeout=DEADLINE)
            self.assertEqual((process.returncode, err), (0, ""))
        devices = json.loads(daemon.ctl("--json", "list").stdout)["devices"]
        self.assertEqual(sorted(d["name"] for d in devices), sorted(f"d{i}" for i in range(64)))
        self.assertEqual(daemon.end(), 0)
        self.assert_no_sockets()


if __name__ == "__main__":
    unittest.main()
