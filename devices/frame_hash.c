// SPDX-License-Identifier: Apache-2.0
#include "devices/frame.h"

#include "devices/packet.h"

// Odd, and half of its bits set: 2^64 divided by the golden ratio.
#define MULTIPLIER 0x9e3779b97f4a7c15ull

static uint64_t mix(uint64_t hash, const uint8_t *p, unsigned n_words)
{
    for (unsigned i = 0; i < n_words; i++) {
        uint64_t word;
        memcpy(&word, p + 8ul * i, sizeof(word));
        hash = (hash ^ word) * MULTIPLIER;
        hash ^= hash >> 32;
    }
    return hash;
}

// @at: where the ports are, if @proto has them.
static uint64_t mix_ports(uint64_t hash, const struct frame *f, uint32_t at, uint8_t proto)
{
    uint8_t ports[8] = {[4] = proto};
    if ((proto == PROTO_TCP || proto == PROTO_UDP) && at + 4 <= f->bytes)
        frame_copy(f, at, ports, 4);
    return mix(hash, ports, 1);
}

static uint64_t hash_ipv4(const struct frame *f)
{
    uint8_t ip[IPV4_BYTES];
    frame_copy(f, f->l3, ip, sizeof(ip));
    // All fragments of a datagram go the same way, and only the first has ports.
    bool is_fragment = load_be16(ip + IPV4_FRAGMENT_AT) & IPV4_FRAGMENT_MASK;
    uint64_t hash = mix(MULTIPLIER, ip + IPV4_ADDRESSES_AT, 1);
    uint8_t proto = is_fragment ? 0 : ip[IPV4_PROTO_AT];
    return mix_ports(hash, f, f->l3 + (ip[0] & 15u) * 4, proto);
}

static uint64_t hash_ipv6(const struct frame *f)
{
    uint8_t ip[IPV6_BYTES];
    frame_copy(f, f->l3, ip, sizeof(ip));
    uint64_t hash = mix(MULTIPLIER, ip + IPV6_ADDRESSES_AT, 4);
    return mix_ports(hash, f, f->l3 + IPV6_BYTES, ip[IPV6_NEXT_AT]);
}

uint32_t frame_hash(const struct frame *f)
{
    bool is_v4 = f->l3 && load_be16(f->head + ETHER_TYPE_AT) == ETHER_IPV4;
    uint64_t hash;
    if (is_v4 && f->bytes >= (uint32_t)f->l3 + IPV4_BYTES)
        hash = hash_ipv4(f);
    else if (!is_v4 && f->l3 && f->bytes >= (uint32_t)f->l3 + IPV6_BYTES)
        hash = hash_ipv6(f);
    else // the two addresses, and four bytes that are always the same
        hash = mix(MULTIPLIER, f->head, 1) ^ mix(MULTIPLIER, f->head + 6, 1);
    return (uint32_t)hash;
}
