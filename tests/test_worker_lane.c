// SPDX-License-Identifier: Apache-2.0
// What a worker does besides polling rings: work that other workers send it, queues that rest in
// their device's own way or have no ring, and leaving in order.
#include "dataplane/channel.h"
#include "tests/crew.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static struct crew crew;

// ---- two workers that play ball ----------------------------------------------------------

// A queue without a ring on each worker; each has a channel to the other.
struct player {
    struct queue queue;
    struct lane_poll poll;
    struct channel in;
    struct player *other;
    atomic_uint n_caught;
    atomic_uint n_polls;
};

#define BALLS 8

static atomic_bool is_over; // nobody throws any more

static void throw(struct player * p, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        assert(channel_send(&p->other->in, &(struct channel_message){0}));
    lane_wake(p->queue.lane, p->other->queue.lane);
}

static unsigned catch_some(struct lane_poll *poll, unsigned budget)
{
    struct player *p = container_of(poll, struct player, poll);
    struct channel_message m;
    unsigned n = 0;
    while (n < budget && channel_receive(&p->in, &m))
        n++;
    p->n_caught += n;
    if (n && !is_over)
        throw(p, n);
    return n;
}

static bool has_ball(const struct lane_poll *poll)
{
    return channel_has_message(&container_of(poll, const struct player, poll)->in);
}

static int player_enter(struct queue *q)
{
    struct player *p = container_of(q, struct player, queue);
    lane_add_poll(q->lane, &p->poll);
    return 0;
}

static void player_leave(struct queue *q)
{
    lane_remove_poll(&container_of(q, struct player, queue)->poll);
}

static unsigned player_poll(struct queue *q, unsigned budget)
{
    (void)budget;
    container_of(q, struct player, queue)->n_polls++;
    return 0;
}

static enum queue_rest player_rest(struct queue *q)
{
    (void)q;
    return QUEUE_SLEEPS;
}

static const struct device_type player_type = {
    .line.type = "player",
    .poll = player_poll,
    .lane_enter = player_enter,
    .lane_leave = player_leave,
    .rest = player_rest,
};
static struct device player_device = {.type = &player_type};

static void open_players(struct player p[2])
{
    for (unsigned i = 0; i < 2; i++) {
        p[i] = (struct player){
            .queue = {.device = &player_device, .kick_fd = -1, .call_fd = -1},
            .poll = {.poll = catch_some, .has_work = has_ball},
            .other = &p[1 - i],
        };
        assert_int_equal(channel_open(&p[i].in, BALLS), 0);
    }
}

static void serve(struct queue *q, void *argument)
{
    throw(container_of(q, struct player, queue), *(unsigned *)argument);
}

static void attach(struct worker *w, struct queue *q)
{
    worker_attach(w, q);
    assert_ptr_equal(crew_answer(w), q);
}

static void detach(struct worker *w, struct queue *q)
{
    worker_detach(w, q);
    assert_ptr_equal(crew_answer(w), q);
}

// Whoever sleeps when a ball comes wakes up: a wake-up that is lost ends the game.
static void workers_wake_each_other(void **state)
{
    (void)state;
    static const enum worker_poll modes[] = {WORKER_INTERRUPT, WORKER_ADAPTIVE, WORKER_BUSY};
    for (unsigned m = 0; m < ARRAY_LEN(modes); m++) {
        struct player p[2];
        open_players(p);
        is_over = false;
        struct worker *w[2] = {crew_worker(0, modes[m]), crew_worker(1, modes[m])};
        for (unsigned i = 0; i < 2; i++)
            attach(w[i], &p[i].queue);
        uint64_t sleeps = crew_stats(w[0]).n_sleeps;
        for (unsigned n = 1; n <= BALLS; n *= 2) {
            unsigned more = n > 1 ? n / 2 : 1;
            unsigned before = p[1].n_caught;
            crew_call(w[0], &p[0].queue, serve, &more);
            crew_until(p[1].n_caught - before > 2000);
        }
        is_over = true;
        for (unsigned i = 0; i < 2; i++)
            crew_call(w[i], &p[i].queue, crew_do_nothing, NULL);
        crew_until(!has_ball(&p[0].poll) && !has_ball(&p[1].poll));
        if (modes[m] == WORKER_INTERRUPT)
            assert_true(crew_stats(w[0]).n_sleeps > 100 && crew_stats(w[1]).n_sleeps > 100);
        if (modes[m] == WORKER_BUSY)
            assert_int_equal(crew_stats(w[0]).n_sleeps, sleeps);
        for (unsigned i = 0; i < 2; i++)
            detach(w[i], &p[i].queue);
        for (unsigned i = 0; i < 2; i++)
            worker_end(w[i]);
        for (unsigned i = 0; i < 2; i++) {
            worker_free(w[i]);
            channel_close(&p[i].in);
        }
    }
}

static unsigned poll_nothing(struct queue *q, unsigned budget)
{
    (void)q, (void)budget;
    return 0;
}

// Work that comes right after its lane was polled for it, when nobody sees a sleeper to wake yet.
struct latecomer {
    struct queue queue;
    struct lane_poll poll;
    unsigned n_came;
    bool has_come;
    atomic_uint n_taken;
};

static unsigned take_latecomer(struct lane_poll *poll, unsigned budget)
{
    (void)budget;
    struct latecomer *l = container_of(poll, struct latecomer, poll);
    unsigned n = l->has_come;
    l->n_taken += n;
    l->has_come = l->n_came++ < 100;
    return n;
}

static bool has_latecomer(const struct lane_poll *poll)
{
    return container_of(poll, const struct latecomer, poll)->has_come;
}

static int latecomer_enter(struct queue *q)
{
    lane_add_poll(q->lane, &container_of(q, struct latecomer, queue)->poll);
    return 0;
}

static void latecomer_leave(struct queue *q)
{
    lane_remove_poll(&container_of(q, struct latecomer, queue)->poll);
}

static void worker_looks_again_before_it_sleeps(void **state)
{
    (void)state;
    static const struct device_type type = {
        .poll = poll_nothing,
        .lane_enter = latecomer_enter,
        .lane_leave = latecomer_leave,
        .rest = player_rest,
    };
    struct device device = {.type = &type};
    struct latecomer l = {
        .queue = {.device = &device, .kick_fd = -1, .call_fd = -1},
        .poll = {.poll = take_latecomer, .has_work = has_latecomer},
    };
    struct worker *w = crew_worker(0, WORKER_INTERRUPT);
    attach(w, &l.queue);
    crew_until(l.n_taken == 100);
    detach(w, &l.queue);
    crew_dismiss(w);
}

// Nobody polls a queue that sleeps, and its worker sleeps too.
static void queue_without_ring_sleeps(void **state)
{
    (void)state;
    struct player p[2];
    open_players(p);
    struct worker *w = crew_worker(0, WORKER_INTERRUPT);
    attach(w, &p[0].queue);
    crew_until(crew_stats(w).n_parked == 1);
    uint64_t sleeps = crew_stats(w).n_sleeps, turns = crew_stats(w).n_turns;
    unsigned polls = p[0].n_polls;
    for (unsigned i = 0; i < 100; i++)
        crew_call(w, &p[0].queue, crew_do_nothing, NULL);
    assert_int_equal(p[0].n_polls, polls);
    assert_true(crew_stats(w).n_sleeps > sleeps);
    assert_true(crew_stats(w).n_turns - turns < 1000);
    detach(w, &p[0].queue);
    assert_int_equal(crew_stats(w).n_parked, 0);
    assert_false(ring_is_started(&p[0].queue.ring));
    crew_dismiss(w);
    channel_close(&p[0].in);
    channel_close(&p[1].in);
}

static int refuse(struct queue *q)
{
    (void)q;
    return -ENFILE;
}

static void queue_without_ring_may_be_refused(void **state)
{
    (void)state;
    static const struct device_type type = {.poll = poll_nothing, .lane_enter = refuse};
    struct device device = {.type = &type};
    struct queue q = {.device = &device, .kick_fd = -1, .call_fd = -1};
    struct worker *w = crew_worker(0, WORKER_ADAPTIVE);
    attach(w, &q);
    detach(w, &q);
    uint64_t detail;
    assert_int_equal(ring_read_fault(&q.ring, &detail), RING_NOT_SERVED);
    assert_int_equal(detail, ENFILE);
    assert_int_equal(counter_read(&q.stats.n_faults[RING_NOT_SERVED]), 1);
    crew_dismiss(w);
}

// Nobody looks into a ring that never started, whatever the queue has beside it.
static void queue_without_ring_never_parks(void **state)
{
    (void)state;
    static const struct device_type type = {.poll = player_poll};
    struct device device = {.type = &type};
    struct player p = {.queue = {.device = &device, .kick_fd = eventfd(0, 0), .call_fd = -1}};
    struct worker *w = crew_worker(0, WORKER_INTERRUPT);
    attach(w, &p.queue);
    crew_until(p.n_polls > 100);
    assert_int_equal(crew_stats(w).n_parked, 0);
    detach(w, &p.queue);
    crew_dismiss(w);
    close(p.queue.kick_fd);
}

// ---- resting -----------------------------------------------------------------------------

static void rouse(struct queue *q, void *argument)
{
    (void)argument;
    queue_rouse(q);
    queue_rouse(q);
}

// The driver's kick wakes a queue that parks, and not one that sleeps.
static void sleeping_queue_is_roused(void **state)
{
    (void)state;
    crew_open(&crew, 1, 0);
    struct crew_queue *s = &crew.queues[0];
    s->rest = QUEUE_SLEEPS;
    struct worker *w = crew_worker(0, WORKER_INTERRUPT);
    crew_attach(&crew, w, 0);
    for (unsigned round = 0; round < 100; round++) {
        crew_until(crew_stats(w).n_parked == 1);
        uint64_t popped = s->n_popped;
        crew_offer(s, 2);
        eventfd_write(s->q->kick_fd, 1);
        for (unsigned i = 0; i < 10; i++)
            crew_call(w, s->q, crew_do_nothing, NULL);
        assert_int_equal(s->n_popped, popped);
        crew_call(w, s->q, rouse, NULL);
        crew_await(s, 2);
    }
    assert_int_equal(counter_read(&s->q->n_kicks), 0);
    crew_call(w, s->q, rouse, NULL); // also one that leaves
    crew_detach(&crew, w, 0);
    assert_false(s->q->is_roused);
    crew_dismiss(w);
    crew_close(&crew);
}

static void queue_that_stays_is_polled_on(void **state)
{
    (void)state;
    crew_open(&crew, 1, 0);
    struct crew_queue *s = &crew.queues[0];
    s->rest = QUEUE_STAYS;
    struct worker *w = crew_worker(0, WORKER_INTERRUPT);
    crew_attach(&crew, w, 0);
    uint64_t polls = s->n_polls;
    crew_until(s->n_polls > polls + 10000);
    assert_int_equal(crew_stats(w).n_parked, 0);
    s->rest = QUEUE_PARKS;
    crew_until(crew_stats(w).n_parked == 1);
    crew_await_interrupt(s, crew_offer(s, 4));
    crew_detach(&crew, w, 0);
    crew_dismiss(w);
    crew_close(&crew);
}

// ---- leaving -----------------------------------------------------------------------------

// It is asked turn after turn, and what it gives back then is published before it has left.
static void leaving_queue_settles(void **state)
{
    (void)state;
    crew_open(&crew, 2, 0);
    struct crew_queue *s = &crew.queues[0];
    s->hoards = true;
    s->n_settles = 3;
    struct worker *w = crew_worker(0, WORKER_ADAPTIVE);
    crew_attach(&crew, w, 0);
    crew_attach(&crew, w, 1);
    crew_offer(s, 5);
    crew_until(s->n_popped == 5);
    worker_detach(w, s->q);
    for (unsigned i = 0; i < 3; i++) // turns
        crew_await(&crew.queues[1], crew_offer(&crew.queues[1], 1));
    assert_ptr_equal(crew_answer(w), s->q);
    assert_int_equal(s->n_settles, 0);
    assert_int_equal(crew_collect(s), 5);
    crew_detach(&crew, w, 1);
    crew_dismiss(w);
    crew_close(&crew);
}

static atomic_int *_Atomic looked_at;
static atomic_uint n_looks, n_gone;

// Looks at the same thing for a while, as something does that found it in a table.
static unsigned look(struct queue *q, unsigned budget)
{
    (void)q, (void)budget;
    const atomic_int *p = looked_at;
    for (unsigned i = 0; i < 1000; i++)
        n_gone += *p;
    n_looks++;
    return 0;
}

// What was taken out of sight before a worker passed, nobody looks at afterwards.
static void passing_waits_for_who_looks(void **state)
{
    (void)state;
    static const struct device_type type = {.poll = look};
    struct device device = {.type = &type};
    struct queue q = {.device = &device, .kick_fd = -1, .call_fd = -1};
    atomic_int things[2] = {0, 0};
    looked_at = &things[0];
    struct worker *w = crew_worker(0, WORKER_BUSY);
    attach(w, &q);
    for (unsigned i = 0; i < 200; i++) {
        crew_until(n_looks > i);
        things[(i + 1) & 1] = 0;
        looked_at = &things[(i + 1) & 1];
        worker_pass(w, &things[i & 1]);
        struct worker_answer answer;
        crew_until(worker_receive(w, &answer));
        assert_int_equal(answer.event, WORKER_PASSED);
        assert_null(answer.queue);
        assert_ptr_equal(answer.context, &things[i & 1]);
        things[i & 1] = 1; // gone
    }
    detach(w, &q);
    assert_int_equal(n_gone, 0);
    crew_dismiss(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(workers_wake_each_other),
        cmocka_unit_test(worker_looks_again_before_it_sleeps),
        cmocka_unit_test(queue_without_ring_sleeps),
        cmocka_unit_test(queue_without_ring_may_be_refused),
        cmocka_unit_test(queue_without_ring_never_parks),
        cmocka_unit_test(sleeping_queue_is_roused),
        cmocka_unit_test(queue_that_stays_is_polled_on),
        cmocka_unit_test(leaving_queue_settles),
        cmocka_unit_test(passing_waits_for_who_looks),
    };
    return cmocka_run_group_tests_name("worker_lane", tests, NULL, NULL);
}
