// SPDX-License-Identifier: Apache-2.0
#include "pollers/pool.h"

#include "pollers/place.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

struct pool {
    struct loop *loop;
    struct pool_config config;
    cpu_set_t others;          // where control and the kernel's helper threads run
    struct place_worker *seen; // scratch of choose(), one a worker
    unsigned n;
    struct pool_worker workers[];
};

// ---- answers -----------------------------------------------------------------------------

static void lease_end(struct lease *lease, const struct queue *q)
{
    struct pool_worker *w = lease->at;
    w->n_requests_moved += counter_read(&q->stats.n_chains) - lease->n_requests_before;
    w->n_queues--;
    *lease = (struct lease){0};
}

static void worker_ready(struct loop_source *s, uint32_t events)
{
    (void)events;
    struct pool_worker *w = container_of(s, struct pool_worker, source);
    struct queue *q;
    while ((q = worker_receive(w->worker))) {
        struct lease *lease = w->pool->config.lease_of(q);
        if (--lease->n_awaited == 0 && lease->is_ending)
            lease_end(lease, q);
        w->pool->config.answered(q);
    }
}

// ---- start and stop ----------------------------------------------------------------------

static int start_worker(struct pool *p, struct pool_worker *w, int cpu, struct error *e)
{
    struct worker_config config = {
        .cpu = cpu,
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
    err = loop_watch(p->loop, &w->source, worker_event_fd(w->worker), EPOLLIN);
    if (err) {
        worker_stop(w->worker);
        return error_set(e, -err, "cannot watch a worker: %s", strerror(-err));
    }
    return 0;
}

int pool_open(struct pool **out, struct loop *l, const struct pool_config *config, struct error *e)
{
    struct pool *p = calloc(1, sizeof(*p) + config->n_cpus * sizeof(p->workers[0]));
    if (p)
        p->seen = calloc(config->n_cpus, sizeof(p->seen[0]));
    if (!p || !p->seen) {
        free(p);
        return error_set(e, ENOMEM, "no memory for %u workers", config->n_cpus);
    }
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
        worker_stop(p->workers[i].worker);
    }
    free(p->seen);
    free(p);
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
    struct pool_worker *w = choose(home->pool, home->node, false);
    w->n_queues++;
    *lease = (struct lease){
        .at = w,
        .n_awaited = 1,
        .n_requests_before = counter_read(&q->stats.n_chains),
    };
    worker_attach(w->worker, q);
}

void pool_detach(struct lease *lease, struct queue *q)
{
    lease->n_awaited++;
    lease->is_ending = true;
    worker_detach(lease->at->worker, q);
}

void pool_call(struct lease *lease, struct queue *q, void (*fn)(struct queue *q, void *argument),
               void *argument)
{
    lease->n_awaited++;
    worker_call(lease->at->worker, q, fn, argument);
}

unsigned pool_n_workers(const struct pool *p)
{
    return p->n;
}

const struct pool_worker *pool_worker_at(const struct pool *p, unsigned index)
{
    return &p->workers[index];
}
