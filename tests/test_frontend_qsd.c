// SPDX-License-Identifier: Apache-2.0
// Our front end and driver against a back end that is not ours: QEMU's storage daemon.
//
// Its vhost-user-blk export knows split rings only (no RING_PACKED, no IN_ORDER), so packed
// rings are tested against the model in test_driver.c and against sluiced. It takes an indirect
// descriptor only as the head of a chain, so mixed chains (2.7.5.3.2) are, too.
#include "bench/guest_disk.h"
#include "tests/check.h"
#include "tests/child.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DISK_BYTES (16u << 20)
#define SECTORS    (DISK_BYTES / 512)
#define DEPTH      16
#define IO_MAX     (64u << 10)

static struct {
    struct child_folder folder;
    char socket[CHILD_PATH_MAX];
    pid_t pid;
    uint8_t *shadow; // what the disk must hold
} daemon_state;

static int start_daemon(void **state)
{
    (void)state;
    char image[CHILD_PATH_MAX], blockdev[256], export_option[256];
    child_folder_open(&daemon_state.folder);
    child_path(&daemon_state.folder, image, "image");
    child_path(&daemon_state.folder, daemon_state.socket, "socket");
    child_make_file(image, DISK_BYTES);
    snprintf(blockdev, sizeof blockdev, "driver=file,node-name=f,filename=%s", image);
    snprintf(export_option, sizeof export_option,
             "type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path=%s,writable=on,"
             "num-queues=2",
             daemon_state.socket);
    char *argv[] = {"qemu-storage-daemon", "--blockdev", blockdev, "--export", export_option, NULL};
    daemon_state.pid = child_start(argv);
    daemon_state.shadow = calloc(1, DISK_BYTES);
    child_wait_for_socket(daemon_state.pid, daemon_state.socket, 30);
    return daemon_state.shadow ? 0 : -1;
}

static int stop_daemon(void **state)
{
    (void)state;
    child_stop(daemon_state.pid, 30);
    child_folder_close(&daemon_state.folder);
    free(daemon_state.shadow);
    return 0;
}

struct way {
    const char *name;
    uint64_t features;
    unsigned n_queues;
    unsigned n_regions;
    enum guest_request_form form;
    unsigned n_segments; // 0: header, data and status are one segment each
    bool is_interrupted; // waits for interrupts instead of polling
    uint64_t without;    // protocol features that are not acknowledged
};

static const uint64_t indirect = VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC);
static const uint64_t event_idx = VIRTIO_BIT(VIRTIO_F_EVENT_IDX);
static const uint64_t reply_ack = VIRTIO_BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK);
static const uint64_t mem_slots = VIRTIO_BIT(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS);

struct run {
    const struct way *way;
    struct guest_disk *disk;
    struct guest_request requests[DEPTH];
    uint64_t seed;
};

static void open_run(struct run *run, const struct way *way)
{
    struct error e;
    struct guest_disk_config c = {
        .path = daemon_state.socket,
        .features = way->features,
        .protocol = GUEST_DISK_PROTOCOL & ~way->without,
        .n_queues = way->n_queues,
        .ring_size = 256,
        .table_entries = way->features & indirect ? GUEST_REQUEST_SEGMENTS_MAX : 0,
        .memory = {way->n_regions, 4 << 20, way->n_regions > 1 ? 1 << 20 : 0, 1 << 30, false,
                   false},
    };
    *run = (struct run){.way = way, .seed = 1};
    check_ok(guest_disk_open(&run->disk, &c, &e), &e);
    check_ok(guest_request_open(run->requests, DEPTH, run->disk->guest, IO_MAX, &e), &e);
}

static void close_run(struct run *run)
{
    struct error e;
    check_ok(guest_disk_stop(run->disk, &e), &e);
    guest_request_close(run->requests, DEPTH);
    guest_disk_close(run->disk);
}

// Request @i works on its own stretch of the disk, so that the order of requests is no matter.
static void submit(struct run *run, unsigned i)
{
    struct guest_request *r = &run->requests[i];
    const uint64_t stretch = SECTORS / DEPTH;
    uint32_t bytes = 512 * (1 + (uint32_t)random_below(&run->seed, IO_MAX / 512));
    uint64_t sector = i * stretch + random_below(&run->seed, stretch - bytes / 512);
    uint32_t type = random_below(&run->seed, 2) ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN;
    if (type == VIRTIO_BLK_T_OUT) {
        for (uint32_t at = 0; at < bytes; at += 8)
            memcpy(r->data + at, &(uint64_t){random_next(&run->seed)}, 8);
        memcpy(daemon_state.shadow + sector * 512, r->data, bytes);
    } else {
        memset(r->data, 0xa5, bytes);
    }
    guest_request_prepare(r, type, sector, bytes, run->way->form);
    if (run->way->n_segments)
        guest_request_shred(r, run->way->n_segments, run->way->form, &run->seed);
    assert_true(guest_disk_submit(run->disk, i % run->way->n_queues, r));
}

static void check_result(const struct guest_request *r, uint32_t used_len)
{
    assert_int_equal(*r->status, VIRTIO_BLK_S_OK);
    if (r->type != VIRTIO_BLK_T_IN)
        return;
    assert_int_equal(used_len, r->bytes + 1);
    assert_memory_equal(r->data, daemon_state.shadow + r->sector * 512, r->bytes);
}

static void wait_for_interrupt(struct run *run, unsigned queue)
{
    struct driver *d = run->disk->drivers[queue];
    if (driver_n_in_flight(d) && driver_arm(d)) {
        assert_true(frontend_wait_call(run->disk->frontend, queue, 30000));
        driver_disarm(d);
    }
}

static unsigned collect(struct run *run, unsigned queue)
{
    struct error e;
    struct driver_used used[DEPTH];
    int n = driver_poll(run->disk->drivers[queue], used, DEPTH, &e);
    if (n < 0)
        fail_msg("%s: %s", run->way->name, e.text);
    for (int k = 0; k < n; k++)
        check_result((struct guest_request *)used[k].chain, used[k].len);
    if (!n && run->way->is_interrupted)
        wait_for_interrupt(run, queue);
    return (unsigned)n;
}

static void do_io(struct run *run)
{
    for (unsigned round = 0; round < 40; round++) {
        for (unsigned i = 0; i < DEPTH; i++)
            submit(run, i);
        time_t deadline = time(NULL) + 60;
        for (unsigned left = DEPTH; left;) {
            for (unsigned q = 0; q < run->way->n_queues; q++)
                left -= collect(run, q);
            if (time(NULL) > deadline)
                fail_msg("%s: %u requests did not come back", run->way->name, left);
        }
    }
}

static void test_verified_io(void **state)
{
    (void)state;
    static const struct way ways[] = {
        {"direct", 0, 1, 1, GUEST_REQUEST_DIRECT, 0, false, 0},
        {"direct, shredded", 0, 1, 1, GUEST_REQUEST_DIRECT, 12, false, 0},
        {"indirect", indirect, 1, 1, GUEST_REQUEST_INDIRECT, 0, false, 0},
        {"indirect, shredded", indirect, 1, 1, GUEST_REQUEST_INDIRECT, 100, false, 0},
        {"event index", event_idx, 1, 1, GUEST_REQUEST_DIRECT, 0, false, 0},
        {"interrupts", 0, 1, 1, GUEST_REQUEST_DIRECT, 0, true, 0},
        {"interrupts, event index", event_idx, 1, 1, GUEST_REQUEST_DIRECT, 0, true, 0},
        {"two queues", indirect | event_idx, 2, 1, GUEST_REQUEST_INDIRECT, 0, false, 0},
        {"without acknowledgements", 0, 2, 1, GUEST_REQUEST_DIRECT, 0, false, reply_ack},
        {"a memory table", 0, 2, 8, GUEST_REQUEST_DIRECT, 0, false, mem_slots},
        {"no protocol features", event_idx, 1, 3, GUEST_REQUEST_DIRECT, 0, false, UINT64_MAX},
        {"eight regions", indirect, 2, 8, GUEST_REQUEST_INDIRECT, 30, false, 0},
    };
    for (unsigned i = 0; i < ARRAY_LEN(ways); i++) {
        struct run run;
        open_run(&run, &ways[i]);
        do_io(&run);
        close_run(&run);
    }
}

static const struct way plain = {"plain", 0, 1, 1, GUEST_REQUEST_DIRECT, 0, false, 0};

static void test_other_requests(void **state)
{
    (void)state;
    static const struct {
        uint32_t type, bytes;
        uint64_t sector;
        uint8_t status;
    } cases[] = {
        {VIRTIO_BLK_T_FLUSH, 0, 0, VIRTIO_BLK_S_OK},
        {VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_ID_BYTES, 0, VIRTIO_BLK_S_OK},
        {0x7777, 0, 0, VIRTIO_BLK_S_UNSUPP},
        {VIRTIO_BLK_T_IN, 4096, SECTORS - 7, VIRTIO_BLK_S_IOERR}, // over the end
        {VIRTIO_BLK_T_OUT, 512, UINT64_MAX / 512, VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_IN, 512, SECTORS - 1, VIRTIO_BLK_S_OK},
    };
    struct run run;
    struct error e;
    open_run(&run, &plain);
    assert_int_equal(run.disk->space.capacity, SECTORS);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct guest_request *r = &run.requests[0];
        guest_request_prepare(r, cases[i].type, cases[i].sector, cases[i].bytes,
                              GUEST_REQUEST_DIRECT);
        int64_t used = guest_disk_run(run.disk, 0, r, &e);
        if (used < 0)
            fail_msg("case %u: %s", i, e.text);
        assert_int_equal(*r->status, cases[i].status);
    }
    close_run(&run);
}

static void test_stops_and_goes_on(void **state)
{
    (void)state;
    struct run run;
    struct error e;
    open_run(&run, &plain);
    for (unsigned i = 0; i < 3; i++) {
        do_io(&run);
        check_ok(guest_disk_stop(run.disk, &e), &e);
        check_ok(guest_disk_start(run.disk, &e), &e);
    }
    close_run(&run);
}

// What the other side lacks is an error with a sentence, not a run without it.
static void test_says_what_is_not_offered(void **state)
{
    (void)state;
    struct error e;
    struct guest_disk *disk;
    struct guest_disk_config c = {
        .path = daemon_state.socket,
        .features = VIRTIO_BIT(VIRTIO_F_RING_PACKED),
        .protocol = GUEST_DISK_PROTOCOL,
        .n_queues = 1,
        .ring_size = 16,
        .memory = {1, 1 << 20, 0, 0, false, false},
    };
    assert_true(guest_disk_open(&disk, &c, &e) < 0);
    assert_non_null(strstr(e.text, "does not offer packed rings"));
    c.features = 0;
    c.n_queues = 3;
    assert_true(guest_disk_open(&disk, &c, &e) < 0);
    assert_non_null(strstr(e.text, "queues, not 3"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verified_io),
        cmocka_unit_test(test_other_requests),
        cmocka_unit_test(test_stops_and_goes_on),
        cmocka_unit_test(test_says_what_is_not_offered),
    };
    return cmocka_run_group_tests_name("frontend_qsd", tests, start_daemon, stop_daemon);
}
