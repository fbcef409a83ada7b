// SPDX-License-Identifier: Apache-2.0
#include "pollers/place.h"
#include "tests/check.h"

#define WORKERS_MAX 4

static void test_one_queue(void **state)
{
    (void)state;
    static const struct {
        struct place_worker workers[WORKERS_MAX];
        unsigned n, node, expected;
    } cases[] = {
        {{{0, 9}}, 1, 0, 0},                         // alone
        {{{0, 9}}, 1, 5, 0},                         // alone, and far
        {{{0, 2}, {0, 1}, {0, 3}}, 3, 0, 1},         // the least loaded
        {{{0, 1}, {0, 1}, {0, 1}}, 3, 0, 0},         // the first of equals
        {{{0, 2}, {0, 1}, {0, 1}}, 3, 0, 1},         // also later
        {{{0, 0}, {1, 7}}, 2, 1, 1},                 // near before idle
        {{{1, 7}, {0, 0}}, 2, 1, 0},                 // in either order
        {{{0, 0}, {1, 7}, {1, 6}, {0, 0}}, 4, 1, 2}, // the least loaded of the near
        {{{0, 2}, {1, 1}}, 2, 7, 1},                 // none is near: the least loaded
        {{{0, 2}, {1, 1}}, 2, PLACE_ANY_NODE, 1},
        {{{0, 0}, {1, 0}}, 2, PLACE_ANY_NODE, 0},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        unsigned at = place_queue(cases[i].workers, cases[i].n, cases[i].node);
        if (at != cases[i].expected)
            fail_msg("case %u: worker %u, not %u", i, at, cases[i].expected);
    }
}

// Many queues, placed one after the other, spread evenly over the workers of their node.
static void test_spread(void **state)
{
    (void)state;
    struct place_worker workers[WORKERS_MAX] = {{0, 0}, {0, 0}, {1, 0}, {1, 0}};
    for (unsigned i = 0; i < 60; i++)
        workers[place_queue(workers, WORKERS_MAX, i % 3 == 0)].load++;
    assert_int_equal(workers[0].load, 20);
    assert_int_equal(workers[1].load, 20);
    assert_int_equal(workers[2].load, 10);
    assert_int_equal(workers[3].load, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_queue),
        cmocka_unit_test(test_spread),
    };
    return cmocka_run_group_tests_name("place", tests, NULL, NULL);
}
