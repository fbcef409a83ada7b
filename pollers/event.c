// SPDX-License-Identifier: Apache-2.0
#include "pollers/event.h"

// What every WRITE adds to a counter.
static const uint64_t one = 1;

static void send_cancel(struct event *ev)
{
    ev->is_cancelling = true;
    io_uring_prep_cancel(uring_entry(ev->uring, &ev->cancel), &ev->transfer, 0);
}

static void transfer_done(struct uring_op *op, int result)
{
    struct event *ev = container_of(op, struct event, transfer);
    ev->is_out = false;
    ev->is_ending = false;
    ev->ended(ev, result);
}

// A transfer that was just being retried is missed by a cancellation: try until it is over.
static void cancel_done(struct uring_op *op, int result)
{
    (void)result;
    struct event *ev = container_of(op, struct event, cancel);
    ev->is_cancelling = false;
    if (ev->is_ending)
        send_cancel(ev);
}

int event_open(struct event *ev, struct uring *u, int fd, event_ended *ended)
{
    *ev = (struct event){
        .transfer.done = transfer_done,
        .cancel.done = cancel_done,
        .uring = u,
        .ended = ended,
        .slot = -1,
    };
    if (fd < 0)
        return 0;
    int slot = uring_add_file(u, fd);
    if (slot < 0)
        return slot;
    ev->slot = slot;
    return 0;
}

static void remove_file(struct event *ev)
{
    if (ev->slot >= 0)
        uring_remove_file(ev->uring, ev->slot);
    ev->slot = -1;
}

void event_close(struct event *ev)
{
    assert(!ev->is_out && !ev->is_cancelling);
    remove_file(ev);
}

int event_replace(struct event *ev, int fd)
{
    event_settle(ev);
    remove_file(ev);
    if (fd < 0)
        return 0;
    int slot = uring_add_file(ev->uring, fd);
    if (slot < 0)
        return slot;
    ev->slot = slot;
    return 0;
}

static struct io_uring_sqe *begin(struct event *ev)
{
    assert(!ev->is_out && ev->slot >= 0);
    ev->is_out = true;
    return uring_entry(ev->uring, &ev->transfer);
}

void event_read(struct event *ev)
{
    struct io_uring_sqe *sqe = begin(ev);
    io_uring_prep_read(sqe, ev->slot, &ev->value, sizeof(ev->value), 0);
    sqe->flags = IOSQE_FIXED_FILE;
}

void event_write(struct event *ev)
{
    struct io_uring_sqe *sqe = begin(ev);
    io_uring_prep_write(sqe, ev->slot, &one, sizeof(one), 0);
    sqe->flags = IOSQE_FIXED_FILE;
}

bool event_settle(struct event *ev)
{
    ev->is_ending = ev->is_out;
    if (ev->is_out && !ev->is_cancelling)
        send_cancel(ev);
    return !ev->is_out && !ev->is_cancelling;
}
