// SPDX-License-Identifier: Apache-2.0
#include "devices/disk_file.h"

static void end(struct disk_request *r, enum disk_result result)
{
    r->result = (uint8_t)result;
    r->queue->done(r);
}

// The next one goes after the others have ended: it covers what they covered and more.
static void synced(struct uring_op *op, int result)
{
    struct disk_request *r = container_of(op, struct disk_request, op);
    struct disk_queue *q = r->queue;
    struct file_queue *f = file_of(q);
    enum disk_result outcome = result < 0 ? file_error(r, result) : DISK_OK;
    if (outcome == DISK_LATER) {
        file_sync(r);
        return;
    }
    f->flush = file_list_take(q, &f->late);
    if (f->flush)
        file_wait(f->flush, NEED_HELPER);
    file_go_on(r, outcome);
    struct disk_request *other;
    while ((other = file_list_take(q, &f->joined)))
        end(other, outcome);
}

// Whoever is here when it starts ends with it.
void file_sync(struct disk_request *r)
{
    struct file_queue *f = file_of(r->queue);
    struct disk_request *other;
    while ((other = file_list_take(r->queue, &f->late)))
        file_list_add(f, &f->joined, other);
    struct io_uring_sqe *sqe = file_entry(r, synced);
    io_uring_prep_fsync(sqe, file_of(r->queue)->image->fd, IORING_FSYNC_DATASYNC);
}

void file_flush(struct disk_request *r)
{
    struct file_queue *f = file_of(r->queue);
    if (f->flush) {
        file_list_add(f, &f->late, r);
        return;
    }
    f->flush = r;
    file_wait(r, NEED_HELPER);
}
