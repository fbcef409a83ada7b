// SPDX-License-Identifier: Apache-2.0
#include "dataplane/session_internal.h"

#include <errno.h>

// ---- waiting for the host ----------------------------------------------------------------

// The host may answer from inside what it is asked, so asking counts as one thing pending:
// @s->then runs when all is asked and all is answered.
static void ask_begin(struct session *s, void (*then)(struct session *s))
{
    assert(s->n_pending == 0);
    s->n_pending = 1;
    s->then = then;
}

void session_acknowledge(struct session *s)
{
    assert(s->n_pending > 0 && "an answer to nothing");
    if (--s->n_pending == 0)
        s->then(s);
}

static void ask_end(struct session *s)
{
    session_acknowledge(s);
}

// ---- which queues ------------------------------------------------------------------------

void session_stop_queue(struct session_queue *sq)
{
    sq->must_stop = sq->is_attached;
}

void session_stop_all(struct session *s)
{
    for (unsigned i = 0; i < s->device->n_queues; i++)
        session_stop_queue(&s->queues[i]);
}

bool session_is_attached(const struct session *s)
{
    for (unsigned i = 0; i < s->device->n_queues; i++)
        if (s->queues[i].is_attached)
            return true;
    return false;
}

// ---- the steps, last one first -----------------------------------------------------------

// A ring that cannot start stays stopped until the front end kicks it anew; but for what passes
// by itself, it is tried again.
static void start_queue(struct session *s, struct session_queue *sq)
{
    struct error e;
    int result = session_queue_start(s, sq, &e);
    if (result == 0) {
        sq->is_attached = true;
        s->n_pending++;
        s->host->attach(s->context, sq->queue);
        return;
    }
    if (result == -EWOULDBLOCK) {
        s->is_blocked = true;
        s->blocked = e;
        return;
    }
    sq->is_kicked = false;
    if (s->result == 0) {
        s->result = result;
        s->error = e;
    }
}

static void start_wanted(struct session *s, void (*then)(struct session *s))
{
    bool was_blocked = s->is_blocked;
    s->is_blocked = false;
    ask_begin(s, then);
    for (unsigned i = 0; i < s->device->n_queues; i++) {
        struct session_queue *sq = &s->queues[i];
        if (!sq->is_attached && session_queue_is_wanted(s, sq))
            start_queue(s, sq);
    }
    if (s->is_blocked && !was_blocked)
        session_warn(s, "queues wait: %s", s->blocked.text);
    ask_end(s);
}

static void start_queues(struct session *s)
{
    if (s->result == 0 && s->change.after)
        s->change.after(s);
    start_wanted(s, session_complete);
}

static void tell_queues(struct session *s)
{
    const struct session_change *c = &s->change;
    ask_begin(s, start_queues);
    for (unsigned i = 0; i < s->device->n_queues; i++) {
        struct session_queue *sq = &s->queues[i];
        if (c->live && s->result == 0 && sq->is_attached && (!c->only || c->only == sq)) {
            s->n_pending++;
            s->host->call(s->context, sq->queue, c->live, c->argument);
        }
    }
    ask_end(s);
}

static void apply(struct session *s)
{
    for (unsigned i = 0; i < s->device->n_queues; i++) {
        struct session_queue *sq = &s->queues[i];
        if (sq->must_stop)
            session_queue_stop(s, sq);
    }
    if (s->change.apply)
        s->result = s->change.apply(s, &s->error);
    tell_queues(s);
}

int session_change(struct session *s, const struct session_change *change)
{
    s->change = *change;
    s->result = 0;
    s->asked_ms = session_now_ms();
    ask_begin(s, apply);
    for (unsigned i = 0; i < s->device->n_queues; i++) {
        struct session_queue *sq = &s->queues[i];
        if (sq->must_stop) {
            s->n_pending++;
            s->host->detach(s->context, sq->queue);
        }
    }
    ask_end(s);
    return REQUEST_PENDING;
}

// ---- again -------------------------------------------------------------------------------

// No request is answered here, and one that came in part goes on coming.
static void retried(struct session *s)
{
    s->is_busy = false;
    s->keep.is_listed = false;
    session_keep_end(s);
    if (s->result)
        session_warn(s, "a queue that waited cannot start: %s", s->error.text);
    if (s->state != SESSION_OPEN) {
        message_reader_reset(&s->reader);
        session_shut(s);
    }
}

void session_retry(struct session *s)
{
    assert(!s->is_busy && s->state == SESSION_OPEN);
    s->is_busy = true;
    s->result = 0;
    s->asked_ms = session_now_ms();
    start_wanted(s, retried);
}
