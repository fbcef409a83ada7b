// SPDX-License-Identifier: Apache-2.0
// bare_queue.h - requests to a disk's back end, without a ring or a guest in front of it.
//
// Threads  [C] one thread starts and stops queues; [W] a queue on a lane belongs to its thread.
// Memory   the test owns data, lanes and devices.
#pragma once

#include "devices/disk.h"
#include "tests/check.h"

#define BARE_SIZE       128 // requests of a queue
#define BARE_DEADLINE_S 60

struct bare_queue {
    struct queue *queue;
    struct disk_queue *dq;
    struct iovec iov[BARE_SIZE];
    unsigned n_back; // results that came, ever
};

// [W] A lane for this thread.
void bare_lane_open(struct lane *lane);
void bare_lane_close(struct lane *lane);

// [C] Start queue @index of @d. It is on no lane then.
void bare_queue_start(struct bare_queue *b, struct device *d, unsigned index);
void bare_queue_stop(struct bare_queue *b);
// [W]
void bare_queue_enter(struct bare_queue *b, struct lane *lane);
void bare_queue_leave(struct bare_queue *b);

// [W] Request number @slot, which is free.
void bare_submit(struct bare_queue *b, unsigned slot, enum disk_operation operation,
                 uint64_t offset, void *data, uint32_t bytes);
enum disk_result bare_result(const struct bare_queue *b, unsigned slot);

// [W] One turn of the lane: waits for at most a few milliseconds.
void bare_turn(struct lane *lane);
// [W] Turn until @n results came to @b. Fails the test after BARE_DEADLINE_S.
void bare_await(struct bare_queue *b, unsigned n);
