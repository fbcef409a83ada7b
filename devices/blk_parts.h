// SPDX-License-Identifier: Apache-2.0
// blk_parts.h - a virtio-blk request taken apart: header, data and status in a chain.
//
// Private to blk. Header, data and status may be cut into descriptors in any way (VIRTIO 1.3,
// 2.7.4.1): the header is the first 16 readable bytes, the status is the last writable byte, and
// data is what remains on the side that the type uses. Where data shares a segment with one of
// them, the chain's segment is trimmed until the request is finished.
//
// Threads  [W] the worker that owns the queue.
// Trust    the chain's contents are hostile: what is decided on is copied once, then used.
#pragma once

#include "devices/disk.h"

#include <string.h>

#define BLK_HEADER_BYTES sizeof(struct virtio_blk_req_header)

// What stands before the data, and what after it.
struct blk_parts {
    struct virtio_blk_req_header header;
    uint16_t out_first; // the readable segment where data begins…
    uint8_t front;      // …after so many bytes of it
    uint8_t back;       // 1 if the last writable segment is data before its status byte
};

// Copy guest memory once: what follows uses the copy, whatever the guest writes meanwhile.
static inline void blk_copy(void *to, const void *from, size_t bytes)
{
    memcpy(to, from, bytes);
    __asm__ volatile("" ::: "memory");
}

// Find the header and the status of @r. False if the header is too short; the status has been
// found all the same.
static inline bool blk_parts_find(struct disk_request *r, const struct chain *c,
                                  struct blk_parts *p);

// Make data of the readable, or of the writable side what @r moves.
static inline void blk_take_out(struct disk_request *r, const struct chain *c,
                                const struct blk_parts *p);
static inline void blk_take_in(struct disk_request *r, const struct chain *c,
                               const struct blk_parts *p);

// The chain leaves as the ring made it.
void blk_parts_restore(struct disk_request *r);

// Where data lies in the disk. The driver must keep inside the capacity, and to whole sectors
// (5.2.6.1); no sum here can wrap. DISK_LATER, or DISK_OK if there is nothing to do.
static inline enum disk_result blk_check_range(struct disk_request *r, uint64_t sector);

// A place in segments.
struct blk_place {
    const struct iovec *iov;
    size_t skip; // bytes of it, and of those that follow
};

// Copy @bytes from, or to, the segments at @p, which moves behind them. There are as many.
void blk_read(struct blk_place *p, void *to, size_t bytes);
void blk_write(struct blk_place *p, const void *from, size_t bytes);

// A request stands where its chain does.
static inline struct chain *blk_chain(const struct disk_request *r)
{
    return &r->queue->queue->ring.slots[r - r->queue->requests];
}

// ---- inlined by the hot path -------------------------------------------------------------

bool blk_parts_find_scattered(struct disk_request *r, const struct chain *c, struct blk_parts *p);

static inline bool blk_parts_find(struct disk_request *r, const struct chain *c,
                                  struct blk_parts *p)
{
    const struct iovec *last = &c->iov[c->n_out + c->n_in - 1];
    // The usual shape: a segment of its own for the header, another for the status.
    if (unlikely(!c->n_out || !c->n_in || c->iov[0].iov_len != BLK_HEADER_BYTES ||
                 last->iov_len != 1))
        return blk_parts_find_scattered(r, c, p);
    blk_copy(&p->header, c->iov[0].iov_base, BLK_HEADER_BYTES);
    p->out_first = 1;
    p->front = 0;
    p->back = 0;
    r->status = last->iov_base;
    return true;
}

static inline void blk_take_out(struct disk_request *r, const struct chain *c,
                                const struct blk_parts *p)
{
    r->operation = DISK_WRITE;
    r->iov = &c->iov[p->out_first];
    r->n_iov = (uint16_t)(c->n_out - p->out_first);
    r->bytes = c->out_bytes - (uint32_t)BLK_HEADER_BYTES;
    r->front_trim = p->front;
    if (unlikely(p->front)) {
        r->iov[0].iov_base = (uint8_t *)r->iov[0].iov_base + p->front;
        r->iov[0].iov_len -= p->front;
    }
}

static inline void blk_take_in(struct disk_request *r, const struct chain *c,
                               const struct blk_parts *p)
{
    r->operation = DISK_READ;
    r->iov = &c->iov[c->n_out];
    r->n_iov = (uint16_t)(c->n_in - 1 + p->back);
    r->bytes = c->in_bytes - 1;
    r->back_trim = p->back;
    if (unlikely(p->back))
        r->iov[r->n_iov - 1].iov_len -= 1;
}

static inline enum disk_result blk_check_range(struct disk_request *r, uint64_t sector)
{
    uint64_t bytes = atomic_load_explicit(&r->queue->disk->bytes, memory_order_relaxed);
    uint64_t n_sectors = bytes / DISK_SECTOR_BYTES;
    uint32_t n = r->bytes / DISK_SECTOR_BYTES;
    if (r->bytes % DISK_SECTOR_BYTES || sector > n_sectors || n > n_sectors - sector)
        return DISK_FAILED;
    r->offset = sector * DISK_SECTOR_BYTES;
    return n ? DISK_LATER : DISK_OK;
}
