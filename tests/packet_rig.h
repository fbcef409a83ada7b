// SPDX-License-Identifier: Apache-2.0
// packet_rig.h - packets for tests: made by a description, cut into descriptors, and taken apart
// again byte by byte, with nothing of the code that is tested.
#pragma once

#include "dataplane/virtio.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#define PACKET_BYTES_MAX 66000

struct packet_spec {
    const char *name;
    bool is_v6;
    bool is_udp;
    uint8_t gso_type; // as in struct virtio_net_hdr
    uint8_t flags;    // of TCP, beside ACK
    uint16_t gso_size;
    uint16_t tag;      // tag control information; 0: untagged
    uint16_t ip_extra; // bytes of IPv4 options (0..40) or IPv6 extension headers (0..), by 4 or 8
    uint16_t tcp_options; // bytes, by 4
    uint32_t payload;     // bytes
};

struct packet {
    uint8_t bytes[PACKET_BYTES_MAX];
    uint32_t n_bytes;
    uint32_t l3, l4, payload; // where they start
    struct virtio_net_hdr hdr;
};

// The packet that @spec describes, its transport checksum begun as 5.1.6.2 wants it.
void packet_make(struct packet *p, const struct packet_spec *spec);
// Ethernet, and what follows it, of @n_bytes; with @tag unless 0.
void packet_make_plain(struct packet *p, uint32_t n_bytes, uint16_t tag);

// The specs that tests sweep over: each gso_type × IP version × tag × options.
extern const struct packet_spec packet_specs[];
extern const unsigned n_packet_specs;
const struct packet_spec *packet_spec_named(const char *name);

// @bytes in segments that end at @cuts (ascending, inside), each in an allocation of its own size.
// Returns how many segments; packet_uncut() frees them.
unsigned packet_cut(struct iovec *iov, const uint8_t *bytes, uint32_t n_bytes, const uint32_t *cuts,
                    unsigned n_cuts);
void packet_uncut(struct iovec *iov, unsigned n);

// What packet_read() finds in a plain, untagged packet.
struct packet_view {
    bool is_v6;
    uint8_t proto;
    uint16_t ipv4_id;
    bool is_fragment, has_more;
    uint32_t fragment_at, fragment_id;
    uint32_t l4, payload; // where they start; of a fragment: behind the IP headers
    uint32_t sequence;
    uint8_t flags;
};

// Fails the test unless IP's lengths and sum are right, and (but in fragments) the transport's: its
// checksum complete, or (@is_begun) the sum of the pseudo header.
struct packet_view packet_read(const uint8_t *bytes, uint32_t n_bytes, bool is_begun);

// RFC 1071, one byte at a time: the sum of big-endian words, not complemented.
uint16_t packet_sum(const uint8_t *bytes, uint32_t n_bytes, uint32_t sum);

// The sum of the pseudo header of @v's transport part in @bytes.
uint16_t packet_pseudo(const uint8_t *bytes, uint32_t n_bytes, const struct packet_view *v);
