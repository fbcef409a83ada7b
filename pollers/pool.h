// SPDX-License-Identifier: Apache-2.0
// pool.h - the workers, and which of them has which queue.
//
// A queue is lent to the worker that place.h chooses, under a lease, and comes back when the
// worker answers the detach. It may move to another worker meanwhile: who lent it hears nothing of
// that, and what he asks during the move goes to the worker that it moves to. The pool knows
// queues, not sessions: answers go to one callback.
//
// Threads  [C] only; the workers' own threads are worker.h's.
// Memory   control owns the pool. A lease is embedded in the struct of who lends the queue.
#pragma once

#include "pollers/loop.h"
#include "pollers/topo.h"
#include "pollers/worker.h"

struct pool;

struct pool_worker {
    struct worker *worker;
    struct pool *pool;
    unsigned index; // in the pool
    int cpu;
    unsigned node;             // memory node of @cpu
    unsigned n_queues;         // leases
    unsigned n_homes;          // devices that prefer it
    uint64_t n_requests_moved; // requests of queues that left it again
    uint64_t started_cycles;   // cycles_now() when it started
    struct loop_source source;
};

// One loan of a queue. Zeroed: no worker has it.
struct lease {
    struct queue *queue;
    struct pool_worker *at;      // who has the queue; NULL: control owns it
    struct pool_worker *to;      // whom it moves to; NULL: it does not move
    struct pool_worker *chosen;  // where it was moved last; kept for later loans. NULL: never
    struct trail *trail;         // of its moves, NULL: none
    struct deferred_call *calls; // asked while it moves, in order
    unsigned n_awaited;          // answers
    bool is_attached;            // the first attach was answered
    bool is_ending;              // detach was asked
    uint64_t n_requests_before;
};

// The worker that a lease is with, or is going to be. NULL: none.
static inline struct pool_worker *lease_worker(const struct lease *lease)
{
    return lease->to ? lease->to : lease->at;
}

struct pool_config {
    const struct topo *topo;
    const int *cpus;
    unsigned n_cpus; // one worker each, at least 1
    enum worker_poll poll;
    // An answer came; its lease is up to date. The queue's device may be closed from here.
    void (*answered)(struct queue *q);
    struct lease *(*lease_of)(struct queue *q);
};

// [C] Start the workers. 0, or -errno with the sentence and none started.
int pool_open(struct pool **out, struct loop *l, const struct pool_config *config, struct error *e);

// [C] Stop them; no lease may be left.
void pool_close(struct pool *p);

// [C] The worker near whose memory a new device should have its rings; given back with leave.
struct pool_worker *pool_choose_home(struct pool *p);
void pool_leave_home(struct pool_worker *home);

// [C] From here to pool_prefer_any() this thread's new memory is near @home.
void pool_prefer(const struct pool_worker *home);
void pool_prefer_any(const struct pool_worker *home);

// [C] Lend @q to a worker (the one chosen for it, else one on @home's node); take it back; call
// into it. Each is answered once.
void pool_attach(struct lease *lease, struct queue *q, const struct pool_worker *home);
void pool_detach(struct lease *lease, struct queue *q);
void pool_call(struct lease *lease, struct queue *q, void (*fn)(struct queue *q, void *argument),
               void *argument);

// [C] Choose @to for the queue, now and later. A queue that is lent moves there at once, whatever
// is in flight; one whose detach was asked drains where it is.
void pool_move(struct lease *lease, struct pool_worker *to);

// [C] A device's new memory shall be near @to.
void pool_change_home(struct pool_worker **home, struct pool_worker *to);

// [C] Call @done (later) when every worker has begun another turn: what workers looked at before
// they have let go, so it may be freed. The pool stays until then.
void pool_barrier(struct pool *p, void (*done)(void *context), void *context);

// [C] Likewise, after @fn ran on every lane: before what is lent from now on comes to any.
void pool_visit(struct pool *p, void (*fn)(struct lane *lane, void *argument), void *argument,
                void (*done)(void *context), void *context);

// [C] What devices are opened with.
const struct lane_set *pool_lanes(const struct pool *p);

// [C] For reports.
unsigned pool_n_workers(const struct pool *p);
struct pool_worker *pool_worker_at(const struct pool *p, unsigned index);
