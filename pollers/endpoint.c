// SPDX-License-Identifier: Apache-2.0
// Theory: whatever happens (a message, an answer of a worker, a timer) ends in endpoint_settle(),
// which looks at where the session stands and arms what may happen next: the session's socket, the
// listener, or the next attempt to connect. A session leaves messages that it does not handle yet
// in its socket, which is level-triggered, so that nothing else has to remember them. A server
// accepts nobody while its session is closing: who connects then waits in the listener's queue
// until the old front end is gone.
#include "pollers/endpoint.h"

#include "pollers/cycles.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

// ---- what a session asks for -------------------------------------------------------------

static void host_attach(void *context, struct queue *q)
{
    struct endpoint *p = context;
    pool_attach(&p->leases[q->index], q, p->home);
}

static void host_detach(void *context, struct queue *q)
{
    struct endpoint *p = context;
    pool_detach(&p->leases[q->index], q);
}

static void host_call(void *context, struct queue *q, void (*fn)(struct queue *q, void *argument),
                      void *argument)
{
    struct endpoint *p = context;
    pool_call(&p->leases[q->index], q, fn, argument);
}

static const struct session_host host = {
    .attach = host_attach,
    .detach = host_detach,
    .call = host_call,
};

// ---- the session -------------------------------------------------------------------------

static void watch_session(struct endpoint *p)
{
    bool is_open = session_state(p->session) == SESSION_OPEN;
    uint32_t events = is_open && session_wants_input(p->session) ? EPOLLIN : 0;
    int err = loop_watch(p->loop, &p->source, session_fd(p->session), events);
    if (err)
        session_close(p->session, strerror(-err));
}

static void drop_session(struct endpoint *p)
{
    loop_unwatch(p->loop, &p->source);
    session_free(p->session);
    p->session = NULL;
    p->peer_pid = 0;
}

static void wait_for_next(struct endpoint *p)
{
    if (p->is_client) {
        loop_timer_set(p->loop, &p->retry, p->retry_ms);
        p->retry_ms = MIN(p->retry_ms * 2, ENDPOINT_RETRY_MAX_MS);
    } else {
        acceptor_resume(&p->acceptor);
    }
}

static bool has_socket(const struct endpoint *p)
{
    return p->path != NULL;
}

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
static void go_on_leaving(struct endpoint *p)
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
    go_on_leaving(p);
}

// Arm what may happen next. The endpoint may be freed when this returns.
static void endpoint_settle(struct endpoint *p)
{
    if (p->session)
        watch_session(p);
    if (p->session && session_state(p->session) != SESSION_CLOSED)
        return;
    if (p->session)
        drop_session(p);
    if (p->is_leaving)
        go_on_leaving(p);
    else if (has_socket(p))
        wait_for_next(p);
}

// Rings start in here, and shall lie near the worker.
static void session_ready(struct loop_source *s, uint32_t events)
{
    (void)events; // a hang-up is for session_run() to read
    struct endpoint *p = container_of(s, struct endpoint, source);
    pool_prefer(p->home);
    session_run(p->session, ENDPOINT_BUDGET);
    pool_prefer_any(p->home);
    endpoint_settle(p);
}

static void serve(struct endpoint *p, int fd)
{
    struct error e;
    p->peer_pid = (int)unix_peer_pid(fd);
    if (session_open(&p->session, fd, p->device, &host, p, &e) < 0) {
        log_error("%s %s: %s", p->device->type->line.type, p->device->name, e.text);
        p->session = NULL;
        close(fd);
    }
    endpoint_settle(p);
}

void endpoint_resume(struct endpoint *p)
{
    struct error e;
    if (!session_is_kept(p->device))
        return;
    loop_timer_cancel(&p->retry);
    pool_prefer(p->home);
    if (session_resume(&p->session, p->device, &host, p, &e) < 0) {
        log_warning("%s %s: the front end has to connect again: %s", p->device->type->line.type,
                    p->device->name, e.text);
        p->session = NULL;
    }
    pool_prefer_any(p->home);
    if (p->session)
        p->peer_pid = (int)unix_peer_pid(session_fd(p->session));
    endpoint_settle(p);
}

static void stop_queue(struct queue *q)
{
    if (q->device->type->queue_stop)
        q->device->type->queue_stop(q);
}

struct lease *endpoint_lease_of(struct queue *q)
{
    struct endpoint *p = q->device->owner;
    return &p->leases[q->index];
}

void endpoint_answered(struct queue *q)
{
    struct endpoint *p = q->device->owner;
    if (p->session)
        session_acknowledge(p->session);
    else if (!p->leases[q->index].at)
        stop_queue(q);
    endpoint_settle(p);
}

void endpoint_check(struct endpoint *p, uint64_t now_ms)
{
    if (p->session)
        session_check(p->session, now_ms);
    if (p->session || p->is_leaving)
        endpoint_settle(p);
}

// ---- without a socket --------------------------------------------------------------------

static void stop_queues(struct device *d, unsigned n)
{
    while (n)
        stop_queue(&d->queues[--n]);
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

// ---- server ------------------------------------------------------------------------------

// The peer closed, but we have not read so far: its successor is not to be refused for that.
static bool has_hung_up(const struct session *s)
{
    struct pollfd pfd = {.fd = session_fd(s), .events = POLLRDHUP};
    return poll(&pfd, 1, 0) > 0 && (pfd.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

static void refuse_second(struct endpoint *p)
{
    int fd = acceptor_take(&p->acceptor);
    if (fd < 0)
        return;
    uint32_t swallowed;
    if (log_allowed(&p->refusals, loop_now_ms(), &swallowed))
        log_warning("%s %s: refused process %d: it serves process %d (%u more refusals)",
                    p->device->type->line.type, p->device->name, (int)unix_peer_pid(fd),
                    p->peer_pid, swallowed);
    close(fd);
}

static void front_end_waits(struct acceptor *a)
{
    struct endpoint *p = container_of(a, struct endpoint, acceptor);
    if (!p->session) {
        int fd = acceptor_take(a);
        if (fd >= 0)
            serve(p, fd);
    } else if (session_state(p->session) == SESSION_OPEN && !has_hung_up(p->session)) {
        refuse_second(p);
    } else {
        acceptor_pause(a); // until endpoint_settle()
    }
}

// ---- client ------------------------------------------------------------------------------

static void connect_again(struct loop_timer *t)
{
    struct endpoint *p = container_of(t, struct endpoint, retry);
    struct error e;
    int fd = unix_connect(p->path, &e);
    if (fd < 0) {
        wait_for_next(p);
        return;
    }
    p->retry_ms = ENDPOINT_RETRY_MS;
    serve(p, fd);
}

// ---- open and leave ----------------------------------------------------------------------

static int open_socket(struct endpoint *p, struct error *e)
{
    const struct line *l = p->device->line;
    struct error cause;
    p->is_client = line_number(l, "mode", 0) == 1; // choices are server|client
    if (p->is_client) {
        loop_timer_set(p->loop, &p->retry, 0);
        return 0;
    }
    int err = acceptor_open(&p->acceptor, p->loop, p->path,
                            (mode_t)line_number(l, "socket-mode", 0660), front_end_waits, &cause);
    return err ? error_set(e, -err, "%s %s: %s", l->schema->type, l->name, cause.text) : 0;
}

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
    if (type->tick)
        loop_timer_set(p->loop, &p->tick, 0);
    if (!has_socket(p))
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
    p->source.ready = session_ready;
    p->retry.due = connect_again;
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
    err = has_socket(p) ? open_socket(p, e) : start_queues(p->device, e);
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
    if (!has_socket(p))
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
    if (!has_socket(p))
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
