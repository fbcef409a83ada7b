// SPDX-License-Identifier: Apache-2.0
#include "tests/bare_queue.h"

#include <string.h>
#include <time.h>

void bare_lane_open(struct lane *lane)
{
    struct error e;
    *lane = (struct lane){0};
    check_ok(uring_open(&lane->uring, &e), &e);
    assert_int_equal(uring_enable(&lane->uring, NULL, 0), 0);
}

void bare_lane_close(struct lane *lane)
{
    assert_int_equal(lane->uring.n_in_flight, 0);
    uring_close(&lane->uring);
}

static void came_back(struct disk_request *r)
{
    struct bare_queue *b = r->queue->queue->seat;
    b->n_back++;
}

void bare_queue_start(struct bare_queue *b, struct device *d, unsigned index)
{
    struct error e;
    struct queue *q = &d->queues[index];
    *b = (struct bare_queue){.queue = q};
    q->ring.size = BARE_SIZE;
    q->ring.features = VIRTIO_BIT(VIRTIO_BLK_F_FLUSH);
    check_ok(d->type->queue_start(q, &e), &e);
    q->seat = b;
    b->dq = q->priv;
    b->dq->done = came_back;
}

void bare_queue_stop(struct bare_queue *b)
{
    struct queue *q = b->queue;
    q->device->type->queue_stop(q);
    q->seat = NULL;
    q->ring.size = 0;
}

void bare_queue_enter(struct bare_queue *b, struct lane *lane)
{
    struct queue *q = b->queue;
    q->lane = lane;
    q->uring = &lane->uring;
    assert_int_equal(q->device->type->lane_enter(q), 0);
}

void bare_queue_leave(struct bare_queue *b)
{
    struct queue *q = b->queue;
    q->device->type->lane_leave(q);
    q->lane = NULL;
    q->uring = NULL;
}

void bare_submit(struct bare_queue *b, unsigned slot, enum disk_operation operation,
                 uint64_t offset, void *data, uint32_t bytes)
{
    struct disk_request *r = &b->dq->requests[slot];
    b->iov[slot] = (struct iovec){data, bytes};
    *r = (struct disk_request){
        .queue = b->dq,
        .iov = &b->iov[slot],
        .offset = offset,
        .bytes = bytes,
        .n_iov = data ? 1 : 0,
        .operation = (uint8_t)operation,
        .result = DISK_LATER,
    };
    b->dq->disk->type->submit(b->dq, &r, 1);
    if (r->result != DISK_LATER)
        came_back(r);
}

enum disk_result bare_result(const struct bare_queue *b, unsigned slot)
{
    return b->dq->requests[slot].result;
}

void bare_turn(struct lane *lane)
{
    uring_reap(&lane->uring, 64);
    uring_sleep(&lane->uring, 2000);
}

void bare_await(struct bare_queue *b, unsigned n)
{
    time_t deadline = time(NULL) + BARE_DEADLINE_S;
    while (b->n_back < n) {
        bare_turn(b->queue->lane);
        uring_reap(&b->queue->lane->uring, 64);
        if (time(NULL) > deadline)
            fail_msg("%u of %u requests came back", b->n_back, n);
    }
}
