// SPDX-License-Identifier: Apache-2.0
// packet.h - where the fields of Ethernet, IP, TCP and UDP headers are, as byte offsets.
//
// Bytes and not structs: a header lies anywhere in a frame, and fields are big-endian.
//
// Threads  any: no state.
// Trust    the caller checks that the bytes are there.
#pragma once

#include "dataplane/base.h"

#include <string.h>

enum {
    ETHER_TYPE_AT = 12,
    ETHER_BYTES = 14,
    ETHER_TAG_BYTES = 4,

    ETHER_IPV4 = 0x0800,
    ETHER_IPV6 = 0x86dd,
    ETHER_VLAN = 0x8100,   // 802.1Q
    ETHER_VLAN_S = 0x88a8, // 802.1ad
};

enum {
    PROTO_HOP_BY_HOP = 0,
    PROTO_TCP = 6,
    PROTO_UDP = 17,
    PROTO_ROUTING = 43,
    PROTO_FRAGMENT = 44,
    PROTO_DESTINATION = 60,
};

enum {
    IPV4_BYTES = 20, // without options
    IPV4_LENGTH_AT = 2,
    IPV4_ID_AT = 4,
    IPV4_FRAGMENT_AT = 6,
    IPV4_MORE_FRAGMENTS = 0x2000,
    IPV4_FRAGMENT_MASK = 0x3fff, // more fragments, or an offset
    IPV4_PROTO_AT = 9,
    IPV4_SUM_AT = 10,
    IPV4_ADDRESSES_AT = 12,
};

enum {
    IPV6_BYTES = 40,
    IPV6_LENGTH_AT = 4,
    IPV6_NEXT_AT = 6,
    IPV6_ADDRESSES_AT = 8,
    IPV6_FRAGMENT_BYTES = 8, // the extension header
};

enum {
    TCP_BYTES = 20, // without options
    TCP_SEQUENCE_AT = 4,
    TCP_OFFSET_AT = 12, // high four bits: words
    TCP_FLAGS_AT = 13,
    TCP_FIN = 0x01,
    TCP_PSH = 0x08,
    TCP_CWR = 0x80,
    TCP_SUM_AT = 16,
};

enum {
    UDP_BYTES = 8,
    UDP_LENGTH_AT = 4,
    UDP_SUM_AT = 6,
};

static inline uint16_t load_be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}
static inline uint32_t load_be32(const uint8_t *p)
{
    return (uint32_t)load_be16(p) << 16 | load_be16(p + 2);
}
static inline void store_be16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}
static inline void store_be32(uint8_t *p, uint32_t v)
{
    store_be16(p, v >> 16);
    store_be16(p + 2, v);
}

// Write the headers @head with @tag (0: none) between the addresses and what follows. How many
// bytes.
static inline uint32_t store_head(uint8_t *to, const uint8_t *head, uint32_t n_head, uint16_t tag)
{
    if (!tag) {
        memcpy(to, head, n_head);
        return n_head;
    }
    memcpy(to, head, ETHER_TYPE_AT);
    store_be16(to + ETHER_TYPE_AT, ETHER_VLAN);
    store_be16(to + ETHER_TYPE_AT + 2, tag);
    memcpy(to + ETHER_TYPE_AT + ETHER_TAG_BYTES, head + ETHER_TYPE_AT, n_head - ETHER_TYPE_AT);
    return ETHER_TAG_BYTES + n_head;
}
