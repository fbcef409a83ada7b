// SPDX-License-Identifier: Apache-2.0
#include "pollers/pool.h"

#include "pollers/place.h"
#include "pollers/trail.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

struct pool {
    struct loop *loop;
    struct pool_config config;
    cpu_set_t others;          // where control and the kernel's helper threads run
    struct place_worker *seen; // scratch of choose(), one a worker
    struct lane_set *lanes;
    unsigned n;
    struct pool_worker workers[];
};

struct deferred_call {
    struct deferred_call *next;
    void (*fn)(struct queue *q, void *argument);
    void *argument;
};

struct barrier {
    struct worker_visit visit;
    unsigned n_awaited;
    void (*done)(void *context);
    void *context;
};

// ---- answers -----------------------------------------------------------------------------

// What it did so far counts for the worker that it leaves.
static void settle_account(struct lease *lease)
{
    uint64_t n = counter_read(&lease->queue->stats.n_chains);
    lease->at->n_requests_moved += n - lease->n_requests_before;
    lease->at->n_queues--;
    lease->n_requests_before = n;
}

static void answered(struct lease *lease)
{
    lease->n_awaited--;
    lease->at->pool->config.answered(lease->queue);
}

static void lease_end(struct lease *lease)
{
    struct pool_worker *w = lease->at;
    struct queue *q = lease->queue;
    settle_account(lease);
    assert(lease->n_awaited == 1 && "a detach is answered last");
    *lease = (struct lease){.chosen = lease->chosen};
    w->pool->config.answered(q);
}

static void trail_is_cold(void *context)
{
    struct lease *lease = context;
    lease->queue->trail = NULL;
    trail_close(lease->trail);
    lease_end(lease);
}

// The queue is between two workers: on to the second, and what was asked meanwhile after it.
static void send_on(struct lease *lease)
{
    settle_account(lease);
    struct worker *w = lease->to->worker;
    lease->at = lease->to;
    lease->at->n_queues++;
    lease->to = NULL;
    worker_attach(w, lease->queue);
    struct deferred_call *call;
    while ((call = lease->calls)) {
        lease->calls = call->next;
        worker_call(w, lease->queue, call->fn, call->argument);
        free(call);
    }
    if (lease->is_ending)
        worker_detach(w, lease->queue);
}

static void queue_answered(struct pool *p, const struct worker_answer *answer)
{
    struct lease *lease = p->config.lease_of(answer->queue);
    switch (answer->event) {
    case WORKER_ATTACHED:
        if (!lease->is_attached) { // else it moved
            lease->is_attached = true;
            answered(lease);
        }
        break;
    case WORKER_RELEASED:
        send_on(lease);
        break;
    case WORKER_DETACHED:
        if (lease->trail)
            pool_barrier(p, trail_is_cold, lease);
        else
            lease_end(lease);
        break;
    case WORKER_CALLED:
        answered(lease);
        break;
    case WORKER_PASSED:
    case WORKER_EVENTS:
        break;
    }
}

static void barrier_passed(struct barrier *b)
{
    if (--b->n_awaited)
        return;
    b->done(b->context);
    free(b);
}

static void worker_ready(struct loop_source *s, uint32_t events)
{
    (void)events;
    struct pool_worker *w = container_of(s, struct pool_worker, source);
    struct worker_answer answer;
    while (worker_receive(w->worker, &answer)) {
        if (answer.queue)
            queue_answered(w->pool, &answer);
        else
            barrier_passed(answer.context);
    }
}

// ---- start and stop ----------------------------------------------------------------------

static int start_worker(struct pool *p, struct pool_worker *w, int cpu, struct error *e)
{
    struct worker_config config = {
        .cpu = cpu,
        .index = (unsigned)(w - p->workers),
        .poll = p->config.poll,
        .helper_mask = &p->others,
        .helper_mask_bytes = sizeof(p->others),
    };
    *w = (struct pool_worker){
        .pool = p,
        .index = (unsigned)(w - p->workers),
        .cpu = cpu,
        .node = topo_node(p->config.topo, cpu),
        .source.ready = worker_ready,
    };
    pool_prefer(w);
    int err = worker_start(&w->worker, &config, e);
    pool_prefer_any(w);
    if (err)
        return err;
    w->started_cycles = cycles_now();
    p->lanes->lanes[w->index] = worker_lane(w->worker);
    err = loop_watch(p->loop, &w->source, worker_event_fd(w->worker), EPOLLIN);
    if (err) {
        worker_end(w->worker);
        worker_free(w->worker);
        return error_set(e, -err, "cannot watch a worker: %s", strerror(-err));
    }
    return 0;
}

static void release(struct pool *p)
{
    free(p->lanes);
    free(p->seen);
    free(p);
}

static struct pool *allocate(unsigned n)
{
    struct pool *p = calloc(1, sizeof(*p) + n * sizeof(p->workers[0]));
    if (!p)
        return NULL;
    p->seen = calloc(n, sizeof(p->seen[0]));
    p->lanes = calloc(1, sizeof(*p->lanes) + n * sizeof(p->lanes->lanes[0]));
    if (p->seen && p->lanes) {
        p->lanes->n = n;
        return p;
    }
    release(p);
    return NULL;
}

int pool_open(struct pool **out, struct loop *l, const struct pool_config *config, struct error *e)
{
    struct pool *p = allocate(config->n_cpus);
    if (!p)
        return error_set(e, ENOMEM, "no memory for %u workers", config->n_cpus);
    p->loop = l;
    p->config = *config;
    topo_others(config->topo, config->cpus, config->n_cpus, &p->others);
    // Before the workers start: a thread inherits its parent's cores, and then pins itself.
    sched_setaffinity(0, sizeof(p->others), &p->others);
    while (p->n < config->n_cpus) {
        int err = start_worker(p, &p->workers[p->n], config->cpus[p->n], e);
        if (err) {
            pool_close(p);
            return err;
        }
        p->n++;
    }
    *out = p;
    return 0;
}

void pool_close(struct pool *p)
{
    for (unsigned i = 0; i < p->n; i++) {
        loop_unwatch(p->loop, &p->workers[i].source);
        worker_end(p->workers[i].worker);
    }
    for (unsigned i = 0; i < p->n; i++) {
        worker_ready(&p->workers[i].source, 0); // barriers that nobody waited for any more
        worker_free(p->workers[i].worker);
    }
    release(p);
}

// ---- placing -----------------------------------------------------------------------------

static struct pool_worker *choose(struct pool *p, unsigned node, bool for_home)
{
    for (unsigned i = 0; i < p->n; i++) {
        p->seen[i].node = p->workers[i].node;
        p->seen[i].load = for_home ? p->workers[i].n_homes : p->workers[i].n_queues;
    }
    return &p->workers[place_queue(p->seen, p->n, node)];
}

struct pool_worker *pool_choose_home(struct pool *p)
{
    struct pool_worker *home = choose(p, PLACE_ANY_NODE, true);
    home->n_homes++;
    return home;
}

void pool_leave_home(struct pool_worker *home)
{
    home->n_homes--;
}

void pool_prefer(const struct pool_worker *home)
{
    topo_prefer_node_of(home->pool->config.topo, home->cpu);
}

void pool_prefer_any(const struct pool_worker *home)
{
    topo_prefer_any(home->pool->config.topo);
}

// ---- loans -------------------------------------------------------------------------------

void pool_attach(struct lease *lease, struct queue *q, const struct pool_worker *home)
{
    struct pool_worker *w = lease->chosen;
    if (!w)
        w = choose(home->pool, home->node, false);
    w->n_queues++;
    *lease = (struct lease){
        .queue = q,
        .at = w,
        .chosen = lease->chosen,
        .n_awaited = 1,
        .n_requests_before = counter_read(&q->stats.n_chains),
    };
    worker_attach(w->worker, q);
}

void pool_detach(struct lease *lease, struct queue *q)
{
    lease->n_awaited++;
    lease->is_ending = true;
    if (!lease->to) // else send_on() does it
        worker_detach(lease->at->worker, q);
}

static void defer(struct lease *lease, void (*fn)(struct queue *q, void *argument), void *argument)
{
    struct deferred_call **last = &lease->calls;
    while (*last)
        last = &(*last)->next;
    *last = malloc(sizeof(**last));
    assert(*last && "control goes on only with memory");
    **last = (struct deferred_call){.fn = fn, .argument = argument};
}

void pool_call(struct lease *lease, struct queue *q, void (*fn)(struct queue *q, void *argument),
               void *argument)
{
    lease->n_awaited++;
    if (lease->to)
        defer(lease, fn, argument);
    else
        worker_call(lease->at->worker, q, fn, argument);
}

void pool_move(struct lease *lease, struct pool_worker *to)
{
    lease->chosen = to;
    if (lease->is_ending)
        return;
    if (lease->to) { // it is on its way: to another one, then
        lease->to = to;
        return;
    }
    if (!lease->at || lease->at == to)
        return;
    if (!lease->trail)
        lease->trail = trail_open(lease->queue, to->pool->n);
    lease->to = to;
    worker_release(lease->at->worker, lease->queue, lease->trail);
}

void pool_change_home(struct pool_worker **home, struct pool_worker *to)
{
    pool_leave_home(*home);
    to->n_homes++;
    *home = to;
}

void pool_barrier(struct pool *p, void (*done)(void *context), void *context)
{
    struct barrier *b = malloc(sizeof(*b));
    assert(b && p->n && "control goes on only with memory, and a pool has workers");
    *b = (struct barrier){.n_awaited = p->n, .done = done, .context = context};
    for (unsigned i = 0; i < p->n; i++)
        worker_pass(p->workers[i].worker, b);
}

void pool_visit(struct pool *p, void (*fn)(struct lane *lane, void *argument), void *argument,
                void (*done)(void *context), void *context)
{
    struct barrier *b = malloc(sizeof(*b));
    assert(b && "control goes on only with memory");
    *b = (struct barrier){
        .visit = {.fn = fn, .argument = argument, .context = b},
        .n_awaited = p->n,
        .done = done,
        .context = context,
    };
    for (unsigned i = 0; i < p->n; i++)
        worker_visit(p->workers[i].worker, &b->visit);
}

const struct lane_set *pool_lanes(const struct pool *p)
{
    return p->lanes;
}

unsigned pool_n_workers(const struct pool *p)
{
    return p->n;
}

struct pool_worker *pool_worker_at(const struct pool *p, unsigned index)
{
    return (struct pool_worker *)&p->workers[index];
}
