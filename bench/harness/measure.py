# SPDX-License-Identifier: Apache-2.0
"""One window: a load for a while, and what it cost the back end; and windows put in pairs."""

import dataclasses
import json
import os
import pathlib
import statistics
import subprocess

NEAR_NS = 150  # a cache line there and back: below, the two processors share a cache


class Machine:
    """Which processors are used, and what they are like."""

    def __init__(self, build, server_cpu, load_cpu):
        self.build, self.server_cpu, self.load_cpu = build, server_cpu, load_cpu
        self.cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
        self.cache = self.cache / "sluice/bench"
        self.cache.mkdir(parents=True, exist_ok=True)
        self.ticks_per_second = None  # from the first window
        self.environment = None

    @property
    def has_huge_pages(self):
        free = pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
        return free.exists() and int(free.read_text()) >= 512

    def dpdk_memory(self, prefix):
        if self.has_huge_pages:
            return ["--in-memory", "-m", 256]
        return ["--no-huge", f"--file-prefix={prefix}", "-m", 256]

    def load(self, kind, sockets, arguments):
        """Run sluice-bench. Its result, or the sentence that it ended with."""
        command = [self.build / "tools/sluice-bench", kind, *sockets, *arguments, "--json",
                   "--cpu", self.load_cpu, "--server-cpu", self.server_cpu]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                              check=False)
        if done.returncode:
            return None, done.stderr.strip().splitlines()[-1]
        result = json.loads(done.stdout)
        self.environment = result["environment"]
        self.ticks_per_second = self.environment["ticks_per_second"]
        return result, None


@dataclasses.dataclass
class Window:
    rate: float                # units a second
    cycles: float | None       # the back end's busy ticks a unit, by its own books
    cpu_cycles: float | None   # likewise, by the kernel's
    load_cpu: float            # share of the load's processor that was busy
    latency: dict              # us
    kind: str                  # near, far, moved
    warnings: list


def kind_of(environment):
    trips = environment["round_trip_ns"]
    kinds = {"near" if ns < NEAR_NS else "far" for ns in trips.values()}
    return kinds.pop() if len(kinds) == 1 else "moved"


def measure(machine, backend, kind, arguments):
    """A Window, or the sentence why there is none."""
    busy, cpu = backend.busy_cycles(), backend.cpu_seconds()
    result, problem = machine.load(kind, backend.sockets(), arguments)
    if problem:
        return problem
    every = result["all"]
    rate = every["iops" if kind == "blk" else "fps"]
    n = rate * result["seconds"]
    cycles = cpu_cycles = None
    if busy is not None:
        cycles = (backend.busy_cycles() - busy) / n
    if cpu is not None:
        cpu_cycles = (backend.cpu_seconds() - cpu) * machine.ticks_per_second / n
    return Window(rate, cycles, cpu_cycles, 1 - result["idle"], every["latency_us"],
                  kind_of(result["environment"]), result["warnings"])


@dataclasses.dataclass
class Spread:
    n: int
    median: float
    low: float
    high: float


def spread(values):
    values = sorted(values)
    return Spread(len(values), statistics.median(values), values[0], values[-1])


def ratios(ours, theirs, figure, kind):
    """The spread of ours over theirs, pair by pair, of windows that are both of one kind."""
    pairs = []
    for a, b in zip(ours, theirs):
        both = isinstance(a, Window) and isinstance(b, Window)
        if both and a.kind == b.kind == kind and figure(a) is not None and figure(b):
            pairs.append(figure(a) / figure(b))
    return spread(pairs) if pairs else None
