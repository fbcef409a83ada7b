// SPDX-License-Identifier: Apache-2.0
// disk_file.c - a disk in a raw image file or on a block device, through the page cache.
//
// Theory: the kernel moves data between the file and the guest's own pages. One request is one
// entry of the worker's io_uring, as a rule. What comes back short goes on where it stopped:
// first the rest of the segment it stopped in, then the segments after it, so that no list of
// segments is ever copied. The contents are never interpreted: a disk is raw whatever a guest
// writes into it.
//
// A range is discarded or zeroed by fallocate(). What the file system refuses (EOPNOTSUPP) is not
// tried again: a discard then does nothing, and zeros are written.
#include "devices/disk_image.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>

#define RETRIES_MAX 100 // of one request: EAGAIN and EINTR pass, or never will

// Written where zeros cannot be had otherwise. We never touch it, so it takes no memory.
static uint8_t zeros[1 << 20];

// ---- open and close ----------------------------------------------------------------------

static int file_open(struct disk *d, const struct line *l, struct error *e)
{
    return image_open(&d->image, d, l, e);
}

static void file_close(struct disk *d)
{
    image_close(d->image);
}

static int file_grow(struct disk *d, uint64_t *bytes, struct error *e)
{
    return image_grow(d->image, bytes, e);
}

static int file_queue_start(struct disk_queue *q, struct error *e)
{
    return image_start(q->disk->image, e);
}

static void file_queue_stop(struct disk_queue *q)
{
    image_stop(q->disk->image);
}

static int file_lane_enter(struct disk_queue *q)
{
    int slot = uring_add_file(&q->queue->lane->uring, q->disk->image->fd);
    if (slot < 0)
        return slot;
    q->file_slot = slot;
    return 0;
}

static void file_lane_leave(struct disk_queue *q)
{
    uring_remove_file(&q->queue->lane->uring, q->file_slot);
}

// ---- requests ----------------------------------------------------------------------------

static uring_done file_done, punch_done, zero_done;

// Where @r goes on: the segment, and the bytes of it that are done.
static unsigned segment_at(const struct disk_request *r, size_t *skip)
{
    unsigned i = 0;
    size_t done = r->n_done;
    while (done >= r->iov[i].iov_len)
        done -= r->iov[i++].iov_len;
    *skip = done;
    return i;
}

static void prepare_move(struct io_uring_sqe *sqe, const struct disk_queue *q,
                         const struct disk_request *r)
{
    size_t skip;
    unsigned first = segment_at(r, &skip);
    const struct iovec *iov = &r->iov[first];
    unsigned n = MIN(r->n_iov - first, IOV_MAX);
    uint64_t offset = r->offset + r->n_done;
    bool is_single = skip || n == 1;
    void *base = (uint8_t *)iov->iov_base + skip;
    unsigned bytes = (unsigned)(iov->iov_len - skip);

    if (r->operation == DISK_READ && is_single)
        io_uring_prep_read(sqe, q->file_slot, base, bytes, offset);
    else if (r->operation == DISK_READ)
        io_uring_prep_readv(sqe, q->file_slot, iov, n, offset);
    else if (is_single)
        io_uring_prep_write(sqe, q->file_slot, base, bytes, offset);
    else
        io_uring_prep_writev(sqe, q->file_slot, iov, n, offset);
    if (r->operation == DISK_WRITE && q->is_write_through)
        sqe->rw_flags = RWF_DSYNC;
}

static bool is_refused(const atomic_bool *flag)
{
    return atomic_load_explicit(flag, memory_order_relaxed);
}

static __attribute__((noinline)) void
prepare_range(struct io_uring_sqe *sqe, const struct disk_queue *q, struct disk_request *r)
{
    const struct image *d = q->disk->image;
    uint64_t offset = r->offset + r->n_done;
    uint32_t left = r->bytes - r->n_done;
    if (left == 0) { // they are zeros, and have to be stable
        io_uring_prep_fsync(sqe, q->file_slot, IORING_FSYNC_DATASYNC);
    } else if (r->operation != DISK_ZERO && !is_refused(&d->cannot_punch)) {
        r->op.done = punch_done;
        io_uring_prep_fallocate(sqe, q->file_slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                (off_t)offset, left);
    } else if (!is_refused(&d->cannot_zero)) {
        r->op.done = zero_done;
        io_uring_prep_fallocate(sqe, q->file_slot, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                                (off_t)offset, left);
    } else {
        io_uring_prep_write(sqe, q->file_slot, zeros, MIN(left, sizeof(zeros)), offset);
        sqe->rw_flags = q->is_write_through ? RWF_DSYNC : 0;
    }
}

static void start(struct disk_queue *q, struct disk_request *r)
{
    r->op = (struct uring_op){.done = file_done, .home = &q->queue->uring};
    struct io_uring_sqe *sqe = uring_entry(&q->queue->lane->uring, &r->op);
    if (likely(r->operation < DISK_FLUSH))
        prepare_move(sqe, q, r);
    else if (r->operation == DISK_FLUSH)
        io_uring_prep_fsync(sqe, q->file_slot, IORING_FSYNC_DATASYNC);
    else
        prepare_range(sqe, q, r);
    sqe->flags |= IOSQE_FIXED_FILE;
}

// A file that has become shorter reads as zeros there, as a hole would.
static void zero_rest(struct disk_request *r)
{
    size_t skip;
    for (unsigned i = segment_at(r, &skip); i < r->n_iov; i++, skip = 0)
        memset((uint8_t *)r->iov[i].iov_base + skip, 0, r->iov[i].iov_len - skip);
    r->n_done = r->bytes;
}

// What an entry's @result makes of @r.
static enum disk_result advance(struct disk_request *r, int result)
{
    if (result == -EAGAIN || result == -EINTR)
        return r->n_retries++ < RETRIES_MAX ? DISK_LATER : DISK_FAILED;
    if (result < 0)
        return DISK_FAILED;
    if (r->operation == DISK_FLUSH)
        return DISK_OK;
    r->n_done += (uint32_t)result;
    if (r->n_done == r->bytes)
        return DISK_OK;
    if (result > 0)
        return DISK_LATER;
    if (r->operation != DISK_READ) // a file that takes nothing, and does not say why
        return DISK_FAILED;
    zero_rest(r);
    return DISK_OK;
}

// What a fallocate's @result makes of @r; sets @refused where there is no such thing.
static enum disk_result advance_range(struct disk_request *r, int result, atomic_bool *refused)
{
    if (result == -EOPNOTSUPP) {
        atomic_store_explicit(refused, true, memory_order_relaxed);
        return r->operation == DISK_DISCARD ? DISK_OK : DISK_LATER; // in another way
    }
    if (result < 0)
        return advance(r, result);
    r->n_done = r->bytes;
    // There is no RWF_DSYNC for it. What was discarded may be anything, after a crash too.
    return r->queue->is_write_through && r->operation != DISK_DISCARD ? DISK_LATER : DISK_OK;
}

static void go_on(struct disk_request *r, enum disk_result result)
{
    r->result = (uint8_t)result;
    if (result == DISK_LATER)
        start(r->queue, r);
    else
        r->queue->done(r);
}

static void file_done(struct uring_op *op, int result)
{
    struct disk_request *r = container_of(op, struct disk_request, op);
    go_on(r, advance(r, result));
}

static void punch_done(struct uring_op *op, int result)
{
    struct disk_request *r = container_of(op, struct disk_request, op);
    go_on(r, advance_range(r, result, &r->queue->disk->image->cannot_punch));
}

static void zero_done(struct uring_op *op, int result)
{
    struct disk_request *r = container_of(op, struct disk_request, op);
    go_on(r, advance_range(r, result, &r->queue->disk->image->cannot_zero));
}

static void file_submit(struct disk_queue *q, struct disk_request *const batch[], unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (unlikely(batch[i]->operation == DISK_DISCARD) &&
            is_refused(&q->disk->image->cannot_punch))
            batch[i]->result = DISK_OK;
        else
            start(q, batch[i]);
    }
}

const struct disk_type disk_file = {
    .key = "file",
    .open = file_open,
    .close = file_close,
    .queue_start = file_queue_start,
    .queue_stop = file_queue_stop,
    .submit = file_submit,
    .lane_enter = file_lane_enter,
    .lane_leave = file_lane_leave,
    .grow = file_grow,
};
