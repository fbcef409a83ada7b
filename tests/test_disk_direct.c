// SPDX-License-Identifier: Apache-2.0
#include "devices/disk_file.h"
#include "tests/disk_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { OK = VIRTIO_BLK_S_OK, IOERR = VIRTIO_BLK_S_IOERR };

#define IMAGE (1u << 20)

static const uint64_t features = VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) |
                                 VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES) |
                                 VIRTIO_BIT(VIRTIO_BLK_F_FLUSH);

static void open_direct(struct disk_rig *d, uint32_t block, uint64_t layout)
{
    disk_make_file("image", IMAGE);
    disk_need_direct("image");
    disk_open_rig(d, "image cache=direct", layout | features);
    if (block > disk_image(d->rig.device)->offset_align) {
        disk_make_coarse(d->rig.device, block);
        device_rig_restart(&d->rig, layout | features);
    }
}

// Everything that requests took has been given back.
static void check_nothing_is_held(const struct disk_rig *d)
{
    const struct file_queue *f = file_of(d->rig.queue->priv);
    assert_int_equal(f->n_free_slots, FILE_SLOTS);
    assert_int_equal(f->helpers, 0);
    assert_int_equal(f->image->n_helped, 0);
    assert_int_equal(f->waiting.first, 0);
    assert_null(f->flush);
    if (f->image->section) {
        assert_int_equal(f->image->section->tickets, f->image->section->served);
        assert_int_equal(f->image->section->sides[0].n_writes, 0);
    }
}

// ---- which way ---------------------------------------------------------------------------

static void the_way_is_chosen_once(void **state)
{
    (void)state;
    struct error e;
    struct device *d;
    disk_make_file("image", IMAGE);
    disk_need_direct("image");
    static const struct {
        const char *keys;
        bool is_direct;
    } ways[] = {{"file=image", true},
                {"file=image cache=direct", true},
                {"file=image read-only", true},
                {"file=image cache=buffered", false}};
    for (unsigned i = 0; i < ARRAY_LEN(ways); i++) {
        check_ok(disk_open_line(&d, &e, ways[i].keys), &e);
        const struct image *image = disk_image(d);
        assert_int_equal(image->is_direct, ways[i].is_direct);
        int flags = fcntl(image->fd, F_GETFL);
        assert_int_equal((flags & O_DIRECT) != 0, ways[i].is_direct);
        assert_int_equal(flags & O_NONBLOCK, 0);
        struct virtio_blk_config config;
        memcpy(&config, d->config, sizeof(config));
        assert_int_equal(config.blk_size, 512);
        assert_true((512u << config.topology.physical_block_exp) >= 4096);
        device_close(d);
    }
}

static void a_file_without_direct_io_is_buffered_or_refused(void **state)
{
    (void)state;
    struct error e;
    struct device *d;
    static const char *const says[] = {"disk d", "file=other/image", "cache=direct",
                                       "cache=buffered"};
    disk_mount("other", "ramfs", NULL);
    disk_make_file("other/image", IMAGE);
    assert_int_equal(disk_open_line(&d, &e, "file=other/image cache=direct"), -EINVAL);
    disk_check_says("cache=direct", e.text, says, ARRAY_LEN(says));
    check_ok(disk_open_line(&d, &e, "file=other/image"), &e);
    assert_false(disk_image(d)->is_direct);
    device_close(d);
    disk_unmount("other");
}

// ---- every alignment ---------------------------------------------------------------------

struct model {
    uint8_t bytes[IMAGE];
    uint8_t data[IMAGE];
    uint64_t random;
    uint32_t longest; // sectors of a request
};

static uint32_t pick(struct model *m, uint32_t n)
{
    m->random ^= m->random << 13;
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    return (uint32_t)(m->random >> 32) % n;
}

// Requests that touch no common sector, often a common block.
static unsigned pick_writes(struct model *m, struct disk_call calls[],
                            struct virtio_blk_discard_write_zeroes ranges[], unsigned max)
{
    uint32_t sector = pick(m, 512);
    unsigned n = 0;
    for (; n < max; n++) {
        sector += pick(m, 3) ? 0 : pick(m, 12);
        uint32_t length = 1 + (pick(m, 4) ? pick(m, 8) : pick(m, m->longest));
        if (sector + length > IMAGE / 512)
            break;
        uint64_t at = sector * 512;
        calls[n] = (struct disk_call){.sector = sector, .n_header = 16, .has_status = true};
        if (pick(m, 5)) {
            disk_pattern(m->data + at, length * 512, sector, pick(m, 1000));
            calls[n].type = VIRTIO_BLK_T_OUT;
            calls[n].out = m->data + at;
            calls[n].n_out = length * 512;
        } else {
            ranges[n] = (struct virtio_blk_discard_write_zeroes){sector, length, pick(m, 2)};
            memset(m->data + at, 0, length * 512);
            calls[n].type = VIRTIO_BLK_T_WRITE_ZEROES;
            calls[n].out = (void *)&ranges[n];
            calls[n].n_out = 16;
        }
        memcpy(m->bytes + at, m->data + at, length * 512);
        sector += length;
    }
    return n;
}

static unsigned pick_reads(struct model *m, struct disk_call calls[], unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        uint32_t sector = pick(m, IMAGE / 512), length = 1 + pick(m, m->longest);
        length = MIN(length, IMAGE / 512 - sector);
        calls[i] = (struct disk_call){.type = VIRTIO_BLK_T_IN,
                                      .sector = sector,
                                      .n_in = length * 512,
                                      .n_header = 16,
                                      .has_status = true};
    }
    return n;
}

static void play_round(struct disk_rig *d, struct model *m, const struct disk_shape *shape)
{
    enum { N = 16 };
    struct disk_call calls[N];
    struct virtio_blk_discard_write_zeroes ranges[N];
    unsigned n = pick_writes(m, calls, ranges, N);
    if (n)
        assert_int_equal(disk_rig_run(d, shape, calls, n), n);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(calls[i].status, OK);
    n = pick_reads(m, calls, N);
    assert_int_equal(disk_rig_run(d, shape, calls, n), n);
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(calls[i].status, OK);
        assert_int_equal(calls[i].used, calls[i].n_in + 1);
        assert_memory_equal(calls[i].in, m->bytes + calls[i].sector * 512, calls[i].n_in);
    }
}

static void play(uint32_t block, bool has_fallocate, unsigned n_rounds)
{
    static struct model m;
    static uint8_t found[IMAGE];
    for (unsigned i = 0; i < disk_n_shapes; i++) {
        struct disk_rig d;
        memset(&m, 0, sizeof(m));
        m.random = 88172645463325252u + i;
        // All of a round is in the ring at once.
        m.longest = i == disk_n_shapes - 1 ? 8 : i == 1 ? 60 : 160;
        open_direct(&d, block, rig_layouts[i % 2]);
        disk_image(d.rig.device)->cannot_punch = !has_fallocate;
        disk_image(d.rig.device)->cannot_zero = !has_fallocate;
        for (unsigned round = 0; round < n_rounds; round++)
            play_round(&d, &m, &disk_shapes[i]);
        assert_int_equal(disk_rig_flush(&d), OK);
        check_nothing_is_held(&d);
        disk_rig_close(&d);
        disk_read_file("image", found, 0, IMAGE);
        assert_memory_equal(found, m.bytes, IMAGE);
    }
}

static void requests_of_any_alignment(void **state)
{
    (void)state;
    play(512, true, 6);
}

static void sectors_in_larger_blocks(void **state)
{
    (void)state;
    play(4096, true, 6);
    play(16384, true, 3);
}

static void sectors_are_zeroed_in_larger_blocks(void **state)
{
    (void)state;
    play(4096, false, 4);
}

// ---- ends and holes ----------------------------------------------------------------------

// Blocks reach beyond the end of a file that somebody cut.
static void a_cut_image_reads_as_zeros(void **state)
{
    (void)state;
    static uint8_t data[16384], found[16384];
    static const unsigned ends[] = {0, 300, 512, 4096, 5000, 9000};
    for (unsigned i = 0; i < ARRAY_LEN(ends); i++) {
        struct disk_rig d;
        open_direct(&d, 4096, rig_layouts[i % 2]);
        disk_pattern(data, sizeof(data), 0, i);
        assert_int_equal(disk_rig_write(&d, 0, data, sizeof(data)), OK);
        assert_int_equal(truncate("image", ends[i]), 0);
        memset(data + ends[i], 0, sizeof(data) - ends[i]);
        assert_int_equal(disk_rig_read(&d, 0, found, sizeof(found)), OK);
        assert_memory_equal(found, data, sizeof(data));
        for (unsigned sector = 0; sector < 32; sector += 3) {
            assert_int_equal(disk_rig_read(&d, sector, found, 512), OK);
            assert_memory_equal(found, data + sector * 512, 512);
        }
        disk_pattern(data + 20 * 512, 512, 20, 77);
        assert_int_equal(disk_rig_write(&d, 20, data + 20 * 512, 512), OK);
        assert_int_equal(disk_rig_read(&d, 0, found, sizeof(found)), OK);
        assert_memory_equal(found, data, sizeof(data));
        disk_rig_close(&d);
    }
}

static void sparse_images_stay_sparse(void **state)
{
    (void)state;
    static uint8_t data[65536];
    struct disk_rig d;
    open_direct(&d, 4096, rig_layouts[0]);
    for (uint64_t sector = 0; sector < IMAGE / 512; sector += 128)
        assert_int_equal(disk_rig_read(&d, sector, data, sizeof(data)), OK);
    assert_int_equal(disk_allocated("image"), 0);
    assert_int_equal(disk_rig_write(&d, 1001, data, 512), OK);
    assert_int_equal(disk_rig_write(&d, 501, data, 1024), OK);
    assert_in_range(disk_allocated("image"), 1, 65536);
    disk_rig_close(&d);
}

static void growth_is_by_whole_blocks(void **state)
{
    (void)state;
    struct error e;
    struct disk_rig d;
    static const char *const says[] = {"disk d", "1049088", "4096"};
    open_direct(&d, 4096, rig_layouts[0]);
    const struct device_type *type = d.rig.device->type;
    uint64_t bytes = IMAGE + 512;
    assert_int_equal(type->resize(d.rig.device, &bytes, &e), -EINVAL);
    disk_check_says("resize", e.text, says, ARRAY_LEN(says));
    bytes = IMAGE + 4096;
    assert_int_equal(type->resize(d.rig.device, &bytes, &e), 0);
    assert_int_equal(truncate("image", IMAGE + 3 * 4096 + 512), 0);
    bytes = 0;
    assert_int_equal(type->resize(d.rig.device, &bytes, &e), 0);
    assert_int_equal(bytes, IMAGE + 3 * 4096);
    disk_rig_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_way_is_chosen_once),
        cmocka_unit_test(a_file_without_direct_io_is_buffered_or_refused),
        cmocka_unit_test(requests_of_any_alignment),
        cmocka_unit_test(sectors_in_larger_blocks),
        cmocka_unit_test(sectors_are_zeroed_in_larger_blocks),
        cmocka_unit_test(a_cut_image_reads_as_zeros),
        cmocka_unit_test(sparse_images_stay_sparse),
        cmocka_unit_test(growth_is_by_whole_blocks),
    };
    return cmocka_run_group_tests_name("disk_direct", tests, disk_folder_enter, disk_folder_leave);
}
