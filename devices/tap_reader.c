// SPDX-License-Identifier: Apache-2.0
//
// Frames of the interface, read into buffers of our own: whose they are is known only afterwards.
// A buffer is out as a READ, then as a frame until all receivers have copied it.
//
// On an interface without frames a READ is armed: it costs nothing, and a frame completes it.
// When READs complete as soon as they are submitted there are more frames, so twice as many are
// submitted next time; when some stay armed, half as many, after the last of them completed. So a
// quiet interface has one READ out, which one frame wakes, and a busy one takes a batch a turn.
#include "devices/tap_internal.h"

#include "devices/switch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define BUFFERS      128 // READs out, and frames under way
#define BATCH_MAX    32
#define BUFFER_BYTES (17 * 4096ul)
#define HEADER_AT    4  // so that the frame's IP header, 12 + 14 bytes behind it, is aligned by 2
#define ERRORS_MAX   64 // in a row that pass, when memory is short for example

static_assert(HEADER_AT + VIRTIO_NET_HDR_BYTES + FRAME_BYTES_MAX <= BUFFER_BYTES,
              "a buffer holds a frame of any size");

struct buffer {
    struct uring_op read; // without a home: the queue leaves its lane when none is out
    struct uring_op cancel;
    struct reader *reader;
    uint8_t *bytes;
    int result;
    bool is_reading, is_cancelling;
    struct buffer *next; // among those that arrived
    struct iovec iov;
    struct frame frame;
};

struct reader {
    struct queue *queue;
    struct port_stats *stats;
    int file_slot;
    unsigned n_reading, n_cancelling, n_arrived;
    unsigned batch;               // READs submitted together
    bool was_incomplete;          // some of them stayed armed
    bool is_over;                 // the interface has gone
    unsigned n_errors;            // in a row
    struct buffer *first, **last; // arrived
    unsigned n_free;
    struct buffer *free[BUFFERS]; // a stack: the same few pages again and again
    struct buffer buffers[BUFFERS];
};

void *tap_reader_open(struct queue *q)
{
    struct reader *r = calloc(1, sizeof(*r));
    if (!r)
        return NULL;
    // Pages of a buffer exist when a frame was that long.
    uint8_t *bytes = mmap(NULL, BUFFERS * BUFFER_BYTES, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (bytes == MAP_FAILED) {
        free(r);
        return NULL;
    }
    r->queue = q;
    r->stats = port_stats_of(q);
    r->batch = 1;
    r->last = &r->first;
    for (unsigned i = 0; i < BUFFERS; i++) {
        r->buffers[i].reader = r;
        r->buffers[i].bytes = bytes + i * BUFFER_BYTES + HEADER_AT;
        r->free[r->n_free++] = &r->buffers[i];
    }
    return r;
}

void tap_reader_close(struct queue *q)
{
    struct reader *r = q->priv;
    munmap(r->buffers[0].bytes - HEADER_AT, BUFFERS * BUFFER_BYTES);
    free(r);
}

void tap_reader_enter(struct queue *q, int file_slot)
{
    struct reader *r = q->priv;
    r->file_slot = file_slot;
}

int tap_reader_leave(struct queue *q)
{
    struct reader *r = q->priv;
    return r->file_slot;
}

// ---- reading -----------------------------------------------------------------------------

static void release(struct buffer *b)
{
    struct reader *r = b->reader;
    r->free[r->n_free++] = b;
    if (!r->n_reading)
        queue_rouse(r->queue);
}

// Whether reading goes on after @code. What passes is not waited for without end.
static bool is_passing(struct reader *r, int code)
{
    if (code == ECANCELED) // to leave this lane
        return true;
    bool is_odd = code == EAGAIN || code == EINTR || code == ENOMEM || code == ENOBUFS;
    return is_odd && ++r->n_errors < ERRORS_MAX;
}

static void read_done(struct uring_op *op, int result)
{
    struct buffer *b = container_of(op, struct buffer, read);
    struct reader *r = b->reader;
    b->is_reading = false;
    r->n_reading--;
    if (result < 0) {
        if (!is_passing(r, -result)) {
            r->is_over = true;
            atomic_store(&tap_of(r->queue)->error, -result);
        }
        release(b);
        return;
    }
    r->n_errors = 0;
    b->result = result;
    b->next = NULL;
    *r->last = b;
    r->last = &b->next;
    r->n_arrived++;
    queue_rouse(r->queue);
}

static void start_read(struct reader *r)
{
    struct buffer *b = r->free[--r->n_free];
    b->read = (struct uring_op){.done = read_done};
    b->is_reading = true;
    r->n_reading++;
    struct io_uring_sqe *sqe = uring_entry(&r->queue->lane->uring, &b->read);
    io_uring_prep_read(sqe, r->file_slot, b->bytes, BUFFER_BYTES - HEADER_AT, 0);
    sqe->flags |= IOSQE_FIXED_FILE;
}

static void read_on(struct reader *r)
{
    if (r->n_reading) {
        r->was_incomplete = true;
        return;
    }
    if (r->is_over)
        return;
    r->batch = r->was_incomplete ? MAX(r->batch / 2, 1) : MIN(r->batch * 2, BATCH_MAX);
    r->was_incomplete = false;
    for (unsigned n = MIN(r->batch, r->n_free); n; n--)
        start_read(r);
}

// ---- frames ------------------------------------------------------------------------------

static void frame_is_home(struct frame *f)
{
    release(container_of(f, struct buffer, frame));
}

static struct buffer *take_arrived(struct reader *r)
{
    struct buffer *b = r->first;
    r->first = b->next;
    if (!r->first)
        r->last = &r->first;
    r->n_arrived--;
    return b;
}

static enum drop parse(struct buffer *b)
{
    struct virtio_net_hdr hdr = {0};
    if (b->result < (int)VIRTIO_NET_HDR_BYTES)
        return DROP_RUNT;
    memcpy(&hdr, b->bytes, VIRTIO_NET_HDR_BYTES);
    b->iov = (struct iovec){b->bytes, (size_t)b->result};
    enum drop reason = frame_parse(&b->frame, &b->iov, 1, VIRTIO_NET_HDR_BYTES, &hdr);
    b->frame.is_csum_good = hdr.flags & VIRTIO_NET_HDR_F_DATA_VALID;
    if (!reason && !port_is_within_mtu(&b->frame, port_of(b->reader->queue)->mtu))
        return DROP_GIANT;
    return reason;
}

unsigned tap_reader_poll(struct queue *q, unsigned budget)
{
    struct reader *r = q->priv;
    struct frame *frames[BATCH_MAX];
    unsigned n = 0, n_frames = 0;
    uint64_t bytes = 0;
    for (; r->n_arrived && n < MIN(budget, BATCH_MAX); n++) {
        struct buffer *b = take_arrived(r);
        enum drop reason = parse(b);
        if (unlikely(reason)) {
            counter_add(&r->stats->n_drops[reason], 1);
            release(b);
            continue;
        }
        b->frame.home = q;
        b->frame.free = frame_is_home;
        bytes += b->frame.bytes;
        frames[n_frames++] = &b->frame;
    }
    if (n_frames) {
        counter_add(&r->stats->n_frames, n_frames);
        counter_add(&r->stats->n_bytes, bytes);
        switch_forward(port_of(q), q->lane, frames, n_frames, r->stats);
    }
    read_on(r);
    return n;
}

enum queue_rest tap_reader_rest(struct queue *q)
{
    const struct reader *r = q->priv;
    bool is_waiting = r->n_reading || r->is_over || !r->n_free;
    return !r->n_arrived && is_waiting ? QUEUE_SLEEPS : QUEUE_STAYS;
}

// ---- leaving a lane ----------------------------------------------------------------------

static void cancel_done(struct uring_op *op, int result)
{
    (void)result; // a READ that was just being retried is missed: settle() tries again
    struct buffer *b = container_of(op, struct buffer, cancel);
    b->is_cancelling = false;
    b->reader->n_cancelling--;
}

static void cancel(struct reader *r, struct buffer *b)
{
    b->cancel = (struct uring_op){.done = cancel_done};
    b->is_cancelling = true;
    r->n_cancelling++;
    io_uring_prep_cancel(uring_entry(&r->queue->lane->uring, &b->cancel), &b->read, 0);
}

// What arrived stays, for the next lane.
bool tap_reader_settle(struct queue *q)
{
    struct reader *r = q->priv;
    for (unsigned i = 0; r->n_reading && i < BUFFERS; i++) {
        struct buffer *b = &r->buffers[i];
        if (b->is_reading && !b->is_cancelling)
            cancel(r, b);
    }
    return !r->n_reading && !r->n_cancelling && r->n_free + r->n_arrived == BUFFERS;
}
