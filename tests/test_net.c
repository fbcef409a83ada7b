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

static struct net_rig rig;
static struct net_end a, b;
static struct net_taken taken;

static int setup(void **state)
{
    (void)state;
    net_rig_open(&rig);
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
    net_end_open(&rig, &a, config);
    net_end_open(&rig, &b, &other);
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
            net_end_open(&rig, &a,
                         &(struct net_end_config){.features = modes[m].features,
                                                  .is_indirect = modes[m].is_indirect});
            net_end_open(&rig, &b,
                         &(struct net_end_config){.features = modes[other].features,
                                                  .is_indirect = modes[other].is_indirect,
                                                  .name = "b"});
            net_end_post(&b, 0, 8, buffers[k].sizes, buffers[k].n);
            for (unsigned c = 0; c < ARRAY_LEN(cuts); c++) {
                for (unsigned l = 0; l < ARRAY_LEN(lengths); l++) {
                    uint32_t bytes = compose(data, &a, 0xbb, 0xaa, lengths[l]);
                    net_end_send(&a, 1, data, bytes, cuts[c].sizes, cuts[c].n);
                    net_rig_run(&rig);
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
            net_rig_run(&rig);
            assert_true(net_end_take(&b, 0, &taken));
            check_frame(data, &a, lengths[i]);
            assert_int_equal(taken.n_buffers, (lengths[i] + 12 + 127) / 128);
            for (unsigned k = 0; k + 1 < taken.n_buffers; k++)
                assert_int_equal(taken.used[k], 128);
        }
        net_end_send(&a, 1, data, compose(data, &a, 0xbb, 0xaa, 128 * 60 - 11), NULL, 0);
        net_rig_run(&rig);
        assert_false(net_end_take(&b, 0, &taken)); // one byte more than there is room
        assert_int_equal(net_drops(&b, 0, DROP_TOO_SMALL), 1);
        net_end_send(&a, 1, data, compose(data, &a, 0xbb, 0xaa, 100), NULL, 0);
        net_rig_run(&rig);
        assert_true(net_end_take(&b, 0, &taken)); // it took no buffer with it
        assert_int_equal(b.rings[0].queue->ring.n_in_flight, 0);
        net_end_close(&a);
        net_end_close(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(frames_cross_in_every_shape, setup, teardown),
        cmocka_unit_test_setup_teardown(frames_are_merged, setup, teardown),
    };
    return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
