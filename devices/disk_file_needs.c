// SPDX-License-Identifier: Apache-2.0
// disk_file_needs.c - what a request that is not plain needs.
#include "devices/disk_file.h"

// Memory may be less aligned than lengths: the strict test has failed, or was not made.
static bool fits(const struct disk_request *r, const struct image *i)
{
    uint64_t lengths = r->offset, addresses = 0;
    for (unsigned k = 0; k < r->n_iov; k++) {
        lengths |= r->iov[k].iov_len;
        addresses |= (uintptr_t)r->iov[k].iov_base;
    }
    return !(lengths & (i->offset_align - 1)) && !(addresses & (i->memory_align - 1));
}

static uint8_t needs_of(const struct disk_request *r, const struct image *i)
{
    bool is_range = r->operation > DISK_FLUSH;
    uint8_t needs = is_range || i->is_helped ? NEED_HELPER : 0;
    if (!is_range && !fits(r, i))
        needs |= NEED_SLOT | NEED_HELPER;
    if (!i->section || r->operation == DISK_READ)
        return needs;
    if (((r->offset | r->bytes) & (i->offset_align - 1)) == 0)
        return needs | NEED_SHARE;
    return needs | NEED_SLOT | NEED_HELPER | NEED_ALONE;
}

// What is not a whole unit of it stays as it is. False if nothing is left.
static bool trim_discard(struct disk_request *r, const struct image *i)
{
    uint64_t unit = i->range_align, end = (r->offset + r->bytes) & ~(unit - 1);
    r->offset = (r->offset + unit - 1) & ~(unit - 1);
    r->bytes = r->offset < end ? (uint32_t)(end - r->offset) : 0;
    return r->bytes && !image_is_refused(&i->cannot_punch);
}

void file_submit_slowly(struct disk_request *r)
{
    const struct image *i = r->queue->disk->image;
    if (r->operation == DISK_FLUSH) {
        file_flush(r);
        return;
    }
    if (r->operation == DISK_DISCARD && !trim_discard(r, i)) {
        r->result = DISK_OK;
        return;
    }
    uint8_t needs = needs_of(r, i);
    if (needs)
        file_wait(r, needs);
    else
        file_start_plain(r);
}
