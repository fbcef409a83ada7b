// SPDX-License-Identifier: Apache-2.0
// Queues that leave a worker: drained, or at once for another one, with requests out.
#include "pollers/trail.h"
#include "tests/crew.h"

#include <sched.h>
#include <stdlib.h>

static struct crew crew;
static struct worker *workers[2];

static void open_two(unsigned n_queues, uint64_t features, enum worker_poll a, enum worker_poll b)
{
    crew_open(&crew, n_queues, features);
    workers[0] = crew_worker(0, a);
    workers[1] = crew_worker(1, b);
}

static void close_two(void)
{
    for (unsigned i = 0; i < 2; i++)
        worker_end(workers[i]);
    for (unsigned i = 0; i < 2; i++)
        worker_free(workers[i]);
    crew_close(&crew);
}

static struct worker_answer next_answer(struct worker *w)
{
    struct worker_answer answer;
    crew_until(worker_receive(w, &answer));
    return answer;
}

static void release(struct trail *t, struct worker *w, struct queue *q)
{
    worker_release(w, q, t);
    struct worker_answer answer = next_answer(w);
    assert_int_equal(answer.event, WORKER_RELEASED);
    assert_ptr_equal(answer.queue, q);
    assert_null(q->lane);
}

static void move(struct trail *t, unsigned i, unsigned from)
{
    release(t, workers[from], crew.queues[i].q);
    crew_attach(&crew, workers[!from], i);
}

// As control does it: a trail goes when its queue is drained and all workers have passed.
static void end_trail(struct trail *t, struct queue *q)
{
    for (unsigned i = 0; i < 2; i++) {
        worker_pass(workers[i], NULL);
        assert_int_equal(next_answer(workers[i]).event, WORKER_PASSED);
    }
    q->trail = NULL;
    trail_close(t);
}

// ---- draining ----------------------------------------------------------------------------

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
    crew_call(w, crew.queues[1].q, crew_do_nothing, NULL);
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
    for (unsigned m = 0; m < CREW_MODES; m++)
        for (unsigned l = 0; l < CREW_LAYOUTS; l++)
            detach_waits_for_what_is_out(crew_modes[m], crew_layouts[l]);
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
        crew_await_parked(w, 1);
        crew_release(s);
        crew_await_interrupt(s, 3);
    }
    crew_await_parked(w, 1);
    crew_detach(&crew, w, 0);
    assert_int_equal(crew_stats(w).n_parked, 0);
    crew_dismiss(w);
    crew_close(&crew);
}

// ---- moving ------------------------------------------------------------------------------

// Queues move to and fro while requests are out; control and driver take turns, so that a
// request meets every stage of a move.
static void queues_move_between_two_workers(void **state)
{
    (void)state;
    for (unsigned l = 0; l < CREW_LAYOUTS; l++) {
        crew_open(&crew, 2, crew_layouts[l]);
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

// The queue goes at once, and what was out comes back on the worker where it is then.
static void requests_follow_their_queue(void **state)
{
    (void)state;
    for (unsigned k = 0; k < CREW_MODES * CREW_LAYOUTS; k++) {
        open_two(1, crew_layouts[k / CREW_MODES], crew_modes[k % CREW_MODES],
                 crew_modes[(k + 1) % CREW_MODES]);
        struct crew_queue *s = &crew.queues[0];
        struct trail *t = trail_open(s->q, 2);
        s->is_slow = true;
        crew_attach(&crew, workers[0], 0);
        crew_offer(s, 20);
        crew_until(s->n_popped == 20);
        move(t, 0, 0);
        assert_int_equal(s->n_held, 20);

        // Served there too, while those are out.
        crew_offer(s, 10);
        crew_until(s->n_popped == 30);
        crew_release_some(s, 30);
        crew_await_interrupt(s, 30);
        assert_int_equal(crew_stats(workers[0]).n_queues, 0);
        crew_detach(&crew, workers[1], 0);
        end_trail(t, s->q);
        close_two();
    }
}

// To and fro before anything is back: each stay leaves something behind.
static void requests_of_many_stays_come_back(void **state)
{
    (void)state;
    for (unsigned l = 0; l < CREW_LAYOUTS; l++) {
        open_two(1, crew_layouts[l], WORKER_INTERRUPT, WORKER_INTERRUPT);
        struct crew_queue *s = &crew.queues[0];
        struct trail *t = trail_open(s->q, 2);
        s->is_slow = true;
        crew_attach(&crew, workers[0], 0);
        for (unsigned i = 0; i < 12; i++) {
            crew_offer(s, 5);
            crew_until(s->n_popped == 5 * (i + 1));
            move(t, 0, i & 1);
        }
        // Some come back while nobody has it, the rest when it has arrived.
        release(t, workers[0], s->q);
        crew_release_some(s, 60);
        crew_attach(&crew, workers[1], 0);
        crew_await(s, 60);
        crew_detach(&crew, workers[1], 0);
        end_trail(t, s->q);
        close_two();
    }
}

// Late completions come to a worker that sleeps, and that has nothing else to do.
static void late_completions_wake_their_worker(void **state)
{
    (void)state;
    open_two(1, 0, WORKER_INTERRUPT, WORKER_INTERRUPT);
    struct crew_queue *s = &crew.queues[0];
    struct trail *t = trail_open(s->q, 2);
    s->is_slow = true;
    crew_attach(&crew, workers[0], 0);
    for (unsigned i = 0; i < 500; i++) {
        crew_offer(s, 3);
        crew_until(s->n_held == 3);
        move(t, 0, i & 1);
        crew_await_parked(workers[!(i & 1)], 1);
        crew_release_some(s, 3);
        crew_await_interrupt(s, 3);
    }
    crew_detach(&crew, workers[0], 0);
    end_trail(t, s->q);
    close_two();
}

static void detach_waits_for_what_is_late(void **state)
{
    (void)state;
    for (unsigned l = 0; l < CREW_LAYOUTS; l++) {
        open_two(2, crew_layouts[l], WORKER_ADAPTIVE, WORKER_INTERRUPT);
        struct crew_queue *s = &crew.queues[0], *other = &crew.queues[1];
        struct trail *t = trail_open(s->q, 2);
        s->is_slow = true;
        crew_attach(&crew, workers[0], 0);
        crew_attach(&crew, workers[1], 1);
        crew_offer(s, 8);
        crew_until(s->n_popped == 8);
        move(t, 0, 0);
        worker_detach(workers[1], s->q);
        crew_release_some(s, 7);
        crew_until(s->n_held == 1);
        for (unsigned i = 0; i < 50; i++)
            crew_await_interrupt(other, crew_offer(other, 4));
        assert_false(crew_has_answered(workers[1]));
        crew_release_some(s, 1);
        assert_ptr_equal(crew_answer(workers[1]), s->q);
        assert_int_equal(s->q->ring.n_in_flight, 0);
        assert_int_equal(crew_collect(s), 8);
        end_trail(t, s->q);
        crew_detach(&crew, workers[1], 1);
        close_two();
    }
}

static void fault(struct queue *q, void *argument)
{
    (void)argument;
    ring_fault(&q->ring, RING_BAD_HEAD, 1);
}

// What a faulted queue has out is counted wherever it is; it is served nowhere.
static void faulted_queue_moves(void **state)
{
    (void)state;
    open_two(1, 0, WORKER_ADAPTIVE, WORKER_ADAPTIVE);
    struct crew_queue *s = &crew.queues[0];
    struct trail *t = trail_open(s->q, 2);
    s->is_slow = true;
    crew_attach(&crew, workers[0], 0);
    crew_offer(s, 8);
    crew_until(s->n_popped == 8);
    crew_call(workers[0], s->q, fault, NULL);
    move(t, 0, 0);
    crew_offer(s, 8);
    crew_release(s);
    crew_detach(&crew, workers[1], 0);
    assert_int_equal(s->n_popped, 8);
    assert_int_equal(crew_collect(s), 0);
    end_trail(t, s->q);
    close_two();
}

// Two queues that move a thousand times under load, every layout: each request comes back once
// (the driver refuses what is not out), and none stays.
static void thousand_moves_lose_nothing(void **state)
{
    (void)state;
    for (unsigned l = 0; l < CREW_LAYOUTS; l++) {
        open_two(2, crew_layouts[l], WORKER_ADAPTIVE, WORKER_INTERRUPT);
        struct trail *t[2];
        uint64_t offered = 0, returned = 0;
        unsigned at[2] = {0, 1};
        srand(l);
        for (unsigned i = 0; i < 2; i++) {
            t[i] = trail_open(crew.queues[i].q, 2);
            crew.queues[i].is_slow = true;
            crew_attach(&crew, workers[i], i);
        }
        for (unsigned round = 0; round < 1000; round++) {
            for (unsigned i = 0; i < 2; i++) {
                struct crew_queue *s = &crew.queues[i];
                offered += crew_offer(s, (unsigned)rand() % 8);
                release(t[i], workers[at[i]], s->q);
                crew_release_some(s, (unsigned)rand() % (s->n_held + 1));
                at[i] = (unsigned)rand() & 1;
                crew_attach(&crew, workers[at[i]], i);
                returned += crew_collect(s);
            }
        }
        for (unsigned i = 0; i < 2; i++) {
            struct crew_queue *s = &crew.queues[i];
            crew_release_some(s, CREW_SIZE);
            crew_until((returned += crew_collect(s), s->n_free == CREW_SIZE));
            crew_detach(&crew, workers[at[i]], i);
            end_trail(t[i], s->q);
        }
        assert_int_equal(offered, returned);
        assert_true(offered > 2000);
        close_two();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(detach_drains),
        cmocka_unit_test(parked_queue_completes_and_leaves),
        cmocka_unit_test(queues_move_between_two_workers),
        cmocka_unit_test(requests_follow_their_queue),
        cmocka_unit_test(requests_of_many_stays_come_back),
        cmocka_unit_test(late_completions_wake_their_worker),
        cmocka_unit_test(detach_waits_for_what_is_late),
        cmocka_unit_test(faulted_queue_moves),
        cmocka_unit_test(thousand_moves_lose_nothing),
    };
    return cmocka_run_group_tests_name("worker_move", tests, NULL, NULL);
}
