// SPDX-License-Identifier: Apache-2.0
// The control queue: each command, its bounds, and what frames do afterwards. Hashes and steering
// are in test_net_hash.c.
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

static struct net_end a, b;
static struct net_taken taken;

static int setup(void **state)
{
    net_rig_setup(state);
    net_end_open(&net_rig, &a, &(struct net_end_config){.features = V1});
    return 0;
}

// b with a control queue at its place for @features.
static unsigned open_b(uint64_t features, const char *line)
{
    bool has_pairs = features & (B(MQ) | B(RSS));
    unsigned n_rings = has_pairs ? 9 : 3;
    net_end_open(&net_rig, &b,
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
    net_rig_run(&net_rig);
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
        net_rig_run(&net_rig);
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
    net_rig_run(&net_rig);
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

// A number of addresses that wraps around when it is multiplied by their length.
static void tables_do_not_wrap(void **state)
{
    (void)state;
    uint8_t command[2 + 4 + 64 * 6 + 4] = {1, 0, 64, 0, 0, 0x80};
    unsigned control = open_b(CONTROL, NULL);
    assert_int_equal(net_end_command(&b, control, command, sizeof(command), 997), ERR);
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
    net_end_open(&net_rig, &b,
                 &(struct net_end_config){
                     .features = V1 | B(MQ), .name = "b", .line = "queues=4", .n_rings = 8});
    assert_int_equal(n_receivers(), 4);
    net_end_stop(&b, 4);
    assert_int_equal(n_receivers(), 2);
}

// 5.1.2: without MQ and RSS it is behind the first pair, however many there could be.
static void the_control_queue_has_its_place(void **state)
{
    (void)state;
    net_end_open(&net_rig, &b,
                 &(struct net_end_config){
                     .features = CONTROL, .name = "b", .line = "queues=4", .n_rings = 3});
    set_mode(2, 0, 1);
}

// ---- offloads ----------------------------------------------------------------------------

// What a driver switches off is done for it.
static void offloads_are_switched(void **state)
{
    (void)state;
    uint8_t command[10] = {5, 0};
    uint8_t data[12 + 64] = {1, 0, 0, 0, 0, 0, 14, 0, 0, 0};
    net_end_close(&a);
    net_end_open(&net_rig, &a, &(struct net_end_config){.features = V1 | B(CSUM)});
    unsigned control = open_b(CONTROL | B(GUEST_CSUM), NULL);
    memcpy(data + 12, own, 6);
    memcpy(data + 18, (uint8_t[]){2, 0, 0, 0, 0, 0xaa}, 6);
    for (unsigned on = 0; on < 3; on++) {
        uint64_t offloads = on & 1 ? 0 : B(GUEST_CSUM);
        memcpy(command + 2, &offloads, 8);
        assert_int_equal(net_end_command(&b, control, command, sizeof(command), 16), OK);
        net_end_send(&a, 1, data, sizeof(data), NULL, 0);
        net_rig_run(&net_rig);
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
    check_ok(net_device(&net_rig, &second, "port c switch=s socket=/nowhere", &e), &e);
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
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, net_rig_teardown)
    const struct CMUnitTest tests[] = {
        TEST(commands_are_checked),
        TEST(commands_need_features),
        TEST(a_command_without_an_answer_faults),
        TEST(an_answer_without_a_command),
        TEST(modes_choose_frames),
        TEST(tables_hold_addresses),
        TEST(tables_do_not_wrap),
        TEST(the_address_changes),
        TEST(vlans_are_listed),
        TEST(filters_live_as_long_as_the_driver),
        TEST(pairs_are_used_as_wanted),
        TEST(enabled_pairs_are_used),
        TEST(the_control_queue_has_its_place),
        TEST(offloads_are_switched),
        TEST(a_driver_is_asked_to_announce),
    };
    return cmocka_run_group_tests_name("net_control", tests, NULL, NULL);
}
