// SPDX-License-Identifier: Apache-2.0
#include "devices/frame.h"

#include "tests/check.h"
#include "tests/packet_rig.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define CUTS_MAX 256

static struct packet packet;

static enum drop parse_cut(struct frame *f, struct iovec *iov, const uint32_t *cuts,
                           unsigned n_cuts, unsigned *n)
{
    *n = packet_cut(iov, packet.bytes, packet.n_bytes, cuts, n_cuts);
    memset(f, 0xa5, sizeof(*f));
    return frame_parse(f, iov, *n, 0, &packet.hdr);
}

// ---- plain frames ------------------------------------------------------------------------

static void check_bytes(const struct frame *f, uint32_t tag_bytes)
{
    uint8_t got[PACKET_BYTES_MAX];
    assert_int_equal(f->bytes, packet.n_bytes - tag_bytes);
    frame_copy(f, 0, got, f->bytes);
    assert_memory_equal(got, packet.bytes, 12);
    assert_memory_equal(got + 12, packet.bytes + 12 + tag_bytes, f->bytes - 12);
    for (uint32_t at = 0; at <= f->bytes; at += 7) {
        frame_copy(f, at, got, f->bytes - at);
        uint32_t from = at < 12 ? 12 - at : 0;
        assert_memory_equal(got + from, packet.bytes + tag_bytes + at + from, f->bytes - at - from);
    }
}

static void test_plain_frames_in_all_cuts(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {14, 15, 18, 19, 40, 64};
    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        for (unsigned is_tagged = 0; is_tagged < 2; is_tagged++) {
            uint32_t tag_bytes = is_tagged ? 4 : 0;
            packet_make_plain(&packet, sizes[i] + tag_bytes, is_tagged ? 0x7123 : 0);
            for (uint32_t first = 1; first < packet.n_bytes; first++) {
                for (uint32_t second = first; second < packet.n_bytes; second++) {
                    struct frame f;
                    struct iovec iov[3];
                    unsigned n;
                    assert_int_equal(parse_cut(&f, iov, (uint32_t[]){first, second}, 2, &n),
                                     DROP_NONE);
                    assert_int_equal(f.vlan, is_tagged ? 0x6123 : 0); // without the DEI
                    assert_int_equal(f.n_head, 14);
                    assert_int_equal(f.l3, 0);
                    assert_false(f.needs_csum || f.gso || f.has_ecn || f.is_csum_good);
                    check_bytes(&f, tag_bytes);
                    packet_uncut(iov, n);
                }
            }
        }
    }
}

static void test_skipped_bytes(void **state)
{
    (void)state;
    packet_make_plain(&packet, 80, 0);
    for (uint32_t skip = 0; skip <= 66; skip++) {
        for (uint32_t cut = 1; cut < 80; cut++) {
            struct iovec iov[2];
            unsigned n = packet_cut(iov, packet.bytes, 80, &cut, 1);
            struct frame f;
            uint8_t got[80];
            assert_int_equal(frame_parse(&f, iov, n, skip, NULL), DROP_NONE);
            assert_int_equal(f.bytes, 80 - skip);
            frame_copy(&f, 0, got, f.bytes);
            assert_memory_equal(got, packet.bytes + skip, f.bytes);
            packet_uncut(iov, n);
        }
    }
}

static void test_lengths(void **state)
{
    (void)state;
    static const struct {
        uint32_t bytes;
        uint16_t tag;
        enum drop want;
    } cases[] = {
        {0, 0, DROP_RUNT},
        {13, 0, DROP_RUNT},
        {14, 0, DROP_NONE},
        {17, 9, DROP_RUNT},
        {18, 9, DROP_NONE},
        {FRAME_BYTES_MAX, 0, DROP_NONE},
        {FRAME_BYTES_MAX + 1, 0, DROP_GIANT},
        {FRAME_BYTES_MAX + 4, 9, DROP_NONE},
        {FRAME_BYTES_MAX + 5, 9, DROP_GIANT},
    };
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        packet_make_plain(&packet, cases[i].bytes, cases[i].tag);
        packet.n_bytes = cases[i].bytes;
        struct frame f;
        struct iovec iov[1];
        unsigned n;
        assert_int_equal(parse_cut(&f, iov, NULL, 0, &n), cases[i].want);
        packet_uncut(iov, n);
    }
    struct frame f;
    struct iovec whole = {packet.bytes, 20};
    assert_int_equal(frame_parse(&f, &whole, 1, 21, NULL), DROP_RUNT);
    assert_int_equal(frame_parse(&f, &whole, 1, UINT32_MAX, NULL), DROP_RUNT);
    assert_int_equal(frame_parse(&f, &whole, 0, 0, NULL), DROP_RUNT);
}

static void test_tags(void **state)
{
    (void)state;
    struct frame f;
    struct iovec iov = {packet.bytes, 64};
    packet_make_plain(&packet, 64, 0xf000); // a priority and the DEI, no VLAN
    assert_int_equal(frame_parse(&f, &iov, 1, 0, NULL), DROP_NONE);
    assert_int_equal(f.vlan, 0xe000);
    memcpy(packet.bytes + 14, (uint8_t[]){0, 0, 8, 0}, 4); // a tag that says nothing, then IPv4
    assert_int_equal(frame_parse(&f, &iov, 1, 0, NULL), DROP_NONE);
    assert_int_equal(f.vlan, 0);
    assert_int_equal(f.l3, 14);
    assert_int_equal(f.bytes, 60);
    // One tag is taken off; the next is in the head, for the switch to see.
    memcpy(packet.bytes + 14, (uint8_t[]){0, 5, 0x81, 0, 0, 6, 8, 0}, 8);
    assert_int_equal(frame_parse(&f, &iov, 1, 0, NULL), DROP_NONE);
    assert_int_equal(f.vlan, 5);
    assert_int_equal(f.l3, 0);
    assert_memory_equal(f.head + 12, ((uint8_t[]){0x81, 0}), 2);
}

// A plain frame's bytes behind Ethernet are not looked at: here they cannot be.
static void test_plain_frames_are_not_read_further(void **state)
{
    (void)state;
    uint8_t *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(pages, MAP_FAILED);
    assert_int_equal(mprotect(pages + 4096, 4096, PROT_NONE), 0);
    struct virtio_net_hdr hdr = {.hdr_len = 60, .csum_start = 34, .csum_offset = 16};
    static const uint8_t tagged[] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0, 0, 7, 8, 0};
    for (unsigned is_tagged = 0; is_tagged < 2; is_tagged++) {
        uint32_t n_bytes = is_tagged ? 18 : 14;
        uint8_t *at = pages + 4096 - n_bytes;
        memcpy(at, tagged, 12);
        memcpy(at + 12, is_tagged ? tagged + 12 : tagged + 16, n_bytes - 12);
        struct frame f;
        struct iovec iov = {at, 60};
        assert_int_equal(frame_parse(&f, &iov, 1, 0, &hdr), DROP_NONE);
        assert_int_equal(f.l3, 14);
        assert_int_equal(f.vlan, is_tagged ? 7 : 0);
    }
    munmap(pages, 8192);
}

// ---- what senders ask for ----------------------------------------------------------------

static void check_claims(const struct frame *f, const struct packet_spec *s)
{
    static const uint8_t kinds[6][2] = {
        [1] = {FRAME_GSO_TCP4, 0},
        [3] = {FRAME_GSO_UDP, FRAME_GSO_UDP},
        [4] = {0, FRAME_GSO_TCP6},
        [5] = {FRAME_GSO_USO4, FRAME_GSO_USO6},
    };
    uint32_t tag_bytes = s->tag ? 4 : 0;
    assert_true(f->needs_csum);
    assert_int_equal(f->l3, 14);
    assert_int_equal(f->vlan, s->tag & 0xefff);
    assert_int_equal(f->csum_start, packet.l4 - tag_bytes);
    assert_int_equal(f->csum_offset, s->is_udp ? 6 : 16);
    assert_int_equal(f->gso, kinds[s->gso_type & 0x7f][s->is_v6]);
    assert_int_equal(f->has_ecn, s->gso_type >> 7);
    assert_int_equal(f->bytes, packet.n_bytes - tag_bytes);
    if (f->gso) {
        bool is_ufo = f->gso == FRAME_GSO_UDP;
        assert_int_equal(f->gso_size, is_ufo ? s->gso_size / 8 * 8 : s->gso_size);
        assert_int_equal(f->n_l4_head, packet.payload - tag_bytes);
        assert_true(f->n_head >= f->n_l4_head);
    }
}

// Row 9: headers over any descriptors. One cut anywhere, single bytes, and a few together.
static void test_headers_in_all_cuts(void **state)
{
    (void)state;
    for (unsigned i = 0; i < n_packet_specs; i++) {
        packet_make(&packet, &packet_specs[i]);
        for (uint32_t at = 0; at <= packet.payload + 1; at++) {
            uint32_t cuts[CUTS_MAX] = {at, at + 1, at + 8};
            unsigned n, n_cuts = 3;
            for (; at == 0 && n_cuts < packet.payload + 3; n_cuts++)
                cuts[n_cuts] = n_cuts;
            struct frame f;
            struct iovec iov[CUTS_MAX];
            enum drop got = parse_cut(&f, iov, cuts, n_cuts, &n);
            if (got)
                fail_msg("%s cut at %u: %s", packet_specs[i].name, at, drop_name(got));
            check_claims(&f, &packet_specs[i]);
            if (at % 16 == 0)
                check_bytes(&f, packet_specs[i].tag ? 4 : 0);
            packet_uncut(iov, n);
        }
    }
}

// Whatever the sender writes after it was looked at, receivers get what was looked at.
static void test_headers_are_read_once(void **state)
{
    (void)state;
    for (unsigned i = 0; i < n_packet_specs; i++) {
        packet_make(&packet, &packet_specs[i]);
        struct frame f;
        struct iovec iov = {packet.bytes, packet.n_bytes};
        assert_int_equal(frame_parse(&f, &iov, 1, 0, &packet.hdr), DROP_NONE);
        uint8_t before[FRAME_HEAD_MAX], after[FRAME_HEAD_MAX];
        frame_copy(&f, 0, before, f.n_head);
        memset(packet.bytes, 0xff, packet.n_bytes);
        frame_copy(&f, 0, after, f.n_head);
        assert_memory_equal(before, after, f.n_head);
        assert_true(f.n_head >= f.csum_start + f.csum_offset + 2);
        check_claims(&f, &packet_specs[i]);
    }
}

// A frame cut short anywhere in its headers is refused, and not read beyond its end.
static void test_short_frames(void **state)
{
    (void)state;
    for (unsigned i = 0; i < n_packet_specs; i++) {
        packet_make(&packet, &packet_specs[i]);
        for (packet.n_bytes = 0; packet.n_bytes < packet.payload; packet.n_bytes++) {
            struct frame f;
            struct iovec iov[CUTS_MAX];
            unsigned n;
            enum drop got = parse_cut(&f, iov, (uint32_t[]){12, 16, 30}, 3, &n);
            uint32_t field_end = packet.l4 + packet.hdr.csum_offset + 2u;
            if (packet_specs[i].gso_type || packet.n_bytes < field_end)
                assert_true(got == DROP_BAD_HEADER || got == DROP_RUNT);
            packet_uncut(iov, n);
        }
    }
}

// 5.1.6.2: a change to a good frame, by its index in packet_specs, and what comes of it.
enum where { HDR, L3, L4 };
static const struct {
    const char *name;
    const char *spec;
    enum where where;
    uint32_t at;
    uint8_t bytes[2];
    uint8_t n;
    enum drop want;
} lies[] = {
#define AT(field) offsetof(struct virtio_net_hdr, field)
    {"no checksum with segmentation", "tcp4", HDR, AT(flags), {0}, 1, DROP_BAD_HEADER},
    {"only DATA_VALID", "tcp4", HDR, AT(flags), {2}, 1, DROP_BAD_HEADER},
    {"unknown flags", "tcp4", HDR, AT(flags), {0xff}, 1, DROP_NONE},
    {"gso_type 2", "tcp4", HDR, AT(gso_type), {2}, 1, DROP_BAD_HEADER},
    {"gso_type 6", "tcp4", HDR, AT(gso_type), {6}, 1, DROP_BAD_HEADER},
    {"gso_type 127", "tcp4", HDR, AT(gso_type), {0x7f}, 1, DROP_BAD_HEADER},
    {"only ECN", "tcp4", HDR, AT(gso_type), {0x80}, 1, DROP_BAD_HEADER},
    {"ECN with UDP", "uso4", HDR, AT(gso_type), {0x85}, 1, DROP_BAD_HEADER},
    {"TCPV6 of IPv4", "tcp4", HDR, AT(gso_type), {4}, 1, DROP_BAD_HEADER},
    {"TCPV4 of IPv6", "tcp6", HDR, AT(gso_type), {1}, 1, DROP_BAD_HEADER},
    {"UDP of TCP", "tcp4", HDR, AT(gso_type), {3}, 1, DROP_BAD_HEADER},
    {"UDP_L4 of TCP", "tcp6", HDR, AT(gso_type), {5}, 1, DROP_BAD_HEADER},
    {"TCPV4 of UDP", "uso4", HDR, AT(gso_type), {1}, 1, DROP_BAD_HEADER},
    {"fragments of USO", "uso4", HDR, AT(gso_type), {3}, 1, DROP_NONE},
    {"gso_size 0", "tcp4", HDR, AT(gso_size), {0, 0}, 2, DROP_BAD_HEADER},
    {"gso_size 0", "ufo6", HDR, AT(gso_size), {0, 0}, 2, DROP_BAD_HEADER},
    {"gso_size 7", "ufo4", HDR, AT(gso_size), {7, 0}, 2, DROP_BAD_HEADER},
    {"gso_size 8", "ufo4", HDR, AT(gso_size), {8, 0}, 2, DROP_NONE},
    {"gso_size 1 of 64K", "tcp4 64K", HDR, AT(gso_size), {1, 0}, 2, DROP_BAD_HEADER},
    {"gso_size 31 of 64K", "tcp4 64K", HDR, AT(gso_size), {31, 0}, 2, DROP_BAD_HEADER},
    {"gso_size 32 of 64K", "tcp4 64K", HDR, AT(gso_size), {32, 0}, 2, DROP_NONE},
    {"gso_size 65535", "tcp4", HDR, AT(gso_size), {255, 255}, 2, DROP_NONE}, // one piece
    {"csum_start 0", "tcp4", HDR, AT(csum_start), {0, 0}, 2, DROP_BAD_HEADER},
    {"csum_start 13", "csum tcp4", HDR, AT(csum_start), {13, 0}, 2, DROP_BAD_HEADER},
    {"csum_start 14", "csum tcp4", HDR, AT(csum_start), {14, 0}, 2, DROP_NONE},
    {"csum_start 17", "csum tcp6 tagged", HDR, AT(csum_start), {17, 0}, 2, DROP_BAD_HEADER},
    {"csum_start 65535", "csum tcp4", HDR, AT(csum_start), {255, 255}, 2, DROP_BAD_HEADER},
    {"csum_offset 65535", "csum tcp4", HDR, AT(csum_offset), {255, 255}, 2, DROP_BAD_HEADER},
    {"csum_offset at the end", "csum udp4", HDR, AT(csum_offset), {7, 0}, 2, DROP_NONE},
    {"csum_offset over the end", "csum udp4", HDR, AT(csum_offset), {8, 0}, 2, DROP_BAD_HEADER},
    {"field at the head's end", "csum tcp4", HDR, AT(csum_offset), {156, 0}, 2, DROP_NONE},
    {"field behind the head", "csum tcp4", HDR, AT(csum_offset), {157, 0}, 2, DROP_BAD_HEADER},
    {"csum_start is not TCP's", "tcp4", HDR, AT(csum_start), {35, 0}, 2, DROP_BAD_HEADER},
    {"csum_offset is not TCP's", "tcp4", HDR, AT(csum_offset), {6, 0}, 2, DROP_BAD_HEADER},
    {"csum_offset is not UDP's", "uso6", HDR, AT(csum_offset), {16, 0}, 2, DROP_BAD_HEADER},
    {"hdr_len 0", "tcp4", HDR, AT(hdr_len), {0, 0}, 2, DROP_NONE},
    {"hdr_len 65535", "tcp4", HDR, AT(hdr_len), {255, 255}, 2, DROP_NONE},
    {"num_buffers", "tcp4", HDR, AT(num_buffers), {255, 255}, 2, DROP_NONE},
    {"neither IP", "tcp4", L3, 0, {0x55}, 1, DROP_BAD_HEADER},
    {"IPv4 header of 16 bytes", "tcp4", L3, 0, {0x44}, 1, DROP_BAD_HEADER},
    {"IPv4 header of 60 bytes", "tcp4", L3, 0, {0x4f}, 1, DROP_BAD_HEADER},
    {"IPv4 of another protocol", "tcp4", L3, 9, {17}, 1, DROP_BAD_HEADER},
    {"IPv4 with more fragments", "tcp4", L3, 6, {0x20, 0}, 2, DROP_BAD_HEADER},
    {"IPv4 with an offset", "uso4", L3, 6, {0, 1}, 2, DROP_BAD_HEADER},
    {"IPv4 of no length", "tcp4", L3, 2, {0, 0}, 2, DROP_NONE}, // its own business
    {"IPv6 version 4", "tcp6", L3, 0, {0x40}, 1, DROP_BAD_HEADER},
    {"IPv6 without transport", "tcp6", L3, 6, {59}, 1, DROP_BAD_HEADER},
    {"IPv6 fragment", "tcp6 extensions", L3, 6, {44}, 1, DROP_BAD_HEADER},
    {"IPv6 authentication", "tcp6 extensions", L3, 6, {51}, 1, DROP_BAD_HEADER},
    {"IPv6 extension of 2 KiB", "tcp6 extensions", L3, 41, {255}, 1, DROP_BAD_HEADER},
    {"IPv6 extension of the rest", "ufo6 extensions", L3, 41, {10}, 1, DROP_BAD_HEADER},
    {"TCP header of 16 bytes", "tcp4", L4, 12, {0x40}, 1, DROP_BAD_HEADER},
    {"TCP header of 60 bytes", "tcp4", L4, 12, {0xf0}, 1, DROP_NONE}, // payload as options
    {"UDP of no length", "uso4", L4, 4, {0, 0}, 2, DROP_NONE},
#undef AT
};

static void test_lies(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(lies); i++) {
        packet_make(&packet, packet_spec_named(lies[i].spec));
        uint8_t *where[] = {(uint8_t *)&packet.hdr, packet.bytes + packet.l3,
                            packet.bytes + packet.l4};
        memcpy(where[lies[i].where] + lies[i].at, lies[i].bytes, lies[i].n);
        struct frame f;
        struct iovec iov[1];
        unsigned n;
        enum drop got = parse_cut(&f, iov, NULL, 0, &n);
        if (got != lies[i].want)
            fail_msg("%s (%s): %s, not %s", lies[i].name, lies[i].spec, drop_name(got),
                     drop_name(lies[i].want));
        assert_false(f.is_csum_good);
        packet_uncut(iov, n);
    }
}

// What fits in one piece is no segmentation, for any receiver.
static void test_one_piece(void **state)
{
    (void)state;
    static const struct packet_spec specs[] = {
        {"tcp4", 0, 0, VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN, 0, 1448, 0, 0, 12, 1448},
        {"uso6", 1, 1, VIRTIO_NET_HDR_GSO_UDP_L4, 0, 1000, 0, 0, 0, 1000},
        {"ufo4", 0, 1, VIRTIO_NET_HDR_GSO_UDP, 0, 1480, 0, 0, 0, 1472},
    };
    for (unsigned i = 0; i < ARRAY_LEN(specs); i++) {
        for (uint32_t more = 0; more < 2; more++) {
            struct packet_spec s = specs[i];
            s.payload += more;
            packet_make(&packet, &s);
            struct frame f;
            struct iovec iov = {packet.bytes, packet.n_bytes};
            assert_int_equal(frame_parse(&f, &iov, 1, 0, &packet.hdr), DROP_NONE);
            assert_int_equal(f.gso != FRAME_GSO_NONE, more);
            assert_int_equal(f.gso_size != 0, more);
            assert_true(f.needs_csum);
        }
    }
}

// A piece that IP's length field cannot hold.
static void test_pieces_fit_in_ip(void **state)
{
    (void)state;
    struct packet_spec s = {"", 0, 0, VIRTIO_NET_HDR_GSO_TCPV4, 0, 65495, 0, 0, 0, 65508};
    struct frame f;
    struct iovec iov = {packet.bytes, 65508 + 54};
    packet_make(&packet, &s);
    assert_int_equal(frame_parse(&f, &iov, 1, 0, &packet.hdr), DROP_NONE);
    packet.hdr.gso_size++;
    assert_int_equal(frame_parse(&f, &iov, 1, 0, &packet.hdr), DROP_BAD_HEADER);
    // Fragments that would be put together to more than 65535 bytes.
    s = (struct packet_spec){"", 0, 1, VIRTIO_NET_HDR_GSO_UDP, 0, 1480, 0, 0, 0, 65507};
    for (; s.payload < 65509; s.payload++) {
        packet_make(&packet, &s);
        iov.iov_len = packet.n_bytes;
        assert_int_equal(frame_parse(&f, &iov, 1, 0, &packet.hdr),
                         s.payload == 65507 ? DROP_NONE : DROP_BAD_HEADER);
    }
}

// ---- names -------------------------------------------------------------------------------

static void test_names(void **state)
{
    (void)state;
    for (unsigned i = 0; i < DROPS; i++) {
        assert_non_null(drop_name(i));
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(drop_name(i), drop_name(j));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_frames_in_all_cuts),
        cmocka_unit_test(test_skipped_bytes),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_tags),
        cmocka_unit_test(test_plain_frames_are_not_read_further),
        cmocka_unit_test(test_headers_in_all_cuts),
        cmocka_unit_test(test_headers_are_read_once),
        cmocka_unit_test(test_short_frames),
        cmocka_unit_test(test_lies),
        cmocka_unit_test(test_one_piece),
        cmocka_unit_test(test_pieces_fit_in_ip),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests_name("frame", tests, NULL, NULL);
}
