// SPDX-License-Identifier: Apache-2.0
// worker.h - a pinned thread that polls the queues it owns.
//
// Control hands queues over with messages and hears back through an event: a queue has one
// owner at a time. A turn is: mailbox, completions, lane_polls, one budgeted poll of each queue,
// publish and notify, at most one entry into the kernel. A queue is polled or parked (see poll
// mode); a worker whose queues are all parked sleeps in its io_uring.
//
// Threads  [C] all calls below. The thread itself is inside worker.c.
// Memory   control owns the worker; a queue belongs to the device and is only lent.
#pragma once

#include "dataplane/device.h"

enum worker_poll {
    WORKER_BUSY,      // never parks
    WORKER_ADAPTIVE,  // parks a queue after WORKER_SPIN_US without work
    WORKER_INTERRUPT, // parks at once
};

#define WORKER_SPIN_US 50 // adaptive: about what one sleep and wake-up costs
#define WORKER_BUDGET  32 // chains of one queue in one turn

struct trail;
struct worker;

struct worker_config {
    int cpu;        // logical processor, already inside the cpuset
    unsigned index; // of its lane
    enum worker_poll poll;
    const void *helper_mask; // for the kernel's helper threads (sched_setaffinity form), or NULL
    size_t helper_mask_bytes;
};

// [C] Start the thread, pinned. Returns when it runs. 0 or -errno.
int worker_start(struct worker **out, const struct worker_config *config, struct error *e);

// [C] Its lane, for a lane_set.
struct lane *worker_lane(struct worker *w);

// [C] End the thread; it must own no queue. Where workers wake each other, all of them end before
// the first is freed.
void worker_end(struct worker *w);
void worker_free(struct worker *w);

// [C] Hand over. Each call is answered once through worker_receive(). Detach is answered when
// the queue's last chain is published; call runs @fn on the worker's thread.
//
// Release takes a queue back as soon as it can go to another worker, with requests out; what they
// bring back goes to whichever worker then has the queue, through @trail (trail.h). A queue that
// has a trail keeps it until it is detached and each worker has passed a turn.
void worker_attach(struct worker *w, struct queue *q);
void worker_release(struct worker *w, struct queue *q, struct trail *trail);
void worker_detach(struct worker *w, struct queue *q);
void worker_call(struct worker *w, struct queue *q, void (*fn)(struct queue *q, void *argument),
                 void *argument);

// [C] Answered once the worker has begun another turn: what it looked at before it has let go.
void worker_pass(struct worker *w, void *context);

// [C] Likewise, and run fn on the worker's thread. @v stays until the answer.
struct worker_visit {
    void (*fn)(struct lane *lane, void *argument);
    void *argument;
    void *context;
};
void worker_visit(struct worker *w, const struct worker_visit *v);

// [C] Readable when there are answers.
int worker_event_fd(const struct worker *w);

// [C] The next answer; false: none. Answers about one queue come in the order asked.
enum worker_event {
    WORKER_ATTACHED,
    WORKER_RELEASED,
    WORKER_DETACHED,
    WORKER_CALLED,
    WORKER_PASSED,
    WORKER_EVENTS,
};
struct worker_answer {
    enum worker_event event;
    struct queue *queue; // NULL for WORKER_PASSED, which has…
    void *context;       // …worker_pass()'s
};
bool worker_receive(struct worker *w, struct worker_answer *answer);

// Read by control at any time.
struct worker_stats {
    uint64_t n_turns;
    uint64_t n_busy_turns; // that found work
    uint64_t busy_cycles;  // cycles_now() ticks spent in those
    uint64_t n_sleeps;
    uint64_t n_enters; // system calls
    unsigned n_queues;
    unsigned n_parked;
};
void worker_read_stats(const struct worker *w, struct worker_stats *stats);
int worker_cpu(const struct worker *w);
