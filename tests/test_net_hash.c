// SPDX-License-Identifier: Apache-2.0
// Hashes that a driver asked for, and the receive queues that it chose by them.
#include "tests/net_rig.h"

#include <string.h>

#define B(name) VIRTIO_BIT(VIRTIO_NET_F_##name)
#define V1      VIRTIO_BIT(VIRTIO_F_VERSION_1)
#define SEVERAL (V1 | B(CTRL_VQ) | B(MQ) | B(RSS) | B(HASH_REPORT))
#define CONTROL 8 // of four pairs

#define OK  VIRTIO_NET_OK
#define ERR VIRTIO_NET_ERR

static struct net_end a, b;
static struct net_taken taken;

static int setup(void **state)
{
    net_rig_setup(state);
    net_end_open(&net_rig, &a, &(struct net_end_config){.features = V1});
    net_end_open(&net_rig, &b,
                 &(struct net_end_config){
                     .features = SEVERAL, .name = "b", .line = "queues=4", .n_rings = 9});
    for (unsigned i = 0; i < 4; i++)
        net_end_post(&b, 2 * i, 4, (uint32_t[]){2048}, 1);
    return 0;
}

static const uint8_t own[] = {2, 0, 0, 0, 0, 0xbb};

static unsigned n_receivers(void)
{
    return atomic_load(&port_of(b.rings[0].queue)->n_receivers);
}

static void set_pairs(uint8_t n)
{
    assert_int_equal(net_end_command(&b, CONTROL, (uint8_t[]){4, 0, n, 0}, 4, 16), OK);
}

// ---- hashes ------------------------------------------------------------------------------

// The key and the packets of the specification that all implementations are checked with.
static const uint8_t key[40] = {
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
    0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
    0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
};

struct flow {
    uint8_t source[4], destination[4];
    uint16_t from, to;
    uint32_t of_addresses, of_ports;
};

static const struct flow flows[] = {
    {{66, 9, 149, 187}, {161, 142, 100, 80}, 2794, 1766, 0x323e8fc2, 0x51ccc178},
    {{199, 92, 111, 2}, {65, 69, 140, 83}, 14230, 4739, 0xd718262a, 0xc626b0ea},
    {{24, 19, 198, 95}, {12, 22, 207, 184}, 12898, 38024, 0xd2d0a5de, 0x5c2b394a},
};

static void send_flow(const struct flow *f, uint8_t proto, bool is_fragment)
{
    uint8_t data[12 + 64] = {0}, *ip = data + 12 + 14;
    memcpy(data + 12, own, 6);
    memcpy(data + 18, (uint8_t[]){2, 0, 0, 0, 0, 0xaa, 8, 0, 0x45}, 9);
    ip[6] = is_fragment ? 0x20 : 0;
    ip[9] = proto;
    memcpy(ip + 12, f->source, 4);
    memcpy(ip + 16, f->destination, 4);
    memcpy(ip + 20,
           (uint8_t[]){(uint8_t)(f->from >> 8), (uint8_t)f->from, (uint8_t)(f->to >> 8),
                       (uint8_t)f->to},
           4);
    net_end_send(&a, 1, data, sizeof(data), NULL, 0);
    net_rig_run(&net_rig);
    net_end_reap(&a, 1);
}

// types, then four reserved words, then the key.
static uint32_t compose_hash(uint8_t *out, uint32_t types, uint8_t n_key)
{
    memcpy(out, (uint8_t[]){4, 2}, 2);
    memcpy(out + 2, &types, 4);
    memset(out + 6, 0, 8);
    out[14] = n_key;
    memcpy(out + 15, key, MIN(n_key, 40));
    return 15u + n_key;
}

static void hashes_are_reported(void **state)
{
    (void)state;
    uint8_t command[64] = {0};
    send_flow(&flows[0], 6, false);
    assert_true(net_end_take(&b, 0, &taken));
    assert_int_equal(taken.header.hash_report, VIRTIO_NET_HASH_REPORT_NONE);

    assert_int_equal(net_end_command(&b, CONTROL, command, compose_hash(command, 0x3f, 40), 16),
                     OK);
    for (unsigned i = 0; i < ARRAY_LEN(flows); i++) {
        static const uint8_t protos[] = {6, 17, 1};
        for (unsigned p = 0; p < 3; p++) {
            for (unsigned fragment = 0; fragment < 2; fragment++) {
                bool has_ports = p < 2 && !fragment;
                send_flow(&flows[i], protos[p], fragment);
                assert_true(net_end_take(&b, 0, &taken));
                assert_int_equal(taken.header.hash_value,
                                 has_ports ? flows[i].of_ports : flows[i].of_addresses);
                assert_int_equal(taken.header.hash_report, has_ports ? 2 + p : 1);
            }
        }
    }
    // Types and keys that there are not.
    assert_int_equal(net_end_command(&b, CONTROL, command, compose_hash(command, 0x40, 40), 16),
                     ERR);
    assert_int_equal(net_end_command(&b, CONTROL, command, compose_hash(command, 1, 41), 16), ERR);
    assert_int_equal(net_end_command(&b, CONTROL, command, compose_hash(command, 1, 40) - 1, 16),
                     ERR);
}

// ---- steering ----------------------------------------------------------------------------

struct steering {
    uint32_t types;
    uint16_t mask, unclassified;
    uint16_t first, others; // entries of the table
    uint16_t n_transmit;
    uint8_t n_key;
};

static uint32_t compose_rss(uint8_t *out, const struct steering *s)
{
    uint32_t n = 2;
    memcpy(out, (uint8_t[]){4, 1}, 2);
    memcpy(out + n, &s->types, 4);
    memcpy(out + n + 4, &s->mask, 2);
    memcpy(out + n + 6, &s->unclassified, 2);
    n += 8;
    for (unsigned i = 0; i <= MIN(s->mask, 255u); i++, n += 2)
        memcpy(out + n, i ? &s->others : &s->first, 2);
    memcpy(out + n, &s->n_transmit, 2);
    out[n + 2] = s->n_key;
    memcpy(out + n + 3, key, MIN(s->n_key, 40));
    return n + 3 + s->n_key;
}

// hostile.md, RSS index: every index is that of a queue, the table's size is a power of two.
static void steering_is_checked(void **state)
{
    (void)state;
    static const struct {
        struct steering s;
        uint8_t answer;
    } cases[] = {
        {{0x3f, 127, 0, 0, 3, 4, 40}, OK},      {{0x3f, 0, 3, 0, 0, 1, 0}, OK},
        {{0x3f, 127, 4, 0, 3, 4, 40}, ERR},     {{0x3f, 127, 0, 0, 4, 4, 40}, ERR},
        {{0x3f, 127, 0, 65535, 0, 4, 40}, ERR}, {{0x3f, 255, 0, 0, 3, 4, 40}, ERR},
        {{0x3f, 126, 0, 0, 3, 4, 40}, ERR},     {{0x3f, 65535, 0, 0, 3, 4, 40}, ERR},
        {{0x3f, 127, 0, 0, 3, 5, 40}, ERR},     {{0x3f, 127, 0, 0, 3, 0, 40}, ERR},
        {{0x7f, 127, 0, 0, 3, 4, 40}, ERR},     {{0x3f, 127, 0, 0, 3, 4, 41}, ERR},
    };
    uint8_t command[1024] = {0};
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        uint32_t n = compose_rss(command, &cases[i].s);
        uint8_t answer = net_end_command(&b, CONTROL, command, n, 97);
        if (answer != cases[i].answer)
            fail_msg("case %u: %u", i, answer);
        assert_int_equal(net_end_command(&b, CONTROL, command, n - 1, 97), ERR);
        assert_int_equal(net_end_command(&b, CONTROL, command, n + 1, 97), ERR);
    }
}

// Which receive queue of b got it.
static int queue_that_got(void)
{
    for (unsigned i = 0; i < 4; i++) {
        if (net_end_take(&b, 2 * i, &taken))
            return (int)i;
    }
    return -1;
}

static void the_table_steers(void **state)
{
    (void)state;
    uint8_t command[1024] = {0};
    // Of the hash's low bit the first entry is queue 3's, the other one queue 1's.
    struct steering s = {0x3f, 1, 2, 3, 1, 4, 40};
    assert_int_equal(net_end_command(&b, CONTROL, command, compose_rss(command, &s), 97), OK);
    assert_int_equal(n_receivers(), 4);
    for (unsigned i = 0; i < ARRAY_LEN(flows); i++) {
        send_flow(&flows[i], 6, false);
        assert_int_equal(queue_that_got(), flows[i].of_ports & 1 ? 1 : 3);
        send_flow(&flows[i], 6, true);
        assert_int_equal(queue_that_got(), flows[i].of_addresses & 1 ? 1 : 3);
    }
    uint8_t data[12 + 60] = {0}; // no IP
    memcpy(data + 12, own, 6);
    net_end_send(&a, 1, data, sizeof(data), NULL, 0);
    net_rig_run(&net_rig);
    assert_int_equal(queue_that_got(), 2);
    set_pairs(1); // back to one queue
    send_flow(&flows[0], 6, false);
    assert_int_equal(queue_that_got(), 0);
}

// Setting pairs ends it: then flows spread by themselves.
static void pairs_end_the_steering(void **state)
{
    (void)state;
    uint8_t command[1024] = {0};
    unsigned n_of[4] = {0};
    struct steering s = {0x3f, 1, 3, 3, 3, 4, 40};
    for (unsigned is_steering = 2; is_steering-- > 0;) {
        if (is_steering)
            assert_int_equal(net_end_command(&b, CONTROL, command, compose_rss(command, &s), 97),
                             OK);
        else
            set_pairs(4);
        for (uint16_t port = 1; port <= 64; port++) {
            send_flow(&(struct flow){.source = {10, 0, 0, 1}, .from = port}, 6, false);
            int queue = queue_that_got();
            assert_in_range(queue, 0, 3);
            n_of[queue]++;
        }
        if (is_steering)
            assert_int_equal(n_of[3], 64);
    }
    for (unsigned i = 0; i < 4; i++)
        assert_in_range(n_of[i], 1, 127);
}

// The table names a queue that has stopped: another one takes its frames.
static void a_stopped_queue_is_not_steered_to(void **state)
{
    (void)state;
    uint8_t command[1024] = {0};
    struct steering s = {0x3f, 1, 3, 3, 3, 4, 40};
    assert_int_equal(net_end_command(&b, CONTROL, command, compose_rss(command, &s), 97), OK);
    net_end_stop(&b, 6);
    assert_int_equal(n_receivers(), 3);
    send_flow(&flows[0], 6, false);
    assert_int_equal(queue_that_got(), 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, net_rig_teardown)
    const struct CMUnitTest tests[] = {
        TEST(hashes_are_reported),
        TEST(steering_is_checked),
        TEST(the_table_steers),
        TEST(pairs_end_the_steering),
        TEST(a_stopped_queue_is_not_steered_to),
    };
    return cmocka_run_group_tests_name("net_hash", tests, NULL, NULL);
}
