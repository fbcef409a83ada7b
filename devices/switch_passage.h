// SPDX-License-Identifier: Apache-2.0
// switch_passage.h - the frames of one queue on their way through a switch.
//
// switch_forward.c takes them through, switch_flood.c those that are for everybody.
//
// Threads  [W] the sender's worker.
#pragma once

#include "devices/switch_internal.h"

#define PASSAGE_MAX 32 // frames at a time

// parcel.where: this with the sender's number, or a queue << 16 | its port's number.
#define PARCEL_TO_ALL (1ull << 63)

struct passage {
    struct vswitch *s;
    struct port *from;
    struct lane *lane;
    struct switch_lane *here;
    struct port_stats *stats;

    struct queue *to; // frames[] are for this queue, of this lane; NULL: for all of the VLAN
    uint16_t vlan;
    unsigned n;
    struct frame *frames[PASSAGE_MAX];
};

static inline void passage_drop(struct passage *w, struct frame *f, enum drop reason)
{
    counter_add(&w->stats->n_drops[reason], 1);
    f->free(f);
}

static inline uint16_t frame_vlan(const struct frame *f)
{
    return f->vlan & 0xfff;
}

static inline void port_deliver(struct queue *to, struct frame *const frames[], unsigned n)
{
    port_of(to)->type->deliver(to, frames, n);
}

// Whose worker has @q; NULL: nobody's.
static inline struct uring *queue_owner(const struct queue *q)
{
    return atomic_load_explicit(&q->uring, memory_order_relaxed);
}

// [W] What was put together goes to all other ports of w->vlan.
void switch_flood(struct passage *w);

// [W] Deliver @f, from another lane, to whoever is on this one. Returns to how many.
unsigned switch_flood_here(struct lane *lane, const struct vswitch *s, struct frame *f,
                           unsigned sender);
