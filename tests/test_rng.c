// SPDX-License-Identifier: Apache-2.0
#include "tests/device_rig.h"

#include <string.h>

#define LINE  "rng r socket=/unused"
#define BYTES 65536u // of buffers

// A chain of writable buffers of these sizes at @at, after the readable ones.
struct buffers {
    struct driver_chain chain;
    struct driver_segment segments[4];
};

static void make(struct buffers *b, struct device_rig *rig, const uint8_t *at, unsigned n_out,
                 const uint32_t sizes[], unsigned n)
{
    *b = (struct buffers){.chain = {.segments = b->segments,
                                    .n_out = (uint16_t)n_out,
                                    .n_in = (uint16_t)(n - n_out),
                                    .n_direct = (uint16_t)n}};
    for (unsigned i = 0; i < n; i++) {
        b->segments[i] = (struct driver_segment){guest_addr(rig->guest, at), sizes[i]};
        at += sizes[i];
        if (i >= n_out)
            b->chain.in_bytes += sizes[i];
    }
}

static uint32_t run_one(struct device_rig *rig, struct buffers *b)
{
    struct driver_chain *chain = &b->chain;
    uint32_t length;
    assert_int_equal(device_rig_run(rig, &chain, &length, 1), 1);
    return length;
}

static unsigned n_zeros(const uint8_t *at, uint32_t bytes)
{
    unsigned n = 0;
    for (uint32_t i = 0; i < bytes; i++)
        n += at[i] == 0;
    return n;
}

// Bytes that came are random, the buffer beyond them is as it was.
static void fills_what_it_reports(void **state)
{
    const uint64_t *features = *state;
    struct device_rig rig;
    device_rig_open(&rig, LINE, *features);
    uint8_t *buffer = guest_alloc(rig.guest, BYTES, 4096);
    static const uint32_t sizes[][3] = {{64}, {1}, {4096}, {1, 2, 3}, {100, 60000, 1}, {1000, 5}};
    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        struct buffers b;
        unsigned n = sizes[i][2] ? 3 : sizes[i][1] ? 2 : 1;
        memset(buffer, 0, BYTES);
        make(&b, &rig, buffer, 0, sizes[i], n);
        uint32_t length = run_one(&rig, &b);
        assert_in_range(length, 1, b.chain.in_bytes); // 5.4.6.2
        assert_in_range(n_zeros(buffer, length), 0, length < 64 ? length : length / 16);
        assert_int_equal(n_zeros(buffer + length, BYTES - length), BYTES - length);
    }
    device_rig_close(&rig);
}

// More is asked at once than a pool holds: each chain gets something all the same.
static void every_chain_gets_a_byte(void **state)
{
    const uint64_t *features = *state;
    struct device_rig rig;
    device_rig_open(&rig, LINE, *features);
    uint8_t *buffer = guest_alloc(rig.guest, 64 * 8192, 4096);
    struct buffers b[64];
    struct driver_chain *chains[64];
    uint32_t lengths[64], size = 8192;
    for (unsigned i = 0; i < 64; i++) {
        make(&b[i], &rig, buffer + i * size, 0, &size, 1);
        chains[i] = &b[i].chain;
    }
    assert_int_equal(device_rig_run(&rig, chains, lengths, 64), 64);
    for (unsigned i = 0; i < 64; i++)
        assert_in_range(lengths[i], 1, size);

    // Likewise when a pool has fewer bytes left than there are chains.
    uint32_t most = 4090, one = 1;
    make(&b[0], &rig, buffer, 0, &most, 1);
    assert_int_equal(run_one(&rig, &b[0]), most);
    for (unsigned i = 0; i < 64; i++)
        make(&b[i], &rig, buffer + i * size, 0, &one, 1);
    assert_int_equal(device_rig_run(&rig, chains, lengths, 64), 64);
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(lengths[i], 1);
    device_rig_close(&rig);
}

// Over many refills no 8 bytes come twice: what was handed out is not handed out again.
static void nothing_comes_twice(void **state)
{
    const uint64_t *features = *state;
    struct device_rig rig;
    device_rig_open(&rig, LINE, *features);
    enum { N = 2000 };
    static uint64_t seen[N];
    uint64_t *buffer = guest_alloc(rig.guest, 8, 8);
    uint32_t size = 8;
    unsigned n = 0;
    for (unsigned i = 0; i < N; i++) {
        struct buffers b;
        make(&b, &rig, (uint8_t *)buffer, 0, &size, 1);
        if (run_one(&rig, &b) == 8) // less at the end of a pool
            seen[n++] = *buffer;
    }
    assert_in_range(n, N - N / 100, N);
    for (unsigned i = 0; i < n; i++)
        for (unsigned k = i + 1; k < n; k++)
            assert_true(seen[i] != seen[k]);
    device_rig_close(&rig);
}

// 5.4.6.1: buffers are device-writable, all of them.
static void readable_buffers_fault(void **state)
{
    const uint64_t *features = *state;
    static const uint32_t sizes[] = {16, 16};
    for (unsigned n = 1; n <= 2; n++) {
        struct device_rig rig;
        device_rig_open(&rig, LINE, *features);
        struct buffers b;
        make(&b, &rig, guest_alloc(rig.guest, 4096, 4096), 1, sizes, n);
        struct driver_chain *chain = &b.chain;
        uint32_t length;
        assert_int_equal(device_rig_run(&rig, &chain, &length, 1), 0);
        assert_int_equal(rig.queue->ring.fault, RING_BAD_REQUEST);

        device_rig_restart(&rig, *features);
        uint32_t size = 32;
        make(&b, &rig, guest_alloc(rig.guest, 4096, 4096), 0, &size, 1);
        assert_int_equal(run_one(&rig, &b), 32);
        device_rig_close(&rig);
    }
}

static void has_one_queue_and_nothing_else(void **state)
{
    (void)state;
    struct error e;
    struct device *d;
    check_ok(device_from_line(&d, LINE, &e), &e);
    assert_int_equal(d->type->virtio_id, 4);
    assert_int_equal(d->n_queues, 1);
    assert_int_equal(d->features, 0);
    assert_int_equal(d->config_bytes, 0);
    device_close(d);
    assert_int_not_equal(device_from_line(&d, "rng r socket=/s file=/x", &e), 0);
    assert_non_null(strstr(e.text, "file"));
}

#define OVER(f)                                                                                    \
    {.name = "split: " #f, .test_func = f, .initial_state = (void *)&rig_layouts[0]},              \
    {                                                                                              \
        .name = "packed: " #f, .test_func = f, .initial_state = (void *)&rig_layouts[1]            \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        OVER(fills_what_it_reports),
        OVER(every_chain_gets_a_byte),
        OVER(nothing_comes_twice),
        OVER(readable_buffers_fault),
        cmocka_unit_test(has_one_queue_and_nothing_else),
    };
    return cmocka_run_group_tests_name("rng", tests, NULL, NULL);
}
