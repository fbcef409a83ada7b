# SPDX-License-Identifier: Apache-2.0
"""What is compared: for each theme its back ends, and the loads that each of them gets."""

import dataclasses

from harness.backends import OpenVSwitch, QemuStorageDaemon, Sluice, Testpmd


@dataclasses.dataclass
class Theme:
    """Back ends of one kind under the same loads. The first back end is ours."""

    key: str
    title: str
    unit: str
    kind: str        # blk, net
    backends: list   # functions of a machine
    loads: dict      # name: arguments of sluice-bench
    text: str


def net_lines(n):
    ports = [f"port p{i} switch=s socket={{folder}}/{i}.sock" for i in range(n)]
    return ["switch s", *ports]


def disk(build, store):
    return lambda machine: Sluice(machine, [f"disk d socket={{folder}}/d.sock {store}"], build)


def network(build, n=2):
    return lambda machine: Sluice(machine, net_lines(n), build)


def qemu(blockdev):
    return lambda machine: QemuStorageDaemon(machine, blockdev)


BLK = ["--bs", "4k", "--rw", "randread"]
RINGS = ("split", "packed")


def themes(build, seconds, image):
    window = ["--time", seconds]
    disks = {f"{ring}, depth {depth}": [*BLK, "--ring", ring, "--depth", depth, *window]
             for ring in RINGS for depth in (1, 32)}
    file_loads = {f"split, depth {depth}": [*BLK, "--ring", "split", "--depth", depth, *window]
                  for depth in (1, 32)}
    frames = {}
    for ring in RINGS:
        for size in (64, 256, 1518):
            frames[f"{ring}, {size} B"] = ["--ring", ring, "--size", size, *window]
        frames[f"{ring}, 64 B, mergeable"] = ["--ring", ring, "--size", 64, "--mergeable", *window]
    pingpong = {f"{ring}, one frame": ["--ring", ring, "--mode", "pingpong", *window]
                for ring in RINGS}
    return [
        Theme("disk-null", "A disk that stores nothing", "request", "blk",
              [disk(build, "null=1G"),
               qemu("driver=null-co,size=1073741824,read-zeroes=off")], disks,
              "The cost of rings, parsing and completion: 4 KiB random reads, no data moved."),
        Theme("disk-ram", "A disk in memory", "request", "blk",
              [disk(build, "ram=2G")], disks,
              "The same with one copy of 4 KiB from 2 GiB of memory."),
        Theme("disk-file", "A disk in a file", "request", "blk",
              [disk(build, f"file={image}"),
               qemu(f"driver=file,filename={image},cache.direct=on,aio=io_uring")], file_loads,
              "4 KiB random reads of an image, past the page cache where the file system can."),
        Theme("net", "Guest to guest", "frame", "net",
              [network(build), Testpmd, OpenVSwitch], frames,
              "One guest sends, one receives, 32 frames on their way. testpmd forwards whatever "
              "comes to the other port and looks at nothing; OVS and sluice are switches."),
        Theme("net-latency", "One frame at a time", "frame", "net",
              [network(build), Testpmd, OpenVSwitch], pingpong,
              "A frame is sent when its answer came. Latency is there and back."),
    ]


def growth(build, seconds, counts):
    """The rate against the number of guests, at an equal burst for each."""
    loads = ["--depth", 16, "--size", 64, "--time", seconds]
    for n in counts:
        yield n, [network(build, n), lambda machine, n=n: Testpmd(machine, n)], loads


def steps(build, seconds):
    """Latency against the load: a disk and a switch at parts of their highest rate."""
    yield ("disk", "blk", [disk(build, "null=1G"),
                           qemu("driver=null-co,size=1073741824,read-zeroes=off")],
           [*BLK, "--depth", 32, "--time", seconds])
    yield ("net", "net", [network(build), Testpmd, OpenVSwitch],
           ["--size", 64, "--time", seconds])
