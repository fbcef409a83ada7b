// SPDX-License-Identifier: Apache-2.0
// net_filter.h - which frames a driver asked for (VIRTIO 1.3, 5.1.6.5.1 to 5.1.6.5.3): receive
// modes, addresses, VLANs.
//
// One worker sets, others look, word by word. The table of addresses exists twice, so that
// setting it takes effect at once; while it is set twice in a row, a frame may see a mixture,
// which the specification's "best effort" covers.
//
// Threads  [W] the control queue's worker sets; [W] receive queues' workers look.
// Memory   embedded in its device; nothing allocates.
// Trust    what is set was checked by the caller; counts are bounded here.
#pragma once

#include "devices/frame.h"

#define NET_FILTER_MACS_MAX 64 // of one kind; a driver that sets more gets all of that kind

enum net_mode { // by the command's number (5.1.6.5.1)
    NET_MODE_PROMISC = 1 << VIRTIO_NET_CTRL_RX_PROMISC,
    NET_MODE_ALLMULTI = 1 << VIRTIO_NET_CTRL_RX_ALLMULTI,
    NET_MODE_ALLUNI = 1 << VIRTIO_NET_CTRL_RX_ALLUNI,
    NET_MODE_NOMULTI = 1 << VIRTIO_NET_CTRL_RX_NOMULTI,
    NET_MODE_NOUNI = 1 << VIRTIO_NET_CTRL_RX_NOUNI,
    NET_MODE_NOBCAST = 1 << VIRTIO_NET_CTRL_RX_NOBCAST,
};

// The addresses of one kind, first octet lowest.
struct net_macs {
    _Atomic uint32_t n; // over NET_FILTER_MACS_MAX: too many, so all
    _Atomic uint64_t macs[NET_FILTER_MACS_MAX];
};

struct net_mac_table {
    struct net_macs unicast, multicast;
};

struct net_filter {
    _Atomic uint32_t modes; // enum net_mode
    _Atomic uint64_t mac;   // the driver's own; 0: not known, so any
    atomic_bool has_vlans;  // only the VLANs in the list, of tagged frames
    _Atomic uint32_t table; // which of the two is in force
    struct net_mac_table tables[2];
    _Atomic uint64_t vlans[4096 / 64];
};

// [W] or [C] As a driver finds it: everything is received; @mac may be 0, @has_vlans says that
// CTRL_VLAN was negotiated.
void net_filter_reset(struct net_filter *f, uint64_t mac, bool has_vlans);

// [W] Switch modes on or off.
void net_filter_set_mode(struct net_filter *f, enum net_mode mode, bool on);

// [W] The table that is not in force, to be filled; and put it in force.
struct net_mac_table *net_filter_spare(struct net_filter *f);
void net_filter_use_spare(struct net_filter *f);

// [W] @vid is below 4096.
void net_filter_set_vlan(struct net_filter *f, unsigned vid, bool on);

// [W] Whether @f is wanted. @has_tag: the driver will see its tag.
bool net_filter_takes(const struct net_filter *filter, const struct frame *f, bool has_tag);
