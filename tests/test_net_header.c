// SPDX-License-Identifier: Apache-2.0
// The virtio-net header as a hostile driver writes it, field by field, cut over descriptors, for
// every pair of feature sets: what is taken for a frame, and what another guest is told of it.
//
// The reference below knows two frames, one of TCP over IPv4 and one of UDP over IPv6, and says
// from VIRTIO 1.3, 5.1.6.2, which claims about them are true. It shares no code with the device.
#include "tests/net_rig.h"

#include <string.h>

#define V1        VIRTIO_BIT(VIRTIO_F_VERSION_1)
#define PACKED    VIRTIO_BIT(VIRTIO_F_RING_PACKED)
#define MERGEABLE VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF)
#define CSUM      VIRTIO_BIT(VIRTIO_NET_F_CSUM)
#define HOST                                                                                       \
    (CSUM | VIRTIO_BIT(VIRTIO_NET_F_HOST_TSO4) | VIRTIO_BIT(VIRTIO_NET_F_HOST_TSO6) |              \
     VIRTIO_BIT(VIRTIO_NET_F_HOST_ECN) | VIRTIO_BIT(VIRTIO_NET_F_HOST_UFO) |                       \
     VIRTIO_BIT(VIRTIO_NET_F_HOST_USO))
#define GUEST_CSUM VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM)
#define GUEST                                                                                      \
    (GUEST_CSUM | VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO4) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO6) |      \
     VIRTIO_BIT(VIRTIO_NET_F_GUEST_ECN) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_UFO) |                     \
     VIRTIO_BIT(VIRTIO_NET_F_GUEST_USO4) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_USO6))

#define PAYLOAD 1000

static struct net_rig rig;
static struct net_end a, b;
static struct net_taken taken;

// ---- two frames --------------------------------------------------------------------------

struct sample {
    uint8_t bytes[1100];
    uint32_t n, l3, l4, payload; // offsets
    uint16_t csum_offset;
    uint8_t gso_type; // of segments of it
    unsigned feature, guest_feature;
    bool is_tcp, is_ipv6;
};

static struct sample samples[2];

static void put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static uint32_t get16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t sum(const uint8_t *p, uint32_t n, uint32_t start)
{
    for (uint32_t i = 0; i < n; i++)
        start += i % 2 ? p[i] : (uint32_t)p[i] << 8;
    while (start >> 16)
        start = (start & 0xffff) + (start >> 16);
    return start;
}

// Of the pseudo header of an IP packet at @ip whose layer 4 has @n bytes.
static uint32_t pseudo_sum(const uint8_t *ip, uint32_t n)
{
    bool is_ipv6 = ip[0] >> 4 == 6;
    return sum(ip + (is_ipv6 ? 8 : 12), is_ipv6 ? 32 : 8, (is_ipv6 ? ip[6] : ip[9]) + n);
}

// The checksum field holds what a driver leaves there: the pseudo header's sum.
static void make_samples(void)
{
    static const uint8_t ethernet[] = {2, 0, 0, 0, 0, 0xbb, 2, 0, 0, 0, 0, 0xaa};
    struct sample *t = &samples[0], *u = &samples[1];
    *t = (struct sample){.l3 = 14,
                         .l4 = 34,
                         .payload = 54,
                         .csum_offset = 16,
                         .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
                         .feature = VIRTIO_NET_F_HOST_TSO4,
                         .guest_feature = VIRTIO_NET_F_GUEST_TSO4,
                         .is_tcp = true};
    *u = (struct sample){.l3 = 14,
                         .l4 = 54,
                         .payload = 62,
                         .csum_offset = 6,
                         .gso_type = VIRTIO_NET_HDR_GSO_UDP_L4,
                         .feature = VIRTIO_NET_F_HOST_USO,
                         .guest_feature = VIRTIO_NET_F_GUEST_USO6,
                         .is_ipv6 = true};
    for (unsigned i = 0; i < 2; i++) {
        struct sample *s = &samples[i];
        s->n = s->payload + PAYLOAD;
        memcpy(s->bytes, ethernet, sizeof(ethernet));
        for (uint32_t k = s->payload; k < s->n; k++)
            s->bytes[k] = (uint8_t)(k * 5 + k / 200);
    }
    uint8_t *ip = t->bytes + 14;
    put16(t->bytes + 12, 0x0800);
    memcpy(ip, (uint8_t[]){0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, 6}, 10);
    put16(ip + 2, 20 + 20 + PAYLOAD);
    memcpy(ip + 12, (uint8_t[]){10, 0, 0, 1, 10, 0, 0, 2}, 8);
    put16(ip + 10, ~sum(ip, 20, 0));
    memcpy(ip + 20, (uint8_t[]){0x12, 0x34, 0, 80, 0, 0, 0, 100, 0, 0, 0, 0, 0x50, 0x10}, 14);
    put16(ip + 20 + 16, pseudo_sum(ip, 20 + PAYLOAD));

    ip = u->bytes + 14;
    put16(u->bytes + 12, 0x86dd);
    memcpy(ip, (uint8_t[]){0x60, 0, 0, 0, 0, 0, 17, 64, 0xfd}, 9);
    put16(ip + 4, 8 + PAYLOAD);
    ip[23] = 1;
    ip[24] = 0xfd;
    ip[39] = 2;
    memcpy(ip + 40, (uint8_t[]){0x12, 0x34, 0, 53}, 4);
    put16(ip + 44, 8 + PAYLOAD);
    put16(ip + 46, pseudo_sum(ip, 8 + PAYLOAD));
}

// ---- the reference -----------------------------------------------------------------------

enum verdict {
    BAD,
    PLAIN,
    SUMMED,    // its checksum is owed
    SEGMENTED, // likewise, and segmentation
};

static enum verdict judge(const struct sample *s, const struct virtio_net_hdr *h, uint64_t features)
{
    bool needs_csum = h->flags & 1;
    unsigned type = h->gso_type & 0x7f;
    if (!needs_csum && h->gso_type == 0)
        return PLAIN; // the other fields say nothing
    if (!needs_csum || !(features & CSUM))
        return BAD; // segments need a checksum
    uint32_t field = (uint32_t)h->csum_start + h->csum_offset;
    if (h->csum_start < 14 || field + 2 > s->n || field + 2 > 192)
        return BAD;
    if (h->gso_type == 0)
        return SUMMED;
    bool has_ecn = h->gso_type & 0x80;
    if (has_ecn && (!s->is_tcp || !(features & VIRTIO_BIT(VIRTIO_NET_F_HOST_ECN))))
        return BAD;
    if (h->csum_start != s->l4 || h->csum_offset != s->csum_offset)
        return BAD;
    if (type == s->gso_type && features & VIRTIO_BIT(s->feature) && h->gso_size)
        return h->gso_size >= PAYLOAD ? SUMMED : SEGMENTED;
    bool is_ufo = type == VIRTIO_NET_HDR_GSO_UDP && !s->is_tcp &&
                  features & VIRTIO_BIT(VIRTIO_NET_F_HOST_UFO);
    if (is_ufo && h->gso_size)
        return h->gso_size >= 8 + PAYLOAD ? SUMMED : SEGMENTED;
    return BAD;
}

static void check_taken(const struct virtio_net_hdr *expected, const uint8_t *frame, uint32_t n)
{
    assert_int_equal(taken.header.flags, expected->flags);
    assert_int_equal(taken.header.gso_type, expected->gso_type);
    assert_int_equal(taken.header.gso_size, expected->gso_size);
    assert_int_equal(taken.header.csum_start, expected->csum_start);
    assert_int_equal(taken.header.csum_offset, expected->csum_offset);
    assert_int_equal(taken.header.hdr_len, expected->hdr_len);
    assert_int_equal(taken.header.num_buffers, taken.n_buffers);
    assert_int_equal(taken.bytes, n);
    assert_memory_equal(taken.frame, frame, n);
}

// The frame whose checksum at @field over everything from @start on is complete.
static void check_summed(const struct sample *s, uint32_t start, uint32_t field)
{
    static uint8_t frame[sizeof(s->bytes)];
    memcpy(frame, s->bytes, s->n);
    uint32_t value = ~sum(frame + start, s->n - start, 0) & 0xffff;
    put16(frame + field, value ? value : 0xffff);
    check_taken(&(struct virtio_net_hdr){0}, frame, s->n);
}

// Plain frames that together hold the payload, each with a good checksum.
static bool is_summed(const uint8_t *ip, uint32_t n)
{
    const uint8_t *l4 = ip + (ip[0] >> 4 == 6 ? 40 : 20);
    uint32_t missing = taken.header.flags & 1; // the receiver's to do: the pseudo header's is there
    uint32_t pseudo = pseudo_sum(ip, n);
    uint32_t field = taken.header.csum_offset;
    return missing ? get16(l4 + field) == pseudo : sum(l4, n, pseudo) == 0xffff;
}

static void check_segments(const struct sample *s, uint32_t size)
{
    uint32_t done = 0;
    for (;;) {
        const uint8_t *ip = taken.frame + s->l3;
        uint32_t n = taken.bytes - s->payload, l4_bytes = taken.bytes - s->l4;
        assert_int_equal(n, MIN(size, PAYLOAD - done));
        assert_int_equal(taken.header.gso_type, 0);
        assert_memory_equal(taken.frame + s->payload, s->bytes + s->payload + done, n);
        assert_int_equal(get16(ip + (s->is_ipv6 ? 4 : 2)), s->is_ipv6 ? l4_bytes : l4_bytes + 20);
        if (!s->is_ipv6)
            assert_int_equal(sum(ip, 20, 0), 0xffff);
        assert_int_equal(taken.header.flags, b.features & GUEST_CSUM ? 1 : 0);
        assert_true(is_summed(ip, l4_bytes));
        done += n;
        if (done == PAYLOAD)
            return;
        assert_true(net_end_take(&b, 0, &taken));
    }
}

// Fragments are test_offload.c's; here only that there are as many as there should be.
static void check_fragments(uint32_t size)
{
    for (uint32_t n = (8 + PAYLOAD + size - 1) / size; n > 0; n--) {
        assert_int_equal(taken.header.flags, 0);
        assert_int_equal(taken.header.gso_type, 0);
        if (n > 1)
            assert_true(net_end_take(&b, 0, &taken));
    }
}

static void check_verdict(const struct sample *s, const struct virtio_net_hdr *h,
                          enum verdict verdict)
{
    uint64_t wants = b.features;
    bool is_ufo = h->gso_type == VIRTIO_NET_HDR_GSO_UDP;
    uint16_t size = is_ufo ? h->gso_size & 0xfff8 : h->gso_size;
    unsigned guest_feature = is_ufo ? VIRTIO_NET_F_GUEST_UFO : s->guest_feature;
    bool is_ecn_missed = h->gso_type & 0x80 && !(wants & VIRTIO_BIT(VIRTIO_NET_F_GUEST_ECN));
    struct virtio_net_hdr summed = {
        .flags = 1, .csum_start = h->csum_start, .csum_offset = h->csum_offset};
    assert_true(net_end_take(&b, 0, &taken));
    if (verdict == PLAIN) {
        check_taken(&(struct virtio_net_hdr){0}, s->bytes, s->n);
    } else if (verdict == SUMMED && wants & GUEST_CSUM) {
        check_taken(&summed, s->bytes, s->n);
    } else if (verdict == SUMMED) {
        check_summed(s, h->csum_start, (uint32_t)h->csum_start + h->csum_offset);
    } else if (wants & VIRTIO_BIT(guest_feature) && !is_ecn_missed) {
        summed.gso_type = h->gso_type;
        summed.gso_size = size;
        summed.hdr_len = (uint16_t)s->payload; // not the driver's word
        check_taken(&summed, s->bytes, s->n);
    } else if (is_ufo) {
        check_fragments(size);
    } else {
        check_segments(s, size);
    }
}

// ---- the sweep ---------------------------------------------------------------------------

static const uint8_t flags[] = {0, 1, 2, 3, 4, 0xff};
static const uint8_t gso_types[] = {0, 1, 2, 3, 4, 5, 6, 0x7f, 0x80, 0x81, 0x85, 0xff};
static const uint16_t starts[] = {0, 13, 14, 34, 54, 190, 1060, 65535};
static const uint16_t offsets[] = {0, 6, 16, 156, 157, 65535};
static const uint16_t sizes[] = {0, 17, 536, 999, 1000, 1008, 65535};

static const struct {
    uint32_t sizes[5];
    unsigned n;
} cuts[] = {
    {{0}, 0},          {{12}, 1},          {{5, 7, 14}, 3},      {{1, 9, 2, 20, 14}, 5},
    {{12, 14, 20}, 3}, {{46, 8, 8, 1}, 4}, {{13, 40, 1, 60}, 4},
};

static void send_one(const struct sample *s, const struct virtio_net_hdr *h, unsigned n)
{
    static uint8_t data[1200];
    memcpy(data, h, 12);
    memcpy(data + 12, s->bytes, s->n);
    net_end_send(&a, 1, data, 12 + s->n, cuts[n % ARRAY_LEN(cuts)].sizes,
                 cuts[n % ARRAY_LEN(cuts)].n);
    net_rig_run(&rig);
    assert_int_equal(net_end_reap(&a, 1), 1);
}

static void sweep_one(const struct sample *s, const struct virtio_net_hdr *h, unsigned n)
{
    static const char *const names[] = {"bad", "plain", "summed", "segmented"};
    uint64_t n_bad = net_drops(&a, 1, DROP_BAD_HEADER);
    enum verdict verdict = judge(s, h, a.features);
    send_one(s, h, n);
    bool is_bad = net_drops(&a, 1, DROP_BAD_HEADER) > n_bad;
    if (is_bad != (verdict == BAD))
        fail_msg("flags 0x%x gso_type 0x%x csum %u+%u gso_size %u should be %s", h->flags,
                 h->gso_type, h->csum_start, h->csum_offset, h->gso_size, names[verdict]);
    if (!is_bad)
        check_verdict(s, h, verdict);
    assert_false(net_end_take(&b, 0, &taken));
}

static void sweep(const struct sample *s)
{
    unsigned n = 0;
    for (unsigned f = 0; f < ARRAY_LEN(flags); f++) {
        for (unsigned g = 0; g < ARRAY_LEN(gso_types); g++) {
            for (unsigned k = 0; k < ARRAY_LEN(starts) * ARRAY_LEN(offsets); k++) {
                for (unsigned z = 0; z < ARRAY_LEN(sizes); z++) {
                    struct virtio_net_hdr h = {
                        .flags = flags[f],
                        .gso_type = gso_types[g],
                        .hdr_len = n % 3 ? (uint16_t)(n % 3 == 1 ? 0 : 65535) : 54,
                        .gso_size = sizes[z],
                        .csum_start = starts[k % ARRAY_LEN(starts)],
                        .csum_offset = offsets[k / ARRAY_LEN(starts)],
                        .num_buffers = (uint16_t)(n % 5),
                    };
                    // Size counts only with segments: thin out the rest.
                    if (h.gso_type == 0 && z)
                        continue;
                    sweep_one(s, &h, n++);
                }
            }
        }
    }
}

static void headers_are_judged(void **state)
{
    (void)state;
    static const struct {
        uint64_t sender, receiver;
        unsigned sample;
    } cases[] = {
        {V1 | HOST, V1 | GUEST, 0},
        {V1 | HOST, V1, 0},
        {V1 | HOST | PACKED, V1 | MERGEABLE | GUEST_CSUM, 0},
        {V1 | CSUM, V1 | PACKED | MERGEABLE | GUEST, 0},
        {V1 | PACKED, V1 | MERGEABLE, 0},
        {V1 | HOST | PACKED, V1 | PACKED | MERGEABLE | GUEST, 1},
        {V1 | HOST, V1 | PACKED, 1},
        {V1 | CSUM, V1, 1},
    };
    make_samples();
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        net_rig_open(&rig);
        net_end_open(&rig, &a, &(struct net_end_config){.features = cases[i].sender});
        net_end_open(&rig, &b,
                     &(struct net_end_config){.features = cases[i].receiver, .name = "b"});
        net_end_post(&b, 0, NET_BUFFERS, (uint32_t[]){1200}, 1);
        sweep(&samples[cases[i].sample]);
        net_end_close(&a);
        net_end_close(&b);
        net_rig_close(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_are_judged),
    };
    return cmocka_run_group_tests_name("net_header", tests, NULL, NULL);
}
