// SPDX-License-Identifier: Apache-2.0
// port.h - what stands between a switch and what is plugged into it.
//
// A port sends frames into its switch with switch_forward() (switch.h), and the switch gives it
// frames by deliver(). A port has receive queues, each owned by one worker at a time; the switch
// calls deliver() only on that worker.
//
//     sender's queue ─poll─▶ frames ─▶ switch_forward ─▶ deliver ─▶ frame_return ─▶ free
//                                            └─ other worker's lane ─▶┘
//
// Threads  [C] opens and closes; fields that both sides touch are atomic, one writer each.
// Memory   a port belongs to its device; the switch borrows it between attach and detach.
#pragma once

#include "devices/frame.h"
#include "dataplane/device.h"

struct port;
struct vswitch;

// The counters of one queue of a port. The queue's owner writes.
struct port_stats {
    counter n_frames; // sent into the switch, or delivered
    counter n_bytes;
    counter n_segmented; // frames cut or summed in software for this receiver
    counter n_drops[DROPS];
};

struct port_type {
    const char *key; // of the line: "socket"
    // [W] @to's owner: these frames are for @to. Each comes back once with frame_return(),
    // from inside or later; what is dropped is counted here.
    void (*deliver)(struct queue *to, struct frame *const frames[], unsigned n);
};

// What a driver asked for on its control queue (5.1.6.5). Replaced as a whole, never changed.
struct port_filter;

struct port {
    const struct port_type *type;
    const char *name;
    struct vswitch *at;
    unsigned index; // in the switch's table, while attached
    uint16_t vlan;  // 1..4094: access port; 0: frames keep their tags
    uint16_t mtu;   // of the line; 0: no limit
    uint8_t mac[6];
    bool has_mac; // else it is learnt

    struct queue **receivers; // constant: the queues that deliver() takes frames for
    unsigned n_receivers_max;
    // Frames are spread over the first so many; 0: the link is down. One writer at a time: who
    // starts and stops queues [C], or the worker of the control queue (MQ).
    _Atomic unsigned n_receivers;
};

// [any worker] Give a frame back, once for each deliver(). On home's worker it is freed when it
// was the last; elsewhere it travels home. @lane is the calling worker's.
void frame_return(struct lane *lane, struct frame *f);
