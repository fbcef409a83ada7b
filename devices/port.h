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
// The device type is `port` (ports.h), whichever the port type; the calls below are made in its
// name, and mean what device.h says of them.
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
    _Alignas(CACHE_LINE) counter n_frames; // sent into the switch, or delivered
    counter n_bytes;
    counter n_segmented; // frames cut or summed in software for this receiver
    counter n_drops[DROPS];
};

struct port_type {
    const char *key; // of the line: "socket"
    size_t bytes;    // of the type's own struct, which begins with its struct port

    // [C] @p is filled in from the line. Provide features, config space and n_queues of @d, and
    // n_receivers_max. Room for receivers and stats is made afterwards.
    int (*open)(struct port *p, struct device *d, const struct line *l, struct error *e);
    unsigned (*poll)(struct queue *q, unsigned budget);
    // [W] @to's owner: these frames are for @to. Each comes back once with frame_return(),
    // from inside or later; what is dropped is counted here.
    void (*deliver)(struct queue *to, struct frame *const frames[], unsigned n);

    // [C] Optional; default: nothing. Give back what open() took, but not @p.
    void (*close)(struct port *p);
    // Optional, with the defaults of device.h.
    int (*queue_start)(struct queue *q, struct error *e);
    void (*queue_stop)(struct queue *q);
    int (*lane_enter)(struct queue *q);
    void (*lane_leave)(struct queue *q);
    bool (*settle)(struct queue *q);
    enum queue_rest (*rest)(struct queue *q);
    int (*notify)(struct device *d, enum device_event event, uint64_t value, struct error *e);
    void (*queue_notify)(struct queue *q, enum device_event event, uint64_t value);
    void (*config_read)(struct device *d);
    void (*tell)(const struct port *p, struct describer *to);
    // [any worker] Optional; default: by frame_hash(). Which receive queue takes @f, below @n.
    unsigned (*spread)(const struct port *p, const struct frame *f, unsigned n);
};

struct port {
    const struct port_type *type;
    struct device *device;
    const char *name;
    struct vswitch *at;
    unsigned index; // in the switch's table, while attached
    uint16_t vlan;  // 1..4094: access port; 0: frames keep their tags
    uint16_t mtu;   // of the line; 0: no limit
    uint8_t mac[6];
    bool has_mac; // else it is learnt

    // The queues that deliver() takes frames for: each pointer is constant once n_receivers was
    // above its index.
    struct queue **receivers;
    unsigned n_receivers_max;
    // Frames are spread over the first so many; 0: the link is down. One writer at a time: who
    // starts and stops queues [C], or the worker of the control queue (MQ).
    _Atomic unsigned n_receivers;

    struct port_stats *stats; // by the index of the device's queues
};

static inline struct port *port_of(const struct queue *q)
{
    return q->device->priv;
}

static inline struct port_stats *port_stats_of(const struct queue *q)
{
    return &port_of(q)->stats[q->index];
}

// [any worker] The receive queue that takes @f; NULL: the link is down.
static inline struct queue *port_receiver(const struct port *p, const struct frame *f)
{
    unsigned n = atomic_load_explicit(&p->n_receivers, memory_order_acquire);
    if (n <= 1)
        return n ? p->receivers[0] : NULL;
    if (p->type->spread)
        return p->receivers[p->type->spread(p, f, n)];
    return p->receivers[(uint64_t)frame_hash(f) * n >> 32];
}

// Whether @f, or what it will be cut into, is within @mtu bytes behind the Ethernet header; 0: no
// limit.
static inline bool port_is_within_mtu(const struct frame *f, uint32_t mtu)
{
    uint32_t bytes = f->bytes;
    if (likely(!mtu))
        return true;
    if (f->gso == FRAME_GSO_UDP) // fragments: the IP header, then gso_size of what follows
        bytes = MIN(bytes, (uint32_t)f->csum_start + f->gso_size);
    else if (f->gso)
        bytes = MIN(bytes, (uint32_t)f->n_l4_head + f->gso_size);
    return bytes <= mtu + FRAME_BYTES_MIN;
}

// [any worker] Give a frame back, once for each deliver(). On home's worker it is freed when it
// was the last; elsewhere it travels home. @lane is the calling worker's.
void frame_return(struct lane *lane, struct frame *f);
