// SPDX-License-Identifier: Apache-2.0
// net_internal.h - what the files of net share; nobody else includes it.
//
// net.c has the device and its queues' life, net_transmit.c takes frames from the driver,
// net_receive.c gives it frames, net_control.c does what it asks on its control queue.
//
// A driver's wishes (struct net, "the driver's") live as long as the driver: from the fresh start
// of its control queue to that of the next driver's. What is not known here, since another daemon
// was told, is taken for the widest: every queue, every frame.
//
// Threads  as device.h; the driver's wishes are set on the control queue's worker and read by all.
// Memory   one block a queue, from its start to its stop.
// Trust    every descriptor, header and command is hostile.
#pragma once

#include "devices/net.h"
#include "devices/net_filter.h"
#include "devices/rss.h"

#define NET_PAIRS_MAX  127  // 5.1.2: with a control queue 255 rings, which 8 bits number
#define NET_FRAMES_MAX 1024 // frames of one transmit queue that are under way
#define NET_MERGED_MAX 256  // buffers of one received frame

#define NET_GUEST_OFFLOADS                                                                         \
    (VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO4) |                   \
     VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO6) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_ECN) |                    \
     VIRTIO_BIT(VIRTIO_NET_F_GUEST_UFO) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_USO4) |                    \
     VIRTIO_BIT(VIRTIO_NET_F_GUEST_USO6))

struct net {
    struct port port; // first
    unsigned n_pairs; // the line's

    // [C]
    bool is_receiving[NET_PAIRS_MAX]; // the pair's receive queue is started
    unsigned n_started;               // queues
    _Atomic unsigned n_ready;         // the first so many receive queues are
    bool has_met;                     // a driver with a control queue

    // The driver's.
    _Atomic unsigned n_wanted;      // pairs
    _Atomic uint64_t offloads;      // of NET_GUEST_OFFLOADS, those not switched off
    _Atomic bool must_announce;     // until it says that it did (5.1.6.5.4)
    _Atomic uint64_t announced_mac; // RARP_DUE | MAC: to be told the switch; 0: nothing
    struct net_filter filter;
    struct rss rss;
};

#define RARP_DUE VIRTIO_BIT(63)

enum net_role {
    NET_RECEIVE,
    NET_TRANSMIT,
    NET_CONTROL,
    NET_IDLE, // no queue of what was negotiated
};

// q->priv begins with it.
struct net_queue {
    enum net_role role;
    struct net *net;
    struct port_stats *stats;
    uint64_t features;
    uint32_t header_bytes; // 5.1.6.1
};

static inline struct net *net_of(const struct queue *q)
{
    return (struct net *)port_of(q);
}

// ---- net.c -------------------------------------------------------------------------------

// [C] or [W] n_ready or n_wanted changed.
void net_update_receivers(struct net *net);

// ---- net_transmit.c ----------------------------------------------------------------------

// [C] q->priv, or NULL.
struct net_queue *net_transmit_open(struct queue *q);
unsigned net_transmit_poll(struct queue *q, unsigned budget);
bool net_transmit_settle(struct queue *q);
// [W] Tell the switch where a station is, if that is due.
void net_transmit_announce(struct queue *q);

// ---- net_receive.c -----------------------------------------------------------------------

struct net_queue *net_receive_open(struct queue *q);
void net_deliver(struct queue *to, struct frame *const frames[], unsigned n);

// ---- net_control.c -----------------------------------------------------------------------

unsigned net_control_poll(struct queue *q, unsigned budget);
