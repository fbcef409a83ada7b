// SPDX-License-Identifier: Apache-2.0
#include "pollers/cycles.h"
#include "pollers/trail.h"
#include "pollers/worker_internal.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define SEATS_MIN 64 // room in the first array of polled seats

// ---- start and end -----------------------------------------------------------------------

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
    int err = -pthread_create(&w->thread, NULL, worker_run, w);
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
    w->roster.lane.uring.late = trail_late;
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

void worker_release(struct worker *w, struct queue *q, struct trail *trail)
{
    trail_prepare(trail, w->config.index);
    ask(w, MESSAGE_RELEASE, q, trail);
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

void worker_visit(struct worker *w, const struct worker_visit *v)
{
    ask(w, MESSAGE_VISIT, NULL, (void *)v);
}

int worker_event_fd(const struct worker *w)
{
    return w->mailbox.answer_fd;
}

bool worker_receive(struct worker *w, struct worker_answer *answer)
{
    struct channel_message m;
    while (mailbox_hear(&w->mailbox, &m)) {
        *answer = (struct worker_answer){.event = (enum worker_event)m.kind, .queue = m.subject};
        if (m.kind == MESSAGE_PASS)
            answer->context = m.argument;
        else
            free(m.argument); // a seat, a call or an array that has done its duty
        if (m.kind == MESSAGE_DETACH || m.kind == MESSAGE_RELEASE)
            w->n_seats--;
        if (m.kind < WORKER_EVENTS)
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
