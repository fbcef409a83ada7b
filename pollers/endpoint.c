// SPDX-License-Identifier: Apache-2.0
// Theory: whatever happens (a message, an answer of a worker, a timer) ends in endpoint_settle(),
// which looks at where the session stands and arms what may happen next: the session's socket, the
// listener, or the next attempt to connect. A session leaves messages that it does not handle yet
// in its socket, which is level-triggered, so that nothing else has to remember them. A server
// accepts nobody while its session is closing: who connects then waits in the listener's queue
// until the old front end is gone.
#include "pollers/endpoint_internal.h"

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

// Arm what may happen next. The endpoint may be freed when this returns.
void endpoint_settle(struct endpoint *p)
{
    if (p->session)
        watch_session(p);
    if (p->session && session_state(p->session) != SESSION_CLOSED)
        return;
    if (p->session)
        drop_session(p);
    if (p->is_leaving)
        endpoint_go_on_leaving(p);
    else if (endpoint_has_socket(p))
        wait_for_next(p);
}

// Rings start in here, and shall lie near the worker.
void endpoint_session_ready(struct loop_source *s, uint32_t events)
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
        endpoint_stop_queue(q);
    endpoint_settle(p);
}

void endpoint_check(struct endpoint *p, uint64_t now_ms)
{
    if (p->session)
        session_check(p->session, now_ms);
    if (p->session || p->is_leaving)
        endpoint_settle(p);
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

void endpoint_connect_again(struct loop_timer *t)
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

int endpoint_listen(struct endpoint *p, struct error *e)
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
