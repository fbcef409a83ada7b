// SPDX-License-Identifier: Apache-2.0
// Killed and started again by a service manager, for guests whose front end keeps no in-flight
// region: what was under way is done, once, and what was acknowledged is there.
#include "bench/disk_load.h"
#include "tests/check.h"
#include "tests/daemon.h"

#include <time.h>

#define PACKED   VIRTIO_BIT(VIRTIO_F_RING_PACKED)
#define EVENT    VIRTIO_BIT(VIRTIO_F_EVENT_IDX)
#define ORDER    VIRTIO_BIT(VIRTIO_F_IN_ORDER)
#define INDIRECT VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC)

#define N_KILLS 20
#define QUEUES  2
#define DEPTH   16

static int start(void **state)
{
    static struct daemon d;
    daemon_open(&d);
    d.is_managed = true;
    daemon_add_file_disk(&d, "disk", 4 << 20, "queues=2");
    daemon_start(&d);
    *state = &d;
    return 0;
}

static int stop(void **state)
{
    daemon_stop(*state);
    daemon_close(*state);
    return 0;
}

static struct guest_disk *connect_without_region(const struct daemon *d, uint64_t features)
{
    struct error e;
    struct guest_disk *disk;
    char socket[CHILD_PATH_MAX];
    struct guest_disk_config c = {
        .path = socket,
        .features = features,
        .protocol = GUEST_DISK_PROTOCOL & ~VIRTIO_BIT(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD),
        .n_queues = QUEUES,
        .ring_size = 64,
        .table_entries = GUEST_REQUEST_SEGMENTS_MAX,
        .memory = {.n_regions = 1, .region_bytes = 16 << 20, .first_addr = UINT64_C(1) << 32},
    };
    daemon_socket(d, socket, "disk");
    check_ok(guest_disk_open(&disk, &c, &e), &e);
    return disk;
}

static struct disk_load *open_load(struct guest_disk *disk)
{
    struct error e;
    struct disk_load *load;
    struct disk_load_config c = {.pattern = DISK_LOAD_RANDRW,
                                 .block_bytes = 4096,
                                 .depth = DEPTH,
                                 .form = GUEST_REQUEST_INDIRECT,
                                 .verify = true,
                                 .seed = 5};
    check_ok(disk_load_open(&load, &disk, 1, &c, &e), &e);
    return load;
}

// Until @n more requests were offered and, if @drain, all are back. The load compares each block
// that it reads, and its driver each used entry.
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

static const uint64_t modes[] = {INDIRECT | EVENT, PACKED | INDIRECT, PACKED | INDIRECT | EVENT,
                                 PACKED | INDIRECT | ORDER};

static void test_killed_under_load(void **state)
{
    struct daemon *d = *state;
    struct error e;
    for (unsigned i = 0; i < ARRAY_LEN(modes); i++) {
        struct guest_disk *disk = connect_without_region(d, modes[i]);
        struct disk_load *load = open_load(disk);
        unsigned n_under_way = 0;
        for (unsigned k = 0; k < N_KILLS; k++) {
            turn(load, 200 + k, false);
            daemon_crash(d);
            n_under_way += disk_load_n_in_flight(load) > 0;
            check_ok(guest_disk_reconnect(disk, &e), &e);
        }
        turn(load, 200, true);
        assert_int_equal(n_under_way, N_KILLS);
        assert_int_equal(disk_load_stats(load, 0)->n_errors, 0);
        check_ok(guest_disk_stop(disk, &e), &e);
        disk_load_close(load);
        guest_disk_close(disk);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed_under_load),
    };
    return cmocka_run_group_tests_name("restart", tests, start, stop);
}
