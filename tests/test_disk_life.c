// SPDX-License-Identifier: Apache-2.0
// The daemon's life under verified I/O: many guests at once, a crash, a polite end.
#include "bench/disk_load.h"
#include "tests/check.h"
#include "tests/daemon.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define PACKED   VIRTIO_BIT(VIRTIO_F_RING_PACKED)
#define EVENT    VIRTIO_BIT(VIRTIO_F_EVENT_IDX)
#define ORDER    VIRTIO_BIT(VIRTIO_F_IN_ORDER)
#define INDIRECT VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC)

static struct disk_load *open_load(struct guest_disk *const disks[], unsigned n, unsigned depth)
{
    struct error e;
    struct disk_load *load;
    struct disk_load_config c = {.pattern = DISK_LOAD_RANDRW,
                                 .block_bytes = 4096,
                                 .depth = depth,
                                 .form = GUEST_REQUEST_INDIRECT,
                                 .verify = true,
                                 .seed = 11};
    check_ok(disk_load_open(&load, disks, n, &c, &e), &e);
    return load;
}

// Until @n more requests were offered and, if @drain, all are back.
static void turn(struct disk_load *load, uint64_t n, bool drain)
{
    struct error e;
    time_t deadline = time(NULL) + 120;
    while (n || (drain && disk_load_n_in_flight(load))) {
        if (disk_load_turn(load, &n, &e) < 0)
            fail_msg("%s", e.text);
        if (time(NULL) > deadline)
            fail_msg("%llu requests did not come back",
                     (unsigned long long)disk_load_n_in_flight(load));
    }
}

// ---- many guests -------------------------------------------------------------------------

#define GUESTS  64
#define QUEUES  4
#define PER_ONE 400 // requests of each guest on average

struct crowd {
    struct daemon sluiced;
    struct guest_disk *disks[GUESTS];
};

// A daemon with a disk for each guest; every ring mode is among them.
static void crowd_open(struct crowd *c)
{
    char name[16];
    daemon_open(&c->sluiced);
    for (unsigned i = 0; i < GUESTS; i++) {
        snprintf(name, sizeof name, "g%u", i);
        daemon_add_disk(&c->sluiced, name, "ram=1M queues=4");
    }
    daemon_start(&c->sluiced);
    for (unsigned i = 0; i < GUESTS; i++) {
        snprintf(name, sizeof name, "g%u", i);
        uint64_t features = INDIRECT | (i % 2 ? PACKED : 0) | (i % 4 < 2 ? EVENT : 0);
        c->disks[i] = daemon_connect(&c->sluiced, name, features, QUEUES, 1, 0);
    }
}

static void crowd_close(struct crowd *c)
{
    for (unsigned i = 0; i < GUESTS; i++)
        guest_disk_close(c->disks[i]);
    daemon_stop(&c->sluiced);
    daemon_close(&c->sluiced);
}

static void test_64_guests_on_one_worker(void **state)
{
    (void)state;
    struct crowd crowd;
    crowd_open(&crowd);
    struct disk_load *load = open_load(crowd.disks, GUESTS, 4);
    turn(load, GUESTS * PER_ONE, false);
    uint64_t slowest = UINT64_MAX, sum = 0;
    for (unsigned i = 0; i < GUESTS; i++) {
        const struct disk_load_stats *s = disk_load_stats(load, i);
        slowest = MIN(slowest, s->n_reads + s->n_writes);
        sum += s->n_reads + s->n_writes;
        assert_int_equal(s->n_errors, 0);
    }
    turn(load, 0, true);
    assert_true(slowest >= sum / GUESTS / 2);
    for (unsigned i = 0; i < GUESTS; i++) {
        struct error e;
        check_ok(guest_disk_stop(crowd.disks[i], &e), &e);
        assert_true(disk_load_stats(load, i)->n_verified > 0);
    }
    disk_load_close(load);
    crowd_close(&crowd);
}

// ---- many guests that do nothing ---------------------------------------------------------

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    assert_int_equal(clock_gettime(clock, &t), 0);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

// The share of a core that all threads of @pid take over @ms, in thousandths.
static uint64_t busy_permille(pid_t pid, long ms)
{
    clockid_t clock;
    const struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    assert_int_equal(clock_getcpuclockid(pid, &clock), 0);
    uint64_t used = clock_ns(clock), start = clock_ns(CLOCK_MONOTONIC);
    nanosleep(&pause, NULL);
    used = clock_ns(clock) - used;
    return used * 1000 / (clock_ns(CLOCK_MONOTONIC) - start);
}

static void test_64_idle_guests_cost_nothing(void **state)
{
    (void)state;
    struct crowd crowd;
    crowd_open(&crowd);
    struct disk_load *load = open_load(crowd.disks, GUESTS, 1);
    turn(load, GUESTS * 10, true);
    time_t deadline = time(NULL) + 60;
    while (busy_permille(crowd.sluiced.pid, 100) >= 10) // until every queue is parked
        assert_true(time(NULL) < deadline);
    assert_true(busy_permille(crowd.sluiced.pid, 2000) < 10);
    disk_load_close(load);
    crowd_close(&crowd);
}

// ---- a daemon that goes and comes back ---------------------------------------------------

static const uint64_t layouts[] = {INDIRECT, INDIRECT | EVENT | ORDER, INDIRECT | PACKED,
                                   INDIRECT | PACKED | EVENT};

// Over twenty crashes at full depth no acknowledged write is lost, nothing comes back twice (the
// driver checks that) or never, and the rings end where the driver is.
static void test_crashes_under_load(void **state)
{
    (void)state;
    for (unsigned f = 0; f < ARRAY_LEN(layouts); f++) {
        struct error e;
        struct daemon sluiced;
        daemon_open(&sluiced);
        daemon_add_file_disk(&sluiced, "d", 4 << 20, "queues=2");
        daemon_start(&sluiced);
        struct guest_disk *disk = daemon_connect(&sluiced, "d", layouts[f], 2, 1, 0);
        struct disk_load *load = open_load(&disk, 1, 32);
        for (unsigned i = 0; i < (f % 2 || getenv("SLUICE_LONG") ? 20 : 3); i++) {
            turn(load, 400 + 50 * i, false);
            assert_true(disk_load_n_in_flight(load) > 0);
            daemon_kill(&sluiced);
            daemon_start_again(&sluiced);
            check_ok(guest_disk_reconnect(disk, &e), &e);
        }
        turn(load, 1000, true);
        check_ok(disk_load_read_back(load, &e), &e);
        check_ok(guest_disk_stop(disk, &e), &e);
        disk_load_close(load);
        guest_disk_close(disk);
        daemon_stop(&sluiced);
        daemon_close(&sluiced);
    }
}

// SIGTERM at full depth: the daemon ends with 0, and its successor goes on.
static void test_ends_politely_under_load(void **state)
{
    (void)state;
    for (unsigned f = 0; f < ARRAY_LEN(layouts); f++) {
        struct error e;
        struct daemon sluiced;
        daemon_open(&sluiced);
        daemon_add_file_disk(&sluiced, "d", 4 << 20, "queues=2");
        daemon_start(&sluiced);
        struct guest_disk *disk = daemon_connect(&sluiced, "d", layouts[f], 2, 1, 0);
        struct disk_load *load = open_load(&disk, 1, 64);
        for (unsigned i = 0; i < 3; i++) {
            turn(load, 2000, false);
            daemon_stop(&sluiced); // asserts the exit status
            daemon_start(&sluiced);
            check_ok(guest_disk_reconnect(disk, &e), &e);
        }
        turn(load, 1000, true);
        check_ok(guest_disk_stop(disk, &e), &e);
        disk_load_close(load);
        guest_disk_close(disk);
        daemon_stop(&sluiced);
        daemon_close(&sluiced);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_64_guests_on_one_worker),
        cmocka_unit_test(test_64_idle_guests_cost_nothing),
        cmocka_unit_test(test_crashes_under_load),
        cmocka_unit_test(test_ends_politely_under_load),
    };
    return cmocka_run_group_tests_name("disk_life", tests, NULL, NULL);
}
