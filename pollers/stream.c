// SPDX-License-Identifier: Apache-2.0
#include "pollers/stream.h"

#include "dataplane/base.h"
#include "dataplane/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static bool has_output(const struct stream *s)
{
    return s->n_out > s->n_written;
}

static bool has_line(const struct stream *s)
{
    return memchr(s->in, '\n', s->n_in) != NULL;
}

static void stream_end(struct stream *s)
{
    loop_unwatch(s->loop, &s->source);
    loop_timer_cancel(&s->stall);
    close(s->fd);
    free(s->out);
    s->owner->closed(s);
}

static void stream_stalled(struct loop_timer *t)
{
    struct stream *s = container_of(t, struct stream, stall);
    log_warning("control: a client read nothing for %d s and was dropped", STREAM_STALL_MS / 1000);
    stream_end(s);
}

// Write what the socket takes. False if the peer is gone.
static bool stream_flush(struct stream *s)
{
    while (has_output(s)) {
        ssize_t n = send(s->fd, s->out + s->n_written, s->n_out - s->n_written, MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        s->n_written += (size_t)n;
        loop_timer_set(s->loop, &s->stall, STREAM_STALL_MS);
    }
    free(s->out);
    s->out = NULL;
    s->n_out = s->n_written = 0;
    loop_timer_cancel(&s->stall);
    return true;
}

// False if the peer is gone. The end of its input alone does not mean that it left.
static bool stream_read(struct stream *s)
{
    ssize_t n = recv(s->fd, s->in + s->n_in, sizeof(s->in) - s->n_in, 0);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    s->n_in += (size_t)n;
    s->is_ending = n == 0;
    return true;
}

static void refuse_input(struct stream *s)
{
    s->owner->too_long(s);
    s->is_ending = true;
    s->n_in = 0;
}

// Hand on the first whole line.
static void handle_line(struct stream *s)
{
    char *end = memchr(s->in, '\n', s->n_in);
    if (!end) {
        if (s->n_in == sizeof(s->in))
            refuse_input(s);
        return;
    }
    size_t bytes = (size_t)(end - s->in);
    if (bytes > 0)
        s->owner->line(s, s->in, bytes);
    s->n_in -= MIN(s->n_in, bytes + 1);
    memmove(s->in, end + 1, s->n_in);
}

// What to wait for. A socket that takes more is also how the next buffered line gets its turn.
static uint32_t wanted_events(const struct stream *s)
{
    if (has_output(s) || has_line(s))
        return EPOLLOUT;
    return s->is_ending ? 0 : EPOLLIN;
}

static void stream_step(struct stream *s)
{
    if (!has_output(s))
        handle_line(s);
    uint32_t events = wanted_events(s);
    bool is_done = events == 0 && s->n_awaited == 0;
    if (is_done || loop_watch(s->loop, &s->source, s->fd, events) < 0)
        stream_end(s);
}

static void stream_ready(struct loop_source *source, uint32_t events)
{
    struct stream *s = container_of(source, struct stream, source);
    bool is_there = stream_flush(s);
    if (is_there && (events & EPOLLIN))
        is_there = stream_read(s);
    else if (events & (EPOLLHUP | EPOLLERR))
        is_there = false;
    if (is_there)
        stream_step(s);
    else
        stream_end(s);
}

int stream_open(struct stream *s, struct loop *l, int fd, const struct stream_owner *owner)
{
    s->owner = owner;
    s->loop = l;
    s->fd = fd;
    s->source.ready = stream_ready;
    s->stall.due = stream_stalled;
    return loop_watch(l, &s->source, fd, EPOLLIN);
}

static bool stream_grow(struct stream *s, size_t bytes)
{
    char *grown = s->n_out + bytes < STREAM_OUT_MAX ? realloc(s->out, s->n_out + bytes) : NULL;
    if (grown)
        s->out = grown;
    return grown;
}

void stream_write(struct stream *s, const char *line, size_t bytes)
{
    if (!stream_grow(s, bytes + 1)) {
        log_warning("control: a reply of %zu bytes does not fit, its client is dropped", bytes);
        s->is_ending = true;
        s->n_in = 0;
        return;
    }
    if (!has_output(s))
        loop_timer_set(s->loop, &s->stall, STREAM_STALL_MS);
    memcpy(s->out + s->n_out, line, bytes);
    s->out[s->n_out + bytes] = '\n';
    s->n_out += bytes + 1;
    loop_watch(s->loop, &s->source, s->fd, EPOLLOUT);
}

void stream_close(struct stream *s)
{
    stream_flush(s);
    stream_end(s);
}
