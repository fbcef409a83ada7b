// SPDX-License-Identifier: Apache-2.0
// An endpoint's beginning and end, with or without a socket.
#include "pollers/cycles.h"
#include "pollers/endpoint_internal.h"

#include <errno.h>
#include <stdlib.h>

// ---- queues without a session ------------------------------------------------------------

void endpoint_stop_queue(struct queue *q)
{
    if (q->device->type->queue_stop)
        q->device->type->queue_stop(q);
}

static void stop_queues(struct device *d, unsigned n)
{
    while (n)
        endpoint_stop_queue(&d->queues[--n]);
}

static int start_queues(struct device *d, struct error *e)
{
    for (unsigned i = 0; i < d->n_queues; i++) {
        int err = d->type->queue_start ? d->type->queue_start(&d->queues[i], e) : 0;
        if (err) {
            stop_queues(d, i);
            return err;
        }
    }
    return 0;
}

static void lend_queues(struct endpoint *p)
{
    for (unsigned i = 0; i < p->device->n_queues; i++)
        pool_attach(&p->leases[i], &p->device->queues[i], p->home);
}

static void take_queues_back(struct endpoint *p)
{
    for (unsigned i = 0; i < p->device->n_queues; i++) {
        if (p->leases[i].at && !p->leases[i].is_ending)
            pool_detach(&p->leases[i], &p->device->queues[i]);
    }
}

// ---- open --------------------------------------------------------------------------------

static void join(struct lane *lane, void *argument)
{
    struct device *d = argument;
    d->type->lane_join(d, lane);
}

static void has_joined(void *context)
{
    (void)context; // whatever needs it comes to the lanes after it
}

static void tick_due(struct loop_timer *t)
{
    struct endpoint *p = container_of(t, struct endpoint, tick);
    loop_timer_set(p->loop, t, DEVICE_TICK_MS);
    p->device->type->tick(p->device, loop_now_ms());
}

// Nothing fails from here on.
static void begin(struct endpoint *p, struct pool *pool)
{
    const struct device_type *type = p->device->type;
    p->home = pool_choose_home(pool);
    if (type->lane_join)
        pool_visit(pool, join, p->device, has_joined, NULL);
    if (p->device->wants_tick)
        loop_timer_set(p->loop, &p->tick, 0);
    if (!endpoint_has_socket(p))
        lend_queues(p);
}

static void close_late(void *device)
{
    device_close(device);
}

// It was opened in vain; workers may have found it already.
static void close_device(struct device *d, struct pool *pool)
{
    if (!d->type->leave) {
        device_close(d);
        return;
    }
    d->type->leave(d);
    pool_barrier(pool, close_late, d);
}

int endpoint_open(struct endpoint **out, struct loop *loop, struct pool *pool,
                  const struct device_type *type, struct line *l, struct error *e)
{
    struct endpoint *p = calloc(1, sizeof(*p));
    if (!p) {
        line_free(l);
        return error_set(e, ENOMEM, "no memory for a device");
    }
    p->loop = loop;
    p->retry_ms = ENDPOINT_RETRY_MS;
    p->source.ready = endpoint_session_ready;
    p->retry.due = endpoint_connect_again;
    p->tick.due = tick_due;
    int err = device_open(&p->device, type, l, pool_lanes(pool), e);
    if (err) {
        line_free(l);
        goto err_free;
    }
    p->device->owner = p;
    p->leases = calloc(MAX(p->device->n_queues, 1), sizeof(p->leases[0]));
    if (!p->leases) {
        err = error_set(e, ENOMEM, "%s %s: out of memory", l->schema->type, l->name);
        goto err_device;
    }
    p->path = device_socket(l);
    err = endpoint_has_socket(p) ? endpoint_listen(p, e) : start_queues(p->device, e);
    if (err)
        goto err_leases;
    begin(p, pool);
    *out = p;
    return 0;

err_leases:
    free(p->leases);
err_device:
    close_device(p->device, pool);
err_free:
    free(p);
    return err;
}

// ---- leave -------------------------------------------------------------------------------

static bool has_queues_out(const struct endpoint *p)
{
    for (unsigned i = 0; i < p->device->n_queues; i++) {
        if (p->leases[i].at)
            return true;
    }
    return false;
}

static void has_passed(void *context);

static void part(struct lane *lane, void *argument)
{
    struct device *d = argument;
    if (d->type->lane_part)
        d->type->lane_part(d, lane);
}

// One step of the way out, when the one before is done.
void endpoint_go_on_leaving(struct endpoint *p)
{
    struct device *d = p->device;
    struct error e;
    switch (p->exit) {
    case EXIT_NOT_YET:
        if (has_queues_out(p) || endpoint_busy(p, &e))
            return;
        p->exit = d->type->leave ? EXIT_HIDDEN : EXIT_PASSED;
        if (p->exit == EXIT_PASSED)
            break;
        d->type->leave(d);
        pool_visit(p->home->pool, part, d, has_passed, p);
        return;
    case EXIT_HIDDEN:
        return;
    case EXIT_PASSED:
        break;
    }
    p->gone(p->gone_context, p);
}

static void has_passed(void *context)
{
    struct endpoint *p = context;
    p->exit = EXIT_PASSED;
    endpoint_go_on_leaving(p);
}

void endpoint_leave(struct endpoint *p, const char *reason,
                    void (*gone)(void *context, struct endpoint *p), void *context)
{
    p->is_leaving = true;
    p->gone = gone;
    p->gone_context = context;
    acceptor_close(&p->acceptor);
    loop_timer_cancel(&p->retry);
    if (p->session && session_state(p->session) == SESSION_OPEN)
        session_close(p->session, reason);
    if (!endpoint_has_socket(p))
        take_queues_back(p);
    endpoint_settle(p);
}

void endpoint_free(struct endpoint *p)
{
    loop_timer_cancel(&p->tick);
    pool_leave_home(p->home);
    device_close(p->device);
    free(p->leases);
    free(p);
}

// The front end is told even if nothing changed: it may have missed it while it was away.
int endpoint_resize(struct endpoint *p, uint64_t *bytes, struct error *e)
{
    const struct device_type *type = p->device->type;
    if (!type->resize)
        return error_set(e, EOPNOTSUPP, "%s %s: a device of this type has no size", type->line.type,
                         p->device->name);
    int err = type->resize(p->device, bytes, e);
    if (!err && p->session && session_state(p->session) == SESSION_OPEN)
        session_config_changed(p->session);
    return err;
}

int endpoint_busy(const struct endpoint *p, struct error *e)
{
    const struct device_type *type = p->device->type;
    return type->busy ? type->busy(p->device, e) : 0;
}

enum endpoint_state endpoint_state(const struct endpoint *p)
{
    if (p->is_leaving || (p->session && session_state(p->session) != SESSION_OPEN))
        return ENDPOINT_DRAINING;
    if (!endpoint_has_socket(p))
        return ENDPOINT_RUNNING;
    return p->session ? ENDPOINT_CONNECTED : ENDPOINT_WAITING;
}

uint64_t endpoint_in_flight(const struct queue *q)
{
    uint64_t n_used = counter_read(&q->stats.n_used); // first: it never overtakes
    uint64_t n_chains = counter_read(&q->stats.n_chains);
    return n_chains > n_used ? n_chains - n_used : 0;
}

uint64_t endpoint_oldest_ms(const struct queue *q)
{
    uint64_t popped_at = ring_oldest(&q->ring), now = cycles_now();
    return popped_at && now > popped_at ? (now - popped_at) / cycles_per_us() / 1000 : 0;
}
