// SPDX-License-Identifier: Apache-2.0
#include "pollers/control.h"

#include "dataplane/guard.h"
#include "dataplane/state.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

TAILQ_HEAD(endpoint_list, endpoint);

struct control {
    struct control_config config;
    const struct line_schema **schemas; // of the types
    struct loop *loop;
    struct pool *pool;
    struct endpoint_list endpoints;
    int signal_fd;
    struct loop_source signals;
    struct loop_source guard; // a mapping was truncated
    struct loop_timer check;
    struct loop_timer deadline;
    bool is_stopping;
    int result; // of control_run()
};

// ---- sessions ----------------------------------------------------------------------------

static void check_sessions(struct control *c)
{
    uint64_t now_ms = loop_now_ms();
    struct endpoint *next;
    for (struct endpoint *p = TAILQ_FIRST(&c->endpoints); p; p = next) {
        next = TAILQ_NEXT(p, link);
        endpoint_check(p, now_ms);
    }
}

static void check_due(struct loop_timer *t)
{
    struct control *c = container_of(t, struct control, check);
    loop_timer_set(c->loop, t, CONTROL_CHECK_MS);
    check_sessions(c);
    if (c->config.state)
        state_settle(c->config.state);
}

static void guard_ready(struct loop_source *s, uint32_t events)
{
    (void)events;
    uint64_t n;
    if (read(s->fd, &n, sizeof(n)) == sizeof(n))
        check_sessions(container_of(s, struct control, guard));
}

// ---- devices -----------------------------------------------------------------------------

struct endpoint *control_find(const struct control *c, const char *name)
{
    struct endpoint *p;
    TAILQ_FOREACH(p, &c->endpoints, link)
    {
        if (strcmp(p->device->name, name) == 0)
            return p;
    }
    return NULL;
}

const struct endpoint *control_next(const struct control *c, const struct endpoint *p)
{
    return p ? TAILQ_NEXT(p, link) : TAILQ_FIRST(&c->endpoints);
}

static const struct device_type *type_of(const struct control *c, const struct line *l)
{
    unsigned i = 0;
    while (i < c->config.n_types && c->schemas[i] != l->schema)
        i++;
    assert(i < c->config.n_types && "a line is parsed with the schemas of the types");
    return c->config.types[i];
}

// Which of its own things @l shares with a device that is there, NULL for none.
static const char *find_clash(const struct control *c, const struct line *l)
{
    const struct endpoint *p;
    const char *path = device_socket(l);
    if (control_find(c, l->name))
        return "name";
    TAILQ_FOREACH(p, &c->endpoints, link)
    {
        if (path && p->path && strcmp(p->path, path) == 0)
            return "socket";
    }
    return NULL;
}

static int parse_new(struct control *c, struct line **l, const char *text, struct error *e)
{
    if (c->is_stopping)
        return error_set(e, ESHUTDOWN, "sluiced is ending");
    int err = line_parse(l, text, c->schemas, c->config.n_types, e);
    if (err)
        return err;
    const char *clash = find_clash(c, *l);
    if (clash) {
        err = error_set(e, EEXIST, "%s %s: another device has that %s", (*l)->schema->type,
                        (*l)->name, clash);
        line_free(*l);
    }
    return err;
}

// A device is served without it as well.
static void hold_state(struct control *c, struct device *d)
{
    struct error e;
    if (!c->config.state)
        return;
    d->state = state_hold(c->config.state, d->name, d->n_queues, &e);
    if (!d->state)
        log_warning("%s %s: nothing is kept for a restart: %s", d->type->line.type, d->name,
                    e.text);
}

void control_forget_others(struct control *c)
{
    if (!c->config.state)
        return;
    state_forget_others(c->config.state);
}

int control_add(struct control *c, const char *text, struct error *e)
{
    struct line *l;
    struct endpoint *p;
    int err = parse_new(c, &l, text, e);
    if (!err)
        err = endpoint_open(&p, c->loop, c->pool, type_of(c, l), l, e);
    if (err)
        return err;
    hold_state(c, p->device);
    TAILQ_INSERT_TAIL(&c->endpoints, p, link);
    endpoint_resume(p);
    return 0;
}

static void endpoint_gone(void *context, struct endpoint *p)
{
    struct control *c = context;
    void (*done)(void *) = p->done;
    void *done_context = p->done_context;
    TAILQ_REMOVE(&c->endpoints, p, link);
    if (c->is_stopping)
        state_release(p->device->state);
    else
        state_forget(p->device->state);
    endpoint_free(p);
    if (done)
        done(done_context);
    if (c->is_stopping && TAILQ_EMPTY(&c->endpoints))
        loop_stop(c->loop);
    loop_timer_set(c->loop, &c->check, 0); // another that leaves may have waited for it
}

// The device @name, unless it is being removed. 0 or -errno with the sentence.
static int find_staying(const struct control *c, const char *name, struct endpoint **out,
                        struct error *e)
{
    const struct endpoint *p = *out = control_find(c, name);
    if (!p)
        return error_set(e, ENOENT, "%s: there is no such device", name);
    if (p->is_leaving)
        return error_set(e, EBUSY, "%s %s: it is being removed", p->device->type->line.type, name);
    return 0;
}

int control_resize(struct control *c, const char *name, uint64_t *bytes, struct error *e)
{
    struct endpoint *p;
    int err = find_staying(c, name, &p, e);
    return err ? err : endpoint_resize(p, bytes, e);
}

int control_remove(struct control *c, const char *name, void (*done)(void *context), void *context,
                   struct error *e)
{
    struct endpoint *p;
    int err = find_staying(c, name, &p, e);
    if (!err)
        err = endpoint_busy(p, e);
    if (err)
        return err;
    p->done = done;
    p->done_context = context;
    endpoint_leave(p, "the device is being removed", endpoint_gone, c);
    return 0;
}

// ---- the end -----------------------------------------------------------------------------

static void report_undrained(const struct endpoint *p)
{
    for (unsigned i = 0; i < p->device->n_queues; i++) {
        const struct queue *q = &p->device->queues[i];
        if (p->leases[i].at)
            log_error("%s %s: queue %u is given up with %llu requests in flight, the oldest for "
                      "%llu ms",
                      p->device->type->line.type, p->device->name, i,
                      (unsigned long long)endpoint_in_flight(q),
                      (unsigned long long)endpoint_oldest_ms(q));
    }
}

static void give_up(struct control *c, int result)
{
    const struct endpoint *p;
    TAILQ_FOREACH(p, &c->endpoints, link)
    report_undrained(p);
    c->result = result;
    loop_stop(c->loop);
}

static void deadline_passed(struct loop_timer *t)
{
    struct control *c = container_of(t, struct control, deadline);
    log_error("sluiced: not drained in %u ms, not waiting any longer", c->config.drain_ms);
    give_up(c, -ETIMEDOUT);
}

void control_stop(struct control *c)
{
    c->is_stopping = true;
    loop_timer_set(c->loop, &c->deadline, c->config.drain_ms);
    if (TAILQ_EMPTY(&c->endpoints))
        loop_stop(c->loop);
    struct endpoint *next;
    for (struct endpoint *p = TAILQ_FIRST(&c->endpoints); p; p = next) {
        next = TAILQ_NEXT(p, link);
        if (!p->is_leaving)
            endpoint_leave(p, "sluiced is ending", endpoint_gone, c);
    }
}

static void signals_ready(struct loop_source *s, uint32_t events)
{
    (void)events;
    struct control *c = container_of(s, struct control, signals);
    struct signalfd_siginfo info;
    if (read(s->fd, &info, sizeof(info)) != sizeof(info))
        return;
    if (!c->is_stopping) {
        control_stop(c);
        return;
    }
    log_warning("sluiced: a second signal, not waiting any longer");
    give_up(c, -EINTR);
}

int control_run(struct control *c)
{
    loop_run(c->loop);
    loop_timer_cancel(&c->deadline);
    return c->result;
}

// ---- open and close ----------------------------------------------------------------------

// 64 guests with 4 queues reach the usual soft limit of 1,024.
static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

// Before the first thread starts: workers inherit the mask, so that signals come here.
static int open_signals(struct control *c)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    c->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return c->signal_fd < 0 ? -errno : 0;
}

static int watch_events(struct control *c)
{
    int err = loop_watch(c->loop, &c->signals, c->signal_fd, EPOLLIN);
    if (!err)
        err = guard_install();
    if (!err)
        err = loop_watch(c->loop, &c->guard, guard_event_fd(), EPOLLIN);
    return err;
}

static const struct line_schema **schemas_of(const struct control_config *config)
{
    const struct line_schema **schemas = calloc(config->n_types, sizeof(schemas[0]));
    for (unsigned i = 0; schemas && i < config->n_types; i++)
        schemas[i] = &config->types[i]->line;
    return schemas;
}

static int open_pool(struct control *c, struct error *e)
{
    struct pool_config config = {
        .topo = c->config.topo,
        .cpus = c->config.cpus,
        .n_cpus = c->config.n_cpus,
        .poll = c->config.poll,
        .answered = endpoint_answered,
        .lease_of = endpoint_lease_of,
    };
    return pool_open(&c->pool, c->loop, &config, e);
}

int control_open(struct control **out, const struct control_config *config, struct error *e)
{
    error_set(e, 0, "cannot start: out of memory or descriptors"); // who knows better says it
    struct control *c = calloc(1, sizeof(*c));
    if (!c)
        return -ENOMEM;
    c->config = *config;
    c->signals.ready = signals_ready;
    c->guard.ready = guard_ready;
    c->check.due = check_due;
    c->deadline.due = deadline_passed;
    TAILQ_INIT(&c->endpoints);
    raise_file_limit();

    int err = -ENOMEM;
    c->schemas = schemas_of(config);
    if (!c->schemas)
        goto err_free;
    err = loop_open(&c->loop);
    if (err)
        goto err_schemas;
    err = open_signals(c);
    if (err)
        goto err_loop;
    err = watch_events(c);
    if (err)
        goto err_signals;
    err = open_pool(c, e);
    if (err)
        goto err_signals;
    loop_timer_set(c->loop, &c->check, CONTROL_CHECK_MS);
    *out = c;
    return 0;

err_signals:
    close(c->signal_fd);
err_loop:
    loop_close(c->loop);
err_schemas:
    free(c->schemas);
err_free:
    free(c);
    return err;
}

void control_close(struct control *c)
{
    assert(TAILQ_EMPTY(&c->endpoints) && "workers own nothing when they stop");
    pool_close(c->pool);
    close(c->signal_fd);
    loop_close(c->loop);
    free(c->schemas);
    free(c);
}

struct loop *control_loop(struct control *c)
{
    return c->loop;
}

const struct pool *control_pool(const struct control *c)
{
    return c->pool;
}
