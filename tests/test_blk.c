// SPDX-License-Identifier: Apache-2.0
#include "tests/disk_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECTORS   2048u // of every disk here: 1 MiB
#define UNWRITTEN (-1)

enum { OK = VIRTIO_BLK_S_OK, IOERR = VIRTIO_BLK_S_IOERR, UNSUPP = VIRTIO_BLK_S_UNSUPP };
enum {
    IN = VIRTIO_BLK_T_IN,
    OUT = VIRTIO_BLK_T_OUT,
    FLUSH = VIRTIO_BLK_T_FLUSH,
    GET_ID = VIRTIO_BLK_T_GET_ID,
};

static char image[] = "/tmp/test_blk.XXXXXX";
static uint8_t contents[SECTORS * 512];

static int make_image(void **state)
{
    (void)state;
    disk_pattern(contents, sizeof(contents), 0, 1);
    int fd = mkstemp(image);
    bool ok = fd >= 0 && write(fd, contents, sizeof(contents)) == (ssize_t)sizeof(contents);
    close(fd);
    return ok ? 0 : -1;
}

static int remove_image(void **state)
{
    (void)state;
    return unlink(image);
}

// ---- every request, in every shape, on every back end ------------------------------------

struct store {
    const char *name, *keys;
    bool has_data; // reads bring something
    bool is_read_only;
};

static const struct store stores[] = {
    {"null", "null=1M", false, false},
    {"ram", "ram=1M", true, false},
    {"file", "file=/tmp/test_blk.XXXXXX", true, false},
    {"file, read-only", "file=/tmp/test_blk.XXXXXX read-only", true, true},
};

struct request_case {
    uint32_t type;
    uint64_t sector;
    uint32_t n_header, n_out, n_in;
    int status;    // expected
    uint32_t data; // bytes expected in the buffer
    uint32_t used; // length expected
};

#define LAST     (SECTORS - 1)
#define WRAPS    (UINT64_MAX / 512)  // × 512 is almost 2^64
#define WRAPS_TO (UINT64_C(1) << 55) // × 512 is 0

static const struct request_case requests[] = {
    {IN, 0, 16, 0, 512, OK, 512, 513},
    {IN, 7, 16, 0, 4096, OK, 4096, 4097},
    {IN, LAST, 16, 0, 512, OK, 512, 513},
    {IN, 0, 16, 0, 0, OK, 0, 1},
    {IN, SECTORS, 16, 0, 0, OK, 0, 1},
    {IN, 3, 16, 512, 512, OK, 512, 513}, // readable bytes that a read has no use for
    // not in whole sectors (5.2.6.1)
    {IN, 0, 16, 0, 1, IOERR, 0, 0},
    {IN, 0, 16, 0, 511, IOERR, 0, 0},
    {IN, 0, 16, 0, 513, IOERR, 0, 0},
    // beyond the capacity, and where a sum wraps
    {IN, LAST, 16, 0, 1024, IOERR, 0, 0},
    {IN, SECTORS, 16, 0, 512, IOERR, 0, 0},
    {IN, SECTORS + 1, 16, 0, 0, IOERR, 0, 1},
    {IN, UINT64_MAX, 16, 0, 512, IOERR, 0, 0},
    {IN, UINT64_MAX, 16, 0, 0, IOERR, 0, 1},
    {IN, WRAPS, 16, 0, 1024, IOERR, 0, 0},
    {IN, WRAPS_TO, 16, 0, 512, IOERR, 0, 0},

    {OUT, 0, 16, 512, 0, OK, 0, 1},
    {OUT, 9, 16, 4096, 0, OK, 0, 1},
    {OUT, LAST, 16, 512, 0, OK, 0, 1},
    {OUT, 0, 16, 0, 0, OK, 0, 1},
    {OUT, 0, 16, 512, 3, OK, 0, 0}, // the status is the last byte, the three before stay
    {OUT, 0, 16, 511, 0, IOERR, 0, 1},
    {OUT, 0, 16, 513, 0, IOERR, 0, 1},
    {OUT, LAST, 16, 1024, 0, IOERR, 0, 1},
    {OUT, SECTORS, 16, 512, 0, IOERR, 0, 1},
    {OUT, UINT64_MAX, 16, 512, 0, IOERR, 0, 1},
    {OUT, WRAPS, 16, 1024, 0, IOERR, 0, 1},
    {OUT, WRAPS_TO, 16, 512, 0, IOERR, 0, 1},

    {FLUSH, 0, 16, 0, 0, OK, 0, 1},
    {FLUSH, UINT64_MAX, 16, 0, 0, OK, 0, 1}, // has no use for its sector
    {FLUSH, 0, 16, 512, 0, OK, 0, 1},
    {FLUSH, 0, 16, 0, 512, OK, 0, 0},

    {GET_ID, 0, 16, 0, 20, OK, 20, 21},
    {GET_ID, UINT64_MAX, 16, 0, 20, OK, 20, 21},
    {GET_ID, 0, 16, 0, 7, OK, 7, 8},
    {GET_ID, 0, 16, 0, 0, OK, 0, 1},
    {GET_ID, 0, 16, 0, 100, OK, 20, 20},
    {GET_ID, 0, 16, 20, 20, OK, 20, 21},

    // what was not offered, what does not exist
    {VIRTIO_BLK_T_DISCARD, 0, 16, 16, 0, UNSUPP, 0, 1},
    {VIRTIO_BLK_T_WRITE_ZEROES, 0, 16, 16, 0, UNSUPP, 0, 1},
    {2, 0, 16, 0, 512, UNSUPP, 0, 0},
    {UINT32_MAX, UINT64_MAX, 16, 512, 0, UNSUPP, 0, 1},

    // a header cut short
    {IN, 0, 15, 0, 512, IOERR, 0, 0},
    {OUT, 0, 8, 0, 0, IOERR, 0, 1},
    {FLUSH, 0, 1, 0, 0, IOERR, 0, 1},
    {IN, 0, 0, 0, 512, IOERR, 0, 0},
};

static void expect_data(const struct request_case *rc, const struct store *s, uint8_t *expected)
{
    memset(expected, DISK_CANARY, rc->n_in);
    if (rc->type == IN && s->has_data && rc->data)
        memcpy(expected, contents + rc->sector * 512, rc->data);
    if (rc->type == GET_ID) {
        memset(expected, 0, rc->data);
        memcpy(expected, "serial", MIN(rc->data, 6u));
    }
}

static void check_request(struct disk_rig *d, const struct store *s, const struct disk_shape *shape,
                          const struct request_case *rc)
{
    struct disk_call c = {.type = rc->type,
                          .sector = rc->sector,
                          .n_out = rc->n_out,
                          .n_in = rc->n_in,
                          .n_header = rc->n_header,
                          .has_status = true};
    bool is_write = rc->type == OUT || rc->type == VIRTIO_BLK_T_DISCARD ||
                    rc->type == VIRTIO_BLK_T_WRITE_ZEROES;
    bool is_refused = s->is_read_only && is_write && rc->n_header == 16;
    if (rc->type == OUT && rc->status == OK)
        c.out = contents + rc->sector * 512; // what is there already
    uint32_t used = rc->used;
    if (rc->type == IN && !s->has_data && rc->data)
        used = 0;
    assert_int_equal(disk_rig_run(d, shape, &c, 1), 1);

    uint8_t expected[4096];
    expect_data(rc, s, expected);
    int status = is_refused ? IOERR : rc->status;
    if (c.status != status || c.used != used || memcmp(c.in, expected, rc->n_in) != 0)
        fail_msg("%s, %s: request %u: status %d, used %u, data %s", s->name, shape->name,
                 (unsigned)(rc - requests), c.status, c.used,
                 memcmp(c.in, expected, rc->n_in) ? "differs" : "as it should be");
}

static void open_store(struct disk_rig *d, const struct store *s, uint64_t features)
{
    char line[256];
    snprintf(line, sizeof(line), "disk d socket=/unused serial=serial %s", s->keys);
    char *name = strstr(line, "/tmp/");
    if (name)
        memcpy(name, image, strlen(image));
    disk_rig_open(d, line, features);
    if (s->has_data && !name)
        for (uint64_t sector = 0; sector < SECTORS; sector += 512)
            assert_int_equal(disk_rig_write(d, sector, contents + sector * 512, 512 * 512), OK);
}

static void requests_in_every_shape(void **state)
{
    const struct store *s = *state;
    for (unsigned l = 0; l < ARRAY_LEN(rig_layouts); l++) {
        struct disk_rig d;
        open_store(&d, s, rig_layouts[l]);
        for (unsigned i = 0; i < disk_n_shapes; i++)
            for (unsigned k = 0; k < ARRAY_LEN(requests); k++)
                check_request(&d, s, &disk_shapes[i], &requests[k]);
        assert_int_equal(d.rig.queue->ring.fault, RING_OK);
        disk_rig_close(&d);
    }
}

// ---- discard and write zeroes --------------------------------------------------------------

enum { DISCARD = VIRTIO_BLK_T_DISCARD, ZEROES = VIRTIO_BLK_T_WRITE_ZEROES };

#define UNMAP       VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP
#define RANGE_BYTES (uint32_t)sizeof(struct virtio_blk_discard_write_zeroes)

static const uint64_t range_features =
    VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) | VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES);

struct range_case {
    uint32_t type;
    struct virtio_blk_discard_write_zeroes range;
    int status;   // expected
    bool is_done; // the sectors of the range are zeros then
};

static const struct range_case ranges[] = {
    {DISCARD, {8, 16, 0}, OK, true},
    {DISCARD, {0, SECTORS, 0}, OK, true},
    {DISCARD, {SECTORS - 8, 8, 0}, OK, true},
    {ZEROES, {8, 16, 0}, OK, true},
    {ZEROES, {8, 16, UNMAP}, OK, true},
    {ZEROES, {3, 41, 0}, OK, true}, // begins and ends inside a page
    {ZEROES, {3, 41, UNMAP}, OK, true},
    {ZEROES, {3, 2, UNMAP}, OK, true},
    {ZEROES, {7, 2, UNMAP}, OK, true},
    {ZEROES, {LAST, 1, UNMAP}, OK, true},
    {ZEROES, {0, SECTORS, 0}, OK, true},
    {DISCARD, {0, 0, 0}, OK, false},
    {ZEROES, {SECTORS, 0, 0}, OK, false},
    // beyond the capacity, and where a sum wraps
    {DISCARD, {SECTORS, 1, 0}, IOERR, false},
    {DISCARD, {LAST, 2, 0}, IOERR, false},
    {DISCARD, {SECTORS + 1, 0, 0}, IOERR, false},
    {DISCARD, {UINT64_MAX, 1, 0}, IOERR, false},
    {DISCARD, {UINT64_MAX, UINT32_MAX, 0}, IOERR, false},
    {ZEROES, {SECTORS, 1, 0}, IOERR, false},
    {ZEROES, {LAST, 2, UNMAP}, IOERR, false},
    {ZEROES, {WRAPS, 2, 0}, IOERR, false},
    {ZEROES, {WRAPS_TO, 1, 0}, IOERR, false},
    // more than config space allows; × 512 is 0 in 32 bits
    {DISCARD, {0, UINT32_MAX, 0}, IOERR, false},
    {ZEROES, {0, 1u << 23, 0}, IOERR, false},
    // 5.2.6.2: flags
    {DISCARD, {8, 16, UNMAP}, UNSUPP, false},
    {DISCARD, {8, 16, 2}, UNSUPP, false},
    {ZEROES, {8, 16, 2}, UNSUPP, false},
    {ZEROES, {8, 16, UNMAP | 1u << 31}, UNSUPP, false},
    {ZEROES, {SECTORS, 16, 2}, UNSUPP, false},
};

static struct disk_call range_call(uint32_t type, const void *from, uint32_t bytes)
{
    return (struct disk_call){
        .type = type, .out = from, .n_out = bytes, .n_header = 16, .has_status = true};
}

// The disk has @contents, but for zeros in @n sectors from @sector.
static void check_zeros(struct disk_rig *d, const struct store *s, uint64_t sector, uint32_t n)
{
    static uint8_t model[SECTORS * 512], found[SECTORS * 512];
    if (!s->has_data)
        return;
    memcpy(model, contents, sizeof(model));
    memset(model + sector * 512, 0, n * 512);
    for (uint64_t at = 0; at < SECTORS; at += 512)
        assert_int_equal(disk_rig_read(d, at, found + at * 512, 512 * 512), OK);
    assert_memory_equal(found, model, sizeof(model));
}

static void check_range_case(struct disk_rig *d, const struct store *s,
                             const struct disk_shape *shape, const struct range_case *rc)
{
    const struct virtio_blk_discard_write_zeroes *r = &rc->range;
    struct disk_call c = range_call(rc->type, r, RANGE_BYTES);
    assert_int_equal(disk_rig_run(d, shape, &c, 1), 1);
    int status = s->is_read_only ? IOERR : rc->status;
    if (c.status != status || c.used != 1)
        fail_msg("%s, %s: range %u: status %d, used %u", s->name, shape->name,
                 (unsigned)(rc - ranges), c.status, c.used);
    if (!rc->is_done || s->is_read_only || !s->has_data) {
        check_zeros(d, s, 0, 0);
        return;
    }
    check_zeros(d, s, r->sector, r->num_sectors);
    for (uint64_t at = 0; at < SECTORS; at += 512)
        assert_int_equal(disk_rig_write(d, at, contents + at * 512, 512 * 512), OK);
}

static void ranges_are_checked_and_cleared(void **state)
{
    const struct store *s = *state;
    for (unsigned l = 0; l < ARRAY_LEN(rig_layouts); l++) {
        struct disk_rig d;
        open_store(&d, s, rig_layouts[l] | range_features);
        for (unsigned k = 0; k < ARRAY_LEN(ranges); k++)
            check_range_case(&d, s, &disk_shapes[(k + l) % disk_n_shapes], &ranges[k]);
        for (unsigned i = 0; i < disk_n_shapes; i++)
            check_range_case(&d, s, &disk_shapes[i], &ranges[6]);
        disk_rig_close(&d);
    }
}

static uint32_t ranges_max(const struct disk_rig *d)
{
    struct virtio_blk_config config;
    memcpy(&config, d->rig.device->config, sizeof(config));
    assert_int_equal(config.max_discard_seg, config.max_write_zeroes_seg);
    return config.max_discard_seg;
}

// 5.2.6.1: whole ranges, at least one, and no more than config space says.
static void ranges_are_counted(void **state)
{
    const struct store *s = *state;
    static const struct virtio_blk_discard_write_zeroes none[256];
    struct disk_rig d;
    open_store(&d, s, rig_layouts[1] | range_features);
    uint32_t most = ranges_max(&d) * RANGE_BYTES;
    assert_in_range(most, RANGE_BYTES, sizeof(none) - RANGE_BYTES);
    const struct {
        uint32_t bytes;
        int status;
    } sizes[] = {{0, IOERR},   {1, IOERR},        {15, IOERR},       {17, IOERR},
                 {most, OK},   {most - 1, IOERR}, {most + 1, IOERR}, {most + RANGE_BYTES, IOERR},
                 {4096, IOERR}};
    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        for (uint32_t type = DISCARD; type <= ZEROES; type += ZEROES - DISCARD) {
            struct disk_call c = range_call(type, none, sizes[i].bytes);
            assert_int_equal(disk_rig_run(&d, &disk_shapes[i], &c, 1), 1);
            assert_int_equal(c.status, sizes[i].status);
        }
    }
    check_zeros(&d, s, 0, 0);
    disk_rig_close(&d);
}

// Several ranges are done one after the other, up to the first wrong one.
static void ranges_of_one_request_come_in_turn(void **state)
{
    const struct store *s = *state;
    static const struct virtio_blk_discard_write_zeroes good[] = {
        {100, 10, 0}, {7, 0, 0}, {110, 20, UNMAP}, {130, 1, 0}, {131, 9, UNMAP}};
    static const struct virtio_blk_discard_write_zeroes bad[] = {
        {100, 10, 0}, {SECTORS, 1, 0}, {200, 10, 0}};
    static const struct virtio_blk_discard_write_zeroes unknown[] = {
        {100, 10, UNMAP}, {110, 10, 4}, {200, 10, 0}};
    for (unsigned i = 0; i < disk_n_shapes; i++) {
        struct disk_rig d;
        open_store(&d, s, rig_layouts[i % 2] | range_features);
        struct disk_call calls[] = {range_call(ZEROES, good, sizeof(good))};
        assert_int_equal(disk_rig_run(&d, &disk_shapes[i], calls, 1), 1);
        assert_int_equal(calls[0].status, OK);
        check_zeros(&d, s, 100, 40);
        assert_int_equal(disk_rig_write(&d, 100, contents + 100 * 512, 40 * 512), OK);

        calls[0] = range_call(ZEROES, bad, sizeof(bad));
        assert_int_equal(disk_rig_run(&d, &disk_shapes[i], calls, 1), 1);
        assert_int_equal(calls[0].status, IOERR);
        check_zeros(&d, s, 100, 10);
        calls[0] = range_call(ZEROES, unknown, sizeof(unknown));
        assert_int_equal(disk_rig_run(&d, &disk_shapes[i], calls, 1), 1);
        assert_int_equal(calls[0].status, UNSUPP);
        check_zeros(&d, s, 100, 10);
        assert_int_equal(disk_rig_write(&d, 100, contents + 100 * 512, 10 * 512), OK);
        disk_rig_close(&d);
    }
}

// ---- data ---------------------------------------------------------------------------------

// What is written in one shape reads back in every other; neighbours stay.
static void written_data_reads_back(void **state)
{
    const struct store *s = *state;
    static uint8_t model[SECTORS * 512], data[8192];
    memcpy(model, contents, sizeof(model));
    for (unsigned l = 0; l < ARRAY_LEN(rig_layouts); l++) {
        struct disk_rig d;
        open_store(&d, s, rig_layouts[l]);
        for (unsigned i = 0; i < disk_n_shapes * 4; i++) {
            uint64_t sector = 31 * i + l;
            uint32_t bytes = 512 * (1 + i % 9);
            disk_pattern(data, bytes, sector, 2 + i);
            struct disk_call c = {.type = OUT,
                                  .sector = sector,
                                  .out = data,
                                  .n_out = bytes,
                                  .n_header = 16,
                                  .has_status = true};
            assert_int_equal(disk_rig_run(&d, &disk_shapes[i % disk_n_shapes], &c, 1), 1);
            assert_int_equal(c.status, OK);
            memcpy(model + sector * 512, data, bytes);
        }
        for (unsigned i = 0; i < disk_n_shapes; i++) {
            for (uint64_t sector = 0; sector < SECTORS; sector += 8) {
                struct disk_call c = {
                    .type = IN, .sector = sector, .n_in = 4096, .n_header = 16, .has_status = true};
                assert_int_equal(disk_rig_run(&d, &disk_shapes[i], &c, 1), 1);
                assert_int_equal(c.status, OK);
                assert_memory_equal(c.in, model + sector * 512, 4096);
            }
        }
        // The next layout's disk begins as this one did.
        for (uint64_t sector = 0; sector < SECTORS; sector += 512)
            disk_rig_write(&d, sector, contents + sector * 512, 512 * 512);
        memcpy(model, contents, sizeof(model));
        disk_rig_close(&d);
    }
}

static void a_batch_of_good_and_bad_ones(void **state)
{
    const struct store *s = *state;
    for (unsigned l = 0; l < ARRAY_LEN(rig_layouts); l++) {
        struct disk_rig d;
        open_store(&d, s, rig_layouts[l]);
        struct disk_call calls[DISK_CALLS] = {0};
        for (unsigned i = 0; i < DISK_CALLS; i++) {
            calls[i] = (struct disk_call){.type = i % 4 == 3 ? 77 : IN,
                                          .sector = i % 4 == 2 ? SECTORS : i,
                                          .n_in = 512,
                                          .n_header = 16,
                                          .has_status = true};
        }
        assert_int_equal(disk_rig_run(&d, DISK_PLAIN, calls, DISK_CALLS), DISK_CALLS);
        for (unsigned i = 0; i < DISK_CALLS; i++) {
            static const int statuses[] = {OK, OK, IOERR, UNSUPP};
            assert_int_equal(calls[i].status, statuses[i % 4]);
            if (i % 4 < 2 && s->has_data)
                assert_memory_equal(calls[i].in, contents + i * 512, 512);
            else
                assert_int_equal(calls[i].n_clean, 512);
        }
        disk_rig_close(&d);
    }
}

// ---- what faults -------------------------------------------------------------------------

static void without_a_status_byte_the_ring_faults(void **state)
{
    const struct store *s = *state;
    for (unsigned l = 0; l < ARRAY_LEN(rig_layouts); l++) {
        struct disk_rig d;
        open_store(&d, s, rig_layouts[l]);
        struct disk_call calls[3] = {
            {.type = OUT, .n_out = 512, .n_header = 16},
            {.type = OUT, .n_out = 512, .n_header = 16, .out = contents, .has_status = true},
            {.type = IN, .n_in = 512, .n_header = 16, .has_status = true},
        };
        assert_int_equal(disk_rig_run(&d, DISK_PLAIN, calls, 3), 0);
        assert_int_equal(d.rig.queue->ring.fault, RING_BAD_REQUEST);
        assert_int_equal(counter_read(&d.rig.queue->stats.n_faults[RING_BAD_REQUEST]), 1);

        device_rig_restart(&d.rig, rig_layouts[l]);
        assert_int_equal(d.rig.queue->ring.fault, RING_OK);
        assert_int_equal(disk_rig_flush(&d), OK);
        disk_rig_close(&d);
    }
}

// ---- what the driver reads ---------------------------------------------------------------

struct config_case {
    const char *line;
    uint64_t capacity;
    uint16_t n_queues;
    bool is_read_only;
    const char *id; // 20 bytes
};

static const struct config_case configs[] = {
    {"disk d socket=/s null=1M", 2048, 64, false, "d"},
    {"disk d socket=/s null=4T queues=1", UINT64_C(8) << 30, 1, false, "d"},
    {"disk d socket=/s ram=512 queues=256 read-only", 1, 256, true, "d"},
    {"disk a-name-of-more-than-20-bytes socket=/s null=1M", 2048, 64, false,
     "a-name-of-more-than-"},
    {"disk d socket=/s null=1M serial=01234567890123456789", 2048, 64, false,
     "01234567890123456789"},
};

static void config_space_and_features(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(configs); i++) {
        const struct config_case *cc = &configs[i];
        struct disk_rig d;
        disk_rig_open(&d, cc->line, rig_layouts[0]);
        struct device *device = d.rig.device;
        struct virtio_blk_config config;
        assert_int_equal(device->config_bytes, sizeof(config));
        memcpy(&config, device->config, sizeof(config));
        assert_int_equal(config.capacity, cc->capacity);
        assert_int_equal(config.num_queues, cc->n_queues);
        assert_int_equal(device->n_queues, cc->n_queues);
        assert_int_equal(config.blk_size, 512);
        assert_int_equal(config.seg_max, 126);
        assert_int_not_equal(config.size_max, 0);
        assert_int_equal(config.unused0, 0); // 5.2.5.2
        assert_int_equal(config.max_discard_sectors != 0, !cc->is_read_only);
        assert_int_equal(config.max_write_zeroes_sectors != 0, !cc->is_read_only);
        assert_int_equal(config.discard_sector_alignment, cc->is_read_only ? 0 : 1);
        assert_int_equal(config.write_zeroes_may_unmap,
                         !cc->is_read_only && strstr(cc->line, "ram=") != NULL);

        uint64_t read_only = VIRTIO_BIT(VIRTIO_BLK_F_RO);
        uint64_t always = VIRTIO_BIT(VIRTIO_BLK_F_SEG_MAX) | VIRTIO_BIT(VIRTIO_BLK_F_SIZE_MAX) |
                          VIRTIO_BIT(VIRTIO_BLK_F_BLK_SIZE) | VIRTIO_BIT(VIRTIO_BLK_F_TOPOLOGY) |
                          VIRTIO_BIT(VIRTIO_BLK_F_MQ) | VIRTIO_BIT(VIRTIO_BLK_F_FLUSH);
        assert_int_equal(device->features,
                         always | (cc->is_read_only ? read_only : range_features));

        char id[21] = {0};
        struct disk_call c = {.type = GET_ID, .n_in = 20, .n_header = 16, .has_status = true};
        assert_int_equal(disk_rig_run(&d, DISK_PLAIN, &c, 1), 1);
        memcpy(id, c.in, 20);
        assert_string_equal(id, cc->id);
        disk_rig_close(&d);
    }
}

#define OVER(f, store, i)                                                                          \
    {                                                                                              \
        .name = store ": " #f, .test_func = f, .initial_state = (void *)&stores[i]                 \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        OVER(requests_in_every_shape, "null", 0),
        OVER(requests_in_every_shape, "ram", 1),
        OVER(requests_in_every_shape, "file", 2),
        OVER(requests_in_every_shape, "read-only file", 3),
        OVER(ranges_are_checked_and_cleared, "null", 0),
        OVER(ranges_are_checked_and_cleared, "ram", 1),
        OVER(ranges_are_checked_and_cleared, "file", 2),
        OVER(ranges_are_checked_and_cleared, "read-only file", 3),
        OVER(ranges_are_counted, "null", 0),
        OVER(ranges_are_counted, "ram", 1),
        OVER(ranges_are_counted, "file", 2),
        OVER(ranges_of_one_request_come_in_turn, "file", 2),
        OVER(written_data_reads_back, "ram", 1),
        OVER(written_data_reads_back, "file", 2),
        OVER(a_batch_of_good_and_bad_ones, "null", 0),
        OVER(a_batch_of_good_and_bad_ones, "ram", 1),
        OVER(a_batch_of_good_and_bad_ones, "file", 2),
        OVER(without_a_status_byte_the_ring_faults, "null", 0),
        OVER(without_a_status_byte_the_ring_faults, "ram", 1),
        OVER(without_a_status_byte_the_ring_faults, "file", 2),
        cmocka_unit_test(config_space_and_features),
    };
    return cmocka_run_group_tests_name("blk", tests, make_image, remove_image);
}
