// SPDX-License-Identifier: Apache-2.0
#include "pollers/acceptor.h"

#include "dataplane/base.h"
#include "dataplane/log.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

static void acceptor_ready(struct loop_source *s, uint32_t events)
{
    (void)events;
    struct acceptor *a = container_of(s, struct acceptor, source);
    a->waiting(a);
}

static void acceptor_rested(struct loop_timer *t)
{
    acceptor_resume(container_of(t, struct acceptor, rest));
}

int acceptor_open(struct acceptor *a, struct loop *l, const char *path, mode_t mode,
                  void (*waiting)(struct acceptor *a), struct error *e)
{
    *a = (struct acceptor){
        .loop = l,
        .waiting = waiting,
        .source.ready = acceptor_ready,
        .rest.due = acceptor_rested,
    };
    int err = unix_listen(&a->listener, path, mode, e);
    if (err)
        return err;
    err = loop_watch(l, &a->source, a->listener.fd, EPOLLIN);
    if (err) {
        unix_unlisten(&a->listener);
        return error_set(e, -err, "socket %s: %s", path, strerror(-err));
    }
    return 0;
}

static bool is_open(const struct acceptor *a)
{
    return a->loop && a->listener.fd >= 0;
}

void acceptor_close(struct acceptor *a)
{
    if (!is_open(a))
        return;
    acceptor_pause(a);
    unix_unlisten(&a->listener);
}

void acceptor_pause(struct acceptor *a)
{
    loop_unwatch(a->loop, &a->source);
    loop_timer_cancel(&a->rest);
}

void acceptor_resume(struct acceptor *a)
{
    if (!is_open(a))
        return;
    loop_timer_cancel(&a->rest);
    if (loop_watch(a->loop, &a->source, a->listener.fd, EPOLLIN) < 0)
        loop_timer_set(a->loop, &a->rest, ACCEPTOR_REST_MS);
}

int acceptor_take(struct acceptor *a)
{
    int fd = unix_accept(&a->listener);
    if (fd < 0 && fd != -EAGAIN && fd != -EINTR && fd != -ECONNABORTED) {
        // EMFILE and the like: the connection stays, and would wake us at once for ever.
        log_warning("socket %s: cannot accept: %s", a->listener.path, strerror(-fd));
        acceptor_pause(a);
        loop_timer_set(a->loop, &a->rest, ACCEPTOR_REST_MS);
    }
    return fd;
}
