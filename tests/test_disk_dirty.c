// SPDX-License-Identifier: Apache-2.0
// The dirty log of a live migration: every page that the device changed is in it, whatever the
// request; logging starts and stops while rings run and requests are out.
#include "tests/check.h"
#include "tests/daemon.h"
#include "tests/disk_folder.h"
#include "tests/fuse_disk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PACKED   VIRTIO_BIT(VIRTIO_F_RING_PACKED)
#define EVENT    VIRTIO_BIT(VIRTIO_F_EVENT_IDX)
#define ORDER    VIRTIO_BIT(VIRTIO_F_IN_ORDER)
#define INDIRECT VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC)

#define DISK_BYTES (4u << 20)
#define PAGE       4096u
#define DEPTH      12
#define RING_SIZE  1024
#define N_ROUNDS   200 // twice round the ring
#define IO_MAX     (24u << 10)
#define HOLE       (UINT64_C(1) << 20)
#define PATIENCE_S 60

static struct daemon sluiced;

static const uint64_t layouts[] = {INDIRECT, INDIRECT | EVENT, INDIRECT | ORDER, INDIRECT | PACKED,
                                   INDIRECT | PACKED | EVENT};

static int start(void **state)
{
    disk_folder_enter(state);
    daemon_open(&sluiced);
    daemon_add_disk(&sluiced, "ram", "ram=4M serial=dirty");
    daemon_add_file_disk(&sluiced, "file", DISK_BYTES, "serial=dirty");
    daemon_start(&sluiced);
    return 0;
}

static int stop(void **state)
{
    daemon_stop(&sluiced);
    daemon_close(&sluiced);
    return disk_folder_leave(state);
}

// ---- what changed, and what is logged ----------------------------------------------------

struct watch {
    struct guest_disk *disk;
    struct guest_request requests[DEPTH];
    uint8_t *before; // a copy of guest memory
    uint64_t n_changed;
    bool is_seen[3]; // changes in data, status and rings
};

// Its rings are of several pages.
static struct guest_disk *connect_disk(const struct daemon *d, const char *name, uint64_t features)
{
    const struct guest_disk_config c = {
        .features = features,
        .protocol = GUEST_DISK_PROTOCOL | VIRTIO_BIT(VHOST_USER_PROTOCOL_F_LOG_SHMFD),
        .n_queues = 1,
        .ring_size = RING_SIZE,
        .table_entries = 16,
        .memory = {.n_regions = 3,
                   .region_bytes = 1 << 20,
                   .hole_bytes = HOLE,
                   .first_addr = UINT64_C(1) << 32},
    };
    return daemon_connect_as(d, name, c);
}

static void watch_open(struct watch *w, const struct daemon *d, const char *name, uint64_t features)
{
    struct error e;
    *w = (struct watch){.disk = connect_disk(d, name, features)};
    check_ok(guest_request_open(w->requests, DEPTH, w->disk->guest, IO_MAX, &e), &e);
    w->before = malloc(w->disk->guest->span_bytes);
    assert_non_null(w->before);
}

static void watch_close(struct watch *w)
{
    struct error e;
    check_ok(guest_disk_stop(w->disk, &e), &e);
    guest_request_close(w->requests, DEPTH);
    guest_disk_close(w->disk);
    free(w->before);
}

static void clear_log(const struct watch *w)
{
    memset(w->disk->frontend->log, 0, w->disk->frontend->log_bytes);
}

static void remember(struct watch *w)
{
    const struct guest *g = w->disk->guest;
    for (unsigned i = 0; i < g->n_regions; i++) {
        uint64_t at = g->regions[i].guest_addr - g->first_addr;
        memcpy(w->before + at, g->host + at, g->regions[i].bytes);
    }
}

// What the driver stores when it publishes is its own business: 2.7.6, 2.8.14.
static void forget_driver_area(struct watch *w)
{
    struct driver_areas areas;
    const struct driver *d = w->disk->drivers[0];
    const struct guest *g = w->disk->guest;
    driver_describe(d, &areas);
    bool is_packed = w->disk->config.features & PACKED;
    uint64_t bytes = is_packed ? 4 : 6 + 2 * (uint64_t)driver_size(d);
    memcpy(w->before + (areas.driver - g->first_addr), guest_host(g, areas.driver), bytes);
}

static void note_kind(struct watch *w, uint64_t page)
{
    struct driver_areas areas;
    driver_describe(w->disk->drivers[0], &areas);
    uint64_t used = w->disk->config.features & PACKED ? areas.desc : areas.device;
    w->is_seen[2] |= page == used / PAGE * PAGE;
    for (unsigned i = 0; i < DEPTH; i++) {
        const struct guest_request *r = &w->requests[i];
        w->is_seen[0] |= page >= r->data_addr && page < r->data_addr + r->capacity;
        w->is_seen[1] |= page == r->status_addr / PAGE * PAGE;
    }
}

static void check_page(struct watch *w, uint64_t addr)
{
    const struct guest *g = w->disk->guest;
    if (!memcmp(w->before + (addr - g->first_addr), guest_host(g, addr), PAGE))
        return;
    if (!frontend_is_logged(w->disk->frontend, addr))
        fail_msg("the page at %#llx changed and is not in the log", (unsigned long long)addr);
    w->n_changed++;
    note_kind(w, addr);
}

static void check_log(struct watch *w)
{
    const struct guest *g = w->disk->guest;
    forget_driver_area(w);
    for (unsigned i = 0; i < g->n_regions; i++) {
        const struct guest_region *r = &g->regions[i];
        for (uint64_t at = 0; at < r->bytes; at += PAGE)
            check_page(w, r->guest_addr + at);
    }
}

static bool is_log_clear(const struct watch *w)
{
    const struct frontend *f = w->disk->frontend;
    for (uint64_t i = 0; i < f->log_bytes; i++) {
        if (f->log[i])
            return false;
    }
    return true;
}

// ---- requests ----------------------------------------------------------------------------

// All types, good and bad ones, in every form.
static void prepare(struct watch *w, unsigned i, uint64_t *seed)
{
    static const uint32_t types[] = {
        VIRTIO_BLK_T_IN,
        VIRTIO_BLK_T_IN,
        VIRTIO_BLK_T_OUT,
        VIRTIO_BLK_T_FLUSH,
        VIRTIO_BLK_T_GET_ID,
        VIRTIO_BLK_T_DISCARD,
        0x4711,
        VIRTIO_BLK_T_WRITE_ZEROES,
        VIRTIO_BLK_T_SECURE_ERASE,
        VIRTIO_BLK_T_IN,
        VIRTIO_BLK_T_GET_LIFETIME,
    };
    struct guest_request *r = &w->requests[i];
    enum guest_request_form form =
        random_below(seed, 2) ? GUEST_REQUEST_INDIRECT : GUEST_REQUEST_DIRECT;
    uint32_t type = types[random_below(seed, ARRAY_LEN(types))];
    uint32_t bytes = 512 * (1 + (uint32_t)random_below(seed, IO_MAX / 512));
    uint64_t sector = random_below(seed, DISK_BYTES / 512); // some reach beyond the end
    if (type == VIRTIO_BLK_T_GET_ID)
        bytes = VIRTIO_BLK_ID_BYTES;
    if (type == VIRTIO_BLK_T_FLUSH)
        bytes = 0;
    for (uint32_t k = 0; k < bytes; k++)
        r->data[k] = (uint8_t)random_next(seed);
    bool is_range = type == VIRTIO_BLK_T_DISCARD || type == VIRTIO_BLK_T_WRITE_ZEROES;
    if (is_range) {
        bytes = sizeof(struct virtio_blk_discard_write_zeroes);
        *(struct virtio_blk_discard_write_zeroes *)(void *)r->data =
            (struct virtio_blk_discard_write_zeroes){sector, 8, 0};
    }
    guest_request_prepare(r, type, is_range ? 0 : sector, bytes, form);
    if (random_below(seed, 2))
        guest_request_shred(r, 12, form, seed);
}

static void add_all(struct watch *w)
{
    for (unsigned i = 0; i < DEPTH; i++) {
        struct driver_chain *c = &w->requests[i].chain;
        assert_int_equal(driver_add(w->disk->drivers[0], &c, 1), 1);
    }
}

static void publish(struct watch *w)
{
    if (driver_publish(w->disk->drivers[0]))
        frontend_kick(w->disk->frontend, 0);
}

static void collect_all(struct watch *w)
{
    struct error e;
    struct driver_used used[DEPTH];
    time_t deadline = time(NULL) + PATIENCE_S;
    for (unsigned n = 0; n < DEPTH;) {
        int came = driver_poll(w->disk->drivers[0], used, DEPTH, &e);
        if (came < 0 || time(NULL) > deadline)
            fail_msg("%s", came < 0 ? e.text : "requests do not come back");
        n += (unsigned)came;
    }
}

// Of another part of the disk each round, beyond what was read ahead: not in a page cache.
static void prepare_reads(struct watch *w, unsigned round)
{
    uint64_t first = (uint64_t)(round % 5) * (DISK_BYTES / 512 / 5);
    for (unsigned i = 0; i < DEPTH; i++) {
        memset(w->requests[i].data, (int)(0x40 + round % 8), IO_MAX);
        guest_request_prepare(&w->requests[i], VIRTIO_BLK_T_IN, first + (uint64_t)i * 64, IO_MAX,
                              GUEST_REQUEST_INDIRECT);
    }
}

// ---- tests -------------------------------------------------------------------------------

static void check_types(const char *name, uint64_t features)
{
    struct error e;
    struct watch w;
    uint64_t seed = features;
    watch_open(&w, &sluiced, name, features);
    check_ok(frontend_start_log(w.disk->frontend, &e), &e);
    for (unsigned round = 0; round < N_ROUNDS; round++) {
        for (unsigned i = 0; i < DEPTH; i++)
            prepare(&w, i, &seed);
        if (round % 2)
            driver_arm(w.disk->drivers[0]);
        add_all(&w);
        remember(&w);
        clear_log(&w);
        publish(&w);
        collect_all(&w);
        check_log(&w);
        driver_disarm(w.disk->drivers[0]);
    }
    assert_true(w.is_seen[0] && w.is_seen[1] && w.is_seen[2]);
    watch_close(&w);
}

static void test_every_changed_page_is_logged(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(layouts); i++) {
        check_types("ram", layouts[i]);
        check_types("file", layouts[i]);
    }
}

// Logging begins while requests are out: what they write from then on is logged. It ends in the
// same way, and later requests leave no trace. @hung serves the disk, or is 0.
static void start_and_stop(struct watch *w, unsigned round, pid_t hung)
{
    struct error e;
    prepare_reads(w, round);
    add_all(w);
    if (hung)
        fuse_disk_hang(hung);
    publish(w);
    check_ok(frontend_start_log(w->disk->frontend, &e), &e);
    remember(w);
    if (hung)
        fuse_disk_resume(hung);
    collect_all(w);
    check_log(w);

    prepare_reads(w, round);
    add_all(w);
    publish(w);
    check_ok(frontend_stop_log(w->disk->frontend, &e), &e);
    collect_all(w);
    clear_log(w);
    prepare_reads(w, round);
    add_all(w);
    publish(w);
    collect_all(w);
    assert_true(is_log_clear(w));
}

static void test_logging_starts_and_stops_on_live_rings(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(layouts); i++) {
        struct watch w;
        watch_open(&w, &sluiced, "file", layouts[i]);
        for (unsigned round = 0; round < 20; round++)
            start_and_stop(&w, round, 0);
        watch_close(&w);
    }
}

static void test_logging_starts_under_hung_requests(void **state)
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
    for (unsigned i = 0; i < ARRAY_LEN(layouts); i++) {
        struct watch w;
        watch_open(&w, &apart, "hung", layouts[i]);
        start_and_stop(&w, i, hung);
        assert_true(w.n_changed >= DEPTH * IO_MAX / PAGE);
        assert_true(w.is_seen[0] && w.is_seen[1] && w.is_seen[2]);
        watch_close(&w);
    }
    daemon_stop(&apart);
    daemon_close(&apart);
    fuse_disk_stop(hung);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_changed_page_is_logged),
        cmocka_unit_test(test_logging_starts_and_stops_on_live_rings),
        cmocka_unit_test(test_logging_starts_under_hung_requests),
    };
    return cmocka_run_group_tests_name("disk_dirty", tests, start, stop);
}
