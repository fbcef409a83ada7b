// SPDX-License-Identifier: Apache-2.0
// What a guest reads and is told must not depend on how it asks: the real daemon, our front end.
#include "bench/disk_load.h"
#include "tests/check.h"
#include "tests/daemon.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PACKED   VIRTIO_BIT(VIRTIO_F_RING_PACKED)
#define EVENT    VIRTIO_BIT(VIRTIO_F_EVENT_IDX)
#define ORDER    VIRTIO_BIT(VIRTIO_F_IN_ORDER)
#define INDIRECT VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC)

#define DISK_BYTES (UINT64_C(4) << 20)
#define SECTORS    (DISK_BYTES / 512)
#define DEPTH      16
#define STRETCH    (SECTORS / DEPTH) // each request has a part of the disk of its own
#define IO_MAX     (64u << 10)
#define HOLE       (UINT64_C(1) << 20)
#define UNKNOWN    0x4711
#define N_OPS      800 // for each way

static struct daemon sluiced;
static uint8_t shadow[DISK_BYTES]; // what the disk in use must hold

static int start(void **state)
{
    (void)state;
    daemon_open(&sluiced);
    daemon_add_disk(&sluiced, "ram", "ram=4M queues=2 serial=same");
    daemon_add_file_disk(&sluiced, "file", DISK_BYTES, "queues=2 serial=same");
    daemon_start(&sluiced);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    daemon_stop(&sluiced);
    daemon_close(&sluiced);
    return 0;
}

// ---- one run of random operations --------------------------------------------------------

struct outcome {
    uint8_t status;
    uint32_t used_len;
    uint64_t sum; // of the data read
};

struct run {
    struct guest_disk *disk;
    struct guest_request requests[DEPTH];
    unsigned op_of[DEPTH]; // which operation a request carries
    struct outcome *outcomes;
    uint64_t seed;
    enum guest_request_form form;
    unsigned n_segments; // 0: not shredded
};

static uint64_t sum_of(const uint8_t *data, uint32_t bytes)
{
    uint64_t sum = 0xcbf29ce484222325;
    for (uint32_t i = 0; i < bytes; i++)
        sum = (sum ^ data[i]) * 0x100000001b3;
    return sum;
}

static void fill(uint8_t *data, uint32_t bytes, uint64_t seed)
{
    for (uint32_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)(random_next(&seed) >> 32);
}

static uint8_t expected_status(uint32_t type, uint64_t sector, uint32_t bytes)
{
    if (type != VIRTIO_BLK_T_IN && type != VIRTIO_BLK_T_OUT)
        return type == UNKNOWN ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_OK;
    bool is_inside = sector < SECTORS && bytes / 512 <= SECTORS - sector;
    if (!is_inside || bytes % 512)
        return VIRTIO_BLK_S_IOERR;
    return VIRTIO_BLK_S_OK;
}

static void check_outcome(const struct guest_request *r, uint32_t used_len)
{
    assert_int_equal(*r->status, expected_status(r->type, r->sector, r->bytes));
    if (*r->status != VIRTIO_BLK_S_OK)
        return;
    assert_int_equal(used_len, guest_request_is_read(r->type) ? r->bytes + 1 : 1);
    if (r->type == VIRTIO_BLK_T_IN)
        assert_memory_equal(r->data, shadow + r->sector * 512, r->bytes);
    if (r->type == VIRTIO_BLK_T_GET_ID)
        assert_string_equal((char *)r->data, "same");
}

// The seed decides the operation alone, never the way it is offered.
static void submit(struct run *run, unsigned i, unsigned op)
{
    static const uint32_t types[] = {
        VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_OUT,    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_IN,
        VIRTIO_BLK_T_IN,  VIRTIO_BLK_T_IN,     VIRTIO_BLK_T_IN,  VIRTIO_BLK_T_FLUSH,
        UNKNOWN,          VIRTIO_BLK_T_GET_ID,
    };
    struct guest_request *r = &run->requests[i];
    uint64_t seed = op + 1, shred_seed = op + 77;
    uint32_t type = types[random_below(&seed, ARRAY_LEN(types))];
    uint32_t bytes = 512 * (1 + (uint32_t)random_below(&seed, IO_MAX / 512));
    uint64_t sector = i * STRETCH + random_below(&seed, STRETCH - bytes / 512);
    uint64_t odd = random_below(&seed, 40);
    if (odd == 0)
        sector = SECTORS - bytes / 512 + 1; // one sector over the end
    if (odd == 1)
        sector = UINT64_MAX - random_below(&seed, 1000);
    if (odd == 2)
        bytes -= 1 + (uint32_t)random_below(&seed, 511); // no whole sectors
    if (type == VIRTIO_BLK_T_GET_ID)
        bytes = VIRTIO_BLK_ID_BYTES;
    if (type == VIRTIO_BLK_T_FLUSH)
        bytes = 0;
    fill(r->data, bytes, type == VIRTIO_BLK_T_OUT ? op : UINT64_MAX);
    run->op_of[i] = op;
    if (type == VIRTIO_BLK_T_OUT && expected_status(type, sector, bytes) == VIRTIO_BLK_S_OK)
        memcpy(shadow + sector * 512, r->data, bytes);
    guest_request_prepare(r, type, sector, bytes, run->form);
    if (run->n_segments)
        guest_request_shred(r, run->n_segments, run->form, &shred_seed);
    assert_true(guest_disk_submit(run->disk, i % run->disk->config.n_queues, r));
}

static unsigned collect(struct run *run, unsigned queue)
{
    struct error e;
    struct driver_used used[DEPTH];
    int n = driver_poll(run->disk->drivers[queue], used, DEPTH, &e);
    if (n < 0)
        fail_msg("%s", e.text);
    for (int k = 0; k < n; k++) {
        struct guest_request *r = (struct guest_request *)used[k].chain;
        check_outcome(r, used[k].len);
        run->outcomes[run->op_of[r - run->requests]] =
            (struct outcome){*r->status, used[k].len,
                             guest_request_is_read(r->type) ? sum_of(r->data, r->bytes) : 0};
    }
    return (unsigned)n;
}

static void collect_all(struct run *run, unsigned n)
{
    time_t deadline = time(NULL) + 60;
    while (n) {
        for (unsigned q = 0; q < run->disk->config.n_queues; q++)
            n -= collect(run, q);
        if (time(NULL) > deadline)
            fail_msg("%u requests did not come back", n);
    }
}

// Every run starts from a disk of zeros.
static void clear_disk(struct run *run)
{
    struct error e;
    struct guest_request *r = &run->requests[0];
    memset(shadow, 0, sizeof shadow);
    for (uint64_t sector = 0; sector < SECTORS; sector += IO_MAX / 512) {
        guest_request_prepare(r, VIRTIO_BLK_T_OUT, sector, IO_MAX, GUEST_REQUEST_DIRECT);
        memset(r->data, 0, IO_MAX);
        if (guest_disk_run(run->disk, 0, r, &e) < 0)
            fail_msg("%s", e.text);
        assert_int_equal(*r->status, VIRTIO_BLK_S_OK);
    }
}

struct way {
    const char *name;
    uint64_t features;
    unsigned n_queues, n_regions;
    enum guest_request_form form;
    unsigned n_segments;
    bool is_joined;
};

static void do_run(const char *disk, const struct way *way, struct outcome *outcomes)
{
    struct run run = {.outcomes = outcomes, .form = way->form, .n_segments = way->n_segments};
    struct error e;
    run.disk = daemon_connect(&sluiced, disk, way->features, way->n_queues, way->n_regions,
                              way->n_regions > 1 ? HOLE : 0);
    if (!way->is_joined)
        check_ok(guest_request_open(run.requests, DEPTH, run.disk->guest, IO_MAX, &e), &e);
    for (unsigned i = 0; way->is_joined && i < DEPTH; i++)
        check_ok(guest_request_open_joined(&run.requests[i], run.disk->guest, IO_MAX, &e), &e);
    clear_disk(&run);
    for (unsigned op = 0; op < N_OPS; op += DEPTH) {
        for (unsigned i = 0; i < DEPTH; i++)
            submit(&run, i, op + i);
        collect_all(&run, DEPTH);
    }
    check_ok(guest_disk_stop(run.disk, &e), &e);
    guest_request_close(run.requests, DEPTH);
    guest_disk_close(run.disk);
}

static void compare(const char *disk, const struct way *way, const struct outcome *expected,
                    const struct outcome *got)
{
    for (unsigned i = 0; i < N_OPS; i++) {
        if (expected[i].status != got[i].status || expected[i].used_len != got[i].used_len ||
            expected[i].sum != got[i].sum)
            fail_msg("%s, %s, operation %u: status %u, used %u, data %llx; expected %u, %u, %llx",
                     disk, way->name, i, got[i].status, got[i].used_len,
                     (unsigned long long)got[i].sum, expected[i].status, expected[i].used_len,
                     (unsigned long long)expected[i].sum);
    }
}

static void test_same_in_every_way(void **state)
{
    (void)state;
    static const struct way ways[] = {
        {"split", 0, 1, 1, GUEST_REQUEST_DIRECT, 0, false},
        {"split, event index", EVENT, 2, 1, GUEST_REQUEST_DIRECT, 0, false},
        {"split, shredded", 0, 1, 1, GUEST_REQUEST_DIRECT, 14, false},
        {"split, joined", 0, 1, 1, GUEST_REQUEST_DIRECT, 0, true},
        {"split, joined, shredded", ORDER, 1, 1, GUEST_REQUEST_DIRECT, 14, true},
        {"split, indirect", INDIRECT | EVENT, 2, 8, GUEST_REQUEST_INDIRECT, 0, false},
        {"split, indirect, shredded", INDIRECT, 1, 1, GUEST_REQUEST_INDIRECT, 120, false},
        {"split, mixed, shredded", INDIRECT, 1, 1, GUEST_REQUEST_MIXED, 25, true},
        {"split, in order", ORDER | INDIRECT | EVENT, 2, 1, GUEST_REQUEST_MIXED, 20, false},
        {"packed", PACKED, 1, 1, GUEST_REQUEST_DIRECT, 0, false},
        {"packed, event index", PACKED | EVENT, 2, 1, GUEST_REQUEST_DIRECT, 0, false},
        {"packed, shredded", PACKED, 1, 1, GUEST_REQUEST_DIRECT, 14, false},
        {"packed, joined, shredded", PACKED | ORDER, 1, 1, GUEST_REQUEST_DIRECT, 14, true},
        {"packed, indirect", PACKED | INDIRECT, 2, 8, GUEST_REQUEST_INDIRECT, 0, false},
        {"packed, indirect, shredded", PACKED | INDIRECT, 1, 1, GUEST_REQUEST_INDIRECT, 120, true},
        {"packed, in order", PACKED | ORDER | EVENT, 2, 1, GUEST_REQUEST_DIRECT, 9, false},
        {"packed, 100 regions", PACKED | INDIRECT, 1, 100, GUEST_REQUEST_INDIRECT, 9, false},
    };
    struct outcome *expected = calloc(N_OPS, sizeof *expected), *got;
    for (unsigned d = 0; d < 2; d++) {
        const char *disk = d ? "file" : "ram";
        for (unsigned i = 0; i < ARRAY_LEN(ways); i++) {
            got = calloc(N_OPS, sizeof *got);
            do_run(disk, &ways[i], got);
            if (i || d)
                compare(disk, &ways[i], expected, got);
            else
                memcpy(expected, got, N_OPS * sizeof *got);
            free(got);
        }
    }
    free(expected);
}

// ---- memory ------------------------------------------------------------------------------

static int64_t run_checked(struct guest_disk *disk, struct guest_request *r)
{
    struct error e;
    int64_t used = guest_disk_run(disk, 0, r, &e);
    if (used < 0)
        fail_msg("%s", e.text);
    return used;
}

// Data that crosses from one region into the next, which is other memory for the back end.
static void test_buffer_over_two_regions(void **state)
{
    (void)state;
    static const uint64_t features[] = {0, PACKED};
    for (unsigned f = 0; f < ARRAY_LEN(features); f++) {
        struct error e;
        struct guest_request r;
        struct guest_disk *disk = daemon_connect(&sluiced, "file", features[f], 1, 6, 0);
        check_ok(guest_request_open(&r, 1, disk->guest, IO_MAX, &e), &e);
        const struct guest_region *last = &disk->guest->regions[5], *before = last - 1;
        assert_int_equal(before->guest_addr + before->bytes, last->guest_addr);
        assert_int_equal(last->n_allocated, 0);
        r.data_addr = last->guest_addr - 1000;
        r.data = guest_host(disk->guest, r.data_addr);
        uint8_t *copy = malloc(IO_MAX);
        fill(copy, IO_MAX, 5);
        memcpy(r.data, copy, IO_MAX);
        guest_request_prepare(&r, VIRTIO_BLK_T_OUT, 8, IO_MAX, GUEST_REQUEST_DIRECT);
        assert_int_equal(run_checked(disk, &r), 1);
        assert_int_equal(*r.status, VIRTIO_BLK_S_OK);
        memset(r.data, 0, IO_MAX);
        guest_request_prepare(&r, VIRTIO_BLK_T_IN, 8, IO_MAX, GUEST_REQUEST_DIRECT);
        assert_int_equal(run_checked(disk, &r), IO_MAX + 1);
        assert_memory_equal(r.data, copy, IO_MAX);
        free(copy);
        guest_disk_close(disk);
    }
}

static void turn_some(struct disk_load *load, unsigned n)
{
    struct error e;
    for (uint64_t left = n; left || disk_load_n_in_flight(load);) {
        if (disk_load_turn(load, &left, &e) < 0)
            fail_msg("%s", e.text);
    }
}

#define LATE 11 // a region that no ring lies in

// A region comes and goes under verified I/O in another one; while it is there, it works.
static void test_regions_come_and_go(void **state)
{
    (void)state;
    static const uint64_t features[] = {INDIRECT, INDIRECT | PACKED};
    for (unsigned f = 0; f < ARRAY_LEN(features); f++) {
        struct error e;
        struct guest_disk *disk = daemon_connect(&sluiced, "file", features[f], 2, LATE + 1, HOLE);
        struct disk_load_config c = {.pattern = DISK_LOAD_RANDRW,
                                     .block_bytes = 4096,
                                     .depth = 16,
                                     .form = GUEST_REQUEST_INDIRECT,
                                     .verify = true,
                                     .seed = 3};
        struct disk_load *load;
        struct guest_request late;
        struct guest *g = disk->guest;
        // The last region holds the late request and nothing else.
        struct guest_region *last = &g->regions[LATE];
        assert_int_equal(last->n_allocated, 0);
        last->n_allocated = last->bytes;
        check_ok(disk_load_open(&load, &disk, 1, &c, &e), &e);
        for (unsigned i = 0; i < LATE; i++)
            g->regions[i].n_allocated = g->regions[i].bytes;
        last->n_allocated = 0;
        check_ok(guest_request_open(&late, 1, g, 4096, &e), &e);
        for (unsigned i = 0; i < 30; i++) {
            uint64_t left = 64;
            if (disk_load_turn(load, &left, &e) < 0) // leaves requests in flight
                fail_msg("%s", e.text);
            check_ok(frontend_remove_region(disk->frontend, LATE, &e), &e);
            turn_some(load, 100);
            if (disk_load_turn(load, &left, &e) < 0)
                fail_msg("%s", e.text);
            check_ok(frontend_add_region(disk->frontend, LATE, &e), &e);
            turn_some(load, 0);
            guest_request_prepare(&late, VIRTIO_BLK_T_IN, 0, 4096, GUEST_REQUEST_INDIRECT);
            assert_int_equal(run_checked(disk, &late), 4097);
        }
        check_ok(guest_disk_stop(disk, &e), &e);
        disk_load_close(load);
        guest_disk_close(disk);
    }
}

// The load's own verification: data that changed behind the disk's back are noticed.
static void test_load_notices_wrong_data(void **state)
{
    (void)state;
    struct error e;
    char path[CHILD_PATH_MAX];
    struct disk_load *load;
    struct guest_disk *disk = daemon_connect(&sluiced, "file", 0, 1, 1, 0);
    struct disk_load_config c = {.pattern = DISK_LOAD_READ,
                                 .block_bytes = 4096,
                                 .depth = 8,
                                 .verify = true,
                                 .range_bytes = 1 << 20};
    check_ok(disk_load_open(&load, &disk, 1, &c, &e), &e);
    turn_some(load, 1000); // over the range several times: written, then read
    assert_int_equal(disk_load_stats(load, 0)->n_writes, 256);
    assert_int_equal(disk_load_stats(load, 0)->n_verified, 744);
    child_path(&sluiced.folder, path, "file.img");
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "wrong", 5, 777777), 5);
    close(fd);
    int rc = 0;
    for (uint64_t left = 300; rc >= 0 && (left || disk_load_n_in_flight(load));)
        rc = disk_load_turn(load, &left, &e);
    assert_true(rc < 0);
    assert_non_null(strstr(e.text, "is torn"));
    disk_load_close(load);
    guest_disk_close(disk);
}

// ---- dirty log ---------------------------------------------------------------------------

// Every page that the device changed is in the log, and a region it never wrote is not.
static void test_dirty_log(void **state)
{
    (void)state;
    static const uint64_t features[] = {INDIRECT, INDIRECT | PACKED};
    for (unsigned f = 0; f < ARRAY_LEN(features); f++) {
        struct error e;
        struct guest_request r[DEPTH];
        struct driver_areas areas;
        struct guest_disk *disk = daemon_connect(&sluiced, "ram", features[f], 1, 3, HOLE);
        struct guest *g = disk->guest;
        check_ok(guest_request_open(r, DEPTH, g, 16384, &e), &e);
        check_ok(frontend_start_log(disk->frontend, &e), &e);
        for (unsigned i = 0; i < DEPTH; i++) {
            uint32_t bytes = 512 * (1 + i);
            guest_request_prepare(&r[i], VIRTIO_BLK_T_IN, 8 * i, bytes, GUEST_REQUEST_INDIRECT);
            assert_int_equal(run_checked(disk, &r[i]), bytes + 1);
            assert_true(frontend_is_logged(disk->frontend, r[i].status_addr));
            for (uint32_t at = 0; at < 16384; at += 4096) {
                bool is_logged = frontend_is_logged(disk->frontend, r[i].data_addr + at);
                assert_int_equal(is_logged, at < bytes);
            }
        }
        driver_describe(disk->drivers[0], &areas);
        uint64_t used = features[f] & PACKED ? areas.desc : areas.device;
        assert_true(frontend_is_logged(disk->frontend, used));
        check_ok(frontend_stop_log(disk->frontend, &e), &e);
        memset(disk->frontend->log, 0, disk->frontend->log_bytes);
        guest_request_prepare(&r[0], VIRTIO_BLK_T_IN, 0, 512, GUEST_REQUEST_INDIRECT);
        run_checked(disk, &r[0]);
        assert_false(frontend_is_logged(disk->frontend, r[0].data_addr));
        check_ok(guest_disk_stop(disk, &e), &e);
        guest_request_close(r, DEPTH);
        guest_disk_close(disk);
    }
}

// ---- limits ------------------------------------------------------------------------------

static void test_more_queues_than_offered(void **state)
{
    (void)state;
    struct error e;
    struct guest_disk *disk = daemon_connect(&sluiced, "ram", 0, 2, 1, 0);
    assert_int_equal(disk->frontend->n_queues, 2);
    // A third ring is refused or ends the connection; either way with an answer.
    assert_true(frontend_set_ring(disk->frontend, VHOST_USER_SET_VRING_NUM, 2, 256, &e) < 0);
    guest_disk_close(disk);
    // The next front end is served as before.
    struct guest_request r;
    disk = daemon_connect(&sluiced, "ram", 0, 2, 1, 0);
    check_ok(guest_request_open(&r, 1, disk->guest, 4096, &e), &e);
    guest_request_prepare(&r, VIRTIO_BLK_T_IN, 0, 4096, GUEST_REQUEST_DIRECT);
    assert_int_equal(run_checked(disk, &r), 4097);
    guest_disk_close(disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_in_every_way),   cmocka_unit_test(test_buffer_over_two_regions),
        cmocka_unit_test(test_regions_come_and_go), cmocka_unit_test(test_load_notices_wrong_data),
        cmocka_unit_test(test_dirty_log),           cmocka_unit_test(test_more_queues_than_offered),
    };
    return cmocka_run_group_tests_name("disk_e2e", tests, start, stop);
}
