// SPDX-License-Identifier: Apache-2.0
// lane.h - the part of a worker that devices may use.
//
// A lane is a worker's io_uring, its clock, and what has to be called in each of its turns. Who
// has work for another lane sends it through a channel of its own, takes it out there in a
// lane_poll, and calls lane_wake() after sending: the worker at the other end may sleep.
//
// Threads  [W] the lane's worker, if not said otherwise.
// Memory   the worker owns its lane; a lane_poll belongs to who adds it.
#pragma once

#include "dataplane/bell.h"

#define LANE_BUDGET 256 // pieces of work that one lane_poll takes in a turn

struct lane;
struct queue;

// Something to do in each turn of a lane besides polling its queues.
struct lane_poll {
    // [W] Take up to @budget pieces of what was sent to this lane; returns how many. It may push
    // to the lane's queues, and remove itself.
    unsigned (*poll)(struct lane_poll *p, unsigned budget);
    // [W] Whether something waits to be taken: the worker has just said that it will sleep.
    bool (*has_work)(const struct lane_poll *p);
    struct lane *lane; // NULL: not added
    struct lane_poll *next;
};

// Everything in it is its worker's own, but for bell and what is constant. [W]
struct lane {
    struct uring uring;
    struct queue *touched; // queues with staged chains, to be published this turn
    struct queue *roused;  // queues that slept, to be polled again
    uint64_t now;          // cycles_now() at the start of the turn
    struct lane_poll *polls;
    struct bell bell;
    unsigned index; // constant: which of the lane_set; on a line that nobody writes
};

// The lanes of all workers: constant from before the first queue came to any.
struct lane_set {
    unsigned n;
    struct lane *lanes[];
};

// [W] Call @p in each turn from now on; no more from now on. A worker ends without any.
void lane_add_poll(struct lane *lane, struct lane_poll *p);
void lane_remove_poll(struct lane_poll *p);

// [W of @from] Something was sent to @to: have its worker look, if it sleeps. A fence and a load
// otherwise: once a batch. No system call of its own.
static inline void lane_wake(struct lane *from, struct lane *to)
{
    if (bell_is_due(&to->bell))
        bell_ring_through(&to->bell, &from->uring);
}

// [W] One call of each lane_poll; returns the pieces of work taken.
unsigned lane_poll_all(struct lane *lane);

// [W] Whether some lane_poll has work.
bool lane_has_work(const struct lane *lane);
