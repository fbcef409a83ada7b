// SPDX-License-Identifier: Apache-2.0
#include "devices/rss.h"

#include "devices/packet.h"

#define READ_BYTES_MAX 192 // of a packet: headers behind that are not looked for
#define TUPLE_MAX      36  // two IPv6 addresses, two ports

// ---- setting -----------------------------------------------------------------------------

void rss_set_hash(struct rss *r, uint32_t types, const uint8_t *key, unsigned bytes)
{
    assert(bytes <= RSS_KEY_BYTES);
    uint64_t words[RSS_KEY_BYTES / 8] = {0};
    if (bytes)
        memcpy(words, key, bytes);
    for (unsigned i = 0; i < ARRAY_LEN(words); i++)
        atomic_store_explicit(&r->key[i], words[i], memory_order_relaxed);
    atomic_store_explicit(&r->types, types, memory_order_relaxed);
}

void rss_set_steering(struct rss *r, const struct rss_steering *s)
{
    if (!s) {
        atomic_store_explicit(&r->is_steering, false, memory_order_relaxed);
        return;
    }
    assert(is_power_of_two(s->n) && s->n <= RSS_TABLE_MAX);
    for (unsigned i = 0; i < s->n; i++)
        atomic_store_explicit(&r->table[i], s->table[i], memory_order_relaxed);
    atomic_store_explicit(&r->mask, s->n - 1, memory_order_relaxed);
    atomic_store_explicit(&r->unclassified, s->unclassified, memory_order_relaxed);
    atomic_store_explicit(&r->is_steering, true, memory_order_relaxed);
}

// ---- hashing -----------------------------------------------------------------------------

// 5.1.6.4.3: for each bit of the input that is set, the 32 bits of the key from there on.
static uint32_t toeplitz(const struct rss *r, const uint8_t *input, unsigned bytes)
{
    uint8_t key[RSS_KEY_BYTES + 8] = {0};
    for (unsigned i = 0; i < ARRAY_LEN(r->key); i++) {
        uint64_t word = atomic_load_explicit(&r->key[i], memory_order_relaxed);
        memcpy(key + 8ul * i, &word, sizeof(word));
    }
    uint32_t hash = 0;
    for (unsigned i = 0; i < bytes; i++) {
        uint64_t window = (uint64_t)load_be32(key + i) << 32 | load_be32(key + i + 4);
        for (unsigned bit = 0; bit < 8; bit++) {
            if (input[i] & 0x80u >> bit)
                hash ^= (uint32_t)(window >> (32 - bit));
        }
    }
    return hash;
}

struct packet {
    const uint8_t *addresses;
    unsigned address_bytes; // of both
    const uint8_t *ports;   // NULL: there are none
    uint8_t proto;
};

static bool find_ipv4(struct packet *p, const uint8_t *ip, unsigned bytes)
{
    unsigned header = (ip[0] & 15u) * 4;
    if (bytes < IPV4_BYTES || ip[0] >> 4 != 4 || header < IPV4_BYTES)
        return false;
    p->addresses = ip + IPV4_ADDRESSES_AT;
    p->address_bytes = 8;
    p->proto = ip[IPV4_PROTO_AT];
    bool is_fragment = load_be16(ip + IPV4_FRAGMENT_AT) & IPV4_FRAGMENT_MASK;
    if (!is_fragment && bytes >= header + 4)
        p->ports = ip + header;
    return true;
}

// Extension headers are skipped (5.1.6.4.3.4), as types with options are not offered.
static bool find_ipv6(struct packet *p, const uint8_t *ip, unsigned bytes)
{
    if (bytes < IPV6_BYTES || ip[0] >> 4 != 6)
        return false;
    p->addresses = ip + IPV6_ADDRESSES_AT;
    p->address_bytes = 32;
    p->proto = ip[IPV6_NEXT_AT];
    unsigned at = IPV6_BYTES;
    while (p->proto == PROTO_HOP_BY_HOP || p->proto == PROTO_ROUTING ||
           p->proto == PROTO_DESTINATION) {
        if (at + 2 > bytes)
            return true;
        p->proto = ip[at];
        at += (ip[at + 1] + 1u) * 8;
    }
    if (p->proto != PROTO_FRAGMENT && at + 4 <= bytes)
        p->ports = ip + at;
    return true;
}

struct kind { // one version of IP
    uint32_t ip_type, tcp_type, udp_type;
    uint16_t ip_report, tcp_report, udp_report;
};

static const struct kind ipv4_kind = {
    VIRTIO_NET_HASH_TYPE_IPV4,   VIRTIO_NET_HASH_TYPE_TCP4,   VIRTIO_NET_HASH_TYPE_UDP4,
    VIRTIO_NET_HASH_REPORT_IPV4, VIRTIO_NET_HASH_REPORT_TCP4, VIRTIO_NET_HASH_REPORT_UDP4,
};
static const struct kind ipv6_kind = {
    VIRTIO_NET_HASH_TYPE_IPV6,   VIRTIO_NET_HASH_TYPE_TCP6,   VIRTIO_NET_HASH_TYPE_UDP6,
    VIRTIO_NET_HASH_REPORT_IPV6, VIRTIO_NET_HASH_REPORT_TCP6, VIRTIO_NET_HASH_REPORT_UDP6,
};

// 5.1.6.4.3.2: ports if their type is enabled, else addresses if theirs is.
static uint16_t choose(const struct packet *p, const struct kind *k, uint32_t types)
{
    if (p->ports && p->proto == PROTO_TCP && types & k->tcp_type)
        return k->tcp_report;
    if (p->ports && p->proto == PROTO_UDP && types & k->udp_type)
        return k->udp_report;
    return types & k->ip_type ? k->ip_report : VIRTIO_NET_HASH_REPORT_NONE;
}

uint32_t rss_hash(const struct rss *r, const struct frame *f, uint16_t *report)
{
    uint32_t types = atomic_load_explicit(&r->types, memory_order_relaxed);
    *report = VIRTIO_NET_HASH_REPORT_NONE;
    if (!types || !f->l3)
        return 0;
    uint8_t ip[READ_BYTES_MAX] = {0}, tuple[TUPLE_MAX];
    unsigned bytes = MIN(f->bytes - f->l3, READ_BYTES_MAX);
    frame_copy(f, f->l3, ip, bytes);

    struct packet p = {0};
    bool is_ipv4 = load_be16(f->head + ETHER_TYPE_AT) == ETHER_IPV4;
    if (is_ipv4 ? !find_ipv4(&p, ip, bytes) : !find_ipv6(&p, ip, bytes))
        return 0;
    const struct kind *kind = is_ipv4 ? &ipv4_kind : &ipv6_kind;
    *report = choose(&p, kind, types);
    if (*report == VIRTIO_NET_HASH_REPORT_NONE)
        return 0;
    memcpy(tuple, p.addresses, p.address_bytes);
    unsigned n = p.address_bytes;
    if (p.ports && *report != kind->ip_report) {
        memcpy(tuple + n, p.ports, 4);
        n += 4;
    }
    return toeplitz(r, tuple, n);
}

unsigned rss_spread(const struct rss *r, const struct frame *f, unsigned n)
{
    if (!atomic_load_explicit(&r->is_steering, memory_order_relaxed))
        return (unsigned)((uint64_t)frame_hash(f) * n >> 32);
    uint16_t report;
    uint32_t hash = rss_hash(r, f, &report);
    unsigned queue = atomic_load_explicit(&r->unclassified, memory_order_relaxed);
    if (report != VIRTIO_NET_HASH_REPORT_NONE) {
        uint32_t mask = atomic_load_explicit(&r->mask, memory_order_relaxed);
        queue = atomic_load_explicit(&r->table[hash & mask & (RSS_TABLE_MAX - 1)],
                                     memory_order_relaxed);
    }
    return queue < n ? queue : queue % n; // a queue that is not running
}
