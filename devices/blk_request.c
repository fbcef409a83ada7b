// SPDX-License-Identifier: Apache-2.0
#include "devices/blk_request.h"

#include "devices/blk_config.h"
#include "devices/blk_range.h"
#include "devices/blk_zone.h"

static_assert((int)DISK_OK == VIRTIO_BLK_S_OK && (int)DISK_FAILED == VIRTIO_BLK_S_IOERR &&
                  (int)DISK_UNSUPPORTED == VIRTIO_BLK_S_UNSUPP,
              "a result is a status byte (5.2.6)");

// ---- what is asked -----------------------------------------------------------------------

// Write what there is room for of @bytes that the disk says of itself.
static void answer(struct disk_request *r, const void *from, size_t bytes)
{
    struct blk_place place = {r->iov, 0};
    r->n_done = (uint32_t)MIN(bytes, r->bytes);
    blk_write(&place, from, r->n_done);
}

// 5.2.6.1: the driver must have room for all 20 bytes.
static enum disk_result get_id(struct disk_request *r)
{
    const struct blk *b = container_of(r->queue->disk, struct blk, disk);
    answer(r, b->serial, sizeof(b->serial));
    return DISK_OK;
}

static enum disk_result get_lifetime(struct disk_request *r)
{
    if (!(r->queue->queue->ring.features & VIRTIO_BIT(VIRTIO_BLK_F_LIFETIME)))
        return DISK_UNSUPPORTED;
    answer(r, &r->queue->disk->lifetime, sizeof(r->queue->disk->lifetime));
    return DISK_OK;
}

static enum disk_result act_or_plan(struct disk_request *r, const struct chain *c,
                                    const struct blk_parts *p)
{
    switch (p->header.type) {
    case VIRTIO_BLK_T_IN:
        blk_take_in(r, c, p);
        return blk_check_range(r, p->header.sector);
    case VIRTIO_BLK_T_OUT:
        blk_take_out(r, c, p);
        if (r->queue->disk->is_read_only) // 5.2.6.2
            return DISK_FAILED;
        return blk_check_range(r, p->header.sector);
    case VIRTIO_BLK_T_FLUSH: // sector and data mean nothing
        blk_cache_flushed(r->queue);
        return DISK_LATER;
    case VIRTIO_BLK_T_GET_ID:
        blk_take_in(r, c, p);
        return get_id(r);
    case VIRTIO_BLK_T_GET_LIFETIME:
        blk_take_in(r, c, p);
        return get_lifetime(r);
    case VIRTIO_BLK_T_DISCARD:
    case VIRTIO_BLK_T_WRITE_ZEROES:
    case VIRTIO_BLK_T_SECURE_ERASE:
        return blk_range_plan(r, c, p);
    default:
        return blk_zone_plan(r, c, p);
    }
}

struct disk_request *blk_request_parse(struct disk_queue *q, struct chain *c)
{
    if (unlikely(c->n_in == 0)) { // 5.2.6: no room for the status
        ring_fault(&q->queue->ring, RING_BAD_REQUEST, c->id);
        queue_push(q->queue, c, 0);
        return NULL;
    }
    struct disk_request *r = &q->requests[c->id];
    r->queue = q;
    r->n_done = 0;
    r->operation = DISK_FLUSH;
    r->n_retries = 0;
    r->front_trim = 0;
    r->back_trim = 0;
    r->n_ranges = 0;

    struct blk_parts p;
    r->result = DISK_FAILED;
    if (likely(blk_parts_find(r, c, &p)))
        r->result = (uint8_t)act_or_plan(r, c, &p);
    if (unlikely(q->disk->zones) && r->result == DISK_LATER && !blk_zone_admit(r))
        return NULL;
    return r;
}

// ---- giving back -------------------------------------------------------------------------

// The bytes that were written, counted from the first writable one without a gap (2.7.8.2 and
// 2.8.5: never more than that). The status, which is last, counts if all data before it does.
static uint32_t used_length(const struct disk_request *r, const struct chain *c)
{
    uint32_t data = r->operation == DISK_READ ? r->n_done : 0;
    return data + 1 == c->in_bytes ? data + 1 : data;
}

static inline void give_back(struct disk_request *r)
{
    struct chain *c = blk_chain(r);
    *r->status = r->result;
    queue_push(r->queue->queue, c, used_length(r, c));
}

static __attribute__((noinline)) void finish_slowly(struct disk_request *r)
{
    if (blk_range_goes_on(r))
        return;
    blk_parts_restore(r);
    give_back(r);
}

void blk_request_finish(struct disk_request *r)
{
    if (unlikely(r->front_trim || r->back_trim || r->n_ranges))
        finish_slowly(r);
    else
        give_back(r);
}
