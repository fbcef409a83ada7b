// SPDX-License-Identifier: Apache-2.0
#include "devices/checksum.h"
#include "devices/offload.h"

#include "tests/check.h"
#include "tests/packet_rig.h"

#include <stdlib.h>
#include <string.h>

#define ALL                                                                                        \
    (OFFLOAD_CSUM | OFFLOAD_TSO4 | OFFLOAD_TSO6 | OFFLOAD_ECN | OFFLOAD_UFO | OFFLOAD_USO4 |       \
     OFFLOAD_USO6)

static struct packet packet;
static uint8_t joined[PACKET_BYTES_MAX]; // what the pieces bring
static uint8_t piece_bytes[PACKET_BYTES_MAX];

// ---- the checksum ------------------------------------------------------------------------

static void test_checksum_in_all_pieces(void **state)
{
    (void)state;
    uint8_t data[80];
    for (unsigned i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(255 - i * i);
    for (unsigned n = 0; n <= sizeof(data); n++) {
        for (unsigned a = 0; a <= n; a++) {
            for (unsigned b = a; b <= n; b++) {
                struct checksum c = {0};
                checksum_add(&c, data, a);
                checksum_add(&c, data + a, b - a);
                checksum_add(&c, data + b, n - b);
                assert_int_equal(checksum_sum(&c), packet_sum(data, n, 0));
            }
        }
    }
}

static void test_checksum_of_much(void **state)
{
    (void)state;
    memset(joined, 0xff, 65535);
    struct checksum c = {0};
    for (unsigned i = 0; i < 1000; i++)
        checksum_add(&c, joined, 65535);
    assert_int_equal(checksum_sum(&c), 0xffff);
    assert_int_equal(checksum_field(&c), 0xffff); // and not 0, which is none in UDP
    struct checksum none = {0};
    assert_int_equal(checksum_sum(&none), 0);
    assert_int_equal(checksum_field(&none), 0xffff);
}

// ---- who takes what ----------------------------------------------------------------------

static void test_features(void **state)
{
    (void)state;
    uint64_t tso4 = VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO4);
    uint64_t csum = VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM);
    assert_int_equal(offload_of_guest(0), 0);
    assert_int_equal(offload_of_guest(tso4), 0); // 5.1.3.1
    assert_int_equal(offload_of_guest(csum), OFFLOAD_CSUM);
    assert_int_equal(offload_of_guest(tso4 | csum), OFFLOAD_CSUM | OFFLOAD_TSO4);
    assert_int_equal(
        offload_of_guest(VIRTIO_BIT(VIRTIO_NET_F_CSUM) | VIRTIO_BIT(VIRTIO_NET_F_HOST_TSO4)), 0);
    assert_int_equal(offload_of_guest(UINT64_MAX), ALL);
}

static void parse(struct frame *f, struct iovec *iov, unsigned n)
{
    assert_int_equal(frame_parse(f, iov, n, 0, &packet.hdr), DROP_NONE);
}

static void test_taken(void **state)
{
    (void)state;
    static const unsigned own[] = {
        [FRAME_GSO_NONE] = OFFLOAD_CSUM, [FRAME_GSO_TCP4] = OFFLOAD_TSO4,
        [FRAME_GSO_TCP6] = OFFLOAD_TSO6, [FRAME_GSO_UDP] = OFFLOAD_UFO,
        [FRAME_GSO_USO4] = OFFLOAD_USO4, [FRAME_GSO_USO6] = OFFLOAD_USO6,
    };
    for (unsigned i = 0; i < n_packet_specs; i++) {
        packet_make(&packet, &packet_specs[i]);
        struct frame f;
        parse(&f, &(struct iovec){packet.bytes, packet.n_bytes}, 1);
        unsigned needs = OFFLOAD_CSUM | own[f.gso] | (f.has_ecn ? OFFLOAD_ECN : 0);
        for (unsigned offloads = 0; offloads <= ALL; offloads++) {
            assert_int_equal(offload_is_taken(&f, offloads), (offloads & needs) == needs);
            if ((offloads & needs) == needs)
                assert_int_equal(offload_count(&f, offloads), 1);
        }
        packet.hdr = (struct virtio_net_hdr){0};
        parse(&f, &(struct iovec){packet.bytes, packet.n_bytes}, 1);
        assert_true(offload_is_taken(&f, 0));
    }
}

// ---- pieces, against what a packet must be -------------------------------------------------

struct totals {
    unsigned n;
    uint32_t payload; // bytes so far, from where the pieces cut
    uint32_t fragment_id;
    bool is_last_seen;
};

static void check_tcp(const struct packet_view *v, const struct packet_spec *s, struct totals *t,
                      bool is_last)
{
    uint8_t flags = s->flags | 0x10;
    if (t->n)
        flags &= 0x7f;
    if (!is_last)
        flags &= 0xf6;
    assert_int_equal(v->flags, flags);
    assert_int_equal(v->sequence, 0xfffff000u + t->payload);
}

static void check_piece(const struct packet_spec *s, const uint8_t *bytes, uint32_t n_bytes,
                        bool is_begun, struct totals *t)
{
    const struct packet_view v = packet_read(bytes, n_bytes, is_begun);
    bool is_ufo = s->gso_type == VIRTIO_NET_HDR_GSO_UDP;
    uint32_t whole = packet.n_bytes - (is_ufo ? packet.l4 : packet.payload);
    uint32_t size = s->gso_type == 0 ? whole : is_ufo ? s->gso_size / 8 * 8 : s->gso_size;
    uint32_t here = n_bytes - v.payload;
    bool is_last = t->payload + here == whole;

    assert_memory_equal(bytes, packet.bytes, 12);
    assert_int_equal(v.proto, s->is_udp ? 17 : 6);
    assert_int_equal(here, is_last ? whole - t->payload : size);
    assert_int_equal(v.is_fragment, is_ufo);
    if (!s->is_v6)
        assert_int_equal(v.ipv4_id, (uint16_t)(0xfffe + (is_ufo ? 0 : t->n)));
    if (is_ufo) {
        assert_int_equal(v.has_more, !is_last);
        assert_int_equal(v.fragment_at, t->payload);
        assert_true(t->n == 0 || v.fragment_id == t->fragment_id);
        t->fragment_id = v.fragment_id;
    } else if (!s->is_udp) {
        check_tcp(&v, s, t, is_last);
    }
    memcpy(joined + t->payload, bytes + v.payload, here);
    t->payload += here;
    t->is_last_seen = is_last;
    t->n++;
}

// The payload is the original's; of fragments the transport as a whole is right.
static void check_joined(const struct packet_spec *s, const struct totals *t)
{
    bool is_ufo = s->gso_type == VIRTIO_NET_HDR_GSO_UDP;
    assert_true(t->is_last_seen);
    assert_memory_equal(joined + (is_ufo ? 8 : 0), packet.bytes + packet.payload, s->payload);
    if (!is_ufo)
        return;
    uint32_t shift = packet.l3 - 14;
    struct packet_view v = {.is_v6 = s->is_v6, .proto = 17, .l4 = packet.l4 - shift};
    uint16_t pseudo = packet_pseudo(packet.bytes + shift, packet.n_bytes - shift, &v);
    assert_int_equal(packet_sum(joined, t->payload, pseudo), 0xffff);
}

static uint32_t join(const struct frame *f, const struct segment *p)
{
    memcpy(piece_bytes, p->head, p->n_head);
    frame_copy(f, p->offset, piece_bytes + p->n_head, p->bytes);
    return p->n_head + p->bytes;
}

static void check_pieces(const struct packet_spec *s, const struct frame *f, unsigned offloads)
{
    struct segmenter segmenter;
    struct segment piece;
    struct totals t = {0};
    bool is_ufo = s->gso_type == VIRTIO_NET_HDR_GSO_UDP;
    offload_begin(&segmenter, f, offloads);
    while (offload_next(&segmenter, &piece)) {
        assert_int_equal(piece.needs_csum, !is_ufo && (offloads & OFFLOAD_CSUM));
        uint32_t n_bytes = join(f, &piece);
        check_piece(s, piece_bytes, n_bytes, piece.needs_csum, &t);
    }
    check_joined(s, &t);
    assert_int_equal(t.n, offload_count(f, offloads));
    assert_false(offload_next(&segmenter, &piece));
}

static void test_pieces_of_everything(void **state)
{
    (void)state;
    for (unsigned i = 0; i < n_packet_specs; i++) {
        const struct packet_spec *s = &packet_specs[i];
        packet_make(&packet, s);
        struct frame f;
        parse(&f, &(struct iovec){packet.bytes, packet.n_bytes}, 1);
        check_pieces(s, &f, 0);
        check_pieces(s, &f, OFFLOAD_CSUM);
    }
}

// The payload cut into descriptors of odd and even sizes; headers on their own or not.
static void test_pieces_over_descriptors(void **state)
{
    (void)state;
    static const uint32_t steps[] = {1, 2, 7, 64, 251, 1448, 4096};
    for (unsigned i = 0; i < n_packet_specs; i++) {
        const struct packet_spec *s = &packet_specs[i];
        packet_make(&packet, s);
        for (unsigned j = 0; j < ARRAY_LEN(steps); j++) {
            uint32_t cuts[300];
            unsigned n_cuts = 0;
            uint32_t at = j % 2 ? packet.payload : 9;
            for (; at < packet.n_bytes && n_cuts < ARRAY_LEN(cuts); at += steps[j])
                cuts[n_cuts++] = at;
            struct iovec iov[ARRAY_LEN(cuts) + 1];
            unsigned n = packet_cut(iov, packet.bytes, packet.n_bytes, cuts, n_cuts);
            struct frame f;
            parse(&f, iov, n);
            check_pieces(s, &f, j % 2 ? OFFLOAD_CSUM : 0);
            packet_uncut(iov, n);
        }
    }
}

// Each size of payload from 1 byte over a piece's to four pieces, and each small gso_size.
static void test_sizes(void **state)
{
    (void)state;
    for (unsigned i = 0; i < n_packet_specs; i++) {
        struct packet_spec s = packet_specs[i];
        if (!s.gso_type)
            continue;
        s.gso_size = 16;
        for (s.payload = 17; s.payload < 80; s.payload++) {
            packet_make(&packet, &s);
            struct frame f;
            parse(&f, &(struct iovec){packet.bytes, packet.n_bytes}, 1);
            check_pieces(&s, &f, 0);
        }
        for (s.gso_size = 8; s.gso_size < 79; s.gso_size++) {
            packet_make(&packet, &s);
            struct frame f;
            parse(&f, &(struct iovec){packet.bytes, packet.n_bytes}, 1);
            check_pieces(&s, &f, OFFLOAD_CSUM);
        }
    }
}

// Two datagrams in fragments are told apart.
static void test_fragment_ids_differ(void **state)
{
    (void)state;
    struct packet_spec s = {"", 1, 1, VIRTIO_NET_HDR_GSO_UDP, 0, 512, 0, 0, 0, 1000};
    packet_make(&packet, &s);
    struct frame f;
    parse(&f, &(struct iovec){packet.bytes, packet.n_bytes}, 1);
    uint32_t ids[2];
    for (unsigned i = 0; i < 2; i++) {
        struct segmenter segmenter;
        struct segment piece;
        offload_begin(&segmenter, &f, 0);
        assert_true(offload_next(&segmenter, &piece));
        ids[i] = packet_read(piece_bytes, join(&f, &piece), false).fragment_id;
        for (uint64_t since = cycles_now(); cycles_now() - since < 4096;)
            cpu_relax();
    }
    assert_int_not_equal(ids[0], ids[1]);
}

// A checksum that may not become 0: in UDP that says "none".
static void test_checksum_is_never_zero(void **state)
{
    (void)state;
    struct packet_spec s = {"", 0, 1, 0, 0, 0, 0, 0, 0, 2};
    packet_make(&packet, &s);
    // The payload that makes everything before it sum up to ffff.
    uint8_t *payload = packet.bytes + packet.payload;
    memset(payload, 0, 2);
    uint16_t rest = (uint16_t)~packet_sum(packet.bytes + packet.l4, 10, 0);
    payload[0] = (uint8_t)(rest >> 8);
    payload[1] = (uint8_t)rest;
    struct frame f;
    parse(&f, &(struct iovec){packet.bytes, packet.n_bytes}, 1);
    check_pieces(&s, &f, 0);
    struct segmenter segmenter;
    struct segment piece;
    offload_begin(&segmenter, &f, 0);
    assert_true(offload_next(&segmenter, &piece));
    assert_memory_equal(piece.head + packet.l4 + 6, ((uint8_t[]){0xff, 0xff}), 2);
}

// ---- anything at all ---------------------------------------------------------------------

#define FUZZ_ROUNDS 20000

static uint64_t seed;

static uint32_t random_below(uint32_t n)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)((seed >> 33) % n);
}

// A good packet with some bytes, header fields and lengths overwritten.
static void make_anything(void)
{
    struct packet_spec s = packet_specs[random_below(n_packet_specs)];
    s.payload = random_below(4) ? random_below(3000) : random_below(65000);
    s.gso_size = (uint16_t)random_below(random_below(2) ? 64 : 65536);
    packet_make(&packet, &s);
    for (unsigned n = random_below(4); n; n--)
        packet.bytes[random_below(packet.payload)] = (uint8_t)random_below(256);
    for (unsigned n = random_below(3); n; n--)
        ((uint8_t *)&packet.hdr)[random_below(10)] = (uint8_t)random_below(256);
    if (random_below(4) == 0)
        packet.n_bytes = random_below(packet.n_bytes + 1);
}

static void check_anything(const struct frame *f, unsigned offloads)
{
    struct segmenter segmenter;
    struct segment piece;
    unsigned n = 0, n_expected = offload_count(f, offloads);
    uint64_t bytes = 0;
    offload_begin(&segmenter, f, offloads);
    while (offload_next(&segmenter, &piece)) {
        assert_true(piece.n_head >= FRAME_BYTES_MIN && piece.n_head <= FRAME_HEAD_MAX);
        assert_true(piece.offset + (uint64_t)piece.bytes <= f->bytes);
        assert_in_range(join(f, &piece), FRAME_BYTES_MIN, FRAME_BYTES_MAX);
        bytes += piece.bytes;
        n++;
    }
    uint32_t head = f->gso ? f->n_l4_head : f->n_head;
    assert_int_equal(bytes, f->bytes - head);
    if (!offload_is_taken(f, offloads))
        assert_int_equal(n, n_expected);
}

static void test_anything(void **state)
{
    (void)state;
    unsigned n_good = 0;
    seed = 1;
    for (unsigned i = 0; i < FUZZ_ROUNDS; i++) {
        make_anything();
        uint32_t cuts[8];
        cuts[0] = random_below(30);
        for (unsigned j = 1; j < ARRAY_LEN(cuts); j++)
            cuts[j] = cuts[j - 1] + random_below(random_below(2) ? 12 : 2000);
        struct iovec iov[ARRAY_LEN(cuts) + 1];
        unsigned n = packet_cut(iov, packet.bytes, packet.n_bytes, cuts, ARRAY_LEN(cuts));
        struct frame f;
        memset(&f, 0xa5, sizeof(f));
        if (frame_parse(&f, iov, n, random_below(3), &packet.hdr) == DROP_NONE) {
            n_good++;
            frame_hash(&f);
            check_anything(&f, f.gso ? random_below(2) : 0);
        }
        packet_uncut(iov, n);
    }
    assert_in_range(n_good, FUZZ_ROUNDS / 10, FUZZ_ROUNDS - FUZZ_ROUNDS / 10); // both kinds
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checksum_in_all_pieces),
        cmocka_unit_test(test_checksum_of_much),
        cmocka_unit_test(test_features),
        cmocka_unit_test(test_taken),
        cmocka_unit_test(test_pieces_of_everything),
        cmocka_unit_test(test_pieces_over_descriptors),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_fragment_ids_differ),
        cmocka_unit_test(test_checksum_is_never_zero),
        cmocka_unit_test(test_anything),
    };
    return cmocka_run_group_tests_name("offload", tests, NULL, NULL);
}
