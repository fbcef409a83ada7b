// SPDX-License-Identifier: Apache-2.0
#include "pollers/seat.h"

#include "pollers/trail.h"

static void call_ended(struct event *ev, int result)
{
    (void)result; // an eventfd that cannot be written is its owner's loss
    struct seat *s = container_of(ev, struct seat, call);
    if (!s->is_call_wanted)
        return;
    s->is_call_wanted = false;
    seat_notify(s);
}

// A ring that faulted may have lost the memory it lies in.
static void unpark(struct queue *q)
{
    if (ring_is_started(&q->ring) && !q->ring.fault)
        ring_unpark(&q->ring);
}

static int enter_lane(struct seat *s, struct uring *u, event_ended *kicked)
{
    struct queue *q = s->queue;
    const struct device_type *type = q->device->type;
    int kick_err = event_open(&s->kick, u, q->kick_fd, kicked);
    int call_err = event_open(&s->call, u, q->call_fd, call_ended);
    if (kick_err || call_err)
        return kick_err ? kick_err : call_err;
    int err = type->lane_enter ? type->lane_enter(q) : 0;
    s->has_entered = !err;
    return err;
}

// A queue without a ring has no counters of one.
static void refuse(struct queue *q, int err)
{
    if (!ring_is_started(&q->ring))
        q->ring.stats = &q->stats;
    ring_fault(&q->ring, RING_NOT_SERVED, (uint64_t)-err);
}

void seat_enter(struct seat *s, struct queue *q, struct lane *lane, event_ended *kicked)
{
    *s = (struct seat){
        .queue = q,
        .poll = q->device->type->poll,
        .busy_at = lane->now,
        .state = SEAT_POLLED,
    };
    q->lane = lane;
    atomic_store_explicit(&q->uring, &lane->uring, memory_order_relaxed);
    q->seat = s;
    if (q->trail)
        trail_enter(q->trail, lane);
    q->call_changed = false;
    int err = enter_lane(s, &lane->uring, kicked);
    if (err) {
        refuse(q, err);
        return;
    }
    s->can_park = event_is_open(&s->kick) && ring_is_started(&q->ring);
    unpark(q);
    // Whoever served the queue before may have ended between publishing and notifying.
    seat_notify(s);
}

void seat_notify(struct seat *s)
{
    if (!event_is_open(&s->call))
        return;
    if (s->call.is_out) {
        s->is_call_wanted = true;
        return;
    }
    counter_add(&s->queue->n_calls, 1);
    event_write(&s->call);
}

void seat_replace_call(struct seat *s)
{
    struct queue *q = s->queue;
    q->call_changed = false;
    int err = event_replace(&s->call, q->call_fd);
    if (err)
        refuse(q, err);
    seat_notify(s);
}

static void set_parked(struct queue *q, bool is)
{
    atomic_store_explicit(&q->is_parked, is, memory_order_relaxed);
}

static bool park(struct seat *s)
{
    if (!s->can_park || !ring_park(&s->queue->ring))
        return false;
    // A kick that comes before the READ waits in the eventfd's counter.
    s->state = SEAT_PARKED;
    set_parked(s->queue, true);
    event_read(&s->kick);
    return true;
}

static void fall_asleep(struct seat *s)
{
    s->state = SEAT_SLEEPING;
    set_parked(s->queue, true);
}

bool seat_rest(struct seat *s)
{
    struct queue *q = s->queue;
    const struct device_type *type = q->device->type;
    if (q->ring.fault) {
        s->state = SEAT_STOPPED;
        return true;
    }
    switch (type->rest ? type->rest(q) : QUEUE_PARKS) {
    case QUEUE_PARKS:
        return park(s);
    case QUEUE_SLEEPS:
        fall_asleep(s);
        return true;
    case QUEUE_STAYS:
        break;
    }
    return false;
}

void seat_rouse(struct seat *s)
{
    struct queue *q = s->queue;
    s->state = SEAT_POLLED;
    set_parked(q, false);
    s->busy_at = q->lane->now;
}

void seat_wake(struct seat *s, int result)
{
    seat_rouse(s);
    if (result < 0)
        s->can_park = false; // not readable: it would wake us in vain for ever
    else
        counter_add(&s->queue->n_kicks, 1);
    unpark(s->queue);
}

void seat_settle(struct seat *s)
{
    const struct device_type *type = s->queue->device->type;
    if (!s->is_settled)
        s->is_settled = !s->has_entered || !type->settle || type->settle(s->queue);
}

bool seat_leave(struct seat *s)
{
    struct queue *q = s->queue;
    bool is_kick_settled = event_settle(&s->kick);
    bool waits = s->state == SEAT_DRAINING && q->ring.n_in_flight;
    if (waits || q->is_touched || q->is_roused || !s->is_settled)
        return false;
    if (!event_settle(&s->call) || !is_kick_settled)
        return false;

    if (s->has_entered && q->device->type->lane_leave)
        q->device->type->lane_leave(q);
    event_close(&s->call);
    event_close(&s->kick);
    set_parked(q, false);
    if (q->trail)
        trail_leave(q->trail);
    q->lane = NULL;
    atomic_store_explicit(&q->uring, NULL, memory_order_relaxed);
    q->seat = NULL;
    return true;
}
