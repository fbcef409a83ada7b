// SPDX-License-Identifier: Apache-2.0
#include "devices/blk_range.h"

#define RANGE_BYTES sizeof(struct virtio_blk_discard_write_zeroes)

// Check one range, and make it what @r does.
static enum disk_result take_range(struct disk_request *r,
                                   const struct virtio_blk_discard_write_zeroes *range)
{
    bool can_unmap = r->operation == DISK_ZERO || r->operation == DISK_UNMAP;
    if (range->flags & ~(can_unmap ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0u)) // 5.2.6.2
        return DISK_UNSUPPORTED;
    if (range->num_sectors > r->queue->disk->range_bytes / DISK_SECTOR_BYTES) // 5.2.6.1
        return DISK_FAILED;
    if (can_unmap)
        r->operation = range->flags ? DISK_UNMAP : DISK_ZERO;
    r->bytes = range->num_sectors * DISK_SECTOR_BYTES;
    r->n_done = 0;
    r->n_retries = 0;
    return blk_check_range(r, range->sector);
}

// The next range that is not empty. Each is read once, when its turn comes.
static enum disk_result next_range(struct disk_request *r)
{
    size_t n = (blk_chain(r)->out_bytes - BLK_HEADER_BYTES) / RANGE_BYTES;
    enum disk_result result = DISK_OK;
    while (result == DISK_OK && r->n_ranges) {
        struct virtio_blk_discard_write_zeroes range;
        struct blk_place place = {r->iov, (n - r->n_ranges--) * RANGE_BYTES};
        blk_read(&place, &range, RANGE_BYTES);
        result = take_range(r, &range);
    }
    return result;
}

static unsigned feature_of(uint32_t type)
{
    switch (type) {
    case VIRTIO_BLK_T_DISCARD:
        return VIRTIO_BLK_F_DISCARD;
    case VIRTIO_BLK_T_WRITE_ZEROES:
        return VIRTIO_BLK_F_WRITE_ZEROES;
    default:
        return VIRTIO_BLK_F_SECURE_ERASE;
    }
}

static enum disk_operation operation_of(uint32_t type)
{
    switch (type) {
    case VIRTIO_BLK_T_DISCARD:
        return DISK_DISCARD;
    case VIRTIO_BLK_T_WRITE_ZEROES:
        return DISK_ZERO;
    default:
        return DISK_ERASE;
    }
}

enum disk_result blk_range_plan(struct disk_request *r, const struct chain *c,
                                const struct blk_parts *p)
{
    const struct disk *d = r->queue->disk;
    if (d->is_read_only) // 5.2.6.2
        return DISK_FAILED;
    if (!(r->queue->queue->ring.features & VIRTIO_BIT(feature_of(p->header.type))))
        return DISK_UNSUPPORTED;
    blk_take_out(r, c, p);
    r->operation = (uint8_t)operation_of(p->header.type);
    size_t n = r->bytes / RANGE_BYTES;
    if (n == 0 || r->bytes % RANGE_BYTES || n > d->n_ranges) // 5.2.6.1
        return DISK_FAILED;
    r->n_ranges = (uint8_t)n;
    return next_range(r);
}

bool blk_range_goes_on(struct disk_request *r)
{
    while (r->n_ranges && r->result == DISK_OK) {
        r->result = (uint8_t)next_range(r);
        if (r->result == DISK_LATER)
            r->queue->disk->type->submit(r->queue, &r, 1);
    }
    return r->result == DISK_LATER;
}
