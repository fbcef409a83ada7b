// SPDX-License-Identifier: Apache-2.0
// The loop, and above all what callbacks may do to it: remove others, themselves, and set timers.
#include "dataplane/base.h"
#include "pollers/loop.h"
#include "tests/check.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <stdlib.h>
#include <unistd.h>

#define DEADLINE_MS 20000

struct thing {
    struct loop_source source;
    struct loop_timer timer;
    struct thing *other; // removed by whoever is called first
    unsigned n_called;
};

static struct loop *loop;

static int open_loop(void **state)
{
    (void)state;
    return loop_open(&loop);
}

static int close_loop(void **state)
{
    (void)state;
    loop_close(loop);
    return 0;
}

static int ready_fd(void)
{
    return eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC);
}

static void count(struct loop_source *s, uint32_t events)
{
    assert_true(events & EPOLLIN);
    container_of(s, struct thing, source)->n_called++;
}

static void test_source_is_called_while_watched(void **state)
{
    (void)state;
    struct thing a = {.source.ready = count};
    int fd = ready_fd();
    assert_int_equal(loop_watch(loop, &a.source, fd, EPOLLIN), 0);
    loop_turn(loop, 0);
    loop_turn(loop, 0); // level-triggered
    assert_int_equal(a.n_called, 2);
    loop_unwatch(loop, &a.source);
    loop_turn(loop, 0);
    assert_int_equal(a.n_called, 2);
    assert_int_equal(loop_watch(loop, &a.source, fd, EPOLLIN), 0);
    assert_int_equal(loop_watch(loop, &a.source, fd, EPOLLIN | EPOLLOUT), 0);
    assert_int_equal(loop_watch(loop, &a.source, fd, 0), 0);
    loop_turn(loop, 0);
    assert_int_equal(a.n_called, 2);
    close(fd);
}

static void test_bad_descriptor(void **state)
{
    (void)state;
    struct thing a = {.source.ready = count};
    assert_true(loop_watch(loop, &a.source, 9999, EPOLLIN) < 0);
    loop_unwatch(loop, &a.source);
    loop_turn(loop, 0);
}

static unsigned n_removers;
static struct thing *last_remover;

static void remove_other(struct loop_source *s, uint32_t events)
{
    struct thing *t = container_of(s, struct thing, source);
    (void)events;
    n_removers++;
    last_remover = t;
    loop_unwatch(loop, &t->other->source);
    loop_unwatch(loop, s);
    free(t->other);
}

// Both are ready in one batch; the one called first frees the other, which is not called then.
static void test_removed_in_its_batch(void **state)
{
    (void)state;
    struct thing *things[2];
    int fds[2];
    for (int i = 0; i < 2; i++) {
        things[i] = calloc(1, sizeof(*things[i]));
        things[i]->source.ready = remove_other;
        fds[i] = ready_fd();
        assert_int_equal(loop_watch(loop, &things[i]->source, fds[i], EPOLLIN), 0);
    }
    n_removers = 0;
    things[0]->other = things[1];
    things[1]->other = things[0];
    loop_turn(loop, 0);
    loop_turn(loop, 0);
    assert_int_equal(n_removers, 1);
    free(last_remover);
    for (int i = 0; i < 2; i++)
        close(fds[i]);
}

static void count_due(struct loop_timer *t)
{
    container_of(t, struct thing, timer)->n_called++;
}

static void count_due_again(struct loop_timer *t)
{
    count_due(t);
    loop_timer_set(loop, t, 0);
}

static void test_timer_fires_once_and_not_early(void **state)
{
    (void)state;
    struct thing a = {.timer.due = count_due};
    uint64_t start = loop_now_ms();
    loop_timer_set(loop, &a.timer, 30);
    loop_turn(loop, 0);
    assert_true(a.n_called == 0 || loop_now_ms() - start >= 30);
    while (a.n_called == 0 && loop_now_ms() - start < DEADLINE_MS)
        loop_turn(loop, -1); // wakes up by itself
    assert_int_equal(a.n_called, 1);
    assert_true(loop_now_ms() - start >= 30);
    loop_turn(loop, 0);
    assert_int_equal(a.n_called, 1);
}

static void test_timer_cancelled_and_moved(void **state)
{
    (void)state;
    struct thing a = {.timer.due = count_due};
    loop_timer_cancel(&a.timer); // idle
    loop_timer_set(loop, &a.timer, 0);
    loop_timer_cancel(&a.timer);
    loop_turn(loop, 0);
    assert_int_equal(a.n_called, 0);
    loop_timer_set(loop, &a.timer, 0);
    loop_timer_set(loop, &a.timer, 3600 * 1000);
    loop_turn(loop, 0);
    assert_int_equal(a.n_called, 0);
    loop_timer_cancel(&a.timer);
}

// Work that puts itself off runs once a turn: nobody else starves.
static void test_timer_set_by_itself_waits_a_turn(void **state)
{
    (void)state;
    struct thing a = {.timer.due = count_due_again};
    loop_timer_set(loop, &a.timer, 0);
    for (unsigned i = 1; i <= 5; i++) {
        loop_turn(loop, -1);
        assert_int_equal(a.n_called, i);
    }
    loop_timer_cancel(&a.timer);
}

static void cancel_other(struct loop_timer *t)
{
    struct thing *thing = container_of(t, struct thing, timer);
    thing->n_called++;
    loop_timer_cancel(&thing->other->timer);
}

static void test_timer_cancelled_by_another_that_is_due(void **state)
{
    (void)state;
    struct thing a = {.timer.due = cancel_other}, b = {.timer.due = cancel_other, .other = &a};
    a.other = &b;
    loop_timer_set(loop, &a.timer, 0);
    loop_timer_set(loop, &b.timer, 0);
    loop_turn(loop, 0);
    loop_turn(loop, 0);
    assert_int_equal(a.n_called + b.n_called, 1);
}

static void stop(struct loop_timer *t)
{
    count_due(t);
    loop_stop(loop);
}

static void test_run_until_stop(void **state)
{
    (void)state;
    struct thing a = {.timer.due = stop};
    loop_timer_set(loop, &a.timer, 1);
    loop_run(loop);
    assert_int_equal(a.n_called, 1);
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, open_loop, close_loop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(test_source_is_called_while_watched),
        EACH(test_bad_descriptor),
        EACH(test_removed_in_its_batch),
        EACH(test_timer_fires_once_and_not_early),
        EACH(test_timer_cancelled_and_moved),
        EACH(test_timer_set_by_itself_waits_a_turn),
        EACH(test_timer_cancelled_by_another_that_is_due),
        EACH(test_run_until_stop),
    };
    return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
