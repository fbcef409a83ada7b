// SPDX-License-Identifier: Apache-2.0
#include "devices/disk.h"
#include "tests/disk_folder.h"

#include <string.h>
#include <unistd.h>

enum { OK = VIRTIO_BLK_S_OK, IOERR = VIRTIO_BLK_S_IOERR };

// ---- files -------------------------------------------------------------------------------

// What the guest wrote is in the file, at its place, whatever it looks like.
static void writes_are_in_the_file(void **state)
{
    (void)state;
    static uint8_t data[65536], found[65536];
    disk_make_file("image", 1 << 20);
    for (unsigned l = 0; l < ARRAY_LEN(rig_layouts); l++) {
        struct disk_rig d;
        disk_rig_open(&d, "disk d socket=/unused file=image", rig_layouts[l]);
        disk_pattern(data, sizeof(data), 0, l);
        memcpy(data, "QFI\xfb\0\0\0\3", 8); // the header of an image format (never probed)
        assert_int_equal(disk_rig_write(&d, 0, data, sizeof(data)), OK);
        assert_int_equal(disk_rig_flush(&d), OK);
        disk_rig_close(&d);

        disk_read_file("image", found, 0, sizeof(found));
        assert_memory_equal(found, data, sizeof(data));
        disk_rig_open(&d, "disk d socket=/unused file=image", rig_layouts[l]);
        memcpy(&found, d.rig.device->config, 8);
        assert_int_equal(found[1], 2048 >> 8); // as large as before
        assert_int_equal(disk_rig_read(&d, 0, found, sizeof(found)), OK);
        assert_memory_equal(found, data, sizeof(data));
        disk_rig_close(&d);
    }
}

// One segment more than a system call takes.
static void more_segments_than_one_call_takes(void **state)
{
    (void)state;
    static const struct disk_shape shape = {"1025 of data", {48, 32, 64}, {33, 32, 64}};
    static uint8_t data[65536];
    disk_make_file("image", 1 << 20);
    for (unsigned l = 0; l < ARRAY_LEN(rig_layouts); l++) {
        struct disk_rig d;
        disk_rig_open(&d, "disk d socket=/unused file=image", rig_layouts[l]);
        disk_pattern(data, sizeof(data), 0, 5 + l);
        struct disk_call c = {.type = VIRTIO_BLK_T_OUT,
                              .sector = 9,
                              .out = data,
                              .n_out = sizeof(data),
                              .n_header = 16,
                              .has_status = true};
        assert_int_equal(disk_rig_run(&d, &shape, &c, 1), 1);
        assert_int_equal(c.chain.n_out, 1025);
        assert_int_equal(c.status, OK);
        c = (struct disk_call){.type = VIRTIO_BLK_T_IN,
                               .sector = 9,
                               .n_in = sizeof(data),
                               .n_header = 16,
                               .has_status = true};
        static const struct disk_shape in = {"header, 1025", {DISK_ALL}, {33, 32, 64}};
        assert_int_equal(disk_rig_run(&d, &in, &c, 1), 1);
        assert_int_equal(c.chain.n_in, 1025);
        assert_int_equal(c.status, OK);
        assert_int_equal(c.used, sizeof(data) + 1);
        assert_memory_equal(c.in, data, sizeof(data));
        disk_rig_close(&d);
    }
}

// An image that somebody cut reads as zeros beyond its end, in any shape.
static void a_cut_image_reads_as_zeros(void **state)
{
    (void)state;
    static uint8_t data[16384], expected[16384];
    for (unsigned i = 0; i < disk_n_shapes; i++) {
        struct disk_rig d;
        disk_make_file("image", 1 << 20);
        disk_rig_open(&d, "disk d socket=/unused file=image", rig_layouts[i % 2]);
        disk_pattern(data, sizeof(data), 0, i);
        assert_int_equal(disk_rig_write(&d, 0, data, sizeof(data)), OK);
        assert_int_equal(truncate("image", 5000), 0);
        memset(expected, 0, sizeof(expected));
        memcpy(expected, data, 5000);
        for (uint64_t sector = 0; sector < 32; sector += 4) {
            struct disk_call c = {.type = VIRTIO_BLK_T_IN,
                                  .sector = sector,
                                  .n_in = 2048,
                                  .n_header = 16,
                                  .has_status = true};
            assert_int_equal(disk_rig_run(&d, &disk_shapes[i], &c, 1), 1);
            assert_int_equal(c.status, OK);
            assert_int_equal(c.used, 2049);
            assert_memory_equal(c.in, expected + sector * 512, 2048);
        }
        // A write beyond the end brings it back.
        assert_int_equal(disk_rig_write(&d, 20, data, 512), OK);
        assert_int_equal(disk_rig_read(&d, 20, expected, 512), OK);
        assert_memory_equal(expected, data, 512);
        disk_rig_close(&d);
    }
}

// What went to the kernel last.
static const struct io_uring_sqe *last_entry(const struct disk_rig *d)
{
    const struct io_uring_sq *sq = &d->rig.lane.uring.ring.sq;
    return &sq->sqes[(sq->sqe_tail - 1) & sq->ring_mask];
}

// 5.2.6.2: whether writes are stable at once depends on what the driver took.
static void without_flush_writes_are_stable(void **state)
{
    (void)state;
    static uint8_t data[8192];
    disk_make_file("image", 1 << 20);
    for (unsigned with_flush = 0; with_flush < 2; with_flush++) {
        struct disk_rig d;
        uint64_t flush = with_flush ? VIRTIO_BIT(VIRTIO_BLK_F_FLUSH) : 0;
        disk_rig_open(&d, "disk d socket=/unused file=image", rig_layouts[0] | flush);
        const struct disk_queue *q = d.rig.queue->priv;
        assert_int_equal(q->is_write_through, !with_flush);
        assert_int_equal(disk_rig_write(&d, 3, data, sizeof(data)), OK);
        assert_int_equal(last_entry(&d)->opcode, IORING_OP_WRITE);
        assert_int_equal(last_entry(&d)->rw_flags, with_flush ? 0 : RWF_DSYNC);
        assert_int_equal(disk_rig_flush(&d), OK);
        assert_int_equal(last_entry(&d)->opcode, IORING_OP_FSYNC);
        disk_rig_close(&d);
    }
}

// ---- discard and write zeroes ------------------------------------------------------------

static const uint64_t range_features =
    VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) | VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES);

static int clear(struct disk_rig *d, uint32_t type, uint64_t sector, uint32_t n, uint32_t flags)
{
    struct virtio_blk_discard_write_zeroes range = {sector, n, flags};
    struct disk_call c = {
        .type = type, .out = (void *)&range, .n_out = 16, .n_header = 16, .has_status = true};
    assert_int_equal(disk_rig_run(d, DISK_PLAIN, &c, 1), 1);
    return c.status;
}

#define FULL (1u << 20)

// An image of FULL bytes, all of them written.
static void open_full(struct disk_rig *d, const char *name, uint64_t features)
{
    static uint8_t data[FULL];
    disk_make_file(name, FULL);
    disk_open_rig(d, name, features | range_features);
    disk_pattern(data, FULL, 0, 1);
    for (uint32_t at = 0; at < FULL; at += FULL / 2)
        assert_int_equal(disk_rig_write(d, at / 512, data + at, FULL / 2), OK);
    assert_int_equal(disk_rig_flush(d), OK);
}

// The image has data everywhere but for zeros in @n sectors from @sector.
static void check_image(const char *name, uint32_t sector, uint32_t n)
{
    static uint8_t model[FULL], found[FULL];
    disk_pattern(model, FULL, 0, 1);
    memset(model + sector * 512, 0, n * 512);
    disk_read_file(name, found, 0, FULL);
    assert_memory_equal(found, model, FULL);
}

static void discarded_space_is_given_back(void **state)
{
    (void)state;
    static const struct {
        uint32_t type, flags;
        bool gives_back;
    } ways[] = {{VIRTIO_BLK_T_DISCARD, 0, true},
                {VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP, true},
                {VIRTIO_BLK_T_WRITE_ZEROES, 0, false}};
    for (unsigned i = 0; i < ARRAY_LEN(ways); i++) {
        struct disk_rig d;
        open_full(&d, "image", rig_layouts[i % 2]);
        uint64_t before = disk_allocated("image");
        assert_in_range(before, FULL, 2 * FULL);
        assert_int_equal(clear(&d, ways[i].type, 512, 1024, ways[i].flags), OK);
        uint64_t after = disk_allocated("image");
        if (ways[i].gives_back)
            assert_in_range(after, 0, before - 1024 * 512);
        else
            assert_int_equal(after, before);
        check_image("image", 512, 1024);
        disk_rig_close(&d);
    }
}

// 5.2.6.2: zeros are a write; a driver without FLUSH has them stable.
static void without_flush_zeros_are_stable(void **state)
{
    (void)state;
    struct disk_rig d;
    open_full(&d, "image", rig_layouts[0]);
    assert_int_equal(clear(&d, VIRTIO_BLK_T_WRITE_ZEROES, 8, 8, 0), OK);
    assert_int_equal(last_entry(&d)->opcode, IORING_OP_FSYNC);
    assert_int_equal(clear(&d, VIRTIO_BLK_T_DISCARD, 16, 8, 0), OK);
    assert_int_equal(last_entry(&d)->opcode, IORING_OP_FALLOCATE);
    disk_rig_close(&d);
    open_full(&d, "image", rig_layouts[0] | VIRTIO_BIT(VIRTIO_BLK_F_FLUSH));
    assert_int_equal(clear(&d, VIRTIO_BLK_T_WRITE_ZEROES, 8, 8, 0), OK);
    assert_int_equal(last_entry(&d)->opcode, IORING_OP_FALLOCATE);
    disk_rig_close(&d);
}

// tmpfs punches holes but has no ZERO_RANGE; ramfs has neither.
static void a_file_system_without_fallocate_serves_all_the_same(void **state)
{
    (void)state;
    static const struct {
        const char *type;
        bool can_punch;
    } systems[] = {{"tmpfs", true}, {"ramfs", false}};
    for (unsigned i = 0; i < ARRAY_LEN(systems); i++) {
        disk_mount("other", systems[i].type, NULL);
        bool can_punch = systems[i].can_punch;
        struct disk_rig d;
        open_full(&d, "other/image", rig_layouts[i]);
        for (unsigned again = 0; again < 2; again++) {
            assert_int_equal(clear(&d, VIRTIO_BLK_T_DISCARD, 0, 64, 0), OK);
            check_image("other/image", 0, can_punch ? 64 : 0);
        }
        assert_int_equal(clear(&d, VIRTIO_BLK_T_WRITE_ZEROES, 0, 80, 1), OK);
        check_image("other/image", 0, 80);
        assert_int_equal(clear(&d, VIRTIO_BLK_T_WRITE_ZEROES, 80, 1001, 0), OK);
        check_image("other/image", 0, 1081);
        assert_int_equal(last_entry(&d)->opcode, IORING_OP_WRITE);
        assert_int_equal(last_entry(&d)->rw_flags, RWF_DSYNC);
        assert_int_equal(clear(&d, VIRTIO_BLK_T_WRITE_ZEROES, 0, 2048, 0), OK);
        check_image("other/image", 0, 2048);
        disk_rig_close(&d);
        disk_unmount("other");
    }
}

static void a_queue_changes_lanes_for_ever(void **state)
{
    (void)state;
    static uint8_t data[512];
    struct disk_rig d;
    disk_make_file("image", 1 << 20);
    disk_rig_open(&d, "disk d socket=/unused file=image", rig_layouts[0]);
    struct queue *q = d.rig.queue;
    for (unsigned i = 0; i < URING_FILES_MAX + 10; i++) {
        q->device->type->lane_leave(q);
        assert_int_equal(q->device->type->lane_enter(q), 0);
    }
    assert_int_equal(disk_rig_read(&d, 0, data, sizeof(data)), OK);
    disk_rig_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_are_in_the_file),
        cmocka_unit_test(more_segments_than_one_call_takes),
        cmocka_unit_test(a_cut_image_reads_as_zeros),
        cmocka_unit_test(without_flush_writes_are_stable),
        cmocka_unit_test(discarded_space_is_given_back),
        cmocka_unit_test(without_flush_zeros_are_stable),
        cmocka_unit_test(a_file_system_without_fallocate_serves_all_the_same),
        cmocka_unit_test(a_queue_changes_lanes_for_ever),
    };
    return cmocka_run_group_tests_name("disk", tests, disk_folder_enter, disk_folder_leave);
}
