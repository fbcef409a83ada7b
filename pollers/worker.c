// SPDX-License-Identifier: Apache-2.0
//
// The array of polled seats is dense, so that a turn costs what the polled queues cost and
// nothing for the parked ones. Control makes it larger, ahead of the attach that needs it, and
// frees what is no longer used when the answer brings it back: the worker never allocates.
#include "pollers/worker.h"

#include "pollers/mailbox.h"
#include "pollers/seat.h"
#include "pollers/topo.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define REAP_MAX  512 // completions in a turn
#define SEATS_MIN 64  // room in the first array
#define NEVER     UINT64_MAX

enum message_kind {
    MESSAGE_ATTACH, // subject: queue; argument: its seat
    MESSAGE_DETACH, // subject: queue; the answer's argument: its seat
    MESSAGE_CALL,   // subject: queue; argument: struct call
    MESSAGE_GROW,   // extra: room; argument: an array; the answer's argument: the one before
    MESSAGE_STOP,
};

struct call {
    void (*fn)(struct queue *q, void *argument);
    void *argument;
};

struct worker {
    // The worker's own.
    struct lane lane;
    struct seat **polled;
    unsigned n_polled;
    bool was_busy; // the turn before
    bool is_stopping;
    uint64_t spin; // cycles without work after which a queue parks
    struct seat *leaving;
    struct event wake;
    counter n_turns, n_busy_turns, busy_cycles, n_sleeps, n_parked;

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

static void add_polled(struct worker *w, struct seat *s)
{
    w->polled[w->n_polled++] = s;
}

static void remove_polled(struct worker *w, const struct seat *s)
{
    unsigned i = 0;
    while (w->polled[i] != s)
        i++;
    w->polled[i] = w->polled[--w->n_polled];
}

static void kicked(struct event *ev, int result)
{
    struct seat *s = container_of(ev, struct seat, kick);
    if (s->state != SEAT_PARKED)
        return; // cancelled: it leaves
    struct worker *w = container_of(s->queue->lane, struct worker, lane);
    seat_wake(s, result);
    add_polled(w, s);
    counter_add(&w->n_parked, (uint64_t)-1);
}

static void attach(struct worker *w, struct queue *q, struct seat *s)
{
    seat_enter(s, q, &w->lane, kicked);
    add_polled(w, s);
}

static void begin_detach(struct worker *w, struct seat *s)
{
    assert(s->state != SEAT_LEAVING && "a queue is detached once");
    if (s->state == SEAT_POLLED)
        remove_polled(w, s);
    else if (s->state == SEAT_PARKED)
        counter_add(&w->n_parked, (uint64_t)-1);
    s->state = SEAT_LEAVING;
    s->next = w->leaving;
    w->leaving = s;
}

static void run_call(struct queue *q, const struct call *call)
{
    struct seat *s = q->seat;
    assert(s->state != SEAT_LEAVING && "nothing is asked of a queue that was asked back");
    call->fn(q, call->argument);
    if (q->call_changed)
        seat_replace_call(s);
}

static void *grow(struct worker *w, struct seat **array)
{
    struct seat **before = w->polled;
    if (w->n_polled)
        memcpy(array, before, w->n_polled * sizeof(*array));
    w->polled = array;
    return before;
}

static void handle_message(struct worker *w, struct channel_message *m)
{
    struct queue *q = m->subject;
    switch ((enum message_kind)m->kind) {
    case MESSAGE_ATTACH:
        attach(w, q, m->argument);
        m->argument = NULL;
        break;
    case MESSAGE_DETACH:
        begin_detach(w, q->seat);
        return; // answered when it has left
    case MESSAGE_CALL:
        run_call(q, m->argument);
        break;
    case MESSAGE_GROW:
        m->argument = grow(w, m->argument);
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
    while (mailbox_take(&w->mailbox, &m)) {
        handle_message(w, &m);
        n++;
    }
    return n;
}

static void finish_detaches(struct worker *w)
{
    for (struct seat **at = &w->leaving; *at;) {
        struct seat *s = *at;
        struct queue *q = s->queue;
        if (!seat_leave(s)) {
            at = &s->next;
            continue;
        }
        *at = s->next;
        mailbox_answer(&w->mailbox, &(struct channel_message){
                                        .kind = MESSAGE_DETACH, .subject = q, .argument = s});
    }
}

// ---- a turn ------------------------------------------------------------------------------

static bool rests(struct worker *w, struct seat *s)
{
    bool is_due = w->lane.now - s->busy_at >= w->spin && w->spin != NEVER;
    if ((!is_due && !s->queue->ring.fault) || !seat_rest(s))
        return false;
    if (s->state == SEAT_PARKED)
        counter_add(&w->n_parked, 1);
    return true;
}

static unsigned poll_queues(struct worker *w)
{
    unsigned work = 0;
    for (unsigned i = 0; i < w->n_polled;) {
        struct seat *s = w->polled[i];
        unsigned n = s->poll(s->queue, WORKER_BUDGET);
        work += n;
        if (n)
            s->busy_at = w->lane.now;
        else if (rests(w, s)) {
            w->polled[i] = w->polled[--w->n_polled];
            continue;
        }
        i++;
    }
    return work;
}

static void publish(struct lane *lane)
{
    struct queue *q;
    while ((q = lane->touched)) {
        lane->touched = q->touched_next;
        q->is_touched = false;
        if (ring_publish(&q->ring))
            seat_notify(q->seat);
    }
}

static void account(struct worker *w, uint64_t now)
{
    if (!w->was_busy)
        return;
    w->was_busy = false;
    counter_add(&w->busy_cycles, now - w->lane.now);
}

// Every queue is parked, stopped or leaving: nothing happens without a completion.
static void sleep_in_ring(struct worker *w)
{
    mailbox_doze(&w->mailbox);
    if (take_messages(w) == 0) {
        account(w, cycles_now());
        counter_add(&w->n_sleeps, 1);
        uring_sleep(&w->lane.uring, UINT64_MAX);
    }
    mailbox_rise(&w->mailbox);
}

static void turn(struct worker *w)
{
    struct uring *u = &w->lane.uring;
    uint64_t now = cycles_now();
    account(w, now);
    w->lane.now = now;
    counter_add(&w->n_turns, 1);

    unsigned work = take_messages(w);
    work += uring_reap(u, REAP_MAX);
    work += poll_queues(w);
    publish(&w->lane);
    if (unlikely(w->leaving))
        finish_detaches(w);

    w->was_busy = work > 0;
    if (work)
        counter_add(&w->n_busy_turns, 1);
    if (w->n_polled == 0 && !w->is_stopping)
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
        err = uring_enable(&w->lane.uring, w->config.helper_mask, w->config.helper_mask_bytes);
    if (!err)
        err = event_open(&w->wake, &w->lane.uring, w->mailbox.wake_fd, woken);
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

// The clock between two looks at the cycle counter that lie close together.
static uint64_t clock_ns(uint64_t *cycles)
{
    for (unsigned i = 0;; i++) {
        struct timespec t;
        uint64_t before = cycles_now();
        clock_gettime(CLOCK_MONOTONIC, &t);
        *cycles = cycles_now();
        if (*cycles - before < 10000 || i == 100)
            return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
    }
}

// Measured once: cycles of cycles_now() in a microsecond.
static uint64_t cycles_per_us(void)
{
    static uint64_t known;
    if (known)
        return known;
    uint64_t first, last, ns;
    uint64_t start = clock_ns(&first);
    do
        ns = clock_ns(&last) - start;
    while (ns < 200000);
    known = MAX((last - first) * 1000 / ns, 1);
    return known;
}

static uint64_t spin_cycles(enum worker_poll poll)
{
    switch (poll) {
    case WORKER_BUSY:
        return NEVER;
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
    w->spin = spin_cycles(config->poll);
    sem_init(&w->has_started, 0, 0);
    int err = mailbox_open(&w->mailbox, e);
    if (err)
        goto err_free;
    err = uring_open(&w->lane.uring, e);
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
    uring_close(&w->lane.uring);
err_mailbox:
    mailbox_close(&w->mailbox);
err_free:
    free(w);
    return err;
}

void worker_stop(struct worker *w)
{
    assert(w->n_seats == 0 && "a worker stops without queues");
    ask(w, MESSAGE_STOP, NULL, NULL);
    pthread_join(w->thread, NULL);
    uring_close(&w->lane.uring);
    mailbox_close(&w->mailbox);
    sem_destroy(&w->has_started);
    free(w->polled);
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

int worker_event_fd(const struct worker *w)
{
    return w->mailbox.answer_fd;
}

struct queue *worker_receive(struct worker *w)
{
    struct channel_message m;
    while (mailbox_hear(&w->mailbox, &m)) {
        free(m.argument); // a seat, a call or an array that has done its duty
        if (m.kind == MESSAGE_DETACH)
            w->n_seats--;
        if (m.subject)
            return m.subject;
    }
    return NULL;
}

void worker_read_stats(const struct worker *w, struct worker_stats *stats)
{
    *stats = (struct worker_stats){
        .n_turns = counter_read(&w->n_turns),
        .n_busy_turns = counter_read(&w->n_busy_turns),
        .busy_cycles = counter_read(&w->busy_cycles),
        .n_sleeps = counter_read(&w->n_sleeps),
        .n_enters = counter_read(&w->lane.uring.n_enters),
        .n_queues = w->n_seats,
        .n_parked = (unsigned)counter_read(&w->n_parked),
    };
}

int worker_cpu(const struct worker *w)
{
    return w->config.cpu;
}
