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

void roster_leave(struct roster *r, struct seat *s)
{
    assert(s->state != SEAT_LEAVING && "a queue is detached once");
    if (s->state == SEAT_POLLED)
        remove_polled(r, s);
    else if (s->state == SEAT_PARKED)
        counter_add(&r->n_parked, (uint64_t)-1);
    s->state = SEAT_LEAVING;
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
    if (s->state == SEAT_PARKED)
        counter_add(&r->n_parked, 1);
    return true;
}

unsigned roster_poll(struct roster *r, unsigned budget)
{
    unsigned work = 0;
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
    struct lane *lane = &r->lane;
    struct queue *q;
    while ((q = lane->touched)) {
        lane->touched = q->touched_next;
        q->is_touched = false;
        if (ring_publish(&q->ring))
            seat_notify(q->seat);
    }
}
