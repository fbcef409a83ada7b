// SPDX-License-Identifier: Apache-2.0
// One guest misbehaves, another on the same worker does verified I/O all the while: the real
// daemon, our front end. The neighbour must not notice, and whoever misbehaved can come back.
#include "bench/disk_load.h"
#include "tests/check.h"
#include "tests/daemon.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PACKED     VIRTIO_BIT(VIRTIO_F_RING_PACKED)
#define INDIRECT   VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC)
#define DEPTH      16
#define PATIENCE_S 60

static struct daemon sluiced;
static struct guest_disk *good;
static struct disk_load *load;

// Verified requests of the neighbour, @n of them, in bounded time.
static void neighbour_goes_on(unsigned n)
{
    struct error e;
    time_t deadline = time(NULL) + PATIENCE_S;
    for (uint64_t left = n; left || disk_load_n_in_flight(load);) {
        if (disk_load_turn(load, &left, &e) < 0)
            fail_msg("the neighbour: %s", e.text);
        if (time(NULL) > deadline)
            fail_msg("the neighbour stands still");
    }
    assert_int_equal(disk_load_stats(load, 0)->n_errors, 0);
}

static int start(void **state)
{
    (void)state;
    struct error e;
    const struct disk_load_config c = {.pattern = DISK_LOAD_RANDRW,
                                       .block_bytes = 4096,
                                       .depth = DEPTH,
                                       .form = GUEST_REQUEST_INDIRECT,
                                       .verify = true,
                                       .seed = 5};
    daemon_open(&sluiced);
    daemon_add_file_disk(&sluiced, "good", 4 << 20, "");
    daemon_add_file_disk(&sluiced, "bad", 4 << 20, "");
    daemon_start(&sluiced);
    good = daemon_connect(&sluiced, "good", INDIRECT, 1, 1, 0);
    check_ok(disk_load_open(&load, &good, 1, &c, &e), &e);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    disk_load_close(load);
    guest_disk_close(good);
    daemon_stop(&sluiced); // asserts that it lives and ends well
    daemon_close(&sluiced);
    return 0;
}

// ---- attacks -----------------------------------------------------------------------------

struct attacker {
    struct guest_disk *disk;
    struct guest_request requests[DEPTH];
};

// Offer a first descriptor that the specification forbids. The ring must be unused.
static void offer_descriptor(struct guest_disk *d, uint64_t addr, uint32_t len, uint16_t flags)
{
    struct driver_areas areas;
    driver_describe(d->drivers[0], &areas);
    if (d->config.features & PACKED) {
        struct packed_desc *desc = guest_host(d->guest, areas.desc);
        *desc = (struct packed_desc){addr, len, 0, flags};
        guest_store16_release(&desc->flags, (uint16_t)(flags | PACKED_DESC_AVAIL));
    } else {
        struct split_desc *desc = guest_host(d->guest, areas.desc);
        struct split_avail *avail = guest_host(d->guest, areas.driver);
        *desc = (struct split_desc){addr, len, flags, 0};
        avail->ring[0] = 0;
        guest_store16_release(&avail->idx, 1);
    }
    frontend_kick(d->frontend, 0);
}

static void bad_address(struct attacker *a)
{
    offer_descriptor(a->disk, UINT64_MAX - 7, 16, SPLIT_DESC_WRITE);
}

static void chain_without_end(struct attacker *a)
{
    offer_descriptor(a->disk, a->requests[0].header_addr, 16, SPLIT_DESC_NEXT);
}

static void nothing_to_write(struct attacker *a)
{
    offer_descriptor(a->disk, a->requests[0].header_addr, 16, 0);
}

static void submit_all(struct attacker *a)
{
    for (unsigned i = 0; i < DEPTH; i++) {
        guest_request_prepare(&a->requests[i], VIRTIO_BLK_T_OUT, 64 * i, 32768,
                              GUEST_REQUEST_INDIRECT);
        assert_true(guest_disk_submit(a->disk, 0, &a->requests[i]));
    }
}

static void truncated_memory(struct attacker *a)
{
    submit_all(a);
    assert_int_equal(ftruncate(a->disk->guest->regions[0].fd, 0), 0);
    frontend_kick(a->disk->frontend, 0);
}

// All memory goes, with the rings and the requests in it.
static void memory_is_removed(struct attacker *a)
{
    struct error e;
    submit_all(a);
    frontend_remove_region(a->disk->frontend, 0, &e); // whatever the answer is
    frontend_kick(a->disk->frontend, 0);
    frontend_add_region(a->disk->frontend, 0, &e);
    frontend_kick(a->disk->frontend, 0);
}

__attribute__((unused)) static void truncated_log(struct attacker *a)
{
    struct error e;
    check_ok(frontend_start_log(a->disk->frontend, &e), &e);
    submit_all(a);
    assert_int_equal(ftruncate(a->disk->frontend->log_fd, 0), 0);
    frontend_kick(a->disk->frontend, 0);
}

// The region that the back end makes cannot be truncated; a front end may bring its own.
__attribute__((unused)) static void truncated_inflight(struct attacker *a)
{
    struct error e;
    struct frontend *f = a->disk->frontend;
    check_ok(guest_disk_stop(a->disk, &e), &e);
    close(f->inflight_fd);
    f->inflight_fd = memfd_create("in-flight", MFD_CLOEXEC);
    assert_int_equal(ftruncate(f->inflight_fd, (off_t)f->inflight.mmap_size), 0);
    check_ok(frontend_send_inflight(f, &e), &e);
    check_ok(guest_disk_start(a->disk, &e), &e);
    submit_all(a);
    assert_int_equal(ftruncate(f->inflight_fd, 0), 0);
    frontend_kick(f, 0);
}

// Another log again and again while reads write to memory.
static void log_is_replaced(struct attacker *a)
{
    struct error e;
    struct driver_used used[DEPTH];
    struct frontend *f = a->disk->frontend;
    check_ok(frontend_start_log(f, &e), &e);
    for (unsigned round = 0; round < 30; round++) {
        for (unsigned i = 0; i < DEPTH; i++) {
            guest_request_prepare(&a->requests[i], VIRTIO_BLK_T_IN, 64 * i, 32768,
                                  GUEST_REQUEST_INDIRECT);
            assert_true(guest_disk_submit(a->disk, 0, &a->requests[i]));
        }
        int old = f->log_fd;
        f->log_fd = memfd_create("dirty-log", MFD_CLOEXEC);
        assert_int_equal(ftruncate(f->log_fd, (off_t)f->log_bytes), 0);
        check_ok(frontend_send_log(f, &e), &e);
        assert_int_equal(ftruncate(old, 0), 0); // nobody looks at it any more
        close(old);
        time_t deadline = time(NULL) + PATIENCE_S;
        for (unsigned n = 0; n < DEPTH;) {
            int came = driver_poll(a->disk->drivers[0], used, DEPTH, &e);
            if (came < 0 || time(NULL) > deadline)
                fail_msg("under a new log: %s", came < 0 ? e.text : "requests are lost");
            n += (unsigned)came;
        }
    }
}

// Offer what is in flight once more; sometimes it is back by then.
static void same_head_twice(struct attacker *a)
{
    submit_all(a);
    struct driver_areas areas;
    struct guest_disk *d = a->disk;
    driver_describe(d->drivers[0], &areas);
    if (d->config.features & PACKED) {
        struct packed_desc *ring = guest_host(d->guest, areas.desc);
        ring[DEPTH] = ring[DEPTH - 1];
    } else {
        struct split_avail *avail = guest_host(d->guest, areas.driver);
        avail->ring[DEPTH] = avail->ring[DEPTH - 1];
        guest_store16_release(&avail->idx, DEPTH + 1);
    }
    frontend_kick(d->frontend, 0);
}

// A blocking eventfd that has no room: a plain write to it would hang for ever.
static void saturated_call(struct attacker *a)
{
    struct error e;
    int fd = eventfd(0, EFD_CLOEXEC);
    assert_int_equal(eventfd_write(fd, UINT64_MAX - 1), 0);
    check_ok(frontend_set_ring_fd(a->disk->frontend, VHOST_USER_SET_VRING_CALL, 0, fd, &e), &e);
    driver_arm(a->disk->drivers[0]);
    submit_all(a);
    close(fd);
}

static void kick_storm(struct attacker *a)
{
    for (unsigned i = 0; i < 100000; i++)
        frontend_kick(a->disk->frontend, 0);
}

static void leaves_at_full_depth(struct attacker *a)
{
    submit_all(a);
}

static void queue_out_of_range(struct attacker *a)
{
    struct error e;
    assert_true(frontend_set_ring(a->disk->frontend, VHOST_USER_SET_VRING_NUM, 0x10000, 256, &e) <
                0);
}

struct attack {
    const char *name;
    void (*run)(struct attacker *a);
};

static const struct attack attacks[] = {
    {"bad address", bad_address},
    {"chain without end", chain_without_end},
    {"nothing to write", nothing_to_write},
    {"truncated memory", truncated_memory},
    {"memory is removed", memory_is_removed},
#if !UNDER_TSAN // atomics and the SIGBUS they raise are inside its runtime
    {"truncated log", truncated_log},
    {"truncated in-flight region", truncated_inflight},
#endif
    {"log is replaced", log_is_replaced},
    {"same head twice", same_head_twice},
    {"saturated call", saturated_call},
    {"kick storm", kick_storm},
    {"leaves at full depth", leaves_at_full_depth},
    {"queue out of range", queue_out_of_range},
};

static void attack_once(const struct attack *attack, uint64_t features)
{
    struct error e;
    struct attacker a = {.disk = daemon_connect(&sluiced, "bad", features, 1, 1, 0)};
    check_ok(guest_request_open(a.requests, DEPTH, a.disk->guest, 32768, &e), &e);
    neighbour_goes_on(200);
    attack->run(&a);
    neighbour_goes_on(1000);
    guest_request_close(a.requests, DEPTH);
    guest_disk_close(a.disk);

    struct guest_request r;
    struct guest_disk *again = daemon_connect(&sluiced, "bad", features, 1, 1, 0);
    check_ok(guest_request_open(&r, 1, again->guest, 4096, &e), &e);
    guest_request_prepare(&r, VIRTIO_BLK_T_IN, 0, 4096, GUEST_REQUEST_INDIRECT);
    if (guest_disk_run(again, 0, &r, &e) != 4097)
        fail_msg("%s: does not come back: %s", attack->name, e.text);
    guest_request_close(&r, 1);
    guest_disk_close(again);
}

static void test_neighbour_does_not_notice(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(attacks); i++) {
        attack_once(&attacks[i], INDIRECT);
        attack_once(&attacks[i], INDIRECT | PACKED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_neighbour_does_not_notice)};
    return cmocka_run_group_tests_name("neighbours", tests, start, stop);
}
