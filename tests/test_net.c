// SPDX-License-Identifier: Apache-2.0
// Frames between two guests: what is copied where, what is dropped and why, what comes back.
#include "tests/net_rig.h"

#include <stdio.h>
#include <string.h>

#define V1        VIRTIO_BIT(VIRTIO_F_VERSION_1)
#define PACKED    VIRTIO_BIT(VIRTIO_F_RING_PACKED)
#define IN_ORDER  VIRTIO_BIT(VIRTIO_F_IN_ORDER)
#define EVENT_IDX VIRTIO_BIT(VIRTIO_F_EVENT_IDX)
#define INDIRECT  VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC)
#define MERGEABLE VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF)
#define HASH      VIRTIO_BIT(VIRTIO_NET_F_HASH_REPORT)

static struct net_end a, b;
static struct net_taken taken;

// Header zeros, then a frame of @bytes to @to from @from, each byte of the rest its own.
static uint32_t compose(uint8_t *out, const struct net_end *end, uint8_t to, uint8_t from,
                        uint32_t bytes)
{
    memset(out, 0, end->header_bytes);
    uint8_t *frame = out + end->header_bytes;
    memcpy(frame, (uint8_t[]){2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 0x88, 0xb5}, 14);
    for (uint32_t i = 14; i < bytes; i++)
        frame[i] = (uint8_t)(i * 7 + i / 251);
    return end->header_bytes + bytes;
}

static void open_pair(const struct net_end_config *config)
{
    struct net_end_config other = *config;
    other.name = "b";
    net_end_open(&net_rig, &a, config);
    net_end_open(&net_rig, &b, &other);
}

// ---- every way to lay a frame out --------------------------------------------------------

static const struct {
    const char *name;
    uint64_t features;
    bool is_indirect;
} modes[] = {
    {"split", V1, false},
    {"split mergeable", V1 | MERGEABLE, false},
    {"split indirect, events", V1 | MERGEABLE | INDIRECT | EVENT_IDX, true},
    {"split in order", V1 | IN_ORDER, false},
    {"split legacy", 0, false},
    {"split legacy mergeable", MERGEABLE, false},
    {"split with hashes", V1 | MERGEABLE | HASH, false},
    {"packed", V1 | PACKED, false},
    {"packed mergeable", V1 | PACKED | MERGEABLE, false},
    {"packed indirect, events", V1 | PACKED | MERGEABLE | INDIRECT | EVENT_IDX, true},
    {"packed in order", V1 | PACKED | IN_ORDER | MERGEABLE, false},
    {"packed with hashes", V1 | PACKED | HASH, false},
};

static const struct {
    uint32_t sizes[4];
    unsigned n;
} cuts[] = {
    {{0}, 0},      {{10}, 1}, {{12}, 1},     {{1, 1, 1, 1}, 4}, {{5, 7}, 2},        {{12, 6, 8}, 3},
    {{20, 14}, 2}, {{26}, 1}, {{13, 13}, 2}, {{11, 2, 40}, 3},  {{32, 1, 1, 1}, 4}, {{34, 3}, 2},
};

static void check_frame(const uint8_t *sent, const struct net_end *from, uint32_t bytes)
{
    assert_int_equal(taken.bytes, bytes);
    assert_memory_equal(taken.frame, sent + from->header_bytes, bytes);
    assert_int_equal(taken.header.flags, 0);
    assert_int_equal(taken.header.gso_type, 0);
    uint32_t total = 0;
    for (unsigned i = 0; i < taken.n_buffers; i++)
        total += taken.used[i];
    assert_int_equal(total, bytes + b.header_bytes);
    if (b.header_bytes >= 12)
        assert_int_equal(taken.header.num_buffers, taken.n_buffers);
}

// Sender and receiver differ in their rings; frames of many lengths, cut anywhere.
static void frames_cross_in_every_shape(void **state)
{
    (void)state;
    static const uint32_t lengths[] = {14, 15, 59, 60, 64, 65, 128, 256, 1000, 1514};
    static const struct {
        uint32_t sizes[3];
        unsigned n;
    } buffers[] = {{{2048}, 1}, {{12, 1600}, 2}, {{5, 11, 1600}, 3}, {{30, 1, 1600}, 3}};
    static uint8_t data[NET_FRAME_MAX];
    for (unsigned m = 0; m < ARRAY_LEN(modes); m++) {
        for (unsigned k = 0; k < ARRAY_LEN(buffers); k++) {
            unsigned other = (m * 5 + k) % ARRAY_LEN(modes);
            net_end_open(&net_rig, &a,
                         &(struct net_end_config){.features = modes[m].features,
                                                  .is_indirect = modes[m].is_indirect});
            net_end_open(&net_rig, &b,
                         &(struct net_end_config){.features = modes[other].features,
                                                  .is_indirect = modes[other].is_indirect,
                                                  .name = "b"});
            net_end_post(&b, 0, 8, buffers[k].sizes, buffers[k].n);
            for (unsigned c = 0; c < ARRAY_LEN(cuts); c++) {
                for (unsigned l = 0; l < ARRAY_LEN(lengths); l++) {
                    uint32_t bytes = compose(data, &a, 0xbb, 0xaa, lengths[l]);
                    net_end_send(&a, 1, data, bytes, cuts[c].sizes, cuts[c].n);
                    net_rig_run(&net_rig);
                    assert_int_equal(net_end_reap(&a, 1), 1);
                    if (!net_end_take(&b, 0, &taken))
                        fail_msg("%s to %s: nothing came", modes[m].name, modes[other].name);
                    check_frame(data, &a, lengths[l]);
                    assert_false(net_end_take(&b, 0, &taken));
                }
            }
            assert_int_equal(counter_read(&net_stats(&a, 1)->n_frames),
                             ARRAY_LEN(cuts) * ARRAY_LEN(lengths));
            assert_int_equal(counter_read(&net_stats(&b, 0)->n_frames),
                             ARRAY_LEN(cuts) * ARRAY_LEN(lengths));
            net_end_close(&a);
            net_end_close(&b);
        }
    }
}

// A large frame over many buffers, each used whole but the last; the rest of the ring stays.
static void frames_are_merged(void **state)
{
    (void)state;
    static uint8_t data[NET_FRAME_MAX];
    static const uint32_t sizes[] = {100, 28};
    for (unsigned packed = 0; packed < 2; packed++) {
        open_pair(&(struct net_end_config){.features = V1 | MERGEABLE | (packed ? PACKED : 0),
                                           .ring_size = 256});
        net_end_post(&b, 0, 60, sizes, 2);
        static const uint32_t lengths[] = {116, 117, 244, 1500, 128 * 60 - 12, 60};
        for (unsigned i = 0; i < ARRAY_LEN(lengths); i++) {
            uint32_t bytes = compose(data, &a, 0xbb, 0xaa, lengths[i]);
            net_end_send(&a, 1, data, bytes, NULL, 0);
            net_rig_run(&net_rig);
            assert_true(net_end_take(&b, 0, &taken));
            check_frame(data, &a, lengths[i]);
            assert_int_equal(taken.n_buffers, (lengths[i] + 12 + 127) / 128);
            for (unsigned k = 0; k + 1 < taken.n_buffers; k++)
                assert_int_equal(taken.used[k], 128);
        }
        net_end_send(&a, 1, data, compose(data, &a, 0xbb, 0xaa, 128 * 60 - 11), NULL, 0);
        net_rig_run(&net_rig);
        assert_false(net_end_take(&b, 0, &taken)); // one byte more than there is room
        assert_int_equal(net_drops(&b, 0, DROP_TOO_SMALL), 1);
        net_end_send(&a, 1, data, compose(data, &a, 0xbb, 0xaa, 100), NULL, 0);
        net_rig_run(&net_rig);
        assert_true(net_end_take(&b, 0, &taken)); // it took no buffer with it
        assert_int_equal(b.rings[0].queue->ring.n_in_flight, 0);
        net_end_close(&a);
        net_end_close(&b);
    }
}

// ---- what goes nowhere -------------------------------------------------------------------

static void send_frame(struct net_end *end, uint8_t to, uint8_t from, uint32_t bytes)
{
    static uint8_t data[NET_FRAME_MAX];
    net_end_send(end, 1, data, compose(data, end, to, from, bytes), NULL, 0);
}

// Of each kind one: counted by name where it happened, and its chain comes back.
static void drops_have_names(void **state)
{
    (void)state;
    static const struct {
        uint32_t bytes;        // of the frame
        const char *line;      // of both ends
        enum drop reason;      // at the sender, or
        enum drop at_receiver; // there
        uint32_t buffer;       // what b posts, once; 0: nothing
    } cases[] = {
        {0, NULL, DROP_RUNT, DROP_NONE, 2048},
        {13, NULL, DROP_RUNT, DROP_NONE, 2048},
        {14, NULL, DROP_NONE, DROP_NONE, 26},
        {14, NULL, DROP_NONE, DROP_TOO_SMALL, 25},
        {60, NULL, DROP_NONE, DROP_NO_BUFFER, 0},
        {1500, NULL, DROP_NONE, DROP_TOO_SMALL, 1511},
        {65562, NULL, DROP_NONE, DROP_NONE, 65562 + 12},
        {65563, NULL, DROP_GIANT, DROP_NONE, 65562 + 13},
        {1514, "mtu=1500", DROP_NONE, DROP_NONE, 2048},
        {1515, "mtu=1500", DROP_GIANT, DROP_NONE, 2048},
    };
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        open_pair(&(struct net_end_config){.features = V1, .line = cases[i].line});
        if (cases[i].buffer)
            net_end_post(&b, 0, 1, &cases[i].buffer, 1);
        send_frame(&a, 0xbb, 0xaa, cases[i].bytes);
        net_rig_run(&net_rig);
        assert_int_equal(net_end_reap(&a, 1), 1);
        bool is_dropped = cases[i].reason || cases[i].at_receiver;
        assert_int_equal(net_end_take(&b, 0, &taken), !is_dropped);
        for (unsigned d = DROP_NONE + 1; d < DROPS; d++) {
            assert_int_equal(net_drops(&a, 1, (enum drop)d), d == cases[i].reason);
            assert_int_equal(net_drops(&b, 0, (enum drop)d), d == cases[i].at_receiver);
        }
        assert_int_equal(a.rings[1].queue->ring.fault, 0);
        assert_int_equal(b.rings[0].queue->ring.fault, 0);
        net_end_close(&a);
        net_end_close(&b);
    }
}

// The receiver's limit counts as well: here the sender has none.
static void receivers_mtu_is_kept(void **state)
{
    (void)state;
    net_end_open(&net_rig, &a, &(struct net_end_config){.features = V1});
    net_end_open(&net_rig, &b,
                 &(struct net_end_config){.features = V1, .name = "b", .line = "mtu=1500"});
    net_end_post(&b, 0, 4, (uint32_t[]){2048}, 1);
    send_frame(&a, 0xbb, 0xaa, 1514);
    send_frame(&a, 0xbb, 0xaa, 1515);
    net_rig_run(&net_rig);
    assert_true(net_end_take(&b, 0, &taken));
    assert_false(net_end_take(&b, 0, &taken));
    assert_int_equal(net_drops(&b, 0, DROP_MTU), 1);
}

// Offer one descriptor of the wrong direction.
static void offer_wrong(struct net_end *end, unsigned ring, bool also_right)
{
    static struct driver_segment segments[2];
    static struct driver_chain chain;
    for (unsigned i = 0; i < 2; i++)
        segments[i] = (struct driver_segment){guest_addr(end->guest, end->send_area), 100};
    bool wants_out = ring == 1;
    chain = (struct driver_chain){.segments = segments};
    chain.n_out = !wants_out || also_right;
    chain.n_in = wants_out || also_right;
    chain.n_direct = (uint16_t)(chain.n_out + chain.n_in);
    chain.in_bytes = 100u * chain.n_in;
    struct driver_chain *one = &chain;
    assert_int_equal(driver_add(end->rings[ring].driver, &one, 1), 1);
    driver_publish(end->rings[ring].driver);
}

// 5.1.6.2, 5.1.6.3: buffers of the wrong direction stop that queue and nothing else.
static void wrong_directions_fault(void **state)
{
    (void)state;
    for (unsigned also_right = 0; also_right < 2; also_right++) {
        open_pair(&(struct net_end_config){.features = V1});
        offer_wrong(&a, 1, also_right);
        net_rig_run(&net_rig);
        assert_int_equal(a.rings[1].queue->ring.fault, RING_BAD_REQUEST);
        assert_int_equal(a.rings[1].queue->ring.n_in_flight, 0);
        net_end_post(&a, 0, 1, (uint32_t[]){2048}, 1);
        offer_wrong(&b, 0, also_right);
        send_frame(&b, 0xaa, 0xbb, 60); // b still sends, a still receives
        net_rig_run(&net_rig);
        assert_true(net_end_take(&a, 0, &taken));
        net_end_close(&a);
        net_end_open(&net_rig, &a, &(struct net_end_config){.features = V1});
        send_frame(&a, 0xbb, 0xaa, 60);
        send_frame(&a, 0xbb, 0xaa, 60);
        net_rig_run(&net_rig);
        assert_int_equal(b.rings[0].queue->ring.fault, RING_BAD_REQUEST);
        assert_int_equal(net_drops(&b, 0, DROP_FAULT), 2);
        assert_int_equal(net_end_reap(&a, 1), 2);
        net_end_close(&a);
        net_end_close(&b);
    }
}

// A hundred thousand bad frames between good ones: nothing is lost of what frames are made with.
static void bad_frames_leak_nothing(void **state)
{
    (void)state;
    static uint8_t data[NET_FRAME_MAX];
    static const uint32_t buffer[] = {128};
    open_pair(&(struct net_end_config){.features = V1});
    net_end_post(&b, 0, 4, buffer, 1);
    for (unsigned i = 0; i < 100000; i++) {
        uint32_t bytes = compose(data, &a, i % 5 == 4 ? 0xaa : 0xbb, 0xaa, 200);
        if (i % 5 == 0)
            bytes = i % 26; // cut short anywhere
        else if (i % 5 == 1)
            data[0] = VIRTIO_NET_HDR_F_NEEDS_CSUM; // not negotiated
        else if (i % 5 == 2)
            data[1] = (uint8_t)(1 + i % 255);
        else if (i % 1000 == 3)
            bytes = 60; // a good one
        net_end_send(&a, 1, data, MAX(bytes, 1), NULL, 0);
        if (i % 32 == 31) {
            net_rig_run(&net_rig);
            net_end_reap(&a, 1);
            while (net_end_take(&b, 0, &taken))
                ;
        }
    }
    net_rig_run(&net_rig);
    net_end_reap(&a, 1);
    assert_int_equal(net_drops(&a, 1, DROP_RUNT), 20000);
    assert_int_equal(net_drops(&a, 1, DROP_BAD_HEADER), 40000);
    assert_int_equal(net_drops(&a, 1, DROP_SAME_PORT), 20000);
    assert_int_equal(net_drops(&b, 0, DROP_TOO_SMALL), 19900);
    assert_int_equal(counter_read(&net_stats(&b, 0)->n_frames), 100);
    assert_int_equal(driver_n_in_flight(a.rings[1].driver), 0);
    assert_int_equal(driver_n_in_flight(b.rings[0].driver), 4);
}

// ---- between workers ---------------------------------------------------------------------

// The receiver's worker copies later than the sender's looked the address up. What the sender
// writes meanwhile changes neither addresses nor tag.
static void addresses_are_those_looked_up(void **state)
{
    (void)state;
    static uint8_t data[NET_FRAME_MAX];
    for (unsigned tagged = 0; tagged < 2; tagged++) {
        net_end_open(&net_rig, &a, &(struct net_end_config){.features = V1});
        net_end_open(&net_rig, &b,
                     &(struct net_end_config){.features = V1, .name = "b", .lane = 1});
        net_end_post(&b, 0, 4, (uint32_t[]){2048}, 1);
        uint32_t bytes = compose(data, &a, 0xbb, 0xaa, 64);
        uint32_t n_fixed = 14;
        if (tagged) {
            memcpy(data + 12 + 12, (uint8_t[]){0x81, 0, 0x60, 7, 0x88, 0xb5}, 6);
            n_fixed = 18;
        }
        net_end_send(&a, 1, data, bytes, NULL, 0);
        port_device.poll(a.rings[1].queue, 32);
        assert_false(port_device.settle(a.rings[1].queue)); // on its way
        memset(a.send_area, 0xff, bytes);
        net_rig_run(&net_rig);
        assert_true(port_device.settle(a.rings[1].queue));
        assert_true(net_end_take(&b, 0, &taken));
        assert_int_equal(taken.bytes, 64);
        assert_memory_equal(taken.frame, data + 12, n_fixed);
        assert_int_equal(taken.frame[n_fixed], 0xff); // what nobody decided by is the sender's
        assert_int_equal(net_end_reap(&a, 1), 1);
        net_end_close(&a);
        net_end_close(&b);
    }
}

// More frames are under way than there are to be had: the rest waits in its ring.
static void frames_run_out(void **state)
{
    (void)state;
    net_end_open(
        &net_rig, &a,
        &(struct net_end_config){.features = V1, .ring_size = 2048, .memory = UINT64_C(32) << 20});
    net_end_open(&net_rig, &b, &(struct net_end_config){.features = V1, .name = "b", .lane = 1});
    net_end_post(&b, 0, 8, (uint32_t[]){2048}, 1);
    for (unsigned i = 0; i < 1500; i++)
        send_frame(&a, 0xbb, 0xaa, 60);
    unsigned n = 0, popped;
    while ((popped = port_device.poll(a.rings[1].queue, 32)))
        n += popped;
    assert_int_equal(n, 1024);
    net_rig_run(&net_rig);
    unsigned n_back = 0;
    for (unsigned i = 0; i < 1500; i++)
        n_back += net_end_reap(&a, 1);
    assert_int_equal(n_back, 1500);
    uint64_t n_dropped = net_drops(&b, 0, DROP_NO_BUFFER) + net_drops(&a, 1, DROP_CHANNEL_FULL);
    assert_int_equal(n_dropped, 1500 - 8);
}

// ---- from uplinks ------------------------------------------------------------------------

static unsigned n_freed;

static void count_freed(struct frame *f)
{
    (void)f;
    n_freed++;
}

// An uplink checked the checksum: told to who understands it, with and without a tag.
static void good_checksums_are_told(void **state)
{
    (void)state;
    static const uint64_t features[] = {V1, V1 | VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM)};
    for (unsigned i = 0; i < 4; i++) {
        open_pair(&(struct net_end_config){.features = features[i % 2]});
        net_end_post(&b, 0, 2, (uint32_t[]){2048}, 1);
        struct queue *to = b.rings[0].queue;
        struct frame f = {.bytes = 60,
                          .n_head = 60,
                          .is_csum_good = true,
                          .vlan = (uint16_t)(i / 2),
                          .home = a.rings[1].queue,
                          .n_holders = 1,
                          .free = count_freed},
                     *frames = &f;
        n_freed = 0;
        port_of(to)->type->deliver(to, &frames, 1);
        net_rig_run(&net_rig);
        assert_int_equal(n_freed, 1);
        assert_true(net_end_take(&b, 0, &taken));
        assert_int_equal(taken.header.flags, i % 2 ? VIRTIO_NET_HDR_F_DATA_VALID : 0);
        assert_int_equal(taken.bytes, 60 + 4 * (i / 2));
        net_end_close(&a);
        net_end_close(&b);
    }
}

// ---- tags --------------------------------------------------------------------------------

static const uint8_t tag[] = {0x81, 0x00, 0xa0, 0x07}; // priority 5, VLAN 7

// From and to ports with and without vlan=7.
static void tags_are_cut_and_put_back(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
        bool is_sent_tagged, is_tagged;
        enum drop reason;
    } cases[] = {
        {NULL, NULL, false, false, DROP_NONE},         {NULL, NULL, true, true, DROP_NONE},
        {"vlan=7", NULL, false, true, DROP_NONE},      {NULL, "vlan=7", true, false, DROP_NONE},
        {"vlan=7", "vlan=7", false, false, DROP_NONE}, {"vlan=7", NULL, true, false, DROP_BAD_VLAN},
    };
    static uint8_t data[NET_FRAME_MAX];
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        net_end_open(&net_rig, &a, &(struct net_end_config){.features = V1, .line = cases[i].from});
        net_end_open(&net_rig, &b,
                     &(struct net_end_config){.features = V1, .line = cases[i].to, .name = "b"});
        net_end_post(&b, 0, 2, (uint32_t[]){2048}, 1);
        uint32_t bytes = compose(data, &a, 0xff, 0xaa, 100);
        memset(data + 12, 0xff, 6);
        if (cases[i].is_sent_tagged) {
            memmove(data + 12 + 16, data + 12 + 12, 88);
            memcpy(data + 12 + 12, tag, 4);
            bytes += 4;
        }
        net_end_send(&a, 1, data, bytes, (uint32_t[]){27}, 1);
        net_rig_run(&net_rig);
        assert_int_equal(net_end_take(&b, 0, &taken), !cases[i].reason);
        assert_int_equal(net_drops(&a, 1, DROP_BAD_VLAN), !!cases[i].reason);
        if (!cases[i].reason) {
            const uint8_t *rest = data + 12 + (cases[i].is_sent_tagged ? 16 : 12);
            const uint8_t added[] = {0x81, 0, cases[i].is_sent_tagged ? 0xa0 : 0, 7};
            assert_int_equal(taken.bytes, 100 + 4 * cases[i].is_tagged);
            assert_memory_equal(taken.frame, data + 12, 12);
            if (cases[i].is_tagged)
                assert_memory_equal(taken.frame + 12, added, 4);
            assert_memory_equal(taken.frame + 12 + 4 * cases[i].is_tagged, rest, 88);
        }
        net_end_close(&a);
        net_end_close(&b);
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, net_rig_setup, net_rig_teardown)
    const struct CMUnitTest tests[] = {
        TEST(frames_cross_in_every_shape),
        TEST(frames_are_merged),
        TEST(drops_have_names),
        TEST(receivers_mtu_is_kept),
        TEST(wrong_directions_fault),
        TEST(bad_frames_leak_nothing),
        TEST(addresses_are_those_looked_up),
        TEST(frames_run_out),
        TEST(good_checksums_are_told),
        TEST(tags_are_cut_and_put_back),
    };
    return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
