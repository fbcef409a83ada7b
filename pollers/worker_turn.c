// SPDX-License-Identifier: Apache-2.0
#include "pollers/cycles.h"
#include "pollers/topo.h"
#include "pollers/worker_internal.h"

#include <stdio.h>

#define TAKE_MAX 8   // messages in a turn: control could send more for ever
#define REAP_MAX 512 // completions in a turn

// ---- the worker's messages ---------------------------------------------------------------

static void run_call(struct queue *q, const struct call *call)
{
    struct seat *s = q->seat;
    assert(!seat_is_leaving(s) && "nothing is asked of a queue that was asked back");
    call->fn(q, call->argument);
    if (q->call_changed)
        seat_replace_call(s);
}

static void end_visit(struct worker *w, struct channel_message *m)
{
    const struct worker_visit *v = m->argument;
    v->fn(&w->roster.lane, v->argument);
    m->kind = MESSAGE_PASS;
    m->argument = v->context;
}

static void handle_message(struct worker *w, struct channel_message *m)
{
    struct queue *q = m->subject;
    switch ((enum message_kind)m->kind) {
    case MESSAGE_ATTACH:
        roster_enter(&w->roster, q, m->argument);
        m->argument = NULL;
        break;
    case MESSAGE_DETACH:
        roster_leave(&w->roster, q->seat, SEAT_DRAINING);
        return; // answered when it has left
    case MESSAGE_RELEASE:
        if (!q->trail) // old lanes read it
            q->trail = m->argument;
        roster_leave(&w->roster, q->seat, SEAT_MOVING);
        return;
    case MESSAGE_CALL:
        run_call(q, m->argument);
        break;
    case MESSAGE_GROW:
        m->argument = roster_grow(&w->roster, m->argument);
        break;
    case MESSAGE_PASS:
        break;
    case MESSAGE_VISIT:
        end_visit(w, m);
        break;
    case MESSAGE_STOP:
        w->is_stopping = true;
        return;
    }
    mailbox_answer(&w->mailbox, m);
}

static unsigned take_messages(struct worker *w)
{
    struct channel_message m;
    unsigned n = 0;
    for (; n < TAKE_MAX && mailbox_take(&w->mailbox, &m); n++)
        handle_message(w, &m);
    return n;
}

static void finish_detaches(struct worker *w)
{
    struct seat *s;
    while ((s = roster_next_gone(&w->roster))) {
        bool moves = s->state == SEAT_MOVING;
        mailbox_answer(&w->mailbox, &(struct channel_message){
                                        .kind = moves ? MESSAGE_RELEASE : MESSAGE_DETACH,
                                        .subject = s->queue,
                                        .argument = s,
                                    });
    }
}

// ---- a turn ------------------------------------------------------------------------------

static void account(struct worker *w, uint64_t now)
{
    if (!w->was_busy)
        return;
    w->was_busy = false;
    counter_add(&w->busy_cycles, now - w->roster.lane.now);
}

// Every queue is parked, sleeping, stopped or leaving: nothing happens without a completion.
static void sleep_in_ring(struct worker *w)
{
    struct lane *lane = &w->roster.lane;
    bell_doze(&lane->bell);
    if (take_messages(w) == 0 && !lane_has_work(lane)) {
        account(w, cycles_now());
        counter_add(&w->n_sleeps, 1);
        uring_sleep(&lane->uring, UINT64_MAX);
    }
    bell_rise(&lane->bell);
}

static void turn(struct worker *w)
{
    struct uring *u = &w->roster.lane.uring;
    uint64_t now = cycles_now();
    account(w, now);
    w->roster.lane.now = now;
    counter_add(&w->n_turns, 1);

    unsigned work = take_messages(w);
    work += uring_reap(u, REAP_MAX);
    work += roster_poll(&w->roster, WORKER_BUDGET);
    roster_publish(&w->roster);
    if (unlikely(w->roster.leaving))
        finish_detaches(w);

    w->was_busy = work > 0;
    if (work)
        counter_add(&w->n_busy_turns, 1);
    if (roster_may_sleep(&w->roster) && !w->is_stopping)
        sleep_in_ring(w);
    else if (!uring_enter(u) && !work)
        cpu_relax();
}

// ---- the thread --------------------------------------------------------------------------

static void woken(struct event *ev, int result)
{
    (void)result;
    event_read(ev);
}

static int prepare(struct worker *w)
{
    int err = topo_pin(w->config.cpu);
    if (!err)
        err =
            uring_enable(&w->roster.lane.uring, w->config.helper_mask, w->config.helper_mask_bytes);
    if (!err)
        err = event_open(&w->wake, &w->roster.lane.uring, w->roster.lane.bell.fd, woken);
    if (!err)
        event_read(&w->wake);
    return err;
}

void *worker_run(void *argument)
{
    struct worker *w = argument;
    char name[16];
    snprintf(name, sizeof(name), "worker-%d", w->config.cpu);
    pthread_setname_np(pthread_self(), name);
    w->start_result = prepare(w);
    bool runs = w->start_result == 0;
    sem_post(&w->has_started);
    while (runs && !w->is_stopping)
        turn(w);
    return NULL;
}
