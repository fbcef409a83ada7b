// SPDX-License-Identifier: Apache-2.0
#include "tests/crew.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static struct crew crew;

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
    struct worker_stats stats = crew_stats(w);
    assert_int_equal(stats.n_queues, 2);
    assert_true(stats.n_busy_turns > 0 && stats.n_busy_turns <= stats.n_turns);
    assert_true(stats.busy_cycles > 0);
    crew_detach(&crew, w, 0);
    crew_detach(&crew, w, 1);
    assert_int_equal(crew_stats(w).n_queues, 0);
    crew_dismiss(w);
    crew_close(&crew);
}

static void every_mode_serves_every_ring(void **state)
{
    (void)state;
    for (unsigned m = 0; m < CREW_MODES; m++)
        for (unsigned l = 0; l < CREW_LAYOUTS; l++)
            serve_some(crew_modes[m], crew_layouts[l]);
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
    for (unsigned m = 0; m < CREW_MODES; m++)
        for (unsigned l = 0; l < CREW_LAYOUTS; l++)
            race_parking(crew_modes[m], crew_layouts[l], 25000);
}

// What came after the last look, and was not kicked for, is seen before the queue parks.
static void parking_looks_again(void **state)
{
    (void)state;
    for (unsigned l = 0; l < CREW_LAYOUTS; l++) {
        crew_open(&crew, 1, crew_layouts[l]);
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
        crew_await_parked(w, 1);
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
    crew_await_parked(w, 1);
    crew_offer(s, 3);
    crew_await_interrupt(s, 3);
    crew_await_parked(w, 1);
    assert_true(crew_turns_during_calls(w, s->q, 50) < 500);
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
    crew_call(w, s->q, crew_do_nothing, NULL);
    uint64_t before = crew_stats(w).n_enters, calls = counter_read(&s->q->n_calls);
    for (unsigned i = 0; i < 500; i++)
        crew_await(s, crew_offer(s, 4));
    assert_int_equal(crew_stats(w).n_enters, before);
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
    assert_int_equal(crew_stats(w).n_parked, 0);
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
    crew_open(&crew, N, VIRTIO_BIT(VIRTIO_F_EVENT_IDX));
    struct worker *w = crew_worker(0, WORKER_ADAPTIVE);
    for (unsigned i = 0; i < N; i++)
        worker_attach(w, crew.queues[i].q);
    for (unsigned i = 0; i < N; i++)
        assert_ptr_equal(crew_answer(w), crew.queues[i].q);
    crew_await_parked(w, N);
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
    assert_true(crew_stats(w).n_sleeps > 0);
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
        cmocka_unit_test(requests_never_overflow),
        cmocka_unit_test(requests_wake_a_sleeper),
    };
    return cmocka_run_group_tests_name("worker", tests, NULL, NULL);
}
