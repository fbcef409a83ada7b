// SPDX-License-Identifier: Apache-2.0
// pool.h - the workers, and which of them has which queue.
//
// A queue is lent to the worker that place.h chooses, under a lease, and comes back when the
// worker answers the detach. The pool knows queues, not sessions: answers go to one callback.
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
    struct pool_worker *at; // NULL: control owns the queue
    unsigned n_awaited;     // answers
    bool is_ending;         // detach was asked
    uint64_t n_requests_before;
};

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

// [C] Lend @q to a worker on @home's node; take it back; call into it. Each is answered once.
void pool_attach(struct lease *lease, struct queue *q, const struct pool_worker *home);
void pool_detach(struct lease *lease, struct queue *q);
void pool_call(struct lease *lease, struct queue *q, void (*fn)(struct queue *q, void *argument),
               void *argument);

// [C] Call @done (later) when every worker has begun another turn: what workers looked at before
// they have let go, so it may be freed. The pool stays until then.
void pool_barrier(struct pool *p, void (*done)(void *context), void *context);

// [C] What devices are opened with.
const struct lane_set *pool_lanes(const struct pool *p);

// [C] For reports.
unsigned pool_n_workers(const struct pool *p);
const struct pool_worker *pool_worker_at(const struct pool *p, unsigned index);
