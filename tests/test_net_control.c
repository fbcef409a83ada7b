// SPDX-License-Identifier: Apache-2.0
// The control queue: each command, its bounds, and what frames do afterwards.
#include "tests/net_rig.h"

#include <stdio.h>
#include <string.h>

#define B(name) VIRTIO_BIT(VIRTIO_NET_F_##name)
#define V1      VIRTIO_BIT(VIRTIO_F_VERSION_1)
#define PACKED  VIRTIO_BIT(VIRTIO_F_RING_PACKED)
#define CONTROL                                                                                    \
    (V1 | B(CTRL_VQ) | B(CTRL_RX) | B(CTRL_RX_EXTRA) | B(CTRL_VLAN) | B(CTRL_MAC_ADDR) |           \
     B(CTRL_GUEST_OFFLOADS) | B(GUEST_ANNOUNCE))
#define SEVERAL (CONTROL | B(MQ) | B(RSS) | B(HASH_REPORT))

#define OK  VIRTIO_NET_OK
#define ERR VIRTIO_NET_ERR

static struct net_rig rig;
static struct net_end a, b;
static struct net_taken taken;

static int setup(void **state)
{
    (void)state;
    net_rig_open(&rig);
    net_end_open(&rig, &a, &(struct net_end_config){.features = V1});
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    while (rig.ends)
        net_end_close(rig.ends);
    net_rig_close(&rig);
    return 0;
}

// b with a control queue at its place for @features.
static unsigned open_b(uint64_t features, const char *line)
{
    bool has_pairs = features & (B(MQ) | B(RSS));
    unsigned n_rings = has_pairs ? 9 : 3;
    net_end_open(&rig, &b,
                 &(struct net_end_config){
                     .features = features, .name = "b", .line = line, .n_rings = n_rings});
    net_end_post(&b, 0, 8, (uint32_t[]){2048}, 1);
    return n_rings - 1;
}

static void send_to(const uint8_t to[6], const uint8_t *tag)
{
    uint8_t data[12 + 64] = {0};
    memcpy(data + 12, to, 6);
    memcpy(data + 18, (uint8_t[]){2, 0, 0, 0, 0, 0xaa}, 6);
    if (tag)
        memcpy(data + 24, tag, 4);
    net_end_send(&a, 1, data, sizeof(data), NULL, 0);
    net_rig_run(&rig);
    net_end_reap(&a, 1);
}

static bool arrives(const uint8_t to[6], const uint8_t *tag)
{
    send_to(to, tag);
    return net_end_take(&b, 0, &taken);
}

static const uint8_t own[] = {2, 0, 0, 0, 0, 0xbb};
static const uint8_t other[] = {2, 0, 0, 0, 0, 0x77};
static const uint8_t group[] = {0x33, 0x33, 0, 0, 0, 1};
static const uint8_t all[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

// ---- bounds ------------------------------------------------------------------------------

// Row by row what a command is answered, with whole data in one piece and byte by byte.
static void commands_are_checked(void **state)
{
    (void)state;
    static const struct {
        uint8_t bytes[16];
        uint32_t n;
        uint8_t answer;
    } cases[] = {
        {{0}, 1, ERR},    // half a header
        {{0, 0}, 2, ERR}, // no value
        {{0, 0, 1}, 3, OK},
        {{0, 0, 2}, 3, ERR},
        {{0, 0, 1, 0}, 4, ERR}, // too long
        {{0, 5, 0}, 3, OK},
        {{0, 6, 0}, 3, ERR}, // unknown
        {{1, 1, 2, 0, 0, 0, 0, 1}, 8, OK},
        {{1, 1, 2, 0, 0, 0, 0}, 7, ERR},
        {{1, 1, 3, 0, 0, 0, 0, 1}, 8, ERR}, // a group's
        {{1, 1, 0, 0, 0, 0, 0, 0}, 8, ERR},
        {{1, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 10, OK},        // two empty tables
        {{1, 0, 0, 0, 0, 0}, 6, ERR},                    // the second one is missing
        {{1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 1}, 12, ERR}, // likewise
        {{1, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, 10, ERR},
        {{1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 11, ERR},
        {{1, 2}, 2, ERR},
        {{2, 0, 0xff, 0x0f}, 4, OK}, // VLAN 4095
        {{2, 0, 0x00, 0x10}, 4, ERR},
        {{2, 1, 0xff, 0xff}, 4, ERR},
        {{2, 0, 1}, 3, ERR},
        {{3, 0}, 2, OK},
        {{3, 0, 0}, 3, ERR},
        {{3, 1}, 2, ERR},
        {{4, 0, 1, 0}, 4, OK},
        {{4, 0, 4, 0}, 4, OK},
        {{4, 0, 5, 0}, 4, ERR},
        {{4, 0, 0, 0}, 4, ERR},
        {{4, 0, 0, 0x80}, 4, ERR},
        {{4, 0, 1}, 3, ERR},
        {{4, 3, 1, 0}, 4, ERR},
        {{5, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 10, OK},
        {{5, 0, 2, 0, 0, 0, 0, 0, 0, 0}, 10, ERR}, // GUEST_CSUM was not negotiated
        {{5, 0, 0}, 3, ERR},
        {{6, 0}, 2, ERR},
        {{0xff, 0xff, 0xff}, 3, ERR},
    };
    for (unsigned i = 0; i < 2; i++) {
        unsigned control = open_b(SEVERAL | (i ? PACKED : 0), "queues=4");
        for (unsigned c = 0; c < ARRAY_LEN(cases); c++) {
            for (uint32_t run = 1; run <= 16; run += 15) {
                uint8_t answer = net_end_command(&b, control, cases[c].bytes, cases[c].n, run);
                if (answer != cases[c].answer)
                    fail_msg("case %u, %u bytes at a time: %u", c, run, answer);
            }
        }
        net_end_close(&b);
    }
}

// A command is there only if its feature is.
static void commands_need_features(void **state)
{
    (void)state;
    static const struct {
        uint64_t feature;
        uint8_t bytes[10];
        uint32_t n;
    } cases[] = {
        {B(CTRL_RX), {0, 0, 1}, 3},
        {B(CTRL_RX_EXTRA), {0, 2, 1}, 3},
        {B(CTRL_RX), {1, 0}, 10},
        {B(CTRL_MAC_ADDR), {1, 1, 2, 0, 0, 0, 0, 1}, 8},
        {B(CTRL_VLAN), {2, 0, 7, 0}, 4},
        {B(GUEST_ANNOUNCE), {3, 0}, 2},
        {B(CTRL_GUEST_OFFLOADS), {5, 0}, 10},
    };
    for (unsigned c = 0; c < ARRAY_LEN(cases); c++) {
        for (unsigned has = 0; has < 2; has++) {
            unsigned control = open_b(has ? CONTROL : CONTROL & ~cases[c].feature, NULL);
            assert_int_equal(net_end_command(&b, control, cases[c].bytes, cases[c].n, 16),
                             has ? OK : ERR);
            net_end_close(&b);
        }
    }
}

// Chains without a byte to answer in, and those that DPDK once took (6ec17781).
static void a_command_without_an_answer_faults(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        unsigned control = open_b(CONTROL | (i ? PACKED : 0), NULL);
        struct driver_segment segment = {guest_addr(b.guest, b.send_area), 3};
        struct driver_chain chain = {.segments = &segment, .n_out = 1, .n_direct = 1}, *c = &chain;
        assert_int_equal(driver_add(b.rings[control].driver, &c, 1), 1);
        driver_publish(b.rings[control].driver);
        net_rig_run(&rig);
        assert_int_equal(b.rings[control].queue->ring.fault, RING_BAD_REQUEST);
        assert_true(arrives(own, NULL)); // the others go on
        net_end_close(&b);
    }
}

// Nothing but an answer: half a command.
static void an_answer_without_a_command(void **state)
{
    (void)state;
    unsigned control = open_b(CONTROL, NULL);
    struct driver_segment segment = {guest_addr(b.guest, b.answer), 1};
    struct driver_chain chain = {.segments = &segment, .n_in = 1, .n_direct = 1, .in_bytes = 1};
    struct driver_chain *c = &chain;
    struct driver_used used;
    struct error e;
    assert_int_equal(driver_add(b.rings[control].driver, &c, 1), 1);
    driver_publish(b.rings[control].driver);
    net_rig_run(&rig);
    assert_int_equal(driver_poll(b.rings[control].driver, &used, 1, &e), 1);
    assert_int_equal(used.len, 1);
    assert_int_equal(*b.answer, ERR);
}

// ---- filters -----------------------------------------------------------------------------

static void set_mode(unsigned control, uint8_t mode, uint8_t on)
{
    assert_int_equal(net_end_command(&b, control, (uint8_t[]){0, mode, on}, 3, 16), OK);
}

// 5.1.6.5.1: what arrives of our own address, another, a group's, everybody's.
static void modes_choose_frames(void **state)
{
    (void)state;
    static const struct {
        uint8_t modes[4];
        bool own, other, group, all;
    } cases[] = {
        {{0xff}, true, true, true, true}, // as it begins: promiscuous
        {{0x10, 0xff}, true, false, false, true},
        {{0x10, 0x11, 0xff}, true, false, true, true},
        {{0x10, 0x12, 0xff}, true, true, false, true},
        {{0x10, 0x11, 0x13, 0xff}, true, false, false, true},
        {{0x10, 0x12, 0x14, 0xff}, false, false, false, true},
        {{0x10, 0x15, 0xff}, true, false, false, false},
        {{0x14, 0x15, 0xff}, true, true, true, true}, // promiscuous goes first
    };
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        unsigned control = open_b(CONTROL, NULL);
        for (unsigned k = 0; k < 4 && cases[i].modes[k] != 0xff; k++) // 0x10: off
            set_mode(control, cases[i].modes[k] & 15, cases[i].modes[k] != 0x10);
        assert_int_equal(arrives(own, NULL), cases[i].own);
        assert_int_equal(arrives(other, NULL), cases[i].other);
        assert_int_equal(arrives(group, NULL), cases[i].group);
        assert_int_equal(arrives(all, NULL), cases[i].all);
        unsigned n = 4u - cases[i].own - cases[i].other - cases[i].group - cases[i].all;
        assert_int_equal(net_drops(&b, 0, DROP_FILTERED), n);
        net_end_close(&b);
    }
}

// @n addresses of each kind, of which the last ones are those above.
static uint32_t compose_table(uint8_t *out, uint32_t n)
{
    uint32_t bytes = 2;
    memcpy(out, (uint8_t[]){1, 0}, 2);
    for (unsigned kind = 0; kind < 2; kind++) {
        memcpy(out + bytes, &n, 4);
        bytes += 4;
        for (uint32_t i = 0; i < n; i++, bytes += 6) {
            const uint8_t filler[] = {kind ? 3 : 2, 9, 9, 9, (uint8_t)(i >> 8), (uint8_t)i};
            const uint8_t *last = kind ? group : other;
            memcpy(out + bytes, i + 1 == n ? last : filler, 6);
        }
    }
    return bytes;
}

static void tables_hold_addresses(void **state)
{
    (void)state;
    static uint8_t command[16384];
    unsigned control = open_b(CONTROL, NULL);
    set_mode(control, 0, 0);
    for (uint32_t n = 0; n <= 1200; n += n < 66 ? 1 : 567) {
        uint32_t bytes = compose_table(command, n);
        assert_int_equal(net_end_command(&b, control, command, bytes, 997), OK);
        assert_int_equal(arrives(other, NULL), n > 0);
        assert_int_equal(arrives(group, NULL), n > 0);
        // Beyond what the table holds everything of that kind is let through.
        assert_int_equal(arrives((uint8_t[]){2, 8, 8, 8, 8, 8}, NULL), n > 64);
        assert_int_equal(arrives((uint8_t[]){3, 8, 8, 8, 8, 8}, NULL), n > 64);
        // A refused table changes nothing.
        assert_int_equal(net_end_command(&b, control, command, bytes - 1, 997), ERR);
        assert_int_equal(arrives(other, NULL), n > 0);
    }
}

static void the_address_changes(void **state)
{
    (void)state;
    unsigned control = open_b(CONTROL, NULL);
    set_mode(control, 0, 0);
    assert_true(arrives(own, NULL));
    assert_int_equal(net_end_command(&b, control, (uint8_t[]){1, 1, 2, 0, 0, 0, 0, 0x77}, 8, 16),
                     OK);
    assert_false(arrives(own, NULL));
    assert_true(arrives(other, NULL));
}

static void vlans_are_listed(void **state)
{
    (void)state;
    static const uint8_t seven[] = {0x81, 0, 0xe0, 7}, eight[] = {0x81, 0, 0, 8};
    unsigned control = open_b(CONTROL, NULL);
    set_mode(control, 0, 0);
    assert_true(arrives(all, NULL)); // untagged
    assert_false(arrives(all, seven));
    assert_int_equal(net_end_command(&b, control, (uint8_t[]){2, 0, 7, 0}, 4, 16), OK);
    assert_true(arrives(all, seven));
    assert_false(arrives(all, eight));
    assert_int_equal(net_end_command(&b, control, (uint8_t[]){2, 1, 7, 0}, 4, 16), OK);
    assert_false(arrives(all, seven));
}

// The next driver finds nothing of what the one before it set; the same one goes on with it.
static void filters_live_as_long_as_the_driver(void **state)
{
    (void)state;
    unsigned control = open_b(CONTROL, NULL);
    set_mode(control, 0, 0);
    assert_false(arrives(other, NULL));
    for (unsigned i = 0; i < 3; i++)
        net_end_stop(&b, i);
    for (unsigned i = 0; i < 3; i++)
        net_end_start(&b, i, 0);
    assert_false(arrives(other, NULL));
    for (unsigned i = 0; i < 3; i++)
        net_end_stop(&b, i);
    driver_reset(b.rings[control].driver);
    for (unsigned i = 0; i < 3; i++)
        net_end_start(&b, i, 0);
    assert_true(arrives(other, NULL));
}

// ---- pairs -------------------------------------------------------------------------------

static unsigned n_receivers(void)
{
    return atomic_load(&port_of(b.rings[0].queue)->n_receivers);
}

static void set_pairs(unsigned control, uint8_t n)
{
    assert_int_equal(net_end_command(&b, control, (uint8_t[]){4, 0, n, 0}, 4, 16), OK);
}

// The first so many that the driver wants and that run.
static void pairs_are_used_as_wanted(void **state)
{
    (void)state;
    unsigned control = open_b(SEVERAL, "queues=4");
    assert_int_equal(control, 8);
    assert_int_equal(n_receivers(), 1);
    set_pairs(control, 3);
    assert_int_equal(n_receivers(), 3);
    net_end_stop(&b, 2);
    assert_int_equal(n_receivers(), 1);
    set_pairs(control, 4);
    assert_int_equal(n_receivers(), 1);
    net_end_start(&b, 2, 0);
    assert_int_equal(n_receivers(), 4);
    net_end_stop(&b, 0);
    assert_int_equal(n_receivers(), 0);
    net_end_start(&b, 0, 0);
    assert_int_equal(n_receivers(), 4);
}

// Without a control queue the front end says which run.
static void enabled_pairs_are_used(void **state)
{
    (void)state;
    net_end_open(&rig, &b,
                 &(struct net_end_config){
                     .features = V1 | B(MQ), .name = "b", .line = "queues=4", .n_rings = 8});
    assert_int_equal(n_receivers(), 4);
    net_end_stop(&b, 4);
    assert_int_equal(n_receivers(), 2);
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
    net_rig_run(&rig);
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
    unsigned control = open_b(SEVERAL, "queues=4");
    send_flow(&flows[0], 6, false);
    assert_true(net_end_take(&b, 0, &taken));
    assert_int_equal(taken.header.hash_report, VIRTIO_NET_HASH_REPORT_NONE);

    assert_int_equal(net_end_command(&b, control, command, compose_hash(command, 0x3f, 40), 16),
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
    assert_int_equal(net_end_command(&b, control, command, compose_hash(command, 0x40, 40), 16),
                     ERR);
    assert_int_equal(net_end_command(&b, control, command, compose_hash(command, 1, 41), 16), ERR);
    assert_int_equal(net_end_command(&b, control, command, compose_hash(command, 1, 40) - 1, 16),
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
    unsigned control = open_b(SEVERAL, "queues=4");
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        uint32_t n = compose_rss(command, &cases[i].s);
        uint8_t answer = net_end_command(&b, control, command, n, 97);
        if (answer != cases[i].answer)
            fail_msg("case %u: %u", i, answer);
        assert_int_equal(net_end_command(&b, control, command, n - 1, 97), ERR);
        assert_int_equal(net_end_command(&b, control, command, n + 1, 97), ERR);
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
    unsigned control = open_b(SEVERAL, "queues=4");
    for (unsigned i = 1; i < 4; i++)
        net_end_post(&b, 2 * i, 4, (uint32_t[]){2048}, 1);
    // Of the hash's low bit the first entry is queue 3's, the other one queue 1's.
    struct steering s = {0x3f, 1, 2, 3, 1, 4, 40};
    assert_int_equal(net_end_command(&b, control, command, compose_rss(command, &s), 97), OK);
    assert_int_equal(n_receivers(), 4);
    for (unsigned i = 0; i < ARRAY_LEN(flows); i++) {
        send_flow(&flows[i], 6, false);
        assert_int_equal(queue_that_got(), flows[i].of_ports & 1 ? 1 : 3);
        send_flow(&flows[i], 6, true);
        assert_int_equal(queue_that_got(), flows[i].of_addresses & 1 ? 1 : 3);
    }
    send_to(own, NULL); // no IP
    assert_int_equal(queue_that_got(), 2);
    set_pairs(control, 1); // back to one queue
    send_flow(&flows[0], 6, false);
    assert_int_equal(queue_that_got(), 0);
}

// ---- offloads ----------------------------------------------------------------------------

// What a driver switches off is done for it.
static void offloads_are_switched(void **state)
{
    (void)state;
    uint8_t command[10] = {5, 0};
    uint8_t data[12 + 64] = {1, 0, 0, 0, 0, 0, 14, 0, 0, 0};
    net_end_close(&a);
    net_end_open(&rig, &a, &(struct net_end_config){.features = V1 | B(CSUM)});
    unsigned control = open_b(CONTROL | B(GUEST_CSUM), NULL);
    memcpy(data + 12, own, 6);
    memcpy(data + 18, (uint8_t[]){2, 0, 0, 0, 0, 0xaa}, 6);
    for (unsigned on = 0; on < 3; on++) {
        uint64_t offloads = on & 1 ? 0 : B(GUEST_CSUM);
        memcpy(command + 2, &offloads, 8);
        assert_int_equal(net_end_command(&b, control, command, sizeof(command), 16), OK);
        net_end_send(&a, 1, data, sizeof(data), NULL, 0);
        net_rig_run(&rig);
        assert_true(net_end_take(&b, 0, &taken));
        assert_int_equal(taken.header.flags, on & 1 ? 0 : VIRTIO_NET_HDR_F_NEEDS_CSUM);
    }
}

// ---- announcing --------------------------------------------------------------------------

static uint16_t status_of_b(void)
{
    uint16_t status;
    port_device.config_read(b.device);
    memcpy(&status, b.device->config + offsetof(struct virtio_net_config, status), sizeof(status));
    return status;
}

// 5.1.6.5.4: a driver that goes on here after it was elsewhere.
static void a_driver_is_asked_to_announce(void **state)
{
    (void)state;
    unsigned control = open_b(CONTROL, NULL);
    assert_int_equal(status_of_b(), VIRTIO_NET_S_LINK_UP);
    assert_false(b.device->has_new_config);
    assert_int_equal(net_end_command(&b, control, (uint8_t[]){0, 0, 1}, 3, 16), OK);
    struct net_ring moved = b.rings[control];
    net_end_stop(&b, control);
    // Another daemon: a port that has never met this driver.
    struct device *first = b.device, *second;
    struct error e;
    check_ok(net_device(&rig, &second, "port c switch=s socket=/nowhere", &e), &e);
    b.rings[control].queue = &second->queues[control];
    b.device = second;
    net_end_start(&b, control, 0);
    assert_int_equal(status_of_b(), VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
    assert_true(b.device->has_new_config);
    assert_int_equal(net_end_command(&b, control, (uint8_t[]){3, 0}, 2, 16), OK);
    assert_int_equal(status_of_b(), VIRTIO_NET_S_LINK_UP);
    net_end_stop(&b, control);
    b.rings[control].queue = moved.queue;
    b.device = first;
    device_close(second);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(commands_are_checked),
        TEST(commands_need_features),
        TEST(a_command_without_an_answer_faults),
        TEST(an_answer_without_a_command),
        TEST(modes_choose_frames),
        TEST(tables_hold_addresses),
        TEST(the_address_changes),
        TEST(vlans_are_listed),
        TEST(filters_live_as_long_as_the_driver),
        TEST(pairs_are_used_as_wanted),
        TEST(enabled_pairs_are_used),
        TEST(hashes_are_reported),
        TEST(steering_is_checked),
        TEST(the_table_steers),
        TEST(offloads_are_switched),
        TEST(a_driver_is_asked_to_announce),
    };
    return cmocka_run_group_tests_name("net_control", tests, NULL, NULL);
}
