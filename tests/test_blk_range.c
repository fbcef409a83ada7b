// SPDX-License-Identifier: Apache-2.0
// Requests on ranges: discard, write zeroes, secure erase.
#include "tests/blk_store.h"

#include <string.h>

enum {
    DISCARD = VIRTIO_BLK_T_DISCARD,
    ZEROES = VIRTIO_BLK_T_WRITE_ZEROES,
    ERASE = VIRTIO_BLK_T_SECURE_ERASE,
};

#define UNMAP       VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP
#define RANGE_BYTES (uint32_t)sizeof(struct virtio_blk_discard_write_zeroes)

static const uint64_t range_features =
    VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) | VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES);

// A driver takes what is offered.
static void open_ranges(struct disk_rig *d, const struct store *s, uint64_t layout)
{
    bool can_erase = !strstr(s->keys, "file=");
    store_open(d, s, layout | range_features | (uint64_t)can_erase << VIRTIO_BLK_F_SECURE_ERASE);
    uint64_t taken = d->rig.queue->ring.features & ~rig_layouts[1];
    assert_int_equal(taken & ~d->rig.device->features, s->is_read_only ? range_features : 0);
}

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
    {ERASE, {8, 16, 0}, OK, true},
    {ERASE, {3, 41, 0}, OK, true},
    {ERASE, {0, SECTORS, 0}, OK, true},
    {ERASE, {7, 0, 0}, OK, false},
    // beyond the capacity, and where a sum wraps
    {ERASE, {SECTORS, 1, 0}, IOERR, false},
    {ERASE, {UINT64_MAX, 1, 0}, IOERR, false},
    {ERASE, {WRAPS, 2, 0}, IOERR, false},
    {ERASE, {0, UINT32_MAX, 0}, IOERR, false},
    {ERASE, {8, 16, UNMAP}, UNSUPP, false},
    {ERASE, {8, 16, 1u << 31}, UNSUPP, false},
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

// The disk has @store_contents, but for zeros in @n sectors from @sector.
static void check_zeros(struct disk_rig *d, const struct store *s, uint64_t sector, uint32_t n)
{
    static uint8_t model[SECTORS * 512], found[SECTORS * 512];
    if (!s->has_data)
        return;
    memcpy(model, store_contents, sizeof(model));
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
    bool is_offered =
        rc->type != ERASE || d->rig.device->features & VIRTIO_BIT(VIRTIO_BLK_F_SECURE_ERASE);
    int status = s->is_read_only ? IOERR : is_offered ? rc->status : UNSUPP;
    if (c.status != status || c.used != 1)
        fail_msg("%s, %s: range %u: status %d, used %u", s->name, shape->name,
                 (unsigned)(rc - ranges), c.status, c.used);
    if (!rc->is_done || !is_offered || s->is_read_only || !s->has_data) {
        check_zeros(d, s, 0, 0);
        return;
    }
    check_zeros(d, s, r->sector, r->num_sectors);
    for (uint64_t at = 0; at < SECTORS; at += 512)
        assert_int_equal(disk_rig_write(d, at, store_contents + at * 512, 512 * 512), OK);
}

static void ranges_are_checked_and_cleared(void **state)
{
    const struct store *s = *state;
    for (unsigned l = 0; l < ARRAY_LEN(rig_layouts); l++) {
        struct disk_rig d;
        open_ranges(&d, s, rig_layouts[l]);
        for (unsigned k = 0; k < ARRAY_LEN(ranges); k++)
            check_range_case(&d, s, &disk_shapes[(k + l) % disk_n_shapes], &ranges[k]);
        for (unsigned i = 0; i < disk_n_shapes; i++)
            check_range_case(&d, s, &disk_shapes[i], &ranges[6]); // inside a page
        disk_rig_close(&d);
    }
}

static uint32_t ranges_max(const struct disk_rig *d)
{
    struct virtio_blk_config config;
    memcpy(&config, d->rig.device->config, sizeof(config));
    assert_int_equal(config.max_discard_seg, config.max_write_zeroes_seg);
    if (d->rig.device->features & VIRTIO_BIT(VIRTIO_BLK_F_SECURE_ERASE))
        assert_int_equal(config.max_discard_seg, config.max_secure_erase_seg);
    return config.max_discard_seg;
}

// 5.2.6.1: whole ranges, at least one, and no more than config space says.
static void ranges_are_counted(void **state)
{
    const struct store *s = *state;
    static const struct virtio_blk_discard_write_zeroes none[256];
    struct disk_rig d;
    open_ranges(&d, s, rig_layouts[1]);
    uint32_t most = ranges_max(&d) * RANGE_BYTES;
    assert_in_range(most, RANGE_BYTES, sizeof(none) - RANGE_BYTES);
    const struct {
        uint32_t bytes;
        int status;
    } sizes[] = {{0, IOERR},   {1, IOERR},        {15, IOERR},       {17, IOERR},
                 {most, OK},   {most - 1, IOERR}, {most + 1, IOERR}, {most + RANGE_BYTES, IOERR},
                 {4096, IOERR}};
    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        static const uint32_t types[] = {DISCARD, ZEROES, ERASE};
        for (unsigned t = 0; t < ARRAY_LEN(types); t++) {
            struct disk_call c = range_call(types[t], none, sizes[i].bytes);
            bool is_taken = types[t] != ERASE || !strstr(s->keys, "file=");
            assert_int_equal(disk_rig_run(&d, &disk_shapes[i], &c, 1), 1);
            assert_int_equal(c.status, is_taken ? sizes[i].status : UNSUPP);
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
        open_ranges(&d, s, rig_layouts[i % 2]);
        struct disk_call calls[] = {range_call(ZEROES, good, sizeof(good))};
        assert_int_equal(disk_rig_run(&d, &disk_shapes[i], calls, 1), 1);
        assert_int_equal(calls[0].status, OK);
        check_zeros(&d, s, 100, 40);
        assert_int_equal(disk_rig_write(&d, 100, store_contents + 100 * 512, 40 * 512), OK);

        calls[0] = range_call(ZEROES, bad, sizeof(bad));
        assert_int_equal(disk_rig_run(&d, &disk_shapes[i], calls, 1), 1);
        assert_int_equal(calls[0].status, IOERR);
        check_zeros(&d, s, 100, 10);
        calls[0] = range_call(ZEROES, unknown, sizeof(unknown));
        assert_int_equal(disk_rig_run(&d, &disk_shapes[i], calls, 1), 1);
        assert_int_equal(calls[0].status, UNSUPP);
        check_zeros(&d, s, 100, 10);
        assert_int_equal(disk_rig_write(&d, 100, store_contents + 100 * 512, 10 * 512), OK);
        disk_rig_close(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        OVER(ranges_are_checked_and_cleared, "null", STORE_NULL),
        OVER(ranges_are_checked_and_cleared, "ram", STORE_RAM),
        OVER(ranges_are_checked_and_cleared, "file", STORE_FILE),
        OVER(ranges_are_checked_and_cleared, "read-only file", STORE_READ_ONLY),
        OVER(ranges_are_counted, "null", STORE_NULL),
        OVER(ranges_are_counted, "ram", STORE_RAM),
        OVER(ranges_are_counted, "file", STORE_FILE),
        OVER(ranges_of_one_request_come_in_turn, "file", STORE_FILE),
    };
    return cmocka_run_group_tests_name("blk_range", tests, store_make, store_remove);
}
