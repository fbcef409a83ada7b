// SPDX-License-Identifier: Apache-2.0
// Plain chains, which are looked at and spent without being popped: one writable buffer in one
// region. Every case but the log's runs over both layouts.
#include "tests/check.h"
#include "tests/ring_rig.h"

#define SIZE   8
#define PACKED VIRTIO_BIT(VIRTIO_F_RING_PACKED)

static const uint64_t layouts[] = {0, PACKED};

// The same head twice: the ring stops, and the driver sees neither.
static void test_plain_head_twice(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++) {
        struct rig rig;
        struct ring_plain plain[4];
        const uint32_t lengths[4] = {1, 1, 1, 1};
        rig_open(&rig, layouts[l], SIZE);
        for (unsigned i = 0; i < 2; i++)
            rig_offer_simple(&rig, 3);
        assert_int_equal(ring_peek(&rig.ring, plain, 4, true), 2);
        ring_spend(&rig.ring, plain, lengths, 2);
        assert_int_equal(rig.ring.fault, RING_DUP_HEAD);
        assert_false(ring_publish(&rig.ring));
        assert_int_equal(rig_n_used(&rig), 0);
        assert_int_equal(ring_peek(&rig.ring, plain, 4, true), 0);
        rig_close(&rig);
    }
}

// A head may come again once it was published.
static void test_plain_head_again(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++) {
        struct rig rig;
        struct ring_plain plain;
        const uint32_t length = 5;
        rig_open(&rig, layouts[l], SIZE);
        for (unsigned i = 0; i < 3 * SIZE; i++) {
            rig_offer_simple(&rig, 3);
            assert_int_equal(ring_peek(&rig.ring, &plain, 1, true), 1);
            assert_int_equal(plain.bytes, 64);
            ring_spend(&rig.ring, &plain, &length, 1);
            ring_publish(&rig.ring);
        }
        assert_int_equal(rig.ring.fault, RING_OK);
        assert_int_equal(counter_read(&rig.stats.n_used), 3 * SIZE);
        assert_int_equal(counter_read(&rig.stats.n_bytes_in), 3 * SIZE * 5);
        rig_close(&rig);
    }
}

// What is not plain is left to ring_pop(), which says what is wrong with it.
static void test_what_is_not_plain(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint64_t addr;
        uint32_t len;
        uint16_t flags;
    } cases[] = {
        {"readable", RIG_BUFFER, 8, 0},
        {"over two regions", RIG_B - 8, 16, RIG_WRITE},
        {"in a hole", RIG_HOLE, 8, RIG_WRITE},
        {"of no bytes", RIG_BUFFER, 0, RIG_WRITE},
        {"indirect", RIG_TABLE, 16, RIG_INDIRECT},
        {"chained", RIG_BUFFER, 8, RIG_WRITE | RIG_NEXT},
    };
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++)
        for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
            struct rig rig;
            struct ring_plain plain[2];
            rig_open(&rig, layouts[l], SIZE);
            rig_offer_simple(&rig, 0);
            rig_put(&rig, rig.is_packed ? 0 : 1, cases[i].addr, cases[i].len, cases[i].flags, 2, 1);
            rig_offer(&rig, 1, 1);
            if (ring_peek(&rig.ring, plain, 2, true) != 1)
                fail_msg("a chain that is %s was taken for plain", cases[i].name);
            assert_int_equal(rig.ring.fault, RING_OK);
            rig_close(&rig);
        }
}

static void test_peek_with_a_log(void **state)
{
    (void)state;
    struct rig rig;
    struct ring_plain plain;
    struct dirty log = {0};
    rig_open(&rig, 0, SIZE);
    rig_offer_simple(&rig, 0);
    ring_set_dirty(&rig.ring, &log);
    assert_int_equal(ring_peek(&rig.ring, &plain, 1, true), 0);
    ring_set_dirty(&rig.ring, NULL);
    assert_int_equal(ring_peek(&rig.ring, &plain, 1, true), 1);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_head_twice),
        cmocka_unit_test(test_plain_head_again),
        cmocka_unit_test(test_what_is_not_plain),
        cmocka_unit_test(test_peek_with_a_log),
    };
    return cmocka_run_group_tests_name("ring_plain", tests, NULL, NULL);
}
