// SPDX-License-Identifier: Apache-2.0
// frame.h - one Ethernet frame on its way through a switch, as its sender's memory holds it.
//
// A frame is not copied when it is parsed: only its headers are, once, into head[]. Whoever
// decides something by a header decides by head[], and writes head[] to the receiver in place of
// the sender's bytes. So nothing that a guest rewrites meanwhile reaches anybody unchecked.
//
//     head[0 .. n_head)  +  the sender's bytes from iov[0].iov_base + skip on  =  the frame
//
// head[] never has a VLAN tag: the frame's VLAN is a number, and the bytes of the tag are skipped.
//
// Threads  [W] the worker that owns the sender's queue ("home"), but for who is delivering it:
//          a receiver's worker reads it and gives it back with frame_return().
// Memory   preallocated by the sender's port, one for each chain or buffer.
// Trust    all of it is the sender's claim until frame_parse() has checked it.
#pragma once

#include "dataplane/base.h"
#include "dataplane/virtio.h"

#include <sys/uio.h>

#define FRAME_BYTES_MIN 14    // an Ethernet header; shorter is a runt
#define FRAME_BYTES_MAX 65562 // 65535 bytes of IP behind an Ethernet header with two tags
#define FRAME_HEAD_MAX  192   // Ethernet, IP with options or extension headers, TCP with options

enum frame_gso { // what segmentation is owed
    FRAME_GSO_NONE,
    FRAME_GSO_TCP4,
    FRAME_GSO_TCP6,
    FRAME_GSO_UDP,  // fragmentation (UFO)
    FRAME_GSO_USO4, // datagrams (USO)
    FRAME_GSO_USO6,
};

// Why a frame went no further: one named counter each, of the queue where it happened.
enum drop {
    DROP_NONE,
    // The sender's fault, or the switch's decision.
    DROP_RUNT,       // shorter than an Ethernet header
    DROP_GIANT,      // longer than FRAME_BYTES_MAX, or than the sender's mtu= allows
    DROP_BAD_HEADER, // virtio-net header: offsets outside the frame, gso_size 0, lies (5.1.6.2)
    DROP_BAD_VLAN,   // tagged on a port with vlan=, or a tag inside a tag where one is to be cut
    DROP_SAME_PORT,  // its destination is where it came from
    DROP_NO_PORT,    // nobody to send it to
    DROP_RESERVED,   // to an address that no bridge forwards (IEEE 802.1Q, 8.6.3)
    DROP_FLOOD,      // for everybody, and the sender had its share of that
    // The receiver's.
    DROP_LINK_DOWN,    // nobody has its queues running
    DROP_NO_BUFFER,    // it posted no buffers
    DROP_TOO_SMALL,    // it posted buffers that the frame does not fit in
    DROP_MTU,          // longer than its mtu=
    DROP_FILTERED,     // its receive mode, MAC or VLAN filter
    DROP_CHANNEL_FULL, // its worker does not keep up
    DROP_FAULT,        // its ring is faulted
    DROP_UPLINK,       // TAP or DPDK refused it
    DROPS,
};

const char *drop_name(enum drop reason); // "no-buffer"

struct queue;
struct frame;

struct frame {
    // What a receiver needs.
    const struct iovec *iov; // the sender's segments, from the first that head[] does not cover
    uint32_t skip;           // bytes of iov[0] that head[] (or a tag) stands for
    uint32_t bytes;          // of the frame, head[] included
    uint16_t n_iov;
    uint16_t n_head;     // at least FRAME_BYTES_MIN
    uint8_t gso;         // enum frame_gso
    bool needs_csum;     // csum_start and csum_offset say where; always set with gso
    bool has_ecn;        // TCP segments: CWR only in the first (RFC 3168)
    bool is_csum_good;   // the receiver may be told DATA_VALID: an uplink checked it
    uint16_t gso_size;   // bytes of payload a segment
    uint16_t n_l4_head;  // with gso: bytes up to the payload, all in head[]
    uint16_t csum_start; // in the frame without a tag
    uint16_t csum_offset;
    uint16_t vlan; // tag control information without the DEI: PCP << 13 | VID; 0: none
    uint16_t l3;   // where the network header starts; 0: neither IPv4 nor IPv6

    // Its life.
    struct queue *home;            // whose chain or buffer it is
    uint32_t n_holders;            // [W of home] who has not returned it yet
    uint32_t id;                   // home's own: chain id, buffer number
    void (*free)(struct frame *f); // [W of home] everybody has returned it
    _Atomic uint32_t n_away;       // holders on other lanes: all of them are one of n_holders
    struct frame *next;            // [W] among those that travel home together

    uint8_t head[FRAME_HEAD_MAX];
};

static inline const uint8_t *frame_destination(const struct frame *f)
{
    return f->head;
}
static inline const uint8_t *frame_source(const struct frame *f)
{
    return f->head + 6;
}
static inline bool frame_is_multicast(const struct frame *f)
{
    return f->head[0] & 1;
}

// [W] Take the frame apart that lies in @n segments from byte @skip of the first on, with @hdr as
// the sender gave it (a copy; NULL: plain). @iov stays valid until the frame is freed. Sets
// everything but home, n_holders, id and free. DROP_NONE, or why it goes nowhere.
enum drop frame_parse(struct frame *f, const struct iovec *iov, unsigned n, uint32_t skip,
                      const struct virtio_net_hdr *hdr);

// [any worker] A hash of addresses and ports: the same flow, the same receive queue. It reads what
// head[] lacks from the sender: what a guest rewrites there moves its own frame to another queue.
uint32_t frame_hash(const struct frame *f);

// [any worker] Copy @bytes of the frame from @offset on (in the frame as head[] and the sender's
// bytes make it, without a tag) to @to.
void frame_copy(const struct frame *f, uint32_t offset, void *to, uint32_t bytes);
