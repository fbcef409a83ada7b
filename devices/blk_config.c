// SPDX-License-Identifier: Apache-2.0
#include "devices/blk_config.h"

#include "devices/disk_zoned.h"

#include <errno.h>
#include <string.h>

// 5.2.4: with header and status a chain of 128, which is what front ends make rings for at
// least. Longer chains are taken, up to RING_SEGS_MAX, from drivers that make them all the same.
#define SEGS_MAX 126

static unsigned log2_of(uint32_t v)
{
    return 31u - (unsigned)__builtin_clz(v);
}

static uint64_t features_of(const struct disk *disk)
{
    uint64_t features = VIRTIO_BIT(VIRTIO_BLK_F_SEG_MAX) | VIRTIO_BIT(VIRTIO_BLK_F_BLK_SIZE) |
                        VIRTIO_BIT(VIRTIO_BLK_F_FLUSH) | VIRTIO_BIT(VIRTIO_BLK_F_TOPOLOGY) |
                        VIRTIO_BIT(VIRTIO_BLK_F_MQ);
    if (disk->has_lifetime)
        features |= VIRTIO_BIT(VIRTIO_BLK_F_LIFETIME);
    if (disk->zones)
        features |= VIRTIO_BIT(VIRTIO_BLK_F_ZONED);
    if (disk->is_read_only)
        return features | VIRTIO_BIT(VIRTIO_BLK_F_RO);
    features |= VIRTIO_BIT(VIRTIO_BLK_F_CONFIG_WCE);
    if (disk->zones) // 5.2.5.1: no discard; resets do what the others are for
        return features;
    if (disk->can_erase)
        features |= VIRTIO_BIT(VIRTIO_BLK_F_SECURE_ERASE);
    return features | VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) | VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES);
}

static void fill_ranges(struct virtio_blk_config *config, const struct disk *disk,
                        uint64_t features)
{
    uint32_t sectors = disk->range_bytes / DISK_SECTOR_BYTES;
    uint32_t granularity = MAX(disk->discard_bytes, disk->physical_bytes) / DISK_SECTOR_BYTES;
    if (features & VIRTIO_BIT(VIRTIO_BLK_F_DISCARD)) {
        config->max_discard_sectors = sectors;
        config->max_discard_seg = disk->n_ranges;
        config->discard_sector_alignment = granularity;
        config->max_write_zeroes_sectors = sectors;
        config->max_write_zeroes_seg = disk->n_ranges;
        config->write_zeroes_may_unmap = disk->can_unmap;
    }
    if (features & VIRTIO_BIT(VIRTIO_BLK_F_SECURE_ERASE)) {
        config->max_secure_erase_sectors = sectors;
        config->max_secure_erase_seg = disk->n_ranges;
        config->secure_erase_sector_alignment = disk->logical_bytes / DISK_SECTOR_BYTES;
    }
}

static void fill_zones(struct virtio_blk_config *config, const struct disk_zones *zones)
{
    config->zoned.model = VIRTIO_BLK_Z_HM;
    config->zoned.zone_sectors = (uint32_t)zones->config.zone_sectors;
    config->zoned.max_open_zones = zones->config.open_max;
    config->zoned.max_active_zones = zones->config.active_max;
    config->zoned.max_append_sectors = (uint32_t)zones->config.zone_sectors;
    config->zoned.write_granularity = DISK_SECTOR_BYTES;
}

void blk_config_fill(struct device *d)
{
    const struct disk *disk = &((struct blk *)d->priv)->disk;
    uint32_t logical = disk->logical_bytes;
    struct virtio_blk_config config = {
        .capacity = disk->bytes / DISK_SECTOR_BYTES,
        .seg_max = SEGS_MAX,
        .blk_size = logical,
        .topology.physical_block_exp = (uint8_t)log2_of(disk->physical_bytes / logical),
        .topology.min_io_size = (uint16_t)MIN(disk->physical_bytes / logical, UINT16_MAX),
        .topology.opt_io_size = disk->optimal_bytes / logical,
        .writeback = 1,
        .num_queues = d->n_queues,
    };
    static_assert(sizeof(config) <= sizeof(d->config), "config space holds it");
    d->features = features_of(disk);
    fill_ranges(&config, disk, d->features);
    if (disk->zones)
        fill_zones(&config, disk->zones);
    memcpy(d->config, &config, sizeof(config));
    d->config_bytes = sizeof(config);
}

void blk_config_resized(struct device *d)
{
    const struct disk *disk = &((struct blk *)d->priv)->disk;
    uint64_t capacity = disk->bytes / DISK_SECTOR_BYTES;
    memcpy(d->config + offsetof(struct virtio_blk_config, capacity), &capacity, sizeof(capacity));
}

// ---- the cache ---------------------------------------------------------------------------

#define WRITEBACK offsetof(struct virtio_blk_config, writeback)

void blk_config_read(struct device *d)
{
    ((struct blk *)d->priv)->is_config_read = true;
}

int blk_config_write(struct device *d, uint32_t offset, const void *data, uint32_t bytes)
{
    struct blk *b = d->priv;
    uint8_t writeback = *(const uint8_t *)data;
    if (offset != WRITEBACK || bytes != sizeof(writeback) ||
        !(d->features & VIRTIO_BIT(VIRTIO_BLK_F_CONFIG_WCE)))
        return -EPERM;
    if (writeback > 1) // 5.2.5
        return -EINVAL;
    d->config[WRITEBACK] = writeback;
    atomic_store(&b->cache, writeback ? BLK_CACHE_BACK : BLK_CACHE_THROUGH);
    return 0;
}

void blk_cache_start(struct disk_queue *q)
{
    struct blk *b = container_of(q->disk, struct blk, disk);
    const struct device *d = q->queue->device;
    const struct ring *ring = &q->queue->ring;
    bool is_first = b->n_started++ == 0;
    // 5.2.6.2: a driver that did not take FLUSH relies on each write.
    q->is_write_through = !(ring->features & VIRTIO_BIT(VIRTIO_BLK_F_FLUSH));
    if (q->is_write_through || !(ring->features & VIRTIO_BIT(VIRTIO_BLK_F_CONFIG_WCE)))
        return;
    q->cache = &b->cache;
    if (is_first && d->config[WRITEBACK])
        atomic_store(&b->cache,
                     ring->is_fresh && b->is_config_read ? BLK_CACHE_BACK : BLK_CACHE_UNKNOWN);
}

void blk_cache_stop(struct disk_queue *q)
{
    container_of(q->disk, struct blk, disk)->n_started--;
}
