// SPDX-License-Identifier: Apache-2.0
#include "tests/crew.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define PACKED    VIRTIO_BIT(VIRTIO_F_RING_PACKED)
#define EVENT_IDX VIRTIO_BIT(VIRTIO_F_EVENT_IDX)

static const enum worker_poll modes[] = {WORKER_BUSY, WORKER_ADAPTIVE, WORKER_INTERRUPT};
static const uint64_t layouts[] = {0, EVENT_IDX, PACKED, PACKED | EVENT_IDX};

static struct crew crew;

static void do_nothing(struct queue *q, void *argument)
{
    (void)q, (void)argument;
}

static struct worker_stats stats_of(const struct worker *w)
{
    struct worker_stats stats;
    worker_read_stats(w, &stats);
    return stats;
}

static void await_parked(const struct worker *w, unsigned n)
{
    crew_until(stats_of(w).n_parked == n);
}

// Turns that a worker makes while it answers @n messages.
static uint64_t turns_during_calls(struct worker *w, struct queue *q, unsigned n)
{
    uint64_t before = stats_of(w).n_turns;
    while (n--)
        crew_call(w, q, do_nothing, NULL);
    return stats_of(w).n_turns - before;
}

// ---- the thread --------------------------------------------------------------------------

static void look_at_thread(struct queue *q, void *argument)
{
    (void)q;
    cpu_set_t set;
    sigset_t blocked;
    sched_getaffinity(0, sizeof(set), &set);
    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    *(bool *)argument = CPU_COUNT(&set) == 1 && CPU_ISSET(sched_getcpu(), &set) &&
                        sigismember(&blocked, SIGTERM) && !sigismember(&blocked, SIGBUS);
}

static void thread_is_pinned_and_hears_no_signals(void **state)
{
    (void)state;
    crew_open(&crew, 1, 0);
    struct worker *w = crew_worker(0, WORKER_ADAPTIVE);
    crew_attach(&crew, w, 0);
    bool is_right = false;
    crew_call(w, crew.queues[0].q, look_at_thread, &is_right);
    assert_true(is_right);
    crew_detach(&crew, w, 0);
    crew_dismiss(w);
    crew_close(&crew);
}

static void wrong_cpu_is_refused(void **state)
{
    (void)state;
    struct worker *w;
    struct error e;
    struct worker_config config = {.cpu = CPU_SETSIZE - 1};
    assert_int_equal(worker_start(&w, &config, &e), -EINVAL);
    assert_non_null(strstr(e.text, "CPU 1023"));
}

// ---- serving -----------------------------------------------------------------------------

static void serve_some(enum worker_poll mode, uint64_t features)
{
    crew_open(&crew, 2, features);
    struct worker *w = crew_worker(0, mode);
    crew_offer(&crew.queues[1], 5); // before it is attached, and never kicked
    crew_attach(&crew, w, 0);
    crew_attach(&crew, w, 1);
    crew_await(&crew.queues[1], 5);
    for (unsigned i = 0; i < 200; i++) {
        unsigned n = crew_offer(&crew.queues[i & 1], 1 + i % CREW_SIZE);
        crew_await(&crew.queues[i & 1], n);
    }
    struct worker_stats stats = stats_of(w);
    assert_int_equal(stats.n_queues, 2);
    assert_true(stats.n_busy_turns > 0 && stats.n_busy_turns <= stats.n_turns);
    assert_true(stats.busy_cycles > 0);
    crew_detach(&crew, w, 0);
    crew_detach(&crew, w, 1);
    assert_int_equal(stats_of(w).n_queues, 0);
    crew_dismiss(w);
    crew_close(&crew);
}

static void every_mode_serves_every_ring(void **state)
{
    (void)state;
    for (unsigned m = 0; m < ARRAY_LEN(modes); m++)
        for (unsigned l = 0; l < ARRAY_LEN(layouts); l++)
            serve_some(modes[m], layouts[l]);
}

// One request at a time: each meets the queue polled, parking, or parked. Every fourth waits for
// the interrupt, and pauses of all lengths come before. On a loaded machine fewer must do.
static void race_parking(enum worker_poll mode, uint64_t features, unsigned n)
{
    crew_open(&crew, 1, features);
    struct crew_queue *s = &crew.queues[0];
    struct worker *w = crew_worker(1, mode);
    crew_attach(&crew, w, 0);
    uint64_t end_ms = crew_now_ms() + 1500;
    for (unsigned i = 0; i < n && crew_now_ms() < end_ms; i++) {
        for (unsigned pause = i * 7 % 64; pause; pause--)
            cpu_relax();
        crew_offer(s, 1);
        if (i % 4)
            crew_await(s, 1);
        else
            crew_await_interrupt(s, 1);
    }
    if (mode != WORKER_BUSY)
        assert_true(counter_read(&s->q->n_kicks) > 0);
    crew_detach(&crew, w, 0);
    crew_dismiss(w);
    crew_close(&crew);
}

static void no_kick_is_lost(void **state)
{
    (void)state;
    for (unsigned m = 0; m < ARRAY_LEN(modes); m++)
        for (unsigned l = 0; l < ARRAY_LEN(layouts); l++)
            race_parking(modes[m], layouts[l], 25000);
}

// What came after the last look, and was not kicked for, is seen before the queue parks.
static void parking_looks_again(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++) {
        crew_open(&crew, 1, layouts[l]);
        struct crew_queue *s = &crew.queues[0];
        struct worker *w = crew_worker(0, WORKER_BUSY); // event indexes fall behind
        crew_attach(&crew, w, 0);
        crew_await(s, crew_offer(s, 3));
        crew_detach(&crew, w, 0);
        crew_dismiss(w);
        eventfd_t value; // of the very first kick, which a new ring asks for
        eventfd_read(s->q->kick_fd, &value);

        s->sneaks = true;
        w = crew_worker(0, WORKER_INTERRUPT);
        crew_attach(&crew, w, 0);
        crew_until(!s->sneaks);
        crew_await(s, 1);
        await_parked(w, 1);
        crew_detach(&crew, w, 0);
        crew_dismiss(w);
        crew_close(&crew);
    }
}

// An interrupt may have been lost with the queue's last owner.
static void attach_interrupts_once(void **state)
{
    (void)state;
    crew_open(&crew, 1, 0);
    struct crew_queue *s = &crew.queues[0];
    struct worker *w = crew_worker(0, WORKER_ADAPTIVE);
    for (unsigned i = 1; i <= 3; i++) {
        eventfd_t value;
        crew_attach(&crew, w, 0);
        crew_until(eventfd_read(s->q->call_fd, &value) == 0);
        assert_int_equal(counter_read(&s->q->n_calls), i);
        crew_detach(&crew, w, 0);
    }
    crew_dismiss(w);
    crew_close(&crew);
}

// A kick without work, while the queue parks and is parked.
static void kick_storm_parks_again(void **state)
{
    (void)state;
    crew_open(&crew, 1, 0);
    struct crew_queue *s = &crew.queues[0];
    struct worker *w = crew_worker(1, WORKER_INTERRUPT);
    crew_attach(&crew, w, 0);
    for (unsigned i = 0; i < 100000; i++)
        eventfd_write(s->q->kick_fd, 1);
    await_parked(w, 1);
    crew_offer(s, 3);
    crew_await_interrupt(s, 3);
    await_parked(w, 1);
    assert_true(turns_during_calls(w, s->q, 50) < 500);
    crew_detach(&crew, w, 0);
    crew_dismiss(w);
    crew_close(&crew);
}

static void polling_makes_no_system_calls(void **state)
{
    (void)state;
    crew_open(&crew, 1, 0);
    struct crew_queue *s = &crew.queues[0];
    struct worker *w = crew_worker(0, WORKER_BUSY);
    crew_attach(&crew, w, 0);
    crew_await(s, crew_offer(s, 1)); // notifies once, as after each start
    crew_call(w, s->q, do_nothing, NULL);
    uint64_t before = stats_of(w).n_enters, calls = counter_read(&s->q->n_calls);
    for (unsigned i = 0; i < 500; i++)
        crew_await(s, crew_offer(s, 4));
    assert_int_equal(stats_of(w).n_enters, before);
    assert_int_equal(counter_read(&s->q->n_calls), calls);
    crew_detach(&crew, w, 0);
    crew_dismiss(w);
    crew_close(&crew);
}

static void without_eventfds_it_is_polled_silently(void **state)
{
    (void)state;
    crew_open(&crew, 1, 0);
    struct crew_queue *s = &crew.queues[0];
    close(s->q->kick_fd);
    close(s->q->call_fd);
    s->q->kick_fd = s->q->call_fd = -1;
    struct worker *w = crew_worker(0, WORKER_INTERRUPT);
    crew_attach(&crew, w, 0);
    uint64_t polls = s->n_polls;
    crew_until(s->n_polls > polls + 100);
    driver_arm(s->driver);
    crew_await(s, crew_offer(s, 8));
    assert_int_equal(counter_read(&s->q->n_calls), 0);
    assert_int_equal(stats_of(w).n_parked, 0);
    crew_detach(&crew, w, 0);
    crew_dismiss(w);
    crew_close(&crew);
}

// ---- many queues -------------------------------------------------------------------------

// In each turn each polled queue is polled once, with the same budget, flooded or not.
static void queues_share_fairly(void **state)
{
    (void)state;
    enum { N = 64 };
    crew_open(&crew, N, 0);
    struct worker *w = crew_worker(0, WORKER_BUSY);
    for (unsigned i = 0; i < N; i++)
        crew_attach(&crew, w, i);
    uint64_t before[N];
    for (unsigned i = 0; i < N; i++)
        before[i] = crew.queues[i].n_polls;
    for (unsigned round = 0; round < 200; round++) {
        crew_collect(&crew.queues[0]);
        crew_offer(&crew.queues[0], CREW_SIZE);
        struct crew_queue *meek = &crew.queues[1 + round % (N - 1)];
        crew_await(meek, crew_offer(meek, 1));
    }
    uint64_t polls[N];
    for (unsigned i = N; i-- > 0;)
        polls[i] = crew.queues[i].n_polls - before[i];
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(crew.queues[i].n_repolls, 0);
        assert_true(crew.queues[i].most_popped <= WORKER_BUDGET);
        // Read one after the other while the worker runs on: later reads see as much or more.
        if (i)
            assert_true(polls[i - 1] + 1 >= polls[i]);
    }
    assert_true(crew.queues[0].most_popped == WORKER_BUDGET);
    for (unsigned i = 0; i < N; i++)
        crew_detach(&crew, w, i);
    crew_dismiss(w);
    crew_close(&crew);
}

static void parked_queues_are_not_polled(void **state)
{
    (void)state;
    enum { N = 200 };
    crew_open(&crew, N, EVENT_IDX);
    struct worker *w = crew_worker(0, WORKER_ADAPTIVE);
    for (unsigned i = 0; i < N; i++)
        worker_attach(w, crew.queues[i].q);
    for (unsigned i = 0; i < N; i++)
        assert_ptr_equal(crew_answer(w), crew.queues[i].q);
    await_parked(w, N);
    uint64_t polls = 0;
    for (unsigned i = 1; i < N; i++)
        polls += crew.queues[i].n_polls;
    for (unsigned i = 0; i < 1000; i++)
        crew_await(&crew.queues[0], crew_offer(&crew.queues[0], 8));
    for (unsigned i = 1; i < N; i++)
        polls -= crew.queues[i].n_polls;
    assert_int_equal(polls, 0);
    // All of them still wake.
    for (unsigned i = 0; i < N; i++)
        crew_offer(&crew.queues[i], 1);
    for (unsigned i = 0; i < N; i++)
        crew_await(&crew.queues[i], 1);
    for (unsigned i = 0; i < N; i++)
        worker_detach(w, crew.queues[i].q);
    for (unsigned i = 0; i < N; i++)
        crew_answer(w);
    crew_dismiss(w);
    crew_close(&crew);
}

// Queues move to and fro while requests are out; control and driver take turns, so that a
// request meets every stage of a move.
static void queues_move_between_two_workers(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++) {
        crew_open(&crew, 2, layouts[l]);
        struct worker *w[2] = {crew_worker(0, WORKER_ADAPTIVE), crew_worker(1, WORKER_INTERRUPT)};
        crew_attach(&crew, w[0], 0);
        crew_attach(&crew, w[1], 1);
        unsigned out[2] = {0, 0};
        for (unsigned round = 0; round < 500; round++) {
            for (unsigned i = 0; i < 2; i++) {
                out[i] += crew_offer(&crew.queues[i], 1 + round % 5);
                crew_detach(&crew, w[(round + i) & 1], i);
                crew_attach(&crew, w[(round + i + 1) & 1], i);
                out[i] -= crew_collect(&crew.queues[i]);
            }
        }
        for (unsigned i = 0; i < 2; i++) {
            crew_await(&crew.queues[i], out[i]);
            crew_detach(&crew, w[i], i);
        }
        crew_dismiss(w[0]);
        crew_dismiss(w[1]);
        crew_close(&crew);
    }
}

// ---- leaving -----------------------------------------------------------------------------

static void detach_waits_for_what_is_out(enum worker_poll mode, uint64_t features)
{
    crew_open(&crew, 2, features);
    struct crew_queue *s = &crew.queues[0];
    s->is_slow = true;
    struct worker *w = crew_worker(0, mode);
    crew_attach(&crew, w, 0);
    crew_attach(&crew, w, 1);
    crew_offer(s, 20);
    crew_until(s->n_popped == 20);
    worker_detach(w, s->q);

    // It is polled no more, and its neighbour is served.
    crew_call(w, crew.queues[1].q, do_nothing, NULL);
    uint64_t polls = s->n_polls;
    crew_offer(s, 5);
    crew_await(&crew.queues[1], crew_offer(&crew.queues[1], 8));
    assert_int_equal(s->n_polls, polls);
    assert_false(crew_has_answered(w));

    crew_release(s);
    assert_ptr_equal(crew_answer(w), s->q);
    assert_int_equal(s->q->ring.n_in_flight, 0);
    assert_int_equal(crew_collect(s), 20);

    // What was offered meanwhile is served by the next owner, without another kick.
    s->is_slow = false;
    crew_attach(&crew, w, 0);
    crew_await(s, 5);
    crew_detach(&crew, w, 0);
    crew_detach(&crew, w, 1);
    crew_dismiss(w);
    crew_close(&crew);
}

static void detach_drains(void **state)
{
    (void)state;
    for (unsigned m = 0; m < ARRAY_LEN(modes); m++)
        for (unsigned l = 0; l < ARRAY_LEN(layouts); l++)
            detach_waits_for_what_is_out(modes[m], layouts[l]);
}

static void parked_queue_completes_and_leaves(void **state)
{
    (void)state;
    crew_open(&crew, 1, 0);
    struct crew_queue *s = &crew.queues[0];
    s->is_slow = true;
    struct worker *w = crew_worker(0, WORKER_INTERRUPT);
    crew_attach(&crew, w, 0);
    for (unsigned i = 0; i < 1000; i++) {
        crew_offer(s, 3);
        crew_until(s->n_popped == 3 * (i + 1));
        await_parked(w, 1);
        crew_release(s);
        crew_await_interrupt(s, 3);
    }
    await_parked(w, 1);
    crew_detach(&crew, w, 0);
    assert_int_equal(stats_of(w).n_parked, 0);
    crew_dismiss(w);
    crew_close(&crew);
}

// ---- hostile rings -----------------------------------------------------------------------

// Make the chain that was offered last available once more.
static void offer_again(struct crew_queue *s, bool is_packed)
{
    struct driver_areas areas;
    driver_describe(s->driver, &areas);
    if (is_packed) {
        struct packed_desc *ring = guest_host(crew.guest, areas.desc);
        struct packed_desc copy = ring[2];
        ring[3] = (struct packed_desc){copy.addr, copy.len, copy.id, 0};
        guest_store16_release(&ring[3].flags, copy.flags);
    } else {
        struct split_avail *avail = guest_host(crew.guest, areas.driver);
        avail->ring[3] = avail->ring[2];
        guest_store16_release(&avail->idx, 4);
    }
    eventfd_write(s->q->kick_fd, 1);
}

// The device has it still. Its queue faults, what it holds comes back, and others are served.
static void same_head_while_it_is_held(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++) {
        crew_open(&crew, 2, layouts[l]);
        struct crew_queue *s = &crew.queues[0];
        s->is_slow = true;
        struct worker *w = crew_worker(0, WORKER_ADAPTIVE);
        crew_attach(&crew, w, 0);
        crew_attach(&crew, w, 1);
        crew_offer(s, 3);
        crew_until(s->n_popped == 3);
        offer_again(s, layouts[l] & PACKED);
        uint64_t detail;
        crew_until(ring_read_fault(&s->q->ring, &detail) == RING_DUP_HEAD);
        crew_await(&crew.queues[1], crew_offer(&crew.queues[1], 8));
        assert_int_equal(s->n_popped, 3);
        crew_release(s);
        crew_detach(&crew, w, 0); // answered when all of them are back
        assert_int_equal(s->q->ring.n_in_flight, 0);
        assert_int_equal(crew_collect(s), 0);
        crew_await(&crew.queues[1], crew_offer(&crew.queues[1], 8));
        crew_detach(&crew, w, 1);
        crew_dismiss(w);
        crew_close(&crew);
    }
}

// ---- hostile eventfds --------------------------------------------------------------------

static void fill(int fd)
{
    eventfd_t value;
    eventfd_read(fd, &value);
    eventfd_write(fd, UINT64_MAX - 1);
}

// @is_blocking: the peer took the flag back that the session had set.
static void saturated_call(bool is_blocking)
{
    crew_open(&crew, 2, 0);
    struct crew_queue *s = &crew.queues[0];
    struct worker *w = crew_worker(0, WORKER_ADAPTIVE);
    if (is_blocking) {
        close(s->q->call_fd);
        s->q->call_fd = eventfd(UINT32_MAX, 0);
        eventfd_write(s->q->call_fd, UINT64_MAX - 1 - UINT32_MAX);
    } else {
        fill(s->q->call_fd);
    }
    crew_attach(&crew, w, 0); // wants to call at once
    crew_attach(&crew, w, 1);
    for (unsigned i = 0; i < 100; i++) {
        driver_arm(s->driver);
        crew_await(s, crew_offer(s, 4));
        driver_arm(crew.queues[1].driver);
        crew_await_interrupt(&crew.queues[1], crew_offer(&crew.queues[1], 4));
    }
    assert_int_equal(counter_read(&s->q->n_calls), 1); // one is out, one is wanted

    // Room again: both come.
    eventfd_t value;
    eventfd_read(s->q->call_fd, &value);
    crew_until(counter_read(&s->q->n_calls) == 2);
    crew_call(w, s->q, do_nothing, NULL);

    // It leaves while one is out, and one is wanted.
    if (is_blocking)
        eventfd_write(s->q->call_fd, 1); // never empty: the read below must not wait
    eventfd_read(s->q->call_fd, &value);
    eventfd_write(s->q->call_fd, UINT64_MAX - 1);
    for (unsigned i = 0; i < 3; i++) {
        driver_arm(s->driver);
        crew_await(s, crew_offer(s, 4));
    }
    crew_detach(&crew, w, 0);
    crew_detach(&crew, w, 1);
    crew_dismiss(w);
    crew_close(&crew);
}

static void saturated_call_harms_nobody(void **state)
{
    (void)state;
    saturated_call(false);
    saturated_call(true);
}

static void change_call(struct queue *q, void *argument)
{
    q->call_fd = *(int *)argument;
    q->call_changed = true;
}

static void call_is_replaced(void **state)
{
    (void)state;
    for (unsigned is_full = 0; is_full < 2; is_full++) {
        crew_open(&crew, 1, 0);
        struct crew_queue *s = &crew.queues[0];
        struct worker *w = crew_worker(0, WORKER_INTERRUPT);
        int old = s->q->call_fd, new = eventfd(0, EFD_NONBLOCK), none = -1;
        if (is_full)
            fill(old);
        crew_attach(&crew, w, 0);
        crew_call(w, s->q, change_call, &new);
        assert_false(s->q->call_changed);
        close(old);
        eventfd_t value;
        crew_until(eventfd_read(new, &value) == 0); // notified once
        crew_await_interrupt(s, crew_offer(s, 4));

        crew_call(w, s->q, change_call, &none);
        uint64_t calls = counter_read(&s->q->n_calls);
        driver_arm(s->driver);
        crew_await(s, crew_offer(s, 4));
        assert_int_equal(counter_read(&s->q->n_calls), calls);
        crew_call(w, s->q, change_call, &new);
        crew_until(eventfd_read(new, &value) == 0);
        crew_detach(&crew, w, 0);
        crew_dismiss(w);
        crew_close(&crew);
    }
}

// A descriptor whose READ fails: no kick can come, so the queue stays polled.
static void unreadable_kick_is_not_waited_for(void **state)
{
    (void)state;
    crew_open(&crew, 1, 0);
    struct crew_queue *s = &crew.queues[0];
    close(s->q->kick_fd);
    s->q->kick_fd = open("/dev/null", O_WRONLY);
    struct worker *w = crew_worker(0, WORKER_INTERRUPT);
    crew_attach(&crew, w, 0);
    crew_offer(s, 4);
    crew_await(s, 4);
    uint64_t polls = s->n_polls;
    crew_until(s->n_polls > polls + 10);
    polls = s->n_polls;
    uint64_t enters = stats_of(w).n_enters;
    crew_until(s->n_polls > polls + 1000);
    assert_int_equal(stats_of(w).n_enters, enters);
    assert_int_equal(counter_read(&s->q->n_kicks), 0);
    crew_detach(&crew, w, 0);
    crew_dismiss(w);
    crew_close(&crew);
}

// ---- faults ------------------------------------------------------------------------------

static void fault(struct queue *q, void *argument)
{
    (void)argument;
    ring_fault(&q->ring, RING_BAD_HEAD, 1);
}

// Each call takes a turn of its own, so a queue that is still polled is polled between them.
static uint64_t polls_during_calls(struct worker *w, struct crew_queue *s, unsigned n)
{
    uint64_t before = s->n_polls;
    turns_during_calls(w, s->q, n);
    return s->n_polls - before;
}

static void leave_faulted_alone(enum worker_poll mode, bool has_kick)
{
    crew_open(&crew, 1, 0);
    struct crew_queue *s = &crew.queues[0];
    if (!has_kick) {
        close(s->q->kick_fd);
        s->q->kick_fd = -1;
    }
    struct worker *w = crew_worker(0, mode);
    crew_attach(&crew, w, 0);
    crew_call(w, s->q, fault, NULL);
    if (has_kick)
        eventfd_write(s->q->kick_fd, 1);
    crew_until(polls_during_calls(w, s, 3) == 0);
    crew_until(turns_during_calls(w, s->q, 10) < 100);
    assert_int_equal(polls_during_calls(w, s, 100), 0);
    assert_true(turns_during_calls(w, s->q, 100) < 1000);
    crew_detach(&crew, w, 0);
    crew_dismiss(w);
    crew_close(&crew);
}

static void faulted_queue_is_left_alone(void **state)
{
    (void)state;
    for (unsigned m = 0; m < ARRAY_LEN(modes); m++)
        for (unsigned has_kick = 0; has_kick < 2; has_kick++)
            leave_faulted_alone(modes[m], has_kick);
}

static void faulted_queue_drains(void **state)
{
    (void)state;
    crew_open(&crew, 1, PACKED);
    struct crew_queue *s = &crew.queues[0];
    s->is_slow = true;
    struct worker *w = crew_worker(0, WORKER_ADAPTIVE);
    crew_attach(&crew, w, 0);
    crew_offer(s, 10);
    crew_until(s->n_popped == 10);
    crew_call(w, s->q, fault, NULL);
    worker_detach(w, s->q);
    crew_release(s);
    assert_ptr_equal(crew_answer(w), s->q);
    assert_int_equal(s->q->ring.n_in_flight, 0);
    crew_dismiss(w);
    crew_close(&crew);
}

static void queue_that_cannot_be_taken_faults(void **state)
{
    (void)state;
    crew_open(&crew, 1, 0);
    struct crew_queue *s = &crew.queues[0];
    s->enter_result = -ENFILE;
    struct worker *w = crew_worker(0, WORKER_BUSY);
    crew_attach(&crew, w, 0);
    crew_detach(&crew, w, 0);
    assert_int_equal(s->q->ring.fault, RING_NOT_SERVED);
    assert_int_equal(s->q->ring.fault_detail, ENFILE);
    assert_int_equal(s->n_leaves, 0);
    crew_dismiss(w);
    crew_close(&crew);
}

// ---- messages ----------------------------------------------------------------------------

static void count_up(struct queue *q, void *argument)
{
    (void)q;
    ++*(unsigned *)argument;
}

// More requests than a worker holds at a time: none is lost, each is answered, in order.
static void requests_never_overflow(void **state)
{
    (void)state;
    crew_open(&crew, 2, 0);
    struct worker *w = crew_worker(0, WORKER_ADAPTIVE);
    crew_attach(&crew, w, 0);
    crew_attach(&crew, w, 1);
    unsigned n_run = 0, n = 10000;
    for (unsigned i = 0; i < n; i++)
        worker_call(w, crew.queues[i & 1].q, count_up, &n_run);
    for (unsigned i = 0; i < n; i++)
        assert_ptr_equal(crew_answer(w), crew.queues[i & 1].q);
    assert_int_equal(n_run, n);
    assert_false(crew_has_answered(w));
    crew_detach(&crew, w, 0);
    crew_detach(&crew, w, 1);
    crew_dismiss(w);
    crew_close(&crew);
}

// A sleeping worker wakes for each request.
static void requests_wake_a_sleeper(void **state)
{
    (void)state;
    crew_open(&crew, 1, 0);
    struct worker *w = crew_worker(1, WORKER_INTERRUPT);
    for (unsigned i = 0; i < 3000; i++) {
        crew_attach(&crew, w, 0);
        for (unsigned pause = i % 256; pause; pause--)
            cpu_relax();
        crew_detach(&crew, w, 0);
    }
    assert_true(stats_of(w).n_sleeps > 0);
    crew_dismiss(w);
    crew_close(&crew);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thread_is_pinned_and_hears_no_signals),
        cmocka_unit_test(wrong_cpu_is_refused),
        cmocka_unit_test(every_mode_serves_every_ring),
        cmocka_unit_test(no_kick_is_lost),
        cmocka_unit_test(parking_looks_again),
        cmocka_unit_test(attach_interrupts_once),
        cmocka_unit_test(kick_storm_parks_again),
        cmocka_unit_test(polling_makes_no_system_calls),
        cmocka_unit_test(without_eventfds_it_is_polled_silently),
        cmocka_unit_test(queues_share_fairly),
        cmocka_unit_test(parked_queues_are_not_polled),
        cmocka_unit_test(queues_move_between_two_workers),
        cmocka_unit_test(detach_drains),
        cmocka_unit_test(parked_queue_completes_and_leaves),
        cmocka_unit_test(saturated_call_harms_nobody),
        cmocka_unit_test(call_is_replaced),
        cmocka_unit_test(unreadable_kick_is_not_waited_for),
        cmocka_unit_test(same_head_while_it_is_held),
        cmocka_unit_test(faulted_queue_is_left_alone),
        cmocka_unit_test(same_head_while_it_is_held),
        cmocka_unit_test(faulted_queue_drains),
        cmocka_unit_test(queue_that_cannot_be_taken_faults),
        cmocka_unit_test(requests_never_overflow),
        cmocka_unit_test(requests_wake_a_sleeper),
    };
    return cmocka_run_group_tests_name("worker", tests, NULL, NULL);
}
