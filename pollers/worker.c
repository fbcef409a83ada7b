// SPDX-License-Identifier: Apache-2.0
#include "pollers/worker.h"

#include "pollers/cycles.h"
#include "pollers/mailbox.h"
#include "pollers/roster.h"
#include "pollers/topo.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TAKE_MAX  8   // messages in a turn: control could send more for ever
#define REAP_MAX  512 // completions in a turn
#define SEATS_MIN 64  // room in the first array of polled seats

enum message_kind {
    MESSAGE_ATTACH, // subject: queue; argument: its seat
    MESSAGE_DETACH, // subject: queue; the answer's argument: its seat
    MESSAGE_CALL,   // subject: queue; argument: struct call
    MESSAGE_GROW,   // argument: a larger array; the answer's: the one before
    MESSAGE_PASS,   // argument: the asker's own
    MESSAGE_STOP,
};

struct call {
    void (*fn)(struct queue *q, void *argument);
    void *argument;
};

struct worker {
    // The worker's own.
    struct roster roster;
    bool was_busy; // the turn before
    bool is_stopping;
    struct event wake; // READ of the lane's bell
    counter n_turns, n_busy_turns, busy_cycles, n_sleeps;

    struct mailbox mailbox;

    // Control's.
    struct worker_config config;
    pthread_t thread;
    unsigned n_seats; // attached, and no detach heard of
    unsigned room;    // in polled, as far as asked for
    sem_t has_started;
    int start_result;
};

// ---- the worker's messages ---------------------------------------------------------------

static void run_call(struct queue *q, const struct call *call)
{
    struct seat *s = q->seat;
    assert(s->state != SEAT_LEAVING && "nothing is asked of a queue that was asked back");
    call->fn(q, call->argument);
    if (q->call_changed)
        seat_replace_call(s);
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
        roster_leave(&w->roster, q->seat);
        return; // answered when it has left
    case MESSAGE_CALL:
        run_call(q, m->argument);
        break;
    case MESSAGE_GROW:
        m->argument = roster_grow(&w->roster, m->argument);
        break;
    case MESSAGE_PASS:
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
    while ((s = roster_next_gone(&w->roster)))
        mailbox_answer(
            &w->mailbox,
            &(struct channel_message){.kind = MESSAGE_DETACH, .subject = s->queue, .argument = s});
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

static void *run(void *argument)
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

// Signals are control's; only those that the thread itself causes may reach it.
static int start_thread(struct worker *w)
{
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = -pthread_create(&w->thread, NULL, run, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err)
        return err;
    while (sem_wait(&w->has_started)) // EINTR
        ;
    if (w->start_result)
        pthread_join(w->thread, NULL);
    return w->start_result;
}

// ---- control's calls ---------------------------------------------------------------------

static uint64_t spin_cycles(enum worker_poll poll)
{
    switch (poll) {
    case WORKER_BUSY:
        return ROSTER_NEVER;
    case WORKER_ADAPTIVE:
        return WORKER_SPIN_US * cycles_per_us();
    case WORKER_INTERRUPT:
        break;
    }
    return 0;
}

static void ask(struct worker *w, enum message_kind kind, void *subject, void *argument)
{
    mailbox_ask(&w->mailbox,
                &(struct channel_message){.kind = kind, .subject = subject, .argument = argument});
}

// Control cannot go on without the few bytes that a request takes.
static void *allocate(size_t n, size_t bytes)
{
    void *p = calloc(n, bytes);
    assert(p && "out of memory");
    return p;
}

int worker_start(struct worker **out, const struct worker_config *config, struct error *e)
{
    struct worker *w = aligned_alloc(_Alignof(struct worker), sizeof(*w));
    if (!w)
        return error_set(e, ENOMEM, "worker on CPU %d: out of memory", config->cpu);
    memset(w, 0, sizeof(*w));
    w->config = *config;
    w->roster.spin = spin_cycles(config->poll);
    w->roster.lane.index = config->index;
    sem_init(&w->has_started, 0, 0);
    int err = bell_open(&w->roster.lane.bell);
    if (err) {
        error_set(e, -err, "worker on CPU %d: %s", config->cpu, strerror(-err));
        goto err_free;
    }
    err = mailbox_open(&w->mailbox, &w->roster.lane.bell, e);
    if (err)
        goto err_bell;
    err = uring_open(&w->roster.lane.uring, e);
    if (err)
        goto err_mailbox;
    err = start_thread(w);
    if (err) {
        error_set(e, -err, "worker on CPU %d: %s", config->cpu, strerror(-err));
        goto err_uring;
    }
    *out = w;
    return 0;

err_uring:
    uring_close(&w->roster.lane.uring);
err_mailbox:
    mailbox_close(&w->mailbox);
err_bell:
    bell_close(&w->roster.lane.bell);
err_free:
    free(w);
    return err;
}

struct lane *worker_lane(struct worker *w)
{
    return &w->roster.lane;
}

void worker_end(struct worker *w)
{
    assert(w->n_seats == 0 && "a worker ends without queues");
    ask(w, MESSAGE_STOP, NULL, NULL);
    pthread_join(w->thread, NULL);
    assert(!w->roster.lane.polls && "their owners have gone");
}

void worker_free(struct worker *w)
{
    uring_close(&w->roster.lane.uring);
    mailbox_close(&w->mailbox);
    bell_close(&w->roster.lane.bell);
    sem_destroy(&w->has_started);
    free(w->roster.polled);
    free(w);
}

void worker_attach(struct worker *w, struct queue *q)
{
    if (w->n_seats == w->room) {
        w->room = MAX(2 * w->room, SEATS_MIN);
        ask(w, MESSAGE_GROW, NULL, allocate(w->room, sizeof(struct seat *)));
    }
    w->n_seats++;
    ask(w, MESSAGE_ATTACH, q, allocate(1, sizeof(struct seat)));
}

void worker_detach(struct worker *w, struct queue *q)
{
    ask(w, MESSAGE_DETACH, q, NULL);
}

void worker_call(struct worker *w, struct queue *q, void (*fn)(struct queue *q, void *argument),
                 void *argument)
{
    struct call *call = allocate(1, sizeof(*call));
    *call = (struct call){.fn = fn, .argument = argument};
    ask(w, MESSAGE_CALL, q, call);
}

void worker_pass(struct worker *w, void *context)
{
    ask(w, MESSAGE_PASS, NULL, context);
}

int worker_event_fd(const struct worker *w)
{
    return w->mailbox.answer_fd;
}

bool worker_receive(struct worker *w, struct worker_answer *answer)
{
    struct channel_message m;
    while (mailbox_hear(&w->mailbox, &m)) {
        *answer = (struct worker_answer){.queue = m.subject};
        if (m.kind == MESSAGE_PASS) {
            answer->context = m.argument;
            return true;
        }
        free(m.argument); // a seat, a call or an array that has done its duty
        if (m.kind == MESSAGE_DETACH)
            w->n_seats--;
        if (m.subject)
            return true;
    }
    return false;
}

void worker_read_stats(const struct worker *w, struct worker_stats *stats)
{
    *stats = (struct worker_stats){
        .n_turns = counter_read(&w->n_turns),
        .n_busy_turns = counter_read(&w->n_busy_turns),
        .busy_cycles = counter_read(&w->busy_cycles),
        .n_sleeps = counter_read(&w->n_sleeps),
        .n_enters = counter_read(&w->roster.lane.uring.n_enters),
        .n_queues = w->n_seats,
        .n_parked = (unsigned)counter_read(&w->roster.n_parked),
    };
}

int worker_cpu(const struct worker *w)
{
    return w->config.cpu;
}
