// SPDX-License-Identifier: Apache-2.0
// Loans of queues: what is asked while a queue is between two workers, and who is credited.
#include "pollers/pool.h"
#include "tests/crew.h"

#include <sched.h>
#include <stdlib.h>

#define QUEUES 2

static struct crew crew;
static struct lease leases[QUEUES];
static struct topo *topo;
static struct loop *loop;
static struct pool *pool;
static unsigned n_answers[QUEUES];

static struct lease *lease_of(struct queue *q)
{
    return &leases[q->index];
}

static void answered(struct queue *q)
{
    n_answers[q->index]++;
}

// Let control run until the condition is true.
#define control_until(condition)                                                                   \
    do {                                                                                           \
        uint64_t start_ = crew_now_ms();                                                           \
        while (!(condition)) {                                                                     \
            if (crew_now_ms() - start_ > CREW_DEADLINE_MS)                                         \
                fail_msg("never: %s", #condition);                                                 \
            loop_turn(loop, 1);                                                                    \
        }                                                                                          \
    } while (0)

static int setup(void **state)
{
    (void)state;
    struct error e;
    cpu_set_t set;
    int cpus[2];
    unsigned n = 0;
    sched_getaffinity(0, sizeof(set), &set);
    for (int i = 0; i < CPU_SETSIZE && n < 2; i++) {
        if (CPU_ISSET(i, &set))
            cpus[n++] = i;
    }
    if (n == 1) // two on one CPU are as good here
        cpus[n++] = cpus[0];
    struct pool_config config = {
        .cpus = cpus,
        .n_cpus = 2,
        .poll = WORKER_ADAPTIVE,
        .answered = answered,
        .lease_of = lease_of,
    };
    check_ok(topo_open(&topo, NULL, &e), &e);
    config.topo = topo;
    assert_int_equal(loop_open(&loop), 0);
    check_ok(pool_open(&pool, loop, &config, &e), &e);
    // As control is: not on the workers' CPUs alone.
    sched_setaffinity(0, sizeof(set), &set);
    crew_open(&crew, QUEUES, 0);
    for (unsigned i = 0; i < QUEUES; i++) {
        leases[i] = (struct lease){0};
        n_answers[i] = 0;
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    pool_close(pool);
    loop_close(loop);
    topo_close(topo);
    crew_close(&crew);
    return 0;
}

static struct pool_worker *worker(unsigned i)
{
    return pool_worker_at(pool, i);
}

static void lend(unsigned i)
{
    pool_attach(&leases[i], crew.queues[i].q, worker(0));
    control_until(n_answers[i] == 1);
}

static void take_back(unsigned i)
{
    unsigned before = n_answers[i];
    pool_detach(&leases[i], crew.queues[i].q);
    control_until(n_answers[i] == before + 1);
    assert_null(leases[i].at);
    assert_null(leases[i].trail);
    assert_null(crew.queues[i].q->trail);
}

struct seen {
    unsigned order[8];
    unsigned lanes[8];
    unsigned n;
};

struct note {
    struct seen *seen;
    unsigned number;
};

static void note_down(struct queue *q, void *argument)
{
    const struct note *note = argument;
    struct seen *seen = note->seen;
    seen->order[seen->n] = note->number;
    seen->lanes[seen->n++] = q->lane->index;
}

// Calls go to the worker that has the queue then, in the order asked, and each is answered once.
static void calls_follow_a_move(void **state)
{
    (void)state;
    struct seen seen = {0};
    struct note notes[4];
    for (unsigned i = 0; i < 4; i++)
        notes[i] = (struct note){&seen, i};
    lend(0);
    struct queue *q = crew.queues[0].q;
    pool_call(&leases[0], q, note_down, &notes[0]);
    pool_move(&leases[0], worker(1));
    for (unsigned i = 1; i < 4; i++)
        pool_call(&leases[0], q, note_down, &notes[i]);
    assert_ptr_equal(lease_worker(&leases[0]), worker(1));
    assert_ptr_equal(leases[0].at, worker(0));
    control_until(n_answers[0] == 5);
    assert_ptr_equal(leases[0].at, worker(1));
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(seen.order[i], i);
        assert_int_equal(seen.lanes[i], i > 0);
    }
    take_back(0);
    assert_int_equal(n_answers[0], 6);
}

// A queue that is asked back between two workers comes back drained, with what was late.
static void detach_follows_a_move(void **state)
{
    (void)state;
    struct crew_queue *s = &crew.queues[0];
    s->is_slow = true;
    lend(0);
    crew_offer(s, 9);
    crew_until(s->n_popped == 9);
    struct seen seen = {0};
    struct note note = {&seen, 0};
    pool_move(&leases[0], worker(1));
    pool_call(&leases[0], s->q, note_down, &note);
    pool_detach(&leases[0], s->q);
    pool_move(&leases[0], worker(0)); // for later
    control_until(seen.n == 1);
    assert_int_equal(seen.lanes[0], 1);
    control_until(n_answers[0] == 2);
    for (unsigned i = 0; i < 20; i++)
        loop_turn(loop, 1);
    assert_int_equal(n_answers[0], 2); // it drains
    crew_release(s);
    control_until(n_answers[0] == 3);
    assert_null(leases[0].at);
    assert_int_equal(crew_collect(s), 9);
    assert_ptr_equal(leases[0].chosen, worker(0));
}

// The last wish counts, also when that is where it was; nobody is told.
static void moves_in_a_row(void **state)
{
    (void)state;
    lend(0);
    for (unsigned i = 0; i < 300; i++) {
        pool_move(&leases[0], worker(1));
        pool_move(&leases[0], worker(0));
        if (i % 3)
            pool_move(&leases[0], worker(1));
        unsigned to = i % 3 ? 1 : 0;
        assert_ptr_equal(lease_worker(&leases[0]), worker(to));
        control_until(!leases[0].to);
        assert_ptr_equal(leases[0].at, worker(to));
        assert_int_equal(worker(to)->n_queues, 1);
        assert_int_equal(worker(!to)->n_queues, 0);
        crew_offer(&crew.queues[0], 3);
        crew_await(&crew.queues[0], 3);
    }
    assert_int_equal(n_answers[0], 1);
    take_back(0);
    assert_int_equal(worker(0)->n_requests_moved + worker(1)->n_requests_moved, 900);
    assert_true(worker(0)->n_requests_moved >= 200 && worker(1)->n_requests_moved >= 500);
}

// Where a queue was moved last it starts again; the others are spread.
static void moved_queue_starts_there(void **state)
{
    (void)state;
    pool_move(&leases[0], worker(1));
    for (unsigned i = 0; i < 3; i++) {
        n_answers[0] = 0;
        lend(0);
        assert_ptr_equal(leases[0].at, worker(1));
        take_back(0);
    }
    n_answers[0] = 0;
    lend(0);
    lend(1);
    assert_ptr_equal(leases[1].at, worker(0));
    take_back(0);
    take_back(1);
}

static void count(void *context)
{
    ++*(unsigned *)context;
}

static void barriers_pass_once(void **state)
{
    (void)state;
    unsigned n = 0;
    lend(0);
    for (unsigned i = 0; i < 50; i++)
        pool_barrier(pool, count, &n);
    assert_int_equal(n, 0); // later, never from inside
    control_until(n == 50);
    assert_int_equal(n_answers[0], 1);
    take_back(0);
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(calls_follow_a_move),      EACH(detach_follows_a_move), EACH(moves_in_a_row),
        EACH(moved_queue_starts_there), EACH(barriers_pass_once),
    };
    return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
