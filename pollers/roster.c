// SPDX-License-Identifier: Apache-2.0
#include "pollers/roster.h"

#include <string.h>

struct seat **roster_grow(struct roster *r, struct seat **array)
{
    struct seat **before = r->polled;
    if (r->n_polled)
        memcpy(array, before, r->n_polled * sizeof(*array));
    r->polled = array;
    return before;
}

static void add_polled(struct roster *r, struct seat *s)
{
    r->polled[r->n_polled++] = s;
}

static void remove_polled(struct roster *r, const struct seat *s)
{
    unsigned i = 0;
    while (r->polled[i] != s)
        i++;
    r->polled[i] = r->polled[--r->n_polled];
}

static void kicked(struct event *ev, int result)
{
    struct seat *s = container_of(ev, struct seat, kick);
    if (s->state != SEAT_PARKED)
        return; // cancelled: it leaves
    struct roster *r = container_of(s->queue->lane, struct roster, lane);
    seat_wake(s, result);
    add_polled(r, s);
    counter_add(&r->n_parked, (uint64_t)-1);
}

void roster_enter(struct roster *r, struct queue *q, struct seat *s)
{
    seat_enter(s, q, &r->lane, kicked);
    add_polled(r, s);
}

void roster_leave(struct roster *r, struct seat *s, enum seat_state how)
{
    assert(!seat_is_leaving(s) && "a queue leaves once");
    if (s->state == SEAT_POLLED)
        remove_polled(r, s);
    else if (s->state == SEAT_PARKED || s->state == SEAT_SLEEPING)
        counter_add(&r->n_parked, (uint64_t)-1);
    s->state = how;
    s->next = r->leaving;
    r->leaving = s;
}

struct seat *roster_next_gone(struct roster *r)
{
    for (struct seat **at = &r->leaving; *at; at = &(*at)->next) {
        struct seat *s = *at;
        if (seat_leave(s)) {
            *at = s->next;
            return s;
        }
    }
    return NULL;
}

static bool rests(struct roster *r, struct seat *s)
{
    bool is_due = r->spin != ROSTER_NEVER && r->lane.now - s->busy_at >= r->spin;
    if ((!is_due && !s->queue->ring.fault) || !seat_rest(s))
        return false;
    if (s->state != SEAT_STOPPED)
        counter_add(&r->n_parked, 1);
    return true;
}

static void poll_roused(struct roster *r)
{
    struct queue *q;
    while ((q = r->lane.roused)) {
        r->lane.roused = q->roused_next;
        q->is_roused = false;
        struct seat *s = q->seat;
        if (s->state == SEAT_SLEEPING) {
            seat_rouse(s);
            add_polled(r, s);
            counter_add(&r->n_parked, (uint64_t)-1);
        }
    }
}

unsigned roster_poll(struct roster *r, unsigned budget)
{
    unsigned work = lane_poll_all(&r->lane);
    if (work)
        r->busy_at = r->lane.now;
    poll_roused(r);
    for (unsigned i = 0; i < r->n_polled;) {
        struct seat *s = r->polled[i];
        unsigned n = s->poll(s->queue, budget);
        work += n;
        if (n) {
            s->busy_at = r->lane.now;
        } else if (rests(r, s)) {
            r->polled[i] = r->polled[--r->n_polled];
            continue; // with the seat that now stands here
        }
        i++;
    }
    return work;
}

void roster_publish(struct roster *r)
{
    for (struct seat *s = r->leaving; s; s = s->next)
        seat_settle(s); // what it pushes goes out now
    struct lane *lane = &r->lane;
    struct queue *q;
    while ((q = lane->touched)) {
        lane->touched = q->touched_next;
        q->is_touched = false;
        if (ring_publish(&q->ring))
            seat_notify(q->seat);
    }
}

// Lane_polls get the same patience as queues: their senders may be about to send more.
bool roster_may_sleep(const struct roster *r)
{
    if (r->n_polled || r->lane.roused || r->lane.touched)
        return false;
    return !r->lane.polls || (r->spin != ROSTER_NEVER && r->lane.now - r->busy_at >= r->spin);
}
