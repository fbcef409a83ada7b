// SPDX-License-Identifier: Apache-2.0
// disk_file.h - one queue's requests to an image or block device.
//
// Private to disk_file*.c. Most requests are plain: aligned as the file wants them, they go to the
// kernel as they are and need nothing. The others have needs, and wait in the queue's list until
// they have all of them:
//
//   a slot     memory of ours, which misaligned data goes through
//   a helper   what may block in the kernel does so in a thread of io_uring's, and a worker has a
//              limited number of those for all disks: each disk has its share
//   a share    of the section: it writes to a disk whose blocks are larger than sectors
//   alone      the section alone: it writes parts of blocks
//
// Only the first of the list collects; nobody else holds anything while he waits, so nobody waits
// for another who waits. What a queue's own requests give back, its list gets at once; where it
// waits for others' the first request is a timeout on the ring meanwhile.
//
// Threads  [W] the worker that owns the queue; [C] start and stop.
// Memory   all allocated when the queue starts. Slots are touched only when used.
#pragma once

#include "dataplane/pinning.h"
#include "devices/disk_image.h"

#define FILE_SLOTS        8
#define FILE_SLOT_BYTES   IMAGE_ALIGN_MAX
#define FILE_HELPERS_MAX  16  // of a disk; each of its queues has one in any case
#define FILE_RETRIES_MAX  100 // of one request: EAGAIN and EINTR pass, or never will
#define FILE_WAIT_US      50  // for others, the first time; then twice as long…
#define FILE_WAIT_DOUBLES 7   // …so many times

enum file_need {
    NEED_SLOT = 1,
    NEED_HELPER = 2,
    NEED_SHARE = 4,
    NEED_ALONE = 8,
};

// What stands beside each disk_request.
struct file_request {
    uint16_t next; // in a list: 1 + index; 0: the last
    uint8_t needs; // enum file_need
    uint8_t has;   // of its needs
    uint8_t slot;  // if it has one
};

struct file_list {
    uint16_t first, last; // 1 + index; 0: none
};

struct file_queue {
    // What a plain request is.
    uint32_t mask;       // no bits of it in addresses, lengths and offset; 0: anything
    uint8_t slow;        // operations, as bits, that are never plain
    uint8_t patience;    // RWF_NOWAIT, or 0: a plain request may go to a helper by itself
    uint8_t entry_flags; // of reads and writes
    struct image *image;
    struct pin_view pins; // of guest memory; with pin=on
    unsigned helpers;     // that this queue's requests have
    uint8_t free_slots[FILE_SLOTS];
    unsigned n_free_slots;
    uint8_t *slots; // NULL: none are needed

    struct file_list waiting;
    bool is_timed;    // the first of them is a timeout on the ring
    unsigned n_looks; // in vain, since something went on
    struct __kernel_timespec timeout;

    // The flush that is on its way, those that end with it, and those that came too late for it.
    struct disk_request *flush;
    struct file_list joined, late;

    struct file_request requests[]; // by chain id
};

static inline struct file_queue *file_of(const struct disk_queue *q)
{
    return q->priv;
}

static inline struct file_request *file_beside(const struct disk_request *r)
{
    return &file_of(r->queue)->requests[r - r->queue->requests];
}

// Where the request is now, and what is left of it.
static inline uint64_t file_position(const struct disk_request *r)
{
    return r->offset + r->n_done;
}

static inline uint32_t file_left(const struct disk_request *r)
{
    return r->bytes - r->n_done;
}

// An entry of the ring for @r; what takes a file has the queue's entry_flags.
static inline struct io_uring_sqe *file_entry(struct disk_request *r, uring_done *done)
{
    struct queue *q = r->queue->queue;
    r->op = (struct uring_op){.done = done, .home = &q->uring};
    return uring_entry(&q->lane->uring, &r->op);
}

// The segment that @r has come to; *@skip bytes of it are done.
static inline unsigned file_segment(const struct disk_request *r, size_t *skip)
{
    unsigned i = 0;
    size_t done = r->n_done;
    while (done >= r->iov[i].iov_len)
        done -= r->iov[i++].iov_len;
    *skip = done;
    return i;
}

// As it is, with no needs.
void file_start_plain(struct disk_request *r);
// What is left of @r has its needs: its next entry.
void file_step(struct disk_request *r);
// What @result makes of a move from or to guest memory, or of a write.
enum disk_result file_advance(struct disk_request *r, int result);
// @result of an entry that failed: whether to try again.
enum disk_result file_error(struct disk_request *r, int result);
// The next entry (DISK_LATER), or the end.
void file_go_on(struct disk_request *r, enum disk_result result);
// A file that has become shorter reads as zeros there, as a hole would.
void file_zero_rest(struct disk_request *r);

// disk_file_needs.c
// Begin a request that is not plain at first sight; its result may be there at once.
void file_submit_slowly(struct disk_request *r);

// disk_file_wait.c
// Step when @r has what it needs.
void file_wait(struct disk_request *r, uint8_t needs);
// Give back what @r has, and go on with those that wait.
void file_give_back(struct disk_request *r);
void file_list_add(struct file_queue *f, struct file_list *l, const struct disk_request *r);
struct disk_request *file_list_take(struct disk_queue *q, struct file_list *l);

// disk_file_bounce.c: one piece of @r through its slot.
void file_bounce(struct disk_request *r);
// The part of a block that @r has come to: read, modify, write.
void file_modify(struct disk_request *r);

// disk_file_sync.c: all that is written becomes stable. Those that come while one is on its way
// share the next.
void file_flush(struct disk_request *r);
void file_sync(struct disk_request *r);

// disk_file_range.c: one piece of a discard or of zeros, and what comes after it.
void file_clear(struct disk_request *r);
enum disk_result file_cleared(const struct disk_request *r);
