// SPDX-License-Identifier: Apache-2.0
#include "pollers/trail.h"

#include <stdlib.h>

// Control cannot go on without it.
static void *allocate(size_t bytes)
{
    void *p = aligned_alloc(CACHE_LINE, (bytes + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1));
    assert(p && "out of memory");
    return p;
}

// ---- the lane that has the queue ---------------------------------------------------------

static struct channel *late_of(const struct trail *t, unsigned index)
{
    return atomic_load_explicit(&t->late[index], memory_order_acquire);
}

static unsigned take_from(struct channel *c, unsigned max)
{
    struct channel_message m;
    unsigned n = 0;
    for (; n < max && channel_receive(c, &m); n++) {
        struct uring_op *op = m.subject;
        op->done(op, (int)m.extra);
    }
    return n;
}

static unsigned take_late(struct lane_poll *p, unsigned budget)
{
    struct trail *t = container_of(p, struct trail, poll);
    unsigned n = 0;
    for (unsigned i = 0; i < t->n; i++) {
        struct channel *c = late_of(t, i);
        if (c)
            n += take_from(c, budget - n);
    }
    if (t->queue->ring.n_in_flight == 0) // nothing is out on any lane
        lane_remove_poll(p);
    return n;
}

static bool has_late(const struct lane_poll *p)
{
    const struct trail *t = container_of(p, const struct trail, poll);
    for (unsigned i = 0; i < t->n; i++) {
        const struct channel *c = late_of(t, i);
        if (c && channel_has_message(c))
            return true;
    }
    return false;
}

void trail_enter(struct trail *t, struct lane *lane)
{
    full_fence(); // pair late: the queue's home is written, then the channels are looked at
    lane_add_poll(lane, &t->poll);
}

void trail_leave(struct trail *t)
{
    if (t->poll.lane)
        lane_remove_poll(&t->poll);
}

// ---- a lane that was left ----------------------------------------------------------------

void trail_late(struct uring *u, struct uring_op *op, int result)
{
    struct lane *here = container_of(u, struct lane, uring);
    const struct queue *q = container_of(op->home, const struct queue, uring);
    struct trail *t = q->trail;
    bool is_sent =
        channel_send(late_of(t, here->index),
                     &(struct channel_message){.extra = (uint32_t)result, .subject = op});
    assert(is_sent && "no more operations than a queue may have out");
    full_fence(); // pair late: the completion is sent, then the queue's home is read
    struct uring *home = atomic_load_explicit(&q->uring, memory_order_relaxed);
    if (home)
        lane_wake(here, container_of(home, struct lane, uring));
}

// ---- control -----------------------------------------------------------------------------

struct trail *trail_open(struct queue *q, unsigned n)
{
    struct trail *t = allocate(sizeof(*t) + n * sizeof(t->late[0]));
    *t = (struct trail){
        .poll = {.poll = take_late, .has_work = has_late},
        .queue = q,
        .n = n,
    };
    for (unsigned i = 0; i < n; i++)
        atomic_init(&t->late[i], NULL);
    return t;
}

void trail_close(struct trail *t)
{
    for (unsigned i = 0; i < t->n; i++) {
        struct channel *c = late_of(t, i);
        if (!c)
            continue;
        assert(!channel_has_message(c) && "a drained queue has nothing out");
        channel_close(c);
        free(c);
    }
    free(t);
}

static uint32_t room_for(const struct queue *q)
{
    uint32_t room = TRAIL_EXTRA;
    while (room < q->ring.size + TRAIL_EXTRA)
        room *= 2;
    return room;
}

void trail_prepare(struct trail *t, unsigned index)
{
    if (late_of(t, index))
        return;
    struct channel *c = allocate(sizeof(*c));
    int err = channel_open(c, room_for(t->queue));
    assert(!err && "out of memory");
    atomic_store_explicit(&t->late[index], c, memory_order_release);
}
