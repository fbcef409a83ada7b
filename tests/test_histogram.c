// SPDX-License-Identifier: Apache-2.0
#include "bench/histogram.h"
#include "tests/check.h"

#include <stdlib.h>

// Buckets follow each other without a gap, and none is wider than a 32nd of its values.
static void test_buckets(void **state)
{
    (void)state;
    unsigned previous = 0;
    for (uint64_t v = 1; v < 100000; v++) {
        unsigned b = histogram_bucket(v);
        assert_true(b == previous || b == previous + 1);
        previous = b;
    }
    for (unsigned bit = 6; bit < 64; bit++) {
        uint64_t v = UINT64_C(1) << bit;
        assert_int_equal(histogram_bucket(v), histogram_bucket(v - 1) + 1);
        assert_int_not_equal(histogram_bucket(v), histogram_bucket(v + v / 32));
        assert_int_equal(histogram_bucket(v), histogram_bucket(v + v / 32 - 1));
    }
    assert_int_equal(histogram_bucket(UINT64_MAX), HISTOGRAM_BUCKETS - 1);
}

static void test_percentiles(void **state)
{
    (void)state;
    static const struct {
        double fraction;
        uint64_t at_least, at_most;
    } cases[] = {
        {0, 1, 1}, {0.5, 5000, 5160}, {0.99, 9900, 10000}, {0.9999, 9999, 10000}, {1, 10000, 10000},
    };
    struct histogram *h = calloc(1, sizeof *h), *half = calloc(1, sizeof *half);
    assert_int_equal(histogram_percentile(h, 0.5), 0);
    for (uint64_t v = 1; v <= 10000; v++)
        histogram_add(v % 2 ? h : half, v);
    histogram_merge(h, half);
    assert_int_equal(h->n, 10000);
    assert_int_equal(h->sum, 10000 * 10001 / 2);
    assert_int_equal(h->max, 10000);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++)
        assert_in_range(histogram_percentile(h, cases[i].fraction), cases[i].at_least,
                        cases[i].at_most);
    free(h);
    free(half);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buckets),
        cmocka_unit_test(test_percentiles),
    };
    return cmocka_run_group_tests_name("histogram", tests, NULL, NULL);
}
