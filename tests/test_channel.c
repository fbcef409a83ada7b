// SPDX-License-Identifier: Apache-2.0
// The channel between two threads.
#include "dataplane/channel.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct channel_message message(uint32_t i)
{
    return (struct channel_message){.kind = i,
                                    .extra = ~i,
                                    .subject = (void *)(uintptr_t)(i * 3ull),
                                    .argument = (void *)(uintptr_t)(i * 5ull)};
}

static bool is_message(const struct channel_message *m, uint32_t i)
{
    struct channel_message want = message(i);
    return m->kind == want.kind && m->extra == want.extra && m->subject == want.subject &&
           m->argument == want.argument;
}

static void full_and_empty_are_told(void **state)
{
    (void)state;
    // Positions run freely: also where they wrap.
    static const uint32_t sizes[] = {1, 2, 8, 64}, starts[] = {0, 5, UINT32_MAX - 4, UINT32_MAX};
    for (size_t i = 0; i < ARRAY_LEN(sizes) * ARRAY_LEN(starts); i++) {
        uint32_t size = sizes[i % ARRAY_LEN(sizes)], start = starts[i / ARRAY_LEN(sizes)];
        struct channel c;
        struct channel_message m;
        assert_int_equal(channel_open(&c, size), 0);
        atomic_store(&c.tail, start);
        atomic_store(&c.head, start);
        c.head_seen = c.tail_seen = start;
        for (uint32_t round = 0, n = 0; round < 10; round++, n += size) {
            assert_false(channel_receive(&c, &m));
            for (uint32_t j = 0; j < size; j++) {
                m = message(n + j);
                assert_true(channel_send(&c, &m));
            }
            m = message(~0u);
            assert_false(channel_send(&c, &m));
            for (uint32_t j = 0; j < size; j++) {
                assert_true(channel_receive(&c, &m));
                assert_true(is_message(&m, n + j));
            }
        }
        assert_false(channel_receive(&c, &m));
        channel_close(&c);
    }
}

static void one_place_is_enough_to_go_on(void **state)
{
    (void)state;
    struct channel c;
    struct channel_message m;
    assert_int_equal(channel_open(&c, 4), 0);
    for (uint32_t i = 0; i < 4; i++) {
        m = message(i);
        assert_true(channel_send(&c, &m));
    }
    for (uint32_t i = 4; i < 100; i++) {
        assert_true(channel_receive(&c, &m));
        assert_true(is_message(&m, i - 4));
        m = message(i);
        assert_true(channel_send(&c, &m));
        assert_false(channel_send(&c, &m));
    }
    channel_close(&c);
}

#define N_MESSAGES 1000000u

static void *send_all(void *argument)
{
    struct channel *c = argument;
    for (uint32_t i = 0; i < N_MESSAGES; i++) {
        struct channel_message m = message(i);
        while (!channel_send(c, &m))
            sched_yield();
    }
    return NULL;
}

static void two_threads_lose_and_repeat_nothing(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {2, 4096};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct channel c;
        struct channel_message m;
        pthread_t sender;
        uint32_t n_wrong = 0;
        assert_int_equal(channel_open(&c, sizes[i]), 0);
        assert_int_equal(pthread_create(&sender, NULL, send_all, &c), 0);
        for (uint32_t n = 0; n < N_MESSAGES; n++) {
            while (!channel_receive(&c, &m))
                sched_yield();
            n_wrong += !is_message(&m, n);
        }
        pthread_join(sender, NULL);
        assert_int_equal(n_wrong, 0);
        assert_false(channel_receive(&c, &m));
        channel_close(&c);
    }
}

// The two sides must not share a cache line, else each message bounces it twice.
static void sides_have_their_own_lines(void **state)
{
    (void)state;
    assert_int_equal(_Alignof(struct channel), CACHE_LINE);
    assert_true(offsetof(struct channel, head) / CACHE_LINE >
                offsetof(struct channel, head_seen) / CACHE_LINE);
    assert_true(offsetof(struct channel, messages) / CACHE_LINE >
                offsetof(struct channel, tail_seen) / CACHE_LINE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_and_empty_are_told),
        cmocka_unit_test(one_place_is_enough_to_go_on),
        cmocka_unit_test(two_threads_lose_and_repeat_nothing),
        cmocka_unit_test(sides_have_their_own_lines),
    };
    return cmocka_run_group_tests_name("channel", tests, NULL, NULL);
}
