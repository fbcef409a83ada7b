// SPDX-License-Identifier: Apache-2.0
#include "tests/packet_rig.h"

#include "tests/check.h"

#include <stdlib.h>
#include <string.h>

#define TCPV4 VIRTIO_NET_HDR_GSO_TCPV4
#define TCPV6 VIRTIO_NET_HDR_GSO_TCPV6
#define UFO   VIRTIO_NET_HDR_GSO_UDP
#define USO   VIRTIO_NET_HDR_GSO_UDP_L4
#define ECN   VIRTIO_NET_HDR_GSO_ECN

const struct packet_spec packet_specs[] = {
    {"tcp4", 0, 0, TCPV4, 0x19, 1448, 0, 0, 12, 10000},
    {"tcp4 whole pieces", 0, 0, TCPV4, 0x18, 1000, 0, 0, 0, 5000},
    {"tcp4 one byte more", 0, 0, TCPV4, 0x10, 1000, 0, 0, 0, 5001},
    {"tcp4 ecn", 0, 0, TCPV4 | ECN, 0x91, 536, 0, 0, 12, 3000},
    {"tcp4 options", 0, 0, TCPV4, 0x98, 777, 0, 40, 40, 4000},
    {"tcp4 tagged", 0, 0, TCPV4, 0x18, 1448, 0x6005, 0, 12, 9000},
    {"tcp4 64K", 0, 0, TCPV4, 0x18, 1448, 0, 0, 12, 65483},
    {"tcp4 odd", 0, 0, TCPV4, 0x18, 333, 0, 4, 4, 1001},
    {"tcp6", 1, 0, TCPV6, 0x19, 1428, 0, 0, 12, 10000},
    {"tcp6 ecn tagged", 1, 0, TCPV6 | ECN, 0x98, 1001, 0x0fff, 0, 0, 4005},
    {"tcp6 extensions", 1, 0, TCPV6, 0x18, 1200, 0, 24, 20, 6000},
    {"ufo4", 0, 1, UFO, 0, 1480, 0, 0, 0, 10000},
    {"ufo4 options", 0, 1, UFO, 0, 1001, 0x1001, 8, 0, 5003},
    {"ufo6", 1, 1, UFO, 0, 1448, 0, 0, 0, 9001},
    {"ufo6 extensions", 1, 1, UFO, 0, 504, 0x2002, 16, 0, 3000},
    {"uso4", 0, 1, USO, 0, 1200, 0, 0, 0, 12000},
    {"uso4 tagged", 0, 1, USO, 0, 99, 0xe00a, 12, 0, 1003},
    {"uso6", 1, 1, USO, 0, 1200, 0, 0, 0, 11999},
    {"uso6 extensions", 1, 1, USO, 0, 512, 0, 8, 0, 1025},
    {"csum tcp4", 0, 0, 0, 0x18, 0, 0, 0, 12, 1448},
    {"csum tcp6 tagged", 1, 0, 0, 0x18, 0, 7, 0, 12, 777},
    {"csum udp4", 0, 1, 0, 0, 0, 0, 0, 0, 1},
    {"csum udp6", 1, 1, 0, 0, 0, 0, 8, 0, 0},
};
const unsigned n_packet_specs = sizeof(packet_specs) / sizeof(packet_specs[0]);

const struct packet_spec *packet_spec_named(const char *name)
{
    for (unsigned i = 0; i < n_packet_specs; i++) {
        if (!strcmp(packet_specs[i].name, name))
            return &packet_specs[i];
    }
    fail_msg("no spec %s", name);
    return NULL;
}

static void put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}
static uint32_t get16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}
static uint32_t get32(const uint8_t *p)
{
    return get16(p) << 16 | get16(p + 2);
}

uint16_t packet_sum(const uint8_t *bytes, uint32_t n_bytes, uint32_t sum)
{
    for (uint32_t i = 0; i < n_bytes; i++) {
        sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return (uint16_t)sum;
}

// ---- make --------------------------------------------------------------------------------

static uint32_t put_ipv4(uint8_t *ip, const struct packet_spec *s, uint32_t l4_bytes)
{
    uint32_t n = 20 + s->ip_extra;
    ip[0] = (uint8_t)(0x40 | n / 4);
    put16(ip + 2, n + l4_bytes);
    put16(ip + 4, 0xfffe); // wraps among the pieces
    put16(ip + 6, 0x4000); // don't fragment
    ip[8] = 64;
    ip[9] = s->is_udp ? 17 : 6;
    memcpy(ip + 12, (uint8_t[]){10, 0, 0, 1, 10, 0, 0, 2}, 8);
    memset(ip + 20, 1, s->ip_extra); // no operation
    put16(ip + 10, (uint16_t)~packet_sum(ip, n, 0));
    return n;
}

static uint32_t put_ipv6(uint8_t *ip, const struct packet_spec *s, uint32_t l4_bytes)
{
    static const uint8_t kinds[] = {0, 60, 43, 60}; // hop-by-hop, destination, routing, destination
    uint8_t proto = s->is_udp ? 17 : 6;
    ip[0] = 0x60;
    put16(ip + 4, s->ip_extra + l4_bytes);
    ip[7] = 64;
    ip[8] = ip[24] = 0xfd;
    ip[23] = 1;
    ip[39] = 2;
    uint8_t *next = ip + 6;
    for (uint32_t i = 0; i < s->ip_extra / 8u; i++) {
        uint8_t *header = ip + 40 + 8 * i;
        *next = kinds[i % 4];
        memcpy(header, (uint8_t[]){0, 0, 1, 4, 0, 0, 0, 0}, 8); // a PadN; routing type 1, none left
        if (*next == 43)
            header[3] = 0;
        next = header;
    }
    *next = proto;
    return 40u + s->ip_extra;
}

static uint32_t put_l4(uint8_t *l4, const struct packet_spec *s, uint32_t l4_bytes)
{
    put16(l4, 40001);
    put16(l4 + 2, 40002);
    if (s->is_udp) {
        put16(l4 + 4, l4_bytes);
        return 8;
    }
    memcpy(l4 + 4, (uint8_t[]){0xff, 0xff, 0xf0, 0x00, 1, 2, 3, 4}, 8); // wraps among the pieces
    l4[12] = (uint8_t)((20 + s->tcp_options) / 4 << 4);
    l4[13] = s->flags | 0x10;
    put16(l4 + 14, 8192);
    memset(l4 + 20, 1, s->tcp_options);
    return 20u + s->tcp_options;
}

void packet_make(struct packet *p, const struct packet_spec *s)
{
    memset(p, 0, sizeof(*p));
    memcpy(p->bytes, (uint8_t[]){2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1}, 12);
    uint32_t at = 12;
    if (s->tag) {
        put16(p->bytes + at, 0x8100);
        put16(p->bytes + at + 2, s->tag);
        at += 4;
    }
    put16(p->bytes + at, s->is_v6 ? 0x86dd : 0x0800);
    p->l3 = at + 2;
    uint32_t l4_bytes = (s->is_udp ? 8u : 20u + s->tcp_options) + s->payload;
    uint8_t *ip = p->bytes + p->l3;
    p->l4 = p->l3 + (s->is_v6 ? put_ipv6(ip, s, l4_bytes) : put_ipv4(ip, s, l4_bytes));
    p->payload = p->l4 + put_l4(p->bytes + p->l4, s, l4_bytes);
    for (uint32_t i = 0; i < s->payload; i++)
        p->bytes[p->payload + i] = (uint8_t)(i * 7 + i / 251);
    p->n_bytes = p->payload + s->payload;

    struct packet_view v = {.is_v6 = s->is_v6, .proto = s->is_udp ? 17 : 6, .l4 = p->l4};
    uint32_t field = s->is_udp ? 6 : 16;
    uint32_t shift = p->l3 - 14; // packet_pseudo() knows no tag
    v.l4 -= shift;
    put16(p->bytes + p->l4 + field, packet_pseudo(p->bytes + shift, p->n_bytes - shift, &v));
    p->hdr = (struct virtio_net_hdr){
        .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
        .gso_type = s->gso_type,
        .hdr_len = (uint16_t)p->payload,
        .gso_size = s->gso_size,
        .csum_start = (uint16_t)p->l4,
        .csum_offset = (uint16_t)field,
    };
}

void packet_make_plain(struct packet *p, uint32_t n_bytes, uint16_t tag)
{
    memset(p, 0, sizeof(*p));
    for (uint32_t i = 0; i < n_bytes; i++)
        p->bytes[i] = (uint8_t)(i + 1);
    p->n_bytes = n_bytes;
    if (tag)
        memcpy(p->bytes + 12, (uint8_t[]){0x81, 0, (uint8_t)(tag >> 8), (uint8_t)tag}, 4);
}

// ---- cut ---------------------------------------------------------------------------------

static struct iovec copy_of(const uint8_t *bytes, uint32_t n_bytes)
{
    void *copy = malloc(n_bytes ? n_bytes : 1);
    assert_non_null(copy);
    memcpy(copy, bytes, n_bytes);
    return (struct iovec){copy, n_bytes};
}

unsigned packet_cut(struct iovec *iov, const uint8_t *bytes, uint32_t n_bytes, const uint32_t *cuts,
                    unsigned n_cuts)
{
    unsigned n = 0;
    uint32_t at = 0;
    for (unsigned i = 0; i < n_cuts; i++) {
        if (cuts[i] <= at || cuts[i] >= n_bytes)
            continue;
        iov[n++] = copy_of(bytes + at, cuts[i] - at);
        at = cuts[i];
    }
    iov[n++] = copy_of(bytes + at, n_bytes - at);
    return n;
}

void packet_uncut(struct iovec *iov, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        free(iov[i].iov_base);
}

// ---- read --------------------------------------------------------------------------------

uint16_t packet_pseudo(const uint8_t *bytes, uint32_t n_bytes, const struct packet_view *v)
{
    uint32_t addresses = v->is_v6 ? 32 : 8;
    const uint8_t *from = bytes + 14 + (v->is_v6 ? 8 : 12);
    uint8_t rest[8] = {[7] = v->proto};
    put16(rest, (n_bytes - v->l4) >> 16);
    put16(rest + 2, n_bytes - v->l4);
    return packet_sum(rest, sizeof(rest), packet_sum(from, addresses, 0));
}

static void read_ipv4(const uint8_t *ip, uint32_t n_bytes, struct packet_view *v)
{
    uint32_t n = (ip[0] & 15u) * 4;
    assert_int_equal(ip[0] >> 4, 4);
    assert_true(n >= 20 && n <= n_bytes);
    assert_int_equal(get16(ip + 2), n_bytes);
    assert_int_equal(packet_sum(ip, n, 0), 0xffff);
    v->ipv4_id = (uint16_t)get16(ip + 4);
    v->fragment_id = v->ipv4_id;
    v->has_more = get16(ip + 6) & 0x2000;
    v->fragment_at = (get16(ip + 6) & 0x1fff) * 8;
    v->is_fragment = v->has_more || v->fragment_at;
    v->proto = ip[9];
    v->l4 = 14 + n;
}

static void read_ipv6(const uint8_t *ip, uint32_t n_bytes, struct packet_view *v)
{
    assert_true(n_bytes >= 40);
    assert_int_equal(ip[0] >> 4, 6);
    assert_int_equal(get16(ip + 4), n_bytes - 40);
    v->is_v6 = true;
    v->proto = ip[6];
    uint32_t at = 40;
    while (v->proto == 0 || v->proto == 43 || v->proto == 44 || v->proto == 60) {
        assert_true(at + 8 <= n_bytes);
        if (v->proto == 44) {
            v->is_fragment = true;
            v->has_more = ip[at + 3] & 1;
            v->fragment_at = get16(ip + at + 2) & 0xfff8;
            v->fragment_id = get32(ip + at + 4);
        }
        v->proto = ip[at];
        at += v->is_fragment ? 8 : (ip[at + 1] + 1u) * 8;
    }
    assert_true(at <= n_bytes);
    v->l4 = 14 + at;
}

struct packet_view packet_read(const uint8_t *bytes, uint32_t n_bytes, bool is_begun)
{
    struct packet_view v = {0};
    assert_true(n_bytes >= 34);
    if (get16(bytes + 12) == 0x86dd)
        read_ipv6(bytes + 14, n_bytes - 14, &v);
    else
        read_ipv4(bytes + 14, n_bytes - 14, &v);
    v.payload = v.l4;
    if (v.is_fragment)
        return v;

    const uint8_t *l4 = bytes + v.l4;
    v.payload += v.proto == 17 ? 8 : (l4[12] >> 4) * 4u;
    assert_true(v.payload <= n_bytes);
    uint16_t pseudo = packet_pseudo(bytes, n_bytes, &v);
    if (is_begun)
        assert_int_equal(get16(l4 + (v.proto == 17 ? 6 : 16)), pseudo);
    else
        assert_int_equal(packet_sum(l4, n_bytes - v.l4, pseudo), 0xffff);
    if (v.proto == 17) {
        assert_int_equal(get16(l4 + 4), n_bytes - v.l4);
        assert_int_not_equal(get16(l4 + 6), 0);
    } else {
        v.sequence = get32(l4 + 4);
        v.flags = l4[13];
    }
    return v;
}
