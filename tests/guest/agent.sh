# SPDX-License-Identifier: Apache-2.0
# agent.sh - runs in the guest: obeys the host over the second serial port (see guest.py).
#
# The console keeps the kernel's messages, so nothing mixes with the answers. A line is
# "NUMBER COMMAND"; the answer is what the command prints, then "::NUMBER STATUS::".

# Writes down what was written so far and forgets all cached pages: the next read asks the disk.
forget() {
    sync
    echo 3 >/proc/sys/vm/drop_caches
}

# Prints what a guest must never see on a healthy disk.
complaints() {
    dmesg | grep -E 'I/O error|EXT4-fs (error|warning)|Buffer I/O|blocked for more' || true
}

# sums FOLDER: prints one checksum for the names and contents of all files.
sums() {
    (cd "$1" && find . -type f | sort | xargs sha256sum) | sha256sum | cut -d' ' -f1
}

# make_files FOLDER: many small files, some of odd sizes, one large.
make_files() {
    mkdir "$1"
    for i in $(seq 40); do
        head -c $((i * 777)) /dev/urandom >"$1/small.$i"
    done
    dd if=/dev/urandom of="$1/large" bs=1M count=16 status=none
}

# memory_online BYTES: waits for the blocks of a new DIMM and takes them up as movable memory.
memory_online() {
    block=$((0x$(cat /sys/devices/system/memory/block_size_bytes)))
    n=0
    while [ $n -lt $(($1 / block)) ]; do
        for state in $(grep -lx offline /sys/devices/system/memory/memory*/state); do
            echo online_movable >"$state" && n=$((n + 1))
        done
        sleep 0.1
    done
}

# Empties all movable memory; a page with I/O under way makes it fail until that is done.
memory_offline() {
    # An online block is valid for its own zone only.
    while blocks=$(grep -lx Movable /sys/devices/system/memory/memory*/valid_zones); do
        for zones in $blocks; do
            echo offline >"${zones%/*}/state"
        done 2>/dev/null
        sleep 0.1
    done
}

# Prints how many pages of movable memory are in use.
movable_used() {
    awk '$3 == "zone" { here = $4 == "Movable" }
         here && $1 == "pages" && $2 == "free" { free = $3 }
         here && $1 == "managed" { print $2 - free }' /proc/zoneinfo
}

# One writer of a load: new bytes each round, read back from the disk, compared byte by byte.
load_writer() {
    round=0
    while [ ! -e /tmp/load/stop ]; do
        if [ $((round % 2)) = 0 ]; then how="bs=64k oflag=direct"; else how="bs=4k conv=fsync"; fi
        dd if=/dev/urandom of="/tmp/load/sent.$1" bs=64k count=8 status=none &&
            dd if="/tmp/load/sent.$1" of="$2/load.$1" $how status=none &&
            dd if="$2/load.$1" of="/tmp/load/got.$1" bs=32k iflag=direct status=none &&
            cmp "/tmp/load/sent.$1" "/tmp/load/got.$1" || break
        round=$((round + 1))
        echo "$round" >"/tmp/load/round.$1"
    done
    [ -e /tmp/load/stop ] && touch "/tmp/load/good.$1"
}

# load_start FOLDER WRITERS
load_start() {
    rm -rf /tmp/load && mkdir /tmp/load
    for writer in $(seq "$2"); do
        echo 0 >"/tmp/load/round.$writer"
        load_writer "$writer" "$1" 2>"/tmp/load/said.$writer" &
    done
}

# Prints the rounds of the slowest writer.
load_rounds() {
    cat /tmp/load/round.* | sort -n | head -1
}

# Waits for the writers and says what went wrong; fails when anything did.
load_stop() {
    touch /tmp/load/stop
    wait
    cat /tmp/load/said.*
    [ "$(ls /tmp/load/good.* 2>/dev/null | wc -l)" = "$(ls /tmp/load/round.* | wc -l)" ]
}

# daemon_start LINE...: a sluiced in this guest, with these disks; returns when it is ready.
daemon_start() {
    n=$#
    while [ $n -gt 0 ]; do
        set -- "$@" --add "$1"
        shift
        n=$((n - 1))
    done
    sluiced --control /tmp/control "$@" >/tmp/sluiced.log 2>&1 &
    echo $! >/tmp/sluiced.pid
    until grep -q 'sluiced: ready' /tmp/sluiced.log; do
        kill -0 "$(cat /tmp/sluiced.pid)" || { cat /tmp/sluiced.log && return 1; }
        sleep 0.1
    done
}

# Its exit status after SIGTERM.
daemon_stop() {
    kill "$(cat /tmp/sluiced.pid)"
    wait "$(cat /tmp/sluiced.pid)"
}

# table NAME TABLE: gives a device-mapper device another table while it is in use.
table() {
    dmsetup suspend --noflush --nolockfs "$1" && dmsetup load "$1" --table "$2" && dmsetup resume "$1"
}

# net_up DEVICE ADDRESS [MTU]
net_up() {
    ip link set "$1" mtu "${3:-1500}" up
    ip addr add "$2" dev "$1"
}

# receive_file PORT: prints the checksum of what comes, once it is all there.
receive_file() {
    [ -e /tmp/silence ] || mkfifo /tmp/silence # nc ends with its standard input
    nc -l -p "$1" <>/tmp/silence | sha256sum | cut -d' ' -f1 >/tmp/received.$1
}

# send_file ADDRESS PORT MIB: random bytes; prints their checksum.
send_file() {
    dd if=/dev/urandom of=/tmp/sent bs=1M count="$3" status=none
    until nc "$1" "$2" </tmp/sent; do sleep 0.2; done
    sha256sum </tmp/sent | cut -d' ' -f1
    rm /tmp/sent
}

# There is no udev: dmsetup makes the nodes.
export DM_DISABLE_UDEV=1

exec </dev/ttyS1 >/dev/ttyS1 2>&1
stty raw -echo
echo "::ready::"
while read -r number command; do
    eval "$command" </dev/null
    echo "::$number $?::"
done
