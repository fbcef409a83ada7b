// SPDX-License-Identifier: Apache-2.0
// Config space, features, and the cache that a driver can set.
#include "devices/disk.h"
#include "tests/blk_store.h"

#include <errno.h>
#include <string.h>

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

static const uint64_t always = VIRTIO_BIT(VIRTIO_BLK_F_SEG_MAX) |
                               VIRTIO_BIT(VIRTIO_BLK_F_BLK_SIZE) |
                               VIRTIO_BIT(VIRTIO_BLK_F_TOPOLOGY) | VIRTIO_BIT(VIRTIO_BLK_F_MQ) |
                               VIRTIO_BIT(VIRTIO_BLK_F_FLUSH);
static const uint64_t read_only = VIRTIO_BIT(VIRTIO_BLK_F_RO);
static const uint64_t writable =
    VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) | VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES) |
    VIRTIO_BIT(VIRTIO_BLK_F_SECURE_ERASE) | VIRTIO_BIT(VIRTIO_BLK_F_CONFIG_WCE);

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
        assert_int_equal(config.writeback, 1);
        assert_int_equal(config.unused0, 0); // 5.2.5.2
        assert_int_equal(config.zoned.model, 0);
        assert_int_equal(config.max_discard_sectors != 0, !cc->is_read_only);
        assert_int_equal(config.max_write_zeroes_sectors != 0, !cc->is_read_only);
        assert_int_equal(config.max_secure_erase_sectors != 0, !cc->is_read_only);
        assert_int_equal(config.discard_sector_alignment, cc->is_read_only ? 0 : 1);
        assert_int_equal(config.secure_erase_sector_alignment, cc->is_read_only ? 0 : 1);
        assert_int_equal(config.write_zeroes_may_unmap,
                         !cc->is_read_only && strstr(cc->line, "ram=") != NULL);
        assert_int_equal(device->features, always | (cc->is_read_only ? read_only : writable));

        char id[21] = {0};
        struct disk_call c = {
            .type = VIRTIO_BLK_T_GET_ID, .n_in = 20, .n_header = 16, .has_status = true};
        assert_int_equal(disk_rig_run(&d, DISK_PLAIN, &c, 1), 1);
        memcpy(id, c.in, 20);
        assert_string_equal(id, cc->id);
        disk_rig_close(&d);
    }
}

// A file tells how worn nothing is, and what was in it may be anywhere on its file system.
static void a_file_offers_what_it_can_do(void **state)
{
    (void)state;
    struct disk_rig d;
    store_open(&d, &stores[STORE_FILE], rig_layouts[0]);
    assert_int_equal(d.rig.device->features,
                     always | (writable & ~VIRTIO_BIT(VIRTIO_BLK_F_SECURE_ERASE)));
    struct virtio_blk_config config;
    memcpy(&config, d.rig.device->config, sizeof(config));
    assert_int_equal(config.max_secure_erase_sectors, 0);
    assert_int_equal(config.max_secure_erase_seg, 0);
    disk_rig_close(&d);
}

// ---- the cache ---------------------------------------------------------------------------

#define WRITEBACK offsetof(struct virtio_blk_config, writeback)

static const uint64_t with_cache =
    VIRTIO_BIT(VIRTIO_BLK_F_FLUSH) | VIRTIO_BIT(VIRTIO_BLK_F_CONFIG_WCE);

static int set_writeback(struct disk_rig *d, uint8_t value)
{
    struct device *device = d->rig.device;
    int err = device->type->config_write(device, WRITEBACK, &value, 1);
    if (!err)
        assert_int_equal(device->config[WRITEBACK], value);
    return err;
}

static bool is_stable(struct disk_rig *d)
{
    static uint8_t data[512];
    assert_int_equal(disk_rig_write(d, 0, data, sizeof(data)), OK);
    return ((const struct disk_queue *)d->rig.queue->priv)->is_write_through;
}

// One byte can be written, and it is 0 or 1.
static void only_writeback_can_be_written(void **state)
{
    (void)state;
    static const uint8_t bytes[sizeof(struct virtio_blk_config)] = {1};
    struct disk_rig d;
    store_open(&d, &stores[STORE_RAM], rig_layouts[0] | with_cache);
    struct device *device = d.rig.device;
    uint8_t before[DEVICE_CONFIG_MAX];
    memcpy(before, device->config, sizeof(before));
    for (uint32_t offset = 0; offset < device->config_bytes; offset++) {
        for (uint32_t n = 1; n <= device->config_bytes - offset; n++) {
            bool is_right = offset == WRITEBACK && n == 1;
            int err = device->type->config_write(device, offset, bytes, n);
            assert_int_equal(err, is_right ? 0 : -EPERM);
        }
    }
    for (unsigned value = 2; value <= UINT8_MAX; value++)
        assert_int_equal(set_writeback(&d, (uint8_t)value), -EINVAL);
    assert_memory_equal(device->config, before, sizeof(before));
    disk_rig_close(&d);

    store_open(&d, &stores[STORE_READ_ONLY], rig_layouts[0] | VIRTIO_BIT(VIRTIO_BLK_F_FLUSH));
    assert_int_equal(set_writeback(&d, 0), -EPERM);
    disk_rig_close(&d);
}

// The mode is the device's, from the next batch on.
static void the_driver_sets_the_cache(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(rig_layouts); l++) {
        struct disk_rig d;
        store_open(&d, &stores[STORE_FILE], rig_layouts[l] | with_cache);
        assert_int_equal(set_writeback(&d, 1), 0);
        assert_false(is_stable(&d));
        assert_int_equal(set_writeback(&d, 0), 0);
        assert_true(is_stable(&d));
        assert_int_equal(disk_rig_flush(&d), OK);
        assert_true(is_stable(&d)); // it was said
        device_rig_restart(&d.rig, rig_layouts[l] | with_cache);
        assert_true(is_stable(&d)); // config space still says so
        assert_int_equal(set_writeback(&d, 1), 0);
        assert_false(is_stable(&d));
        // A driver without FLUSH relies on each write, one without CONFIG_WCE flushes.
        device_rig_restart(&d.rig, rig_layouts[l]);
        assert_true(is_stable(&d));
        device_rig_restart(&d.rig, rig_layouts[l] | VIRTIO_BIT(VIRTIO_BLK_F_FLUSH));
        assert_false(is_stable(&d));
        disk_rig_close(&d);
    }
}

// While nobody can know what the driver believes, writes are stable.
static void an_unknown_cache_is_none(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(rig_layouts); l++) {
        uint64_t features = rig_layouts[l] | with_cache;
        struct disk_rig d;
        store_open(&d, &stores[STORE_FILE], features);
        assert_true(is_stable(&d)); // nobody has read config space
        assert_int_equal(d.rig.device->config[WRITEBACK], 1);
        assert_int_equal(disk_rig_flush(&d), OK);
        assert_false(is_stable(&d));

        d.rig.device->type->config_read(d.rig.device);
        device_rig_restart(&d.rig, features); // a new driver, which has read it
        assert_true(d.rig.queue->ring.is_fresh);
        assert_false(is_stable(&d));

        device_rig_resume(&d.rig); // a driver that goes on may have heard another process
        assert_false(d.rig.queue->ring.is_fresh);
        assert_true(is_stable(&d));
        assert_int_equal(disk_rig_flush(&d), OK);
        assert_false(is_stable(&d));
        disk_rig_close(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config_space_and_features),
        cmocka_unit_test(a_file_offers_what_it_can_do),
        cmocka_unit_test(only_writeback_can_be_written),
        cmocka_unit_test(the_driver_sets_the_cache),
        cmocka_unit_test(an_unknown_cache_is_none),
    };
    return cmocka_run_group_tests_name("blk_config", tests, store_make, store_remove);
}
