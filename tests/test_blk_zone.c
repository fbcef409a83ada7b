// SPDX-License-Identifier: Apache-2.0
// Requests to a zoned disk: what each comes back with, and what lies in the disk after it.
#include "bench/guest_request.h"
#include "devices/disk.h"
#include "devices/disk_zoned.h"
#include "tests/disk_rig.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define ZONE    128u // sectors: 64 KiB
#define ZONES   16u
#define SECTORS (ZONE * ZONES)

enum { OK, IOERR, UNSUPP, INVALID, UNALIGNED, OPEN_MAX_HIT, ACTIVE_MAX_HIT };
enum {
    IN = VIRTIO_BLK_T_IN,
    OUT = VIRTIO_BLK_T_OUT,
    APPEND = VIRTIO_BLK_T_ZONE_APPEND,
    REPORT = VIRTIO_BLK_T_ZONE_REPORT,
    OPEN = VIRTIO_BLK_T_ZONE_OPEN,
    CLOSE = VIRTIO_BLK_T_ZONE_CLOSE,
    FINISH = VIRTIO_BLK_T_ZONE_FINISH,
    RESET = VIRTIO_BLK_T_ZONE_RESET,
    RESET_ALL = VIRTIO_BLK_T_ZONE_RESET_ALL,
};

static const uint64_t zoned = VIRTIO_BIT(VIRTIO_BLK_F_ZONED);

static const char ram[] = "disk d socket=/unused ram=1M zoned=64K";
static const char limited[] = "disk d socket=/unused ram=1M zoned=64K zones-open=2 zones-active=3";

static struct disk_call call_of(uint32_t type, uint64_t sector, const void *out, uint32_t n_out,
                                uint32_t n_in)
{
    return (struct disk_call){.type = type,
                              .sector = sector,
                              .out = out,
                              .n_out = n_out,
                              .n_in = n_in,
                              .n_header = 16,
                              .has_status = true};
}

// The status of one request.
static int ask(struct disk_rig *d, uint32_t type, uint64_t sector, uint32_t n_out, uint32_t n_in)
{
    struct disk_call c = call_of(type, sector, NULL, n_out, n_in);
    assert_int_equal(disk_rig_run(d, DISK_PLAIN, &c, 1), 1);
    return c.status;
}

// ---- statuses and used lengths -----------------------------------------------------------

struct step {
    uint32_t type;
    uint64_t sector;
    uint32_t n_out, n_in;
    int status;
    uint32_t used;
};

// One after the other, on a disk that allows two open zones and three active ones.
static const struct step steps[] = {
    {OUT, 0, 512, 0, OK, 1},
    {OUT, 0, 512, 0, UNALIGNED, 1},
    {OUT, 2, 512, 0, UNALIGNED, 1},
    {OUT, ZONE + 1, 512, 0, UNALIGNED, 1},
    {OUT, 1, 512 * ZONE, 0, INVALID, 1}, // into the next zone
    {OUT, 1, 0, 0, OK, 1},
    {OUT, SECTORS, 512, 0, IOERR, 1}, // beyond the capacity
    {OUT, UINT64_MAX, 512, 0, IOERR, 1},
    {OUT, 1, 513, 0, IOERR, 1},
    {IN, 0, 0, 512, OK, 513},
    {IN, 0, 0, 1536, OK, 1537}, // mostly unwritten
    {IN, 64, 0, 1024, OK, 1025},
    {IN, ZONE - 1, 0, 1024, INVALID, 0},
    {IN, SECTORS, 0, 512, IOERR, 0},

    {APPEND, 0, 1024, 8, OK, 9},
    {APPEND, 1, 512, 8, INVALID, 0},                 // not where the zone begins
    {APPEND, 0, 512 * ZONE, 8, INVALID, 0},          // more than is left
    {APPEND, ZONE, 512 * (ZONE + 1), 8, INVALID, 0}, // more than a zone has
    {APPEND, 0, 512, 12, OK, 0},                     // four bytes before the sector stay
    {APPEND, 0, 0, 8, OK, 9},
    {APPEND, 0, 511, 8, IOERR, 0},
    {APPEND, 0, 512, 7, IOERR, 0}, // no room for the sector
    {APPEND, 0, 512, 0, IOERR, 1},
    {APPEND, SECTORS, 512, 8, INVALID, 0},
    {APPEND, UINT64_MAX, 512, 8, INVALID, 0},

    {CLOSE, ZONE, 0, 0, INVALID, 1}, // empty
    {OPEN, 2 * ZONE, 0, 0, OK, 1},
    {OPEN, 2 * ZONE, 0, 0, OK, 1},
    {OPEN, 3 * ZONE, 0, 0, OK, 1}, // the first zone closes for it
    {OPEN, 4 * ZONE, 0, 0, ACTIVE_MAX_HIT, 1},
    {OUT, 4 * ZONE, 512, 0, ACTIVE_MAX_HIT, 1},
    {APPEND, 4 * ZONE, 512, 8, ACTIVE_MAX_HIT, 0},
    {OUT, 4, 512, 0, OPEN_MAX_HIT, 1}, // closed, and the open ones were opened on purpose
    {APPEND, 0, 512, 8, OPEN_MAX_HIT, 0},
    {OPEN, 0, 0, 0, OPEN_MAX_HIT, 1},
    {CLOSE, 2 * ZONE, 0, 0, OK, 1}, // empty again
    {OUT, 4, 512, 0, OK, 1},
    {CLOSE, 0, 0, 0, OK, 1},
    {CLOSE, 0, 0, 0, OK, 1},
    {FINISH, 0, 0, 0, OK, 1},
    {FINISH, 0, 0, 0, OK, 1},
    {OUT, 5, 512, 0, INVALID, 1},
    {APPEND, 0, 512, 8, INVALID, 0},
    {OPEN, 0, 0, 0, INVALID, 1},
    {CLOSE, 0, 0, 0, INVALID, 1},
    {IN, 0, 0, 4096, OK, 4097},
    {RESET, 0, 0, 0, OK, 1},
    {RESET, 0, 0, 0, OK, 1},
    {OUT, 0, 512 * ZONE, 0, OK, 1}, // full at once
    {OUT, ZONE, 512, 0, OK, 1},

    {OPEN, 1, 0, 0, INVALID, 1}, // not where a zone begins
    {CLOSE, ZONE + 1, 0, 0, INVALID, 1},
    {FINISH, SECTORS, 0, 0, INVALID, 1},
    {RESET, UINT64_MAX, 0, 0, INVALID, 1},
    {RESET, UINT64_MAX - ZONE + 1, 0, 0, INVALID, 1},
    {RESET, UINT64_C(1) << 55, 0, 0, INVALID, 1}, // × 512 is 0

    {REPORT, 0, 0, 64, OK, 65},
    {REPORT, 0, 0, 63, INVALID, 0},
    {REPORT, 0, 0, 0, INVALID, 1},
    {REPORT, 5, 0, 192, OK, 193},
    {REPORT, 5, 0, 200, OK, 192},            // two whole ones
    {REPORT, SECTORS - 1, 0, 4096, OK, 128}, // the last one
    {REPORT, 0, 0, 64 * (ZONES + 1), OK, 64 * (ZONES + 1) + 1},
    {REPORT, SECTORS, 0, 4096, INVALID, 0},
    {REPORT, UINT64_MAX, 0, 4096, INVALID, 0},

    {VIRTIO_BLK_T_DISCARD, 0, 16, 0, UNSUPP, 1},
    {VIRTIO_BLK_T_WRITE_ZEROES, 0, 16, 0, UNSUPP, 1},
    {VIRTIO_BLK_T_SECURE_ERASE, 0, 16, 0, UNSUPP, 1},
    {VIRTIO_BLK_T_FLUSH, 0, 0, 0, OK, 1},
    {17, 0, 0, 0, UNSUPP, 1},
    {RESET_ALL, 77, 0, 0, OK, 1}, // the sector is not used
    {RESET_ALL, UINT64_MAX, 0, 0, OK, 1},
    {OUT, 3 * ZONE, 512, 0, OK, 1},
};

static void each_request_has_its_status(void **state)
{
    (void)state;
    static const uint8_t data[512 * (ZONE + 1)];
    for (unsigned i = 0; i < 2 * disk_n_shapes; i++) {
        const struct disk_shape *shape = &disk_shapes[i / 2];
        struct disk_rig d;
        disk_rig_open(&d, limited, rig_layouts[i % 2] | zoned);
        for (unsigned k = 0; k < ARRAY_LEN(steps); k++) {
            const struct step *s = &steps[k];
            struct disk_call c = call_of(s->type, s->sector, data, s->n_out, s->n_in);
            bool is_long = s->n_out > 32768; // more odd pieces than a chain may have
            assert_int_equal(disk_rig_run(&d, is_long ? DISK_PLAIN : shape, &c, 1), 1);
            if (c.status != s->status || c.used != s->used)
                fail_msg("%s: step %u: status %d, not %d; used %u, not %u", shape->name, k,
                         c.status, s->status, c.used, s->used);
            if (s->status != OK && s->type != OUT)
                assert_int_equal(c.n_clean, s->n_in);
        }
        assert_int_equal(d.rig.queue->ring.fault, RING_OK);
        disk_rig_close(&d);
    }
}

static void a_read_only_disk_keeps_its_zones(void **state)
{
    (void)state;
    static const uint32_t types[] = {OUT, APPEND, OPEN, CLOSE, FINISH, RESET, RESET_ALL};
    struct disk_rig d;
    disk_rig_open(&d, "disk d socket=/unused ram=1M zoned=64K read-only", rig_layouts[0] | zoned);
    for (unsigned i = 0; i < ARRAY_LEN(types); i++)
        assert_int_equal(ask(&d, types[i], 0, types[i] == OUT ? 512 : 0, 8), IOERR);
    assert_int_equal(ask(&d, REPORT, 0, 0, 128), OK);
    assert_int_equal(ask(&d, IN, 0, 0, 512), OK);
    disk_rig_close(&d);
}

// ---- reports -----------------------------------------------------------------------------

static void check_zone(const uint8_t *at, uint32_t zone, unsigned wp, unsigned zone_state)
{
    struct virtio_blk_zone_descriptor found, expected = {.z_cap = ZONE,
                                                         .z_start = (uint64_t)zone * ZONE,
                                                         .z_wp = (uint64_t)zone * ZONE + wp,
                                                         .z_type = VIRTIO_BLK_ZT_SWR,
                                                         .z_state = (uint8_t)zone_state};
    memcpy(&found, at, sizeof(found));
    assert_memory_equal(&found, &expected, sizeof(found));
}

static void reports_describe_zones(void **state)
{
    (void)state;
    for (unsigned i = 0; i < disk_n_shapes; i++) {
        struct disk_rig d;
        disk_rig_open(&d, ram, rig_layouts[i % 2] | zoned);
        assert_int_equal(ask(&d, OUT, 0, 1024, 0), OK);
        assert_int_equal(ask(&d, OPEN, ZONE, 0, 0), OK);
        assert_int_equal(ask(&d, APPEND, 2 * ZONE, 512, 8), OK);
        assert_int_equal(ask(&d, CLOSE, 2 * ZONE, 0, 0), OK);
        assert_int_equal(ask(&d, OUT, 3 * ZONE, 512 * ZONE, 0), OK);
        assert_int_equal(ask(&d, OUT, 4 * ZONE, 512, 0), OK);
        assert_int_equal(ask(&d, FINISH, 4 * ZONE, 0, 0), OK);
        struct disk_call c = call_of(REPORT, 17, NULL, 0, 64 * 7 + 5);
        assert_int_equal(disk_rig_run(&d, &disk_shapes[i], &c, 1), 1);
        static const uint8_t head[64] = {6};
        assert_memory_equal(c.in, head, 64);
        check_zone(c.in + 64 * 1, 0, 2, VIRTIO_BLK_ZS_IOPEN);
        check_zone(c.in + 64 * 2, 1, 0, VIRTIO_BLK_ZS_EOPEN);
        check_zone(c.in + 64 * 3, 2, 1, VIRTIO_BLK_ZS_CLOSED);
        check_zone(c.in + 64 * 4, 3, ZONE, VIRTIO_BLK_ZS_FULL);
        check_zone(c.in + 64 * 5, 4, ZONE, VIRTIO_BLK_ZS_FULL);
        check_zone(c.in + 64 * 6, 5, 0, VIRTIO_BLK_ZS_EMPTY);
        assert_int_equal(c.n_clean, 5);
        disk_rig_close(&d);
    }
}

// ---- data --------------------------------------------------------------------------------

static uint64_t append_sector(const struct disk_call *c)
{
    uint64_t sector;
    memcpy(&sector, c->in + c->n_in - sizeof(sector), sizeof(sector));
    return sector;
}

struct plain { // what the disk holds, and how far
    uint8_t data[SECTORS * 512];
    uint32_t n_written[ZONES];
};

static void write_somewhere(struct disk_rig *d, const struct disk_shape *shape, struct plain *p,
                            uint32_t type, uint64_t *seed)
{
    static uint8_t data[512 * 40];
    uint32_t zone = (uint32_t)random_below(seed, ZONES);
    uint32_t n = 1 + (uint32_t)random_below(seed, 40);
    n = MIN(n, ZONE - p->n_written[zone]);
    if (n == 0) {
        assert_int_equal(ask(d, RESET, (uint64_t)zone * ZONE, 0, 0), OK);
        p->n_written[zone] = 0;
        memset(p->data + (size_t)zone * ZONE * 512, 0, (size_t)ZONE * 512);
        return;
    }
    uint64_t start = (uint64_t)zone * ZONE, at = start + p->n_written[zone];
    disk_pattern(data, n * 512, at, (unsigned)random_next(seed));
    struct disk_call c = call_of(type, type == APPEND ? start : at, data, n * 512, 8);
    assert_int_equal(disk_rig_run(d, shape, &c, 1), 1);
    assert_int_equal(c.status, OK);
    if (type == APPEND)
        assert_int_equal(append_sector(&c), at);
    memcpy(p->data + at * 512, data, (size_t)n * 512);
    p->n_written[zone] += n;
}

// Written sectors hold what was written since the last reset, all others zeros.
static void unwritten_sectors_are_zeros(void **state)
{
    (void)state;
    static struct plain p;
    for (unsigned l = 0; l < ARRAY_LEN(rig_layouts); l++) {
        struct disk_rig d;
        uint64_t seed = l;
        memset(&p, 0, sizeof(p));
        disk_rig_open(&d, ram, rig_layouts[l] | zoned);
        for (unsigned i = 0; i < 1500; i++) {
            const struct disk_shape *shape = &disk_shapes[i % disk_n_shapes];
            write_somewhere(&d, shape, &p, i % 2 ? OUT : APPEND, &seed);
            uint64_t sector = random_below(&seed, SECTORS);
            uint32_t n = 1 + (uint32_t)random_below(&seed, MIN(40, ZONE - sector % ZONE));
            struct disk_call c = call_of(IN, sector, NULL, 0, n * 512);
            assert_int_equal(disk_rig_run(&d, shape, &c, 1), 1);
            assert_int_equal(c.status, OK);
            assert_int_equal(c.used, n * 512 + 1);
            assert_memory_equal(c.in, p.data + sector * 512, (size_t)n * 512);
        }
        disk_rig_close(&d);
    }
}

// null: a read writes nothing but the zeros, and counts them only if nothing lies before them.
static void null_counts_what_it_wrote(void **state)
{
    (void)state;
    struct disk_rig d;
    disk_rig_open(&d, "disk d socket=/unused null=1M zoned=64K", rig_layouts[0] | zoned);
    assert_int_equal(ask(&d, OUT, 0, 1024, 0), OK);
    static const struct {
        uint64_t sector;
        uint32_t used, n_clean;
    } reads[] = {{0, 0, 0}, {2, 1025, 0}};
    for (unsigned i = 0; i < ARRAY_LEN(reads); i++) {
        struct disk_call c = call_of(IN, reads[i].sector, NULL, 0, i ? 1024 : 2048);
        assert_int_equal(disk_rig_run(&d, DISK_PLAIN, &c, 1), 1);
        assert_int_equal(c.status, OK);
        assert_int_equal(c.used, reads[i].used);
        assert_int_equal(c.in[c.n_in - 1], 0);
        assert_int_equal(c.in[0], i ? 0 : DISK_CANARY);
    }
    disk_rig_close(&d);
}

// ---- several workers ---------------------------------------------------------------------

// A request that finds the token taken comes back after the token did.
static void a_taken_token_is_no_wait(void **state)
{
    (void)state;
    struct error e;
    for (unsigned l = 0; l < ARRAY_LEN(rig_layouts); l++) {
        struct disk_rig d;
        disk_rig_open(&d, ram, rig_layouts[l] | zoned);
        struct device_rig *rig = &d.rig;
        struct disk_zones *zones = ((struct disk_queue *)rig->queue->priv)->disk->zones;
        struct guest_request r[2];
        check_ok(guest_request_open(r, 2, rig->guest, 4096, &e), &e);
        guest_request_prepare(&r[0], OUT, 0, 512, GUEST_REQUEST_DIRECT);
        guest_request_prepare(&r[1], VIRTIO_BLK_T_ZONE_FINISH, ZONE, 0, GUEST_REQUEST_DIRECT);
        struct driver_chain *chains[] = {&r[0].chain, &r[1].chain};
        assert_true(disk_zones_take(zones));
        assert_int_equal(driver_add(rig->driver, chains, 2), 2);
        driver_publish(rig->driver);
        assert_int_equal(rig->queue->device->type->poll(rig->queue, 8), 2);
        for (unsigned i = 0; i < 3; i++) {
            assert_int_equal(rig->queue->ring.n_staged, 0);
            assert_int_equal(rig->lane.uring.n_in_flight, 2);
            r[0].header->type = 77; // what was asked was read
            r[0].header->sector = 99;
            uring_sleep(&rig->lane.uring, UINT64_MAX);
            uring_reap(&rig->lane.uring, 8);
        }
        disk_zones_give(zones);
        while (rig->lane.uring.n_in_flight) {
            uring_sleep(&rig->lane.uring, UINT64_MAX);
            uring_reap(&rig->lane.uring, 8);
        }
        ring_publish(&rig->queue->ring);
        rig->queue->is_touched = false;
        rig->lane.touched = NULL;
        struct driver_used used[2];
        assert_int_equal(driver_poll(rig->driver, used, 2, &e), 2);
        for (unsigned i = 0; i < 2; i++) {
            assert_int_equal(*r[i].status, OK);
            assert_int_equal(used[i].len, 1);
        }
        struct virtio_blk_zone_descriptor zone;
        disk_zones_describe(zones, 0, &zone);
        assert_int_equal(zone.z_wp, 1);
        disk_zones_describe(zones, 1, &zone);
        assert_int_equal(zone.z_state, VIRTIO_BLK_ZS_FULL);
        guest_request_close(r, 2);
        disk_rig_close(&d);
    }
}

#define APPENDS (SECTORS / 2)

struct appender {
    struct device *device; // NULL: has its own rig
    struct disk_rig *rig;
    uint64_t layout;
    uint8_t mark;
    uint64_t places[APPENDS];
};

static void append_all(struct appender *a)
{
    uint8_t data[512];
    memset(data, a->mark, sizeof(data));
    for (unsigned i = 0; i < APPENDS;) {
        struct disk_call calls[DISK_CALLS];
        for (unsigned k = 0; k < DISK_CALLS; k++) // all zones at once
            calls[k] = call_of(APPEND, (uint64_t)(k % ZONES) * ZONE, data, sizeof(data), 8);
        assert_int_equal(disk_rig_run(a->rig, DISK_PLAIN, calls, DISK_CALLS), DISK_CALLS);
        for (unsigned k = 0; k < DISK_CALLS; k++)
            a->places[i++] = calls[k].status == OK ? append_sector(&calls[k]) : UINT64_MAX;
    }
}

static void *run_appender(void *argument)
{
    struct appender *a = argument;
    struct disk_rig own;
    a->rig = &own;
    disk_rig_join(&own, a->device, 1, a->layout | zoned);
    append_all(a);
    disk_rig_close(&own);
    return NULL;
}

// Two queues fill all zones together: each sector is one's or the other's.
static void two_workers_append(void **state)
{
    (void)state;
    static struct appender a[2];
    static uint8_t owner[SECTORS], data[SECTORS * 512];
    for (unsigned l = 0; l < ARRAY_LEN(rig_layouts); l++) {
        struct disk_rig d;
        disk_rig_open(&d, ram, rig_layouts[l] | zoned);
        a[0] = (struct appender){.rig = &d, .mark = 'a'};
        a[1] = (struct appender){.device = d.rig.device, .layout = rig_layouts[l], .mark = 'b'};
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, run_appender, &a[1]), 0);
        append_all(&a[0]);
        pthread_join(thread, NULL);
        memset(owner, 0, sizeof(owner));
        for (unsigned i = 0; i < 2; i++) {
            for (unsigned k = 0; k < APPENDS; k++) {
                assert_true(a[i].places[k] < SECTORS);
                assert_int_equal(owner[a[i].places[k]], 0);
                owner[a[i].places[k]] = a[i].mark;
            }
        }
        for (unsigned z = 0; z < ZONES; z++)
            assert_int_equal(disk_rig_read(&d, z * ZONE, data + z * ZONE * 512, ZONE * 512), OK);
        for (unsigned i = 0; i < SECTORS * 512; i++)
            assert_int_equal(data[i], owner[i / 512]);
        disk_rig_close(&d);
    }
}

// ---- what the line says ------------------------------------------------------------------

static void lines_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *keys, *says;
    } lines[] = {
        {"file=/x zoned=64K", "only ram= and null= disks have zones"},
        {"ram=1M zoned=96K", "zoned=96K: a power of two from 64K to 1T"},
        {"ram=1M zoned=32K", "a power of two"},
        {"null=8T zoned=2T", "a power of two"},
        {"ram=1M zoned=2M", "a disk has 1 to 65536 zones"},
        {"null=5G zoned=64K", "a disk has 1 to 65536 zones"},
        {"ram=1M zones-open=2", "zones-open=2: only a zoned= disk has that"},
        {"null=1M zones-active=2", "zones-active=2: only a zoned= disk has that"},
    };
    for (unsigned i = 0; i < ARRAY_LEN(lines); i++) {
        struct error e;
        struct device *device;
        char line[128];
        snprintf(line, sizeof(line), "disk d socket=/unused %s", lines[i].keys);
        if (device_from_line(&device, line, &e) == 0)
            fail_msg("%s: taken", line);
        if (i && !strstr(e.text, lines[i].says))
            fail_msg("%s: %s", line, e.text);
    }
}

static void config_space_has_the_zones(void **state)
{
    (void)state;
    struct disk_rig d;
    disk_rig_open(&d, limited, rig_layouts[0] | zoned);
    struct device *device = d.rig.device;
    struct virtio_blk_config config;
    memcpy(&config, device->config, sizeof(config));
    assert_int_equal(config.zoned.zone_sectors, ZONE);
    assert_int_equal(config.zoned.max_open_zones, 2);
    assert_int_equal(config.zoned.max_active_zones, 3);
    assert_int_equal(config.zoned.max_append_sectors, ZONE);
    assert_int_equal(config.zoned.write_granularity, 512);
    assert_int_equal(config.zoned.model, VIRTIO_BLK_Z_HM);
    assert_true(device->features & zoned);
    // 5.2.5.1: a host-managed disk has no discard.
    assert_false(device->features & VIRTIO_BIT(VIRTIO_BLK_F_DISCARD));
    assert_int_equal(config.max_discard_sectors, 0);

    struct error e;
    uint64_t bytes = 2 << 20;
    assert_true(device->type->resize(device, &bytes, &e) < 0);
    assert_non_null(strstr(e.text, "keeps its size"));
    // 5.2.5.2: a driver that does not know zones is not served.
    struct queue *q = d.rig.queue;
    uint64_t features = q->ring.features;
    q->ring.features &= ~zoned;
    assert_true(device->type->queue_start(q, &e) < 0);
    assert_non_null(strstr(e.text, "did not accept zones"));
    q->ring.features = features;
    disk_rig_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_request_has_its_status),
        cmocka_unit_test(a_read_only_disk_keeps_its_zones),
        cmocka_unit_test(reports_describe_zones),
        cmocka_unit_test(unwritten_sectors_are_zeros),
        cmocka_unit_test(null_counts_what_it_wrote),
        cmocka_unit_test(a_taken_token_is_no_wait),
        cmocka_unit_test(two_workers_append),
        cmocka_unit_test(lines_are_checked),
        cmocka_unit_test(config_space_has_the_zones),
    };
    return cmocka_run_group_tests_name("blk_zone", tests, NULL, NULL);
}
