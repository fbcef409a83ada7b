// SPDX-License-Identifier: Apache-2.0
// disk_file_range.c - ranges of an image are discarded or become zeros.
//
// By fallocate() where the file system has it. What it refuses (EOPNOTSUPP) is not tried again: a
// discard then does nothing, and zeros are written.
#include "devices/disk_file.h"

#include <errno.h>
#include <fcntl.h>

// Written where zeros cannot be had otherwise. We never touch it, so it takes no memory.
static _Alignas(IMAGE_MEMORY_ALIGN_MAX) uint8_t zeros[1 << 20];

// There is no RWF_DSYNC for fallocate(). What was discarded may be anything, after a crash too.
enum disk_result file_cleared(const struct disk_request *r)
{
    if (file_left(r))
        return DISK_LATER;
    return r->queue->is_write_through && r->operation != DISK_DISCARD ? DISK_LATER : DISK_OK;
}

// What a fallocate's @result makes of @r; sets @refused where there is no such thing.
static void range_ended(struct disk_request *r, int result, atomic_bool *refused)
{
    if (result == -EOPNOTSUPP) {
        atomic_store_explicit(refused, true, memory_order_relaxed);
        file_go_on(r, r->operation == DISK_DISCARD ? DISK_OK : DISK_LATER); // in another way
    } else if (result < 0) {
        file_go_on(r, file_error(r, result));
    } else {
        r->n_done += file_left(r) & ~(r->queue->disk->image->range_align - 1);
        file_go_on(r, file_cleared(r));
    }
}

static void punched(struct uring_op *op, int result)
{
    struct disk_request *r = container_of(op, struct disk_request, op);
    range_ended(r, result, &r->queue->disk->image->cannot_punch);
}

static void zeroed(struct uring_op *op, int result)
{
    struct disk_request *r = container_of(op, struct disk_request, op);
    range_ended(r, result, &r->queue->disk->image->cannot_zero);
}

static void zeros_written(struct uring_op *op, int result)
{
    struct disk_request *r = container_of(op, struct disk_request, op);
    file_go_on(r, file_advance(r, result));
}

static void zeros_stable(struct uring_op *op, int result)
{
    struct disk_request *r = container_of(op, struct disk_request, op);
    file_go_on(r, result < 0 ? file_error(r, result) : DISK_OK);
}

static void allocate(struct disk_request *r, uring_done *done, int mode, uint32_t bytes)
{
    struct io_uring_sqe *sqe = file_entry(r, done);
    io_uring_prep_fallocate(sqe, file_of(r->queue)->image->fd, mode | FALLOC_FL_KEEP_SIZE,
                            (off_t)file_position(r), bytes);
}

static void write_zeros(struct disk_request *r, uint32_t bytes)
{
    struct io_uring_sqe *sqe = file_entry(r, zeros_written);
    io_uring_prep_write(sqe, r->queue->file_slot, zeros, MIN(bytes, sizeof(zeros)),
                        file_position(r));
    sqe->rw_flags = r->queue->is_write_through ? RWF_DSYNC : 0;
    sqe->flags |= file_of(r->queue)->entry_flags;
}

static void make_stable(struct disk_request *r)
{
    struct io_uring_sqe *sqe = file_entry(r, zeros_stable);
    io_uring_prep_fsync(sqe, file_of(r->queue)->image->fd, IORING_FSYNC_DATASYNC);
}

// Up to the next whole unit, or to the range's end.
static void clear_part(struct disk_request *r, uint32_t unit)
{
    if (file_of(r->queue)->slots)
        file_modify(r);
    else
        write_zeros(r, MIN(unit - (uint32_t)(file_position(r) & (unit - 1)), file_left(r)));
}

void file_clear(struct disk_request *r)
{
    const struct image *i = r->queue->disk->image;
    uint32_t unit = i->range_align, whole = file_left(r) & ~(unit - 1);
    if (!file_left(r))
        make_stable(r);
    else if (!whole || file_position(r) & (unit - 1))
        clear_part(r, unit);
    else if (r->operation == DISK_DISCARD ||
             (r->operation == DISK_UNMAP && !image_is_refused(&i->cannot_punch)))
        allocate(r, punched, FALLOC_FL_PUNCH_HOLE, whole);
    else if (!image_is_refused(&i->cannot_zero))
        allocate(r, zeroed, FALLOC_FL_ZERO_RANGE, whole);
    else
        write_zeros(r, whole);
}
