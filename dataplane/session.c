// SPDX-License-Identifier: Apache-2.0
#include "dataplane/session_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

bool session_run(struct session *s, unsigned budget)
{
    struct error e;
    for (; budget && session_wants_input(s); budget--) {
        session_keep_begin(s);
        switch (message_receive(&s->reader, s->fd, &e)) {
        case MESSAGE_NONE:
            if (!message_is_partial(&s->reader))
                session_keep_end(s);
            return false;
        case MESSAGE_READY:
            session_handle(s);
            break;
        case MESSAGE_ENDED:
            session_close(s, NULL);
            break;
        case MESSAGE_BROKEN:
            session_close(s, e.text);
            break;
        }
    }
    return session_wants_input(s);
}

// ---- life --------------------------------------------------------------------------------

int session_open(struct session **out, int fd, struct device *d, const struct session_host *host,
                 void *context, struct error *e)
{
    struct session *s = calloc(1, sizeof(*s) + d->n_queues * sizeof(s->queues[0]));
    if (!s)
        return error_set(e, ENOMEM, "%s: out of memory", d->name);
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        int code = errno;
        free(s);
        return error_set(e, code, "%s: the socket: %s", d->name, strerror(code));
    }
    s->device = d;
    s->host = host;
    s->context = context;
    s->fd = fd;
    s->backend_fd = -1;
    s->reply_fd = -1;
    for (unsigned i = 0; i < d->n_queues; i++) {
        s->queues[i].queue = &d->queues[i];
        s->queues[i].err_fd = -1;
    }
    session_keep_open(s);
    *out = s;
    return 0;
}

uint64_t session_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void session_warn(struct session *s, const char *format, ...)
{
    const char *type = s->device->type->line.type, *name = s->device->name;
    char text[ERROR_TEXT_MAX];
    uint32_t n_swallowed;
    if (!log_allowed(&s->log_limit, session_now_ms(), &n_swallowed))
        return;
    if (n_swallowed)
        log_warning("%s %s: %" PRIu32 " lines were not shown", type, name, n_swallowed);
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    log_warning("%s %s: %s", type, name, text);
}

static void dispose(struct session *s)
{
    for (unsigned i = 0; i < s->device->n_queues; i++) {
        session_queue_close_fds(&s->queues[i]);
        session_queue_reset(&s->queues[i]);
    }
    session_replace_fd(&s->backend_fd, -1);
    session_tell_memory(s, NULL);
    mem_free(s->mem);
    dirty_close(s->log);
    session_inflight_drop(s);
    session_keep_drop(s);
    s->mem = NULL;
    s->log = NULL;
    s->state = SESSION_CLOSED;
}

void session_shut(struct session *s)
{
    if (!session_is_attached(s)) {
        dispose(s);
        return;
    }
    session_stop_all(s);
    session_change(s, &(struct session_change){0});
}

void session_close(struct session *s, const char *reason)
{
    if (s->state != SESSION_OPEN)
        return;
    s->state = SESSION_CLOSING;
    session_keep_begin(s);
    if (reason)
        log_warning("%s %s: session ended: %s", s->device->type->line.type, s->device->name,
                    reason);
    else
        log_info("%s %s: the front end left", s->device->type->line.type, s->device->name);
    shutdown(s->fd, SHUT_RDWR); // the peer shall see it now, however long a disk takes
    if (s->is_busy)
        return; // session_complete() goes on
    message_reader_reset(&s->reader);
    session_shut(s);
}

void session_free(struct session *s)
{
    assert(s->state == SESSION_CLOSED);
    close(s->fd);
    free(s);
}

// ---- now and then ------------------------------------------------------------------------

static const char *find_truncated(const struct session *s)
{
    if (s->mem && mem_is_failed(s->mem))
        return "the front end truncated guest memory";
    if (s->log && atomic_load_explicit(&s->log->failed, memory_order_acquire))
        return "the front end truncated the dirty log";
    if (atomic_load_explicit(&s->inflight.failed, memory_order_acquire))
        return "the front end truncated the in-flight region";
    return NULL;
}

static bool is_too_slow(struct session *s, uint64_t now_ms)
{
    if (!message_is_partial(&s->reader) || s->partial_id != s->reader.n_begun) {
        s->partial_id = s->reader.n_begun;
        s->partial_ms = now_ms;
        return false;
    }
    return now_ms - s->partial_ms >= SESSION_PARTIAL_MS;
}

void session_check(struct session *s, uint64_t now_ms)
{
    if (s->state != SESSION_OPEN)
        return;
    for (unsigned i = 0; i < s->device->n_queues; i++)
        session_queue_check(s, &s->queues[i]);
    const char *truncated = find_truncated(s);
    if (truncated)
        session_close(s, truncated);
    else if (is_too_slow(s, now_ms))
        session_close(s, "the front end did not finish a message in time");
    else if (s->is_blocked && !s->is_busy)
        session_retry(s);
    else if (!s->is_busy && !message_is_partial(&s->reader))
        session_keep_end(s); // what could not be kept at once
    if (s->state == SESSION_OPEN && atomic_exchange(&s->device->has_new_config, false))
        session_config_changed(s);
}

// ---- what it is --------------------------------------------------------------------------

bool session_wants_input(const struct session *s)
{
    return s->state == SESSION_OPEN && !s->is_busy;
}

enum session_state session_state(const struct session *s)
{
    return s->state;
}

int session_fd(const struct session *s)
{
    return s->fd;
}

void session_describe(const struct session *s, struct session_info *info)
{
    *info = (struct session_info){
        .features = s->features,
        .protocol_features = s->protocol_features,
        .is_logging = session_log_of(s, s->features),
        .has_inflight = s->inflight.mapping.at,
        .is_waiting = s->n_pending,
        .waiting_ms = s->n_pending ? session_now_ms() - s->asked_ms : 0,
    };
    if (!s->mem)
        return;
    info->n_regions = s->mem->n_regions;
    for (unsigned i = 0; i < s->mem->n_regions; i++)
        info->memory_bytes += s->mem->regions[i].size;
}
