// SPDX-License-Identifier: Apache-2.0
#include "bench/bench_options.h"
#include "tests/check.h"

#include <string.h>

#define ARGS_MAX 8

static int parse(struct bench_options *o, const char *const args[ARGS_MAX], struct error *e)
{
    char *argv[ARGS_MAX + 2] = {"sluice-bench"};
    int n = 1;
    for (; n <= ARGS_MAX && args[n - 1]; n++)
        argv[n] = (char *)args[n - 1];
    return bench_options_parse(o, n, argv, e);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *args[ARGS_MAX];
        const char *says;
    } cases[] = {
        {{NULL}, "what to drive: blk or net"},
        {{"tape", "s"}, "what to drive: blk or net"},
        {{"--depth", "4", "blk", "s"}, "the first argument says what to drive"},
        {{"blk"}, "needs the socket"},
        {{"blk", "s", "--bs", "100"}, "--bs takes a number from 512 to"},
        {{"blk", "s", "--bs", "4x"}, "not '4x'"},
        {{"blk", "s", "--bs", "-4k"}, "not '-4k'"},
        {{"blk", "s", "--ios", "99999999999999999999"}, "--ios takes"},
        {{"blk", "s", "--range", "99999999999T"}, "--range takes"},
        {{"blk", "s", "--depth", ""}, "--depth takes a number from 1"},
        {{"blk", "s", "--queues", "65"}, "from 1 to 64"},
        {{"net", "s", "t", "--queues", "128"}, "from 1 to 127"},
        {{"blk", "s", "--mode", "echo"}, "unknown option, or one without its value: --mode"},
        {{"net", "s", "t", "--bs", "4k"}, "unknown option, or one without its value: --bs"},
        {{"net", "s", "t", "--mode", "loop"}, "forward, both, echo or pingpong, not 'loop'"},
        {{"net", "s", "t", "--size", "59"}, "60 to 65550 bytes or imix, not '59'"},
        {{"net", "s", "t", "--size", "big"}, "60 to 65550 bytes or imix, not 'big'"},
        {{"net", "s"}, "guests in twos, not 1"},
        {{"blk", "s", "--server-cpu", "1"}, "--server-cpu needs --cpu"},
        {{"blk", "s", "--direct", "--indirect"}, "exclude each other"},
        {{"blk", "s", "--rate", "0"}, "--rate takes a number from 1"},
        {{"blk", "s", "--rw", "trim"}, "read, write, randread, randwrite or randrw, not 'trim'"},
        {{"blk", "s", "--ring", "round"}, "split or packed, not 'round'"},
        {{"blk", "s", "--time", "-1"}, "seconds above 0, not '-1'"},
        {{"blk", "s", "--nope"}, "unknown option, or one without its value: --nope"},
        {{"blk", "s", "--guests", "3"}, "one SOCKET with %d"},
    };
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct bench_options o;
        struct error e;
        if (parse(&o, cases[i].args, &e) == 0)
            fail_msg("case %u was accepted", i);
        if (!strstr(e.text, cases[i].says))
            fail_msg("case %u: '%s' does not say '%s'", i, e.text, cases[i].says);
        bench_options_close(&o);
    }
}

static void test_defaults(void **state)
{
    (void)state;
    struct bench_options o;
    struct error e;
    check_ok(parse(&o, (const char *[ARGS_MAX]){"blk", "/a", "/b"}, &e), &e);
    assert_int_equal(o.n_guests, 2);
    assert_string_equal(o.sockets[1], "/b");
    assert_int_equal(o.disk_load.block_bytes, 4096);
    assert_int_equal(o.disk_load.depth, 32);
    assert_int_equal(o.cpu, BENCH_NO_CPU);
    assert_int_equal(o.disk.ring_size, 128);
    assert_true(o.seconds == 10);
    assert_string_equal(bench_options_layout(&o), "split");
    assert_string_equal(bench_options_pattern(&o), "randread");
    assert_int_equal(o.disk.features, VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC));
    bench_options_close(&o);
}

static void test_values(void **state)
{
    (void)state;
    struct bench_options o;
    struct error e;
    check_ok(parse(&o,
                   (const char *[ARGS_MAX]){"blk", "--ring=packed", "/d%d.sock", "--guests=12",
                                            "--bs=64k", "--direct", "--depth=100", "--ios=1M"},
                   &e),
             &e);
    assert_int_equal(o.n_guests, 12);
    assert_string_equal(o.sockets[11], "/d11.sock");
    assert_int_equal(o.disk_load.block_bytes, 65536);
    assert_int_equal(o.disk_load.form, GUEST_REQUEST_DIRECT);
    assert_int_equal(o.disk.ring_size, 512); // three descriptors each
    assert_int_equal(o.n_units, 1 << 20);
    assert_true(o.seconds == 0);
    assert_string_equal(bench_options_layout(&o), "packed");
    bench_options_close(&o);
}

static void test_net(void **state)
{
    (void)state;
    struct bench_options o;
    struct error e;
    check_ok(parse(&o,
                   (const char *[ARGS_MAX]){"net", "/a", "/b", "--size=9000", "--mode=pingpong",
                                            "--queues=4", "--mergeable", "--ring=packed"},
                   &e),
             &e);
    assert_int_equal(o.net_load.mode, NET_LOAD_ECHO);
    assert_int_equal(o.net_load.depth, 1);
    assert_int_equal(o.net_load.frame_bytes, 9000);
    assert_int_equal(o.nic.n_pairs, 4);
    assert_int_equal(o.nic.receive_bytes, 2048);
    assert_true(o.nic.send_bytes >= 9012);
    assert_true(o.nic.required & VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF));
    assert_true(o.nic.required & VIRTIO_BIT(VIRTIO_F_RING_PACKED));
    bench_options_close(&o);
    check_ok(parse(&o, (const char *[ARGS_MAX]){"net", "/a", "/b", "--size=imix"}, &e), &e);
    assert_int_equal(o.net_load.frame_bytes, NET_LOAD_IMIX);
    assert_int_equal(o.nic.ring_size, 256);
    bench_options_close(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_net),
    };
    return cmocka_run_group_tests_name("bench_options", tests, NULL, NULL);
}
