// SPDX-License-Identifier: Apache-2.0
// roster.h - the seats of one worker: which are polled, and which are about to leave.
//
// The array of polled seats is dense, so that a turn costs what the polled queues cost and
// nothing for the parked ones. Who owns the worker provides a larger array, ahead of the seat
// that needs it: nothing allocates here.
//
// Threads  [W] all calls; n_parked may be read by any.
// Memory   borrows seats and arrays.
#pragma once

#include "pollers/seat.h"

#define ROSTER_NEVER UINT64_MAX

struct roster {
    struct lane lane;
    struct seat **polled;
    unsigned n_polled;
    struct seat *leaving;
    uint64_t spin;    // cycles without work after which a queue parks, or ROSTER_NEVER
    uint64_t busy_at; // lane's now when a lane_poll last found work
    counter n_parked;
};

// Go on with @array, which has room for more. Returns the one before (NULL at first).
struct seat **roster_grow(struct roster *r, struct seat **array);

// @q takes the seat @s and is polled.
void roster_enter(struct roster *r, struct queue *q, struct seat *s);

// @s is polled no more; roster_next_gone(), after roster_publish(), returns it once its queue is
// drained (@how: SEAT_DRAINING), or as soon as it can go elsewhere (SEAT_MOVING).
void roster_leave(struct roster *r, struct seat *s, enum seat_state how);
struct seat *roster_next_gone(struct roster *r);

// One call of each lane_poll, and one poll of each polled queue, of at most @budget chains; what
// was idle long enough rests. Returns the chains popped, and what lane_polls took.
unsigned roster_poll(struct roster *r, unsigned budget);

// Publish what was pushed to any queue since the last time, and interrupt drivers.
void roster_publish(struct roster *r);

// Nothing has to be done before a completion, a message or a lane_wake() comes.
bool roster_may_sleep(const struct roster *r);
