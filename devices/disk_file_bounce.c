// SPDX-License-Identifier: Apache-2.0
// disk_file_bounce.c - direct I/O of what is not aligned for it, through memory that is.
//
// A request goes through its one slot in pieces, one after the other. A read may begin and end in
// whole blocks around what is asked; a write moves whole blocks, and a part of a block is read,
// modified and written while nobody else writes to the disk.
#include "devices/disk_file.h"

#include <string.h>

static uint8_t *slot_of(const struct disk_request *r)
{
    return file_of(r->queue)->slots + (size_t)file_beside(r)->slot * FILE_SLOT_BYTES;
}

static uint32_t block_of(const struct disk_request *r)
{
    return r->queue->disk->image->offset_align;
}

// How far inside its block the request is.
static uint32_t depth_of(const struct disk_request *r)
{
    return (uint32_t)(file_position(r) & (block_of(r) - 1));
}

static void copy_in(const struct disk_request *r, uint8_t *to, uint32_t bytes)
{
    size_t skip;
    for (unsigned i = file_segment(r, &skip); bytes; i++, skip = 0) {
        uint32_t n = (uint32_t)MIN(bytes, r->iov[i].iov_len - skip);
        memcpy(to, (const uint8_t *)r->iov[i].iov_base + skip, n);
        to += n;
        bytes -= n;
    }
}

static void copy_out(const struct disk_request *r, const uint8_t *from, uint32_t bytes)
{
    size_t skip;
    for (unsigned i = file_segment(r, &skip); bytes; i++, skip = 0) {
        uint32_t n = (uint32_t)MIN(bytes, r->iov[i].iov_len - skip);
        memcpy((uint8_t *)r->iov[i].iov_base + skip, from, n);
        from += n;
        bytes -= n;
    }
}

static void read_slot(struct disk_request *r, uring_done *done, uint32_t bytes)
{
    struct io_uring_sqe *sqe = file_entry(r, done);
    io_uring_prep_read(sqe, r->queue->file_slot, slot_of(r), bytes, file_position(r) - depth_of(r));
    sqe->flags |= file_of(r->queue)->entry_flags;
}

static void write_slot(struct disk_request *r, uring_done *done, uint32_t bytes)
{
    struct io_uring_sqe *sqe = file_entry(r, done);
    io_uring_prep_write(sqe, r->queue->file_slot, slot_of(r), bytes,
                        file_position(r) - depth_of(r));
    sqe->rw_flags = r->queue->is_write_through ? RWF_DSYNC : 0;
    sqe->flags |= file_of(r->queue)->entry_flags;
}

// ---- whole blocks ------------------------------------------------------------------------

static void bounced_in(struct uring_op *op, int result)
{
    struct disk_request *r = container_of(op, struct disk_request, op);
    if (result < 0) {
        file_go_on(r, file_error(r, result));
        return;
    }
    uint32_t depth = depth_of(r);
    uint32_t n = (uint32_t)result > depth ? MIN((uint32_t)result - depth, file_left(r)) : 0;
    if (n == 0) { // the end of the file
        file_zero_rest(r);
    } else {
        copy_out(r, slot_of(r) + depth, n);
        r->n_done += n;
    }
    file_go_on(r, file_left(r) ? DISK_LATER : DISK_OK);
}

static void bounced_out(struct uring_op *op, int result)
{
    struct disk_request *r = container_of(op, struct disk_request, op);
    file_go_on(r, file_advance(r, result));
}

void file_bounce(struct disk_request *r)
{
    uint32_t block = block_of(r), depth = depth_of(r);
    if (r->operation == DISK_READ) {
        uint64_t bytes = ((uint64_t)depth + file_left(r) + block - 1) & ~(uint64_t)(block - 1);
        read_slot(r, bounced_in, (uint32_t)MIN(bytes, FILE_SLOT_BYTES));
        return;
    }
    uint32_t bytes = MIN(file_left(r), FILE_SLOT_BYTES) & ~(block - 1);
    if (depth || !bytes) {
        file_modify(r);
        return;
    }
    copy_in(r, slot_of(r), bytes);
    write_slot(r, bounced_out, bytes);
}

// ---- parts of blocks ---------------------------------------------------------------------

// What of the block is written.
static uint32_t part_of(const struct disk_request *r)
{
    return MIN(block_of(r) - depth_of(r), file_left(r));
}

static void part_written(struct uring_op *op, int result)
{
    struct disk_request *r = container_of(op, struct disk_request, op);
    if (result != (int)block_of(r)) {
        file_go_on(r, file_error(r, result < 0 ? result : -EAGAIN));
        return;
    }
    r->n_done += part_of(r);
    if (r->operation == DISK_WRITE)
        file_go_on(r, file_left(r) ? DISK_LATER : DISK_OK);
    else
        file_go_on(r, file_cleared(r));
}

static void block_read(struct uring_op *op, int result)
{
    struct disk_request *r = container_of(op, struct disk_request, op);
    if (result < 0) {
        file_go_on(r, file_error(r, result));
        return;
    }
    uint8_t *slot = slot_of(r);
    memset(slot + result, 0, block_of(r) - (uint32_t)result); // beyond the end of the file
    if (r->operation == DISK_WRITE)
        copy_in(r, slot + depth_of(r), part_of(r));
    else
        memset(slot + depth_of(r), 0, part_of(r));
    write_slot(r, part_written, block_of(r));
}

void file_modify(struct disk_request *r)
{
    read_slot(r, block_read, block_of(r));
}
