// SPDX-License-Identifier: Apache-2.0
// disk_file.c - a disk in a raw image file or on a block device.
//
// Theory: the kernel moves data between the file and the guest's own pages. One request is one
// entry of the worker's io_uring, as a rule. What comes back short goes on where it stopped:
// first the rest of the segment it stopped in, then the segments after it, so that no list of
// segments is ever copied. The contents are never interpreted: a disk is raw whatever a guest
// writes into it.
//
// A plain request to a direct disk says that it will not block (RWF_NOWAIT). Where the kernel would
// have to (blocks are allocated, the device is full of requests), it comes back and waits for one
// of the helpers that its disk may use.
#include "devices/disk_file.h"

#include "dataplane/log.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

// ---- open and close ----------------------------------------------------------------------

static int file_open(struct disk *d, const struct line *l, struct error *e)
{
    int err = image_open(&d->image, d, l, e);
    if (err || strcmp(line_text(l, "pin", "off"), "on") != 0)
        return err;
    if (!d->image->is_direct || d->image->is_helped) {
        log_warning("disk %s: pin=on: the image has no direct I/O; no memory is pinned", d->name);
        return 0;
    }
    err = pinning_open(&d->pinning, d->name, e);
    if (err)
        image_close(d->image);
    return err;
}

static void file_close(struct disk *d)
{
    pinning_close(d->pinning);
    image_close(d->image);
}

static int file_grow(struct disk *d, uint64_t *bytes, struct error *e)
{
    return image_grow(d->image, bytes, e);
}

// ---- a queue's start and stop ------------------------------------------------------------

static void describe_plain(struct file_queue *f)
{
    const struct image *i = f->image;
    f->slow = 0xff & ~(1u << DISK_READ | 1u << DISK_WRITE);
    if (i->is_helped)
        f->slow = 0xff;
    if (i->section)
        f->slow |= 1u << DISK_WRITE;
    f->mask = i->is_direct ? MAX(i->offset_align, i->memory_align) - 1 : 0;
    // Not even asked: the file system may not answer (FUSE is asked whether it can be polled).
    f->entry_flags = i->is_helped ? IOSQE_ASYNC : IOSQE_FIXED_FILE;
    f->patience = i->is_direct && !i->is_helped ? RWF_NOWAIT : 0;
}

static int allocate_slots(struct file_queue *f)
{
    if (!f->image->is_direct)
        return 0;
    void *slots = mmap(NULL, (size_t)FILE_SLOTS * FILE_SLOT_BYTES, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (slots == MAP_FAILED)
        return -ENOMEM;
    f->slots = slots;
    for (; f->n_free_slots < FILE_SLOTS; f->n_free_slots++)
        f->free_slots[f->n_free_slots] = (uint8_t)f->n_free_slots;
    return 0;
}

static void free_queue(struct file_queue *f)
{
    if (f->slots)
        munmap(f->slots, (size_t)FILE_SLOTS * FILE_SLOT_BYTES);
    free(f);
}

static int file_queue_start(struct disk_queue *q, struct error *e)
{
    size_t n = q->queue->ring.size;
    struct file_queue *f = calloc(1, sizeof(*f) + n * sizeof(f->requests[0]));
    if (!f)
        return error_set(e, ENOMEM, "disk %s: out of memory", q->disk->name);
    f->image = q->disk->image;
    describe_plain(f);
    int err = allocate_slots(f) ? error_set(e, ENOMEM, "disk %s: out of memory", q->disk->name)
                                : image_start(f->image, e);
    if (err) {
        free_queue(f);
        return err;
    }
    if (f->image->section)
        section_add(f->image->section, q->queue->index);
    q->priv = f;
    return 0;
}

static void file_queue_stop(struct disk_queue *q)
{
    struct file_queue *f = q->priv;
    image_stop(f->image);
    free_queue(f);
    q->priv = NULL;
}

// An entry that goes to a helper thread unseen has its file looked up there, when its turn comes:
// the queue may have moved by then, and its slot be another file's. Such entries name the
// descriptor, which stays while a request is out.
static int file_lane_enter(struct disk_queue *q)
{
    if (file_of(q)->image->is_helped) {
        q->file_slot = file_of(q)->image->fd;
        return 0;
    }
    int slot = uring_add_file(&q->queue->lane->uring, q->disk->image->fd);
    if (slot < 0)
        return slot;
    q->file_slot = slot;
    return 0;
}

static void file_lane_leave(struct disk_queue *q)
{
    pinning_leave(&file_of(q)->pins, &q->queue->lane->uring);
    if (!file_of(q)->image->is_helped)
        uring_remove_file(&q->queue->lane->uring, q->file_slot);
    q->file_slot = -1; // what goes on after a move to a lane that has no room fails, elsewhere
}

// ---- moves -------------------------------------------------------------------------------

static inline void start_move(struct disk_request *r, uring_done *done, int flags)
{
    struct io_uring_sqe *sqe = file_entry(r, done);
    int file = r->queue->file_slot;
    size_t skip;
    unsigned first = file_segment(r, &skip);
    const struct iovec *iov = &r->iov[first];
    unsigned n = MIN(r->n_iov - first, IOV_MAX);
    uint64_t offset = file_position(r);
    bool is_single = skip || n == 1;
    void *base = (uint8_t *)iov->iov_base + skip;
    unsigned bytes = (unsigned)(iov->iov_len - skip);

    int buffer = is_single ? pinning_find(&file_of(r->queue)->pins, base, bytes) : -1;
    if (buffer >= 0 && r->operation == DISK_READ)
        io_uring_prep_read_fixed(sqe, file, base, bytes, offset, buffer);
    else if (buffer >= 0)
        io_uring_prep_write_fixed(sqe, file, base, bytes, offset, buffer);
    else if (r->operation == DISK_READ && is_single)
        io_uring_prep_read(sqe, file, base, bytes, offset);
    else if (r->operation == DISK_READ)
        io_uring_prep_readv(sqe, file, iov, n, offset);
    else if (is_single)
        io_uring_prep_write(sqe, file, base, bytes, offset);
    else
        io_uring_prep_writev(sqe, file, iov, n, offset);
    if (r->operation == DISK_WRITE && r->queue->is_write_through)
        flags |= RWF_DSYNC;
    sqe->rw_flags = flags;
    sqe->flags |= file_of(r->queue)->entry_flags;
}

void file_zero_rest(struct disk_request *r)
{
    size_t skip;
    for (unsigned i = file_segment(r, &skip); i < r->n_iov; i++, skip = 0)
        memset((uint8_t *)r->iov[i].iov_base + skip, 0, r->iov[i].iov_len - skip);
    r->n_done = r->bytes;
}

enum disk_result file_error(struct disk_request *r, int result)
{
    bool passes = result == -EAGAIN || result == -EINTR;
    return passes && r->n_retries++ < FILE_RETRIES_MAX ? DISK_LATER : DISK_FAILED;
}

// Direct I/O that stops inside a block has read up to the end of the file, or has to write that
// block again.
enum disk_result file_advance(struct disk_request *r, int result)
{
    if (result < 0)
        return file_error(r, result);
    r->n_done += (uint32_t)result;
    if (r->n_done == r->bytes)
        return DISK_OK;
    uint32_t rest = (uint32_t)(file_position(r) & (r->queue->disk->image->offset_align - 1));
    if (r->operation == DISK_READ) {
        if (result > 0 && !rest)
            return DISK_LATER;
        file_zero_rest(r);
        return DISK_OK;
    }
    r->n_done -= rest;
    if ((uint32_t)result > rest)
        return DISK_LATER;
    return result ? file_error(r, -EAGAIN) : DISK_FAILED; // takes nothing, and does not say why
}

static uring_done plain_done, moved_done;

static inline void start_plain(struct disk_request *r)
{
    start_move(r, plain_done, file_of(r->queue)->patience);
}

void file_start_plain(struct disk_request *r)
{
    start_plain(r);
}

static __attribute__((noinline)) void plain_ended(struct disk_request *r, int result)
{
    if (result == -EAGAIN && file_of(r->queue)->patience) {
        file_wait(r, NEED_HELPER);
        return;
    }
    r->result = (uint8_t)file_advance(r, result);
    if (r->result == DISK_LATER)
        start_plain(r);
    else
        r->queue->done(r);
}

static void plain_done(struct uring_op *op, int result)
{
    struct disk_request *r = container_of(op, struct disk_request, op);
    if (unlikely(result < 0 || (uint32_t)result != file_left(r))) {
        plain_ended(r, result);
        return;
    }
    r->n_done = r->bytes;
    r->result = DISK_OK;
    r->queue->done(r);
}

// ---- what is not plain -------------------------------------------------------------------

static void moved_done(struct uring_op *op, int result)
{
    struct disk_request *r = container_of(op, struct disk_request, op);
    struct file_request *b = file_beside(r);
    if (result != -EAGAIN || b->has & NEED_HELPER) {
        file_go_on(r, file_advance(r, result));
        return;
    }
    file_give_back(r);
    file_wait(r, b->needs | NEED_HELPER);
}

void file_step(struct disk_request *r)
{
    uint8_t has = file_beside(r)->has;
    if (r->operation == DISK_FLUSH)
        file_sync(r);
    else if (r->operation > DISK_FLUSH)
        file_clear(r);
    else if (has & NEED_SLOT)
        file_bounce(r);
    else
        start_move(r, moved_done, has & NEED_HELPER ? 0 : file_of(r->queue)->patience);
}

void file_go_on(struct disk_request *r, enum disk_result result)
{
    r->result = (uint8_t)result;
    if (result == DISK_LATER) {
        file_step(r);
        return;
    }
    file_give_back(r);
    r->queue->done(r);
}

// Whether nothing of it has a bit of @mask.
static inline bool is_aligned(const struct disk_request *r, uint32_t mask)
{
    uint64_t bits = r->offset;
    for (unsigned i = 0; i < r->n_iov; i++)
        bits |= (uintptr_t)r->iov[i].iov_base | r->iov[i].iov_len;
    return !(bits & mask);
}

static void file_submit(struct disk_queue *q, struct disk_request *const batch[], unsigned n)
{
    struct file_queue *f = file_of(q);
    uint32_t mask = f->mask, slow = f->slow;
    if (q->disk->pinning)
        pinning_look(q->disk->pinning, &f->pins, &q->queue->lane->uring);
    for (unsigned i = 0; i < n; i++) {
        struct disk_request *r = batch[i];
        if (likely(!(slow >> r->operation & 1) && (!mask || is_aligned(r, mask))))
            start_plain(r);
        else
            file_submit_slowly(r);
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
