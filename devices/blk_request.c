// SPDX-License-Identifier: Apache-2.0
#include "devices/blk_request.h"

#include <string.h>

#define HEADER_BYTES sizeof(struct virtio_blk_req_header)
#define RANGE_BYTES  sizeof(struct virtio_blk_discard_write_zeroes)

static_assert((int)DISK_OK == VIRTIO_BLK_S_OK && (int)DISK_FAILED == VIRTIO_BLK_S_IOERR &&
                  (int)DISK_UNSUPPORTED == VIRTIO_BLK_S_UNSUPP,
              "a result is a status byte (5.2.6)");

// A request taken apart: what stands before the data, and what after it.
struct parts {
    struct virtio_blk_req_header header;
    uint16_t out_first; // the readable segment where data begins…
    uint8_t front;      // …after so many bytes of it
    uint8_t back;       // 1 if the last writable segment is data before its status byte
};

// Copy guest memory once: what follows uses the copy, whatever the guest writes meanwhile.
static inline void guest_copy(void *to, const void *from, size_t bytes)
{
    memcpy(to, from, bytes);
    __asm__ volatile("" ::: "memory");
}

// A request stands where its chain does.
static inline struct chain *chain_of(const struct disk_request *r)
{
    return &r->queue->queue->ring.slots[r - r->queue->requests];
}

// ---- taking apart ------------------------------------------------------------------------

// The usual shape: a segment of its own for the header, another for the status.
static inline bool parse_plain(struct disk_request *r, const struct chain *c, struct parts *p)
{
    const struct iovec *last = &c->iov[c->n_out + c->n_in - 1];
    if (!c->n_out || !c->n_in || c->iov[0].iov_len != HEADER_BYTES || last->iov_len != 1)
        return false;
    guest_copy(&p->header, c->iov[0].iov_base, HEADER_BYTES);
    p->out_first = 1;
    p->front = 0;
    p->back = 0;
    r->status = last->iov_base;
    return true;
}

// Any other shape. False if the header is too short; the status has been found all the same.
static __attribute__((noinline)) bool parse_scattered(struct disk_request *r, const struct chain *c,
                                                      struct parts *p)
{
    const struct iovec *last = &c->iov[c->n_out + c->n_in - 1];
    r->status = (uint8_t *)last->iov_base + last->iov_len - 1;
    p->back = last->iov_len > 1;

    size_t copied = 0, n = 0;
    uint16_t i = 0;
    for (; i < c->n_out && copied < HEADER_BYTES; i++) {
        n = MIN(c->iov[i].iov_len, HEADER_BYTES - copied);
        guest_copy((uint8_t *)&p->header + copied, c->iov[i].iov_base, n);
        copied += n;
    }
    if (copied < HEADER_BYTES)
        return false;
    bool is_shared = n < c->iov[i - 1].iov_len;
    p->out_first = is_shared ? (uint16_t)(i - 1) : i;
    p->front = is_shared ? (uint8_t)n : 0;
    return true;
}

static void take_data_out(struct disk_request *r, const struct chain *c, const struct parts *p)
{
    r->operation = DISK_WRITE;
    r->iov = &c->iov[p->out_first];
    r->n_iov = (uint16_t)(c->n_out - p->out_first);
    r->bytes = c->out_bytes - (uint32_t)HEADER_BYTES;
    r->front_trim = p->front;
    if (unlikely(p->front)) {
        r->iov[0].iov_base = (uint8_t *)r->iov[0].iov_base + p->front;
        r->iov[0].iov_len -= p->front;
    }
}

static void take_data_in(struct disk_request *r, const struct chain *c, const struct parts *p)
{
    r->operation = DISK_READ;
    r->iov = &c->iov[c->n_out];
    r->n_iov = (uint16_t)(c->n_in - 1 + p->back);
    r->bytes = c->in_bytes - 1;
    r->back_trim = p->back;
    if (unlikely(p->back))
        r->iov[r->n_iov - 1].iov_len -= 1;
}

// The chain leaves as the ring made it.
static void restore_segments(struct disk_request *r)
{
    if (r->front_trim) {
        r->iov[0].iov_base = (uint8_t *)r->iov[0].iov_base - r->front_trim;
        r->iov[0].iov_len += r->front_trim;
    }
    if (r->back_trim)
        r->iov[r->n_iov - 1].iov_len += r->back_trim;
}

// ---- what is asked -----------------------------------------------------------------------

// Where data lies in the disk. The driver must keep inside the capacity, and to whole sectors
// (5.2.6.1); no sum here can wrap.
static enum disk_result check_range(struct disk_request *r, uint64_t sector)
{
    uint64_t bytes = atomic_load_explicit(&r->queue->disk->bytes, memory_order_relaxed);
    uint64_t n_sectors = bytes / DISK_SECTOR_BYTES;
    uint32_t n = r->bytes / DISK_SECTOR_BYTES;
    if (r->bytes % DISK_SECTOR_BYTES || sector > n_sectors || n > n_sectors - sector)
        return DISK_FAILED;
    r->offset = sector * DISK_SECTOR_BYTES;
    return n ? DISK_LATER : DISK_OK;
}

// As much of the 20 bytes as the driver has room for (5.2.6.1: it must have 20).
static enum disk_result get_id(struct disk_request *r)
{
    const struct blk *b = container_of(r->queue->disk, struct blk, disk);
    for (unsigned i = 0; i < r->n_iov && r->n_done < sizeof(b->serial); i++) {
        size_t n = MIN(r->iov[i].iov_len, sizeof(b->serial) - r->n_done);
        memcpy(r->iov[i].iov_base, b->serial + r->n_done, n);
        r->n_done += (uint32_t)n;
    }
    return DISK_OK;
}

static void copy_range(const struct disk_request *r, size_t index,
                       struct virtio_blk_discard_write_zeroes *range)
{
    size_t skip = index * RANGE_BYTES, copied = 0;
    for (unsigned i = 0; copied < RANGE_BYTES; i++) {
        const struct iovec *v = &r->iov[i];
        if (skip >= v->iov_len) {
            skip -= v->iov_len;
            continue;
        }
        size_t n = MIN(v->iov_len - skip, RANGE_BYTES - copied);
        guest_copy((uint8_t *)range + copied, (const uint8_t *)v->iov_base + skip, n);
        copied += n;
        skip = 0;
    }
}

// Check one range, and make it what @r does.
static enum disk_result take_range(struct disk_request *r,
                                   const struct virtio_blk_discard_write_zeroes *range)
{
    bool is_discard = r->operation == DISK_DISCARD;
    uint32_t known = is_discard ? 0 : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
    if (range->flags & ~known) // 5.2.6.2
        return DISK_UNSUPPORTED;
    if (range->num_sectors > r->queue->disk->range_bytes / DISK_SECTOR_BYTES) // 5.2.6.1
        return DISK_FAILED;
    if (!is_discard)
        r->operation = range->flags ? DISK_UNMAP : DISK_ZERO;
    r->bytes = range->num_sectors * DISK_SECTOR_BYTES;
    r->n_done = 0;
    r->n_retries = 0;
    return check_range(r, range->sector);
}

// The next range that is not empty. Each is read once, when its turn comes.
static enum disk_result next_range(struct disk_request *r)
{
    size_t n = (chain_of(r)->out_bytes - HEADER_BYTES) / RANGE_BYTES;
    enum disk_result result = DISK_OK;
    while (result == DISK_OK && r->n_ranges) {
        struct virtio_blk_discard_write_zeroes range;
        copy_range(r, n - r->n_ranges--, &range);
        result = take_range(r, &range);
    }
    return result;
}

static __attribute__((noinline)) enum disk_result
plan_ranges(struct disk_request *r, const struct chain *c, const struct parts *p)
{
    bool is_discard = p->header.type == VIRTIO_BLK_T_DISCARD;
    const struct disk *d = r->queue->disk;
    if (d->is_read_only) // 5.2.6.2
        return DISK_FAILED;
    unsigned feature = is_discard ? VIRTIO_BLK_F_DISCARD : VIRTIO_BLK_F_WRITE_ZEROES;
    if (!(r->queue->queue->ring.features & VIRTIO_BIT(feature)))
        return DISK_UNSUPPORTED;
    take_data_out(r, c, p);
    r->operation = is_discard ? DISK_DISCARD : DISK_ZERO;
    size_t n = r->bytes / RANGE_BYTES;
    if (n == 0 || r->bytes % RANGE_BYTES || n > d->n_ranges) // 5.2.6.1
        return DISK_FAILED;
    r->n_ranges = (uint8_t)n;
    return next_range(r);
}

static enum disk_result act_or_plan(struct disk_request *r, const struct chain *c,
                                    const struct parts *p)
{
    switch (p->header.type) {
    case VIRTIO_BLK_T_IN:
        take_data_in(r, c, p);
        return check_range(r, p->header.sector);
    case VIRTIO_BLK_T_OUT:
        take_data_out(r, c, p);
        if (r->queue->disk->is_read_only) // 5.2.6.2
            return DISK_FAILED;
        return check_range(r, p->header.sector);
    case VIRTIO_BLK_T_FLUSH: // sector and data mean nothing
        return DISK_LATER;
    case VIRTIO_BLK_T_GET_ID:
        take_data_in(r, c, p);
        return get_id(r);
    case VIRTIO_BLK_T_DISCARD:
    case VIRTIO_BLK_T_WRITE_ZEROES:
        return plan_ranges(r, c, p);
    default:
        return DISK_UNSUPPORTED;
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

    struct parts p;
    if (likely(parse_plain(r, c, &p)) || parse_scattered(r, c, &p))
        r->result = (uint8_t)act_or_plan(r, c, &p);
    else
        r->result = DISK_FAILED;
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
    struct chain *c = chain_of(r);
    *r->status = r->result;
    queue_push(r->queue->queue, c, used_length(r, c));
}

// One range is done: true if another one is under way now.
static bool goes_on(struct disk_request *r)
{
    while (r->n_ranges && r->result == DISK_OK) {
        r->result = (uint8_t)next_range(r);
        if (r->result == DISK_LATER)
            r->queue->disk->type->submit(r->queue, &r, 1);
    }
    return r->result == DISK_LATER;
}

static __attribute__((noinline)) void finish_slowly(struct disk_request *r)
{
    if (goes_on(r))
        return;
    restore_segments(r);
    give_back(r);
}

void blk_request_finish(struct disk_request *r)
{
    if (unlikely(r->front_trim || r->back_trim || r->n_ranges))
        finish_slowly(r);
    else
        give_back(r);
}
