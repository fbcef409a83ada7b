// SPDX-License-Identifier: Apache-2.0
// seat.h - one queue's place on a worker: whether it is polled, and its kick and call eventfds.
//
// A parked queue has a READ of its kick out and is polled by nobody; one that sleeps waits for its
// device type. Interrupts are WRITEs of its call. Both eventfds are settled before the queue
// leaves.
//
//     enter ─▶ polled ◀─kick───▶ parked       (any) ─▶ draining or moving ─▶ gone
//                │    ◀─rouse──▶ sleeping
//                └─fault─▶ stopped
//
// Threads  [W] all calls.
// Memory   control allocates a seat with the attach and frees it with the answer to the detach.
#pragma once

#include "dataplane/device.h"
#include "pollers/event.h"

enum seat_state {
    SEAT_POLLED,
    SEAT_PARKED,   // until a kick
    SEAT_SLEEPING, // until queue_rouse()
    SEAT_STOPPED,  // its ring faulted: until it is detached
    SEAT_DRAINING, // until its last chain is published and its eventfds are settled
    SEAT_MOVING,   // until its eventfds are settled
};

struct seat {
    struct queue *queue;
    unsigned (*poll)(struct queue *q, unsigned budget); // the device type's
    uint64_t busy_at;                                   // lane's now when poll() last found work
    enum seat_state state;
    bool can_park;
    bool has_entered;    // lane_enter() succeeded
    bool is_settled;     // settle() was true, while leaving
    bool is_call_wanted; // once more, when the WRITE that is out has ended
    struct event kick;
    struct event call;
    struct seat *next; // among those that leave
};

// Bring @q to @lane. @kicked is told when a parked seat's kick came. What fails faults the queue.
void seat_enter(struct seat *s, struct queue *q, struct lane *lane, event_ended *kicked);

// Interrupt the driver, if it has a call.
void seat_notify(struct seat *s);

// The queue's call_fd is another one: from now on that is written, and once at once.
void seat_replace_call(struct seat *s);

// Nothing to do for long enough: true if the seat now is parked, sleeping or stopped, so not to be
// polled.
bool seat_rest(struct seat *s);

// A kick came, @result is what its READ said: the seat is to be polled again.
void seat_wake(struct seat *s, int result);

// queue_rouse() was called on one that sleeps: it is to be polled again.
void seat_rouse(struct seat *s);

static inline bool seat_is_leaving(const struct seat *s)
{
    return s->state >= SEAT_DRAINING;
}

// Once it is leaving: have the device settle the queue, before the lane publishes.
void seat_settle(struct seat *s);
// Then, after that: true when the queue is gone from its lane.
bool seat_leave(struct seat *s);
