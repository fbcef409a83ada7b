// SPDX-License-Identifier: Apache-2.0
#include "dataplane/lane.h"
#include "tests/check.h"

#include <sys/eventfd.h>

struct hook {
    struct lane_poll poll;
    unsigned n_left; // pieces of work
    unsigned n_calls;
    bool removes_itself;
};

static unsigned hook_poll(struct lane_poll *p, unsigned budget)
{
    struct hook *h = container_of(p, struct hook, poll);
    unsigned n = MIN(h->n_left, budget);
    h->n_left -= n;
    h->n_calls++;
    if (h->removes_itself)
        lane_remove_poll(p);
    return n;
}

static bool hook_has_work(const struct lane_poll *p)
{
    return container_of(p, const struct hook, poll)->n_left > 0;
}

#define HOOK .poll = {.poll = hook_poll, .has_work = hook_has_work}

static void hooks_come_and_go(void **state)
{
    (void)state;
    struct lane lane = {0};
    struct hook h[3] = {{HOOK}, {HOOK, .n_left = 1}, {HOOK, .n_left = LANE_BUDGET + 2}};
    assert_int_equal(lane_poll_all(&lane), 0);
    assert_false(lane_has_work(&lane));
    for (unsigned i = 0; i < 3; i++)
        lane_add_poll(&lane, &h[i].poll);
    assert_true(lane_has_work(&lane));
    h[1].removes_itself = true;
    assert_int_equal(lane_poll_all(&lane), 1 + LANE_BUDGET);
    assert_null(h[1].poll.lane);
    assert_true(lane_has_work(&lane));
    assert_int_equal(lane_poll_all(&lane), 2);
    assert_false(lane_has_work(&lane));
    lane_remove_poll(&h[0].poll);
    lane_remove_poll(&h[2].poll);
    assert_null(lane.polls);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(h[i].n_calls, i == 1 ? 1 : 2);
}

static bool is_rung(const struct lane *lane)
{
    eventfd_t n;
    return eventfd_read(lane->bell.fd, &n) == 0;
}

// Awake: nothing is written. Asleep: once, by the first who sends, through his own ring.
static void only_a_sleeper_is_woken(void **state)
{
    (void)state;
    struct lane from = {0}, to = {0};
    struct error e;
    check_ok(uring_open(&from.uring, &e), &e);
    assert_int_equal(uring_enable(&from.uring, NULL, 0), 0);
    assert_int_equal(bell_open(&to.bell), 0);
    uint64_t enters = counter_read(&from.uring.n_enters);

    lane_wake(&from, &to);
    assert_int_equal(from.uring.n_staged, 0);
    for (unsigned i = 0; i < 3; i++) {
        bell_doze(&to.bell);
        lane_wake(&from, &to);
        lane_wake(&from, &to);
        assert_int_equal(from.uring.n_staged, 1);
        assert_false(is_rung(&to));
        assert_true(uring_enter(&from.uring));
        assert_int_equal(uring_reap(&from.uring, 8), 1);
        assert_true(is_rung(&to));
    }
    bell_doze(&to.bell);
    bell_rise(&to.bell);
    lane_wake(&from, &to);
    assert_int_equal(from.uring.n_staged, 0);
    assert_int_equal(counter_read(&from.uring.n_enters), enters + 3);
    bell_close(&to.bell);
    uring_close(&from.uring);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hooks_come_and_go),
        cmocka_unit_test(only_a_sleeper_is_woken),
    };
    return cmocka_run_group_tests_name("lane", tests, NULL, NULL);
}
