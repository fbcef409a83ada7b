// SPDX-License-Identifier: Apache-2.0
// trail.h - what the operations of a moved queue bring back late.
//
// A queue moves at once, with operations out on the lane that it leaves. What completes there
// later goes through a channel of that lane to the lane that has the queue now, whichever that
// is, and is done there. A queue between two lanes gets it when it has arrived.
//
// Threads  [C] makes and frees it; [old] the lanes that the queue left; [W] the one that has it.
// Memory   control owns it, from a queue's first move until the queue is drained and every
//          worker has begun another turn since: until then an old lane may look at it.
#pragma once

#include "dataplane/channel.h"
#include "dataplane/device.h"

// Operations with a home that a queue has out beyond one for each descriptor.
#define TRAIL_EXTRA 64

struct trail {
    struct lane_poll poll; // on the lane that has the queue, while something may come
    struct queue *queue;
    unsigned n;
    // By the index of the lane that was left; NULL: it never was. [C] writes
    struct channel *_Atomic late[];
};

// [C] For a queue on one of @n lanes.
struct trail *trail_open(struct queue *q, unsigned n);
void trail_close(struct trail *t);

// [C] Make room for what comes late on lane @index, which the queue is going to leave.
void trail_prepare(struct trail *t, unsigned index);

// [W] The queue came to @lane, or leaves its lane.
void trail_enter(struct trail *t, struct lane *lane);
void trail_leave(struct trail *t);

// [old] What a worker's uring.late is.
void trail_late(struct uring *u, struct uring_op *op, int result);
