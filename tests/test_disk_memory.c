// SPDX-License-Identifier: Apache-2.0
// Guest memory changes under verified I/O, a thousand times: a region comes and goes, by
// messages for one region and by whole tables.
#include "bench/disk_load.h"
#include "bench/stamp.h"
#include "tests/check.h"
#include "tests/daemon.h"
#include "tests/disk_folder.h"
#include "tests/fuse_disk.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PACKED     VIRTIO_BIT(VIRTIO_F_RING_PACKED)
#define INDIRECT   VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC)
#define SLOTS      VIRTIO_BIT(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS)
#define HOLE       (UINT64_C(1) << 20)
#define DISK_BYTES (4u << 20)
#define LATE       7 // the region that comes and goes
#define N_LATE     8 // requests whose data lie there
#define LATE_BYTES 65536u
#define LATE_DISK  9 // of their stamps
#define PATIENCE_S 120

static struct daemon sluiced;

static int start(void **state)
{
    disk_folder_enter(state);
    daemon_open(&sluiced);
    daemon_add_disk(&sluiced, "ram", "ram=4M");
    daemon_add_file_disk(&sluiced, "file", DISK_BYTES, "");
    daemon_add_file_disk(&sluiced, "pinned", DISK_BYTES, "pin=on");
    daemon_start(&sluiced);
    return 0;
}

static int stop(void **state)
{
    daemon_stop(&sluiced);
    daemon_close(&sluiced);
    return disk_folder_leave(state);
}

// A load has the first half of the disk, and its data in regions that stay. The late requests
// have the second half, and theirs in the region that goes.
struct rig {
    struct guest_disk *disk;
    struct disk_load *load;
    struct guest_request late[N_LATE];
    uint32_t generation;
};

static struct guest_disk *connect_disk(const struct daemon *d, const char *name, uint64_t features,
                                       uint64_t protocol)
{
    const struct guest_disk_config c = {
        .features = features,
        .protocol = protocol,
        .n_queues = 1,
        .ring_size = 128,
        .table_entries = 4,
        .memory = {.n_regions = LATE + 1,
                   .region_bytes = 2 << 20,
                   .hole_bytes = HOLE,
                   .first_addr = UINT64_C(1) << 32},
    };
    return daemon_connect_as(d, name, c);
}

static void rig_open(struct rig *r, const struct daemon *d, const char *name, uint64_t features,
                     uint64_t protocol)
{
    struct error e;
    *r = (struct rig){.disk = connect_disk(d, name, features, protocol)};
    struct guest *g = r->disk->guest;
    const struct disk_load_config c = {.pattern = DISK_LOAD_RANDRW,
                                       .block_bytes = 4096,
                                       .depth = 16,
                                       .form = GUEST_REQUEST_INDIRECT,
                                       .verify = true,
                                       .range_bytes = DISK_BYTES / 2,
                                       .seed = 3};
    assert_int_equal(g->regions[LATE].n_allocated, 0);
    g->regions[LATE].n_allocated = g->regions[LATE].bytes;
    check_ok(disk_load_open(&r->load, &r->disk, 1, &c, &e), &e);
    check_ok(guest_request_open(r->late, N_LATE, g, 512, &e), &e);
    for (unsigned i = 0; i < N_LATE; i++) { // header and status stay where they are
        r->late[i].data_addr = g->regions[LATE].guest_addr + (uint64_t)i * LATE_BYTES;
        r->late[i].data = guest_host(g, r->late[i].data_addr);
        r->late[i].capacity = LATE_BYTES;
    }
}

static void rig_close(struct rig *r)
{
    struct error e;
    check_ok(guest_disk_stop(r->disk, &e), &e);
    disk_load_close(r->load);
    guest_request_close(r->late, N_LATE);
    guest_disk_close(r->disk);
}

static void turn(struct rig *r, uint64_t n, bool drain)
{
    struct error e;
    time_t deadline = time(NULL) + PATIENCE_S;
    while (n || (drain && disk_load_n_in_flight(r->load))) {
        if (disk_load_turn(r->load, &n, &e) < 0)
            fail_msg("%s", e.text);
        if (time(NULL) > deadline)
            fail_msg("requests do not come back");
    }
}

static void put_region(struct rig *r, bool is_there)
{
    struct error e;
    struct frontend *f = r->disk->frontend;
    int rc;
    if (f->protocol_features & SLOTS) {
        rc = is_there ? frontend_add_region(f, LATE, &e) : frontend_remove_region(f, LATE, &e);
    } else {
        f->guest->n_regions = LATE + is_there;
        rc = frontend_share_memory(f, &e);
        f->guest->n_regions = LATE + 1;
    }
    check_ok(rc, &e);
}

// All late requests at once.
static void late_submit(struct rig *r, uint32_t type)
{
    for (unsigned i = 0; i < N_LATE; i++) {
        struct guest_request *q = &r->late[i];
        uint64_t sector = (DISK_BYTES / 2 + (uint64_t)i * LATE_BYTES) / 512;
        struct stamp_key key = {LATE_DISK, r->generation, sector};
        guest_request_prepare(q, type, sector, LATE_BYTES, GUEST_REQUEST_INDIRECT);
        if (type == VIRTIO_BLK_T_OUT)
            stamp_write(q->data, LATE_BYTES, key);
        else
            memset(q->data, 0, LATE_BYTES);
        assert_true(guest_disk_submit(r->disk, 0, q));
    }
}

static void late_collect(struct rig *r)
{
    struct error e;
    struct driver_used used[N_LATE];
    time_t deadline = time(NULL) + PATIENCE_S;
    for (unsigned n = 0; n < N_LATE;) {
        int came = driver_poll(r->disk->drivers[0], used, N_LATE, &e);
        if (came < 0 || time(NULL) > deadline)
            fail_msg("%s", came < 0 ? e.text : "late requests do not come back");
        n += (unsigned)came;
    }
    for (unsigned i = 0; i < N_LATE; i++)
        assert_int_equal(*r->late[i].status, VIRTIO_BLK_S_OK);
}

static void late_check(const struct rig *r)
{
    struct error e;
    for (unsigned i = 0; i < N_LATE; i++) {
        struct stamp_key key = {LATE_DISK, r->generation, r->late[i].sector};
        check_ok(stamp_check(r->late[i].data, LATE_BYTES, key, &e), &e);
    }
}

// The region goes when its requests are back, as a guest gives memory up, and comes again: under a
// load in flight elsewhere.
static void cycle(struct rig *r)
{
    static const uint32_t types[] = {VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_IN};
    r->generation++;
    for (unsigned i = 0; i < ARRAY_LEN(types); i++) {
        turn(r, 0, true);
        late_submit(r, types[i]);
        late_collect(r);
        turn(r, 48, false);
        put_region(r, false);
        turn(r, 48, false);
        put_region(r, true);
    }
    late_check(r);
}

static void run_cycles(const char *name, uint64_t features, uint64_t protocol, unsigned n)
{
    struct rig r;
    rig_open(&r, &sluiced, name, features, protocol);
    for (unsigned i = 0; i < n; i++)
        cycle(&r);
    turn(&r, 0, true);
    const struct disk_load_stats *s = disk_load_stats(r.load, 0);
    assert_true(s->n_verified > 0);
    assert_int_equal(s->n_errors, 0);
    rig_close(&r);
}

// 1,512 removals and as many additions in all, 2,000 of each kind with --long.
static void test_memory_changes_a_thousand_times(void **state)
{
    (void)state;
    static const uint64_t layouts[] = {INDIRECT, INDIRECT | PACKED};
    static const uint64_t protocols[] = {GUEST_DISK_PROTOCOL, GUEST_DISK_PROTOCOL & ~SLOTS};
    static const char *const names[] = {"ram", "file", "pinned"};
    unsigned n = getenv("SLUICE_LONG") ? 1000 : 63; // tools/check --long
    for (unsigned i = 0; i < 12; i++)
        run_cycles(names[i / 4], layouts[i % 2], protocols[i / 2 % 2], n);
}

// ---- requests that hang in memory that goes ----------------------------------------------

struct removal {
    struct rig *rig;
    pthread_t thread;
    atomic_bool is_over;
};

static void *remove_region(void *argument)
{
    struct removal *m = argument;
    put_region(m->rig, false);
    m->is_over = true;
    return NULL;
}

// How many requests the device says it has taken, in the record that it shares.
static unsigned n_taken(const struct frontend *f, bool is_packed)
{
    uint8_t record[8192];
    unsigned entry_bytes = is_packed ? 32 : 16,
             n = 0; // "Inflight I/O tracking"; as large as the head
    ssize_t bytes = pread(f->inflight_fd, record, sizeof record, 0);
    for (ssize_t at = entry_bytes; at < bytes && at < entry_bytes * 129; at += entry_bytes)
        n += record[at] != 0;
    return n;
}

static void remove_under_hung_requests(const struct daemon *d, pid_t hung, uint64_t features)
{
    struct rig r, other;
    struct removal m = {.rig = &r};
    rig_open(&r, d, "hung", features, GUEST_DISK_PROTOCOL);
    rig_open(&other, &sluiced, "ram", features, GUEST_DISK_PROTOCOL);
    r.generation = 1;
    late_submit(&r, VIRTIO_BLK_T_OUT);
    late_collect(&r);
    fuse_disk_hang(hung);
    late_submit(&r, VIRTIO_BLK_T_OUT);
    time_t deadline = time(NULL) + PATIENCE_S;
    while (n_taken(r.disk->frontend, features & PACKED) < N_LATE)
        assert_true(time(NULL) <= deadline);
    assert_int_equal(pthread_create(&m.thread, NULL, remove_region, &m), 0);
    turn(&other, 2000, true); // another disk goes on meanwhile
    bool is_early = m.is_over;
    fuse_disk_resume(hung);
    pthread_join(m.thread, NULL);
    assert_false(is_early);
    late_collect(&r);
    put_region(&r, true);
    late_submit(&r, VIRTIO_BLK_T_IN);
    late_collect(&r);
    late_check(&r);
    rig_close(&other);
    rig_close(&r);
}

// The region stays until the last of them is back, and each of them ends well.
static void test_memory_goes_after_hung_requests(void **state)
{
    (void)state;
    static const char *const no_filter[] = {NULL};
    struct daemon apart;
    char folder[256], keys[300];
    pid_t hung = fuse_disk_start("hung", no_filter);
    daemon_open(&apart);
    assert_non_null(getcwd(folder, sizeof folder));
    snprintf(keys, sizeof keys, "file=%s/hung", folder);
    daemon_add_disk(&apart, "hung", keys);
    daemon_start(&apart);
    remove_under_hung_requests(&apart, hung, INDIRECT);
    remove_under_hung_requests(&apart, hung, INDIRECT | PACKED);
    daemon_stop(&apart);
    daemon_close(&apart);
    fuse_disk_stop(hung);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_changes_a_thousand_times),
        cmocka_unit_test(test_memory_goes_after_hung_requests),
    };
    return cmocka_run_group_tests_name("disk_memory", tests, start, stop);
}
