// SPDX-License-Identifier: Apache-2.0
//
// A batch goes through in three passes, each prefetching what the next one reads: which addresses
// (the table's buckets), which ports (their structs), which queues. Frames in a row for one queue
// are delivered together, and frames in a row for everybody as well: then the ports are the outer
// loop.
#include "devices/switch_passage.h"

#define VLAN_RESERVED 0xfff // IEEE 802.1Q, 9.6

struct route {
    uint64_t source, destination; // fdb_mix()
    struct port *to;              // NULL: everybody
    bool is_same;                 // as the frame before
};

// ---- to one ------------------------------------------------------------------------------

// What was put together goes out.
static void conclude(struct passage *w)
{
    if (w->n == 0)
        return;
    if (!w->to) {
        switch_flood(w);
        return;
    }
    port_deliver(w->to, w->frames, w->n);
    w->n = 0;
}

// @to NULL: for everybody in the frame's VLAN.
static inline void add(struct passage *w, struct queue *to, struct frame *f)
{
    if (w->to != to || (!to && w->vlan != frame_vlan(f))) {
        conclude(w);
        w->to = to;
        w->vlan = frame_vlan(f);
    }
    f->n_holders = 1;
    w->frames[w->n++] = f;
}

static void send_away(struct passage *w, const struct port *p, const struct queue *q,
                      struct uring *owner, struct frame *f)
{
    struct parcel parcel = {f, (uint64_t)q->index << 16 | p->index, w->s->id};
    f->n_holders = 1;
    atomic_store_explicit(&f->n_away, 1, memory_order_relaxed);
    if (!exchange_send(w->lane, exchange_lane_of(owner), &parcel))
        passage_drop(w, f, DROP_CHANNEL_FULL);
}

static inline void send_to(struct passage *w, const struct port *p, struct frame *f)
{
    struct queue *q = port_receiver(p, f);
    struct uring *owner = q ? queue_owner(q) : NULL;
    if (likely(owner == &w->lane->uring))
        add(w, q, f);
    else if (owner)
        send_away(w, p, q, owner, f);
    else
        passage_drop(w, f, DROP_LINK_DOWN);
}

// ---- the passes --------------------------------------------------------------------------

// To addresses that a bridge keeps to itself: pause frames, spanning tree, LLDP.
static bool is_reserved(const struct frame *f)
{
    static const uint8_t prefix[] = {0x01, 0x80, 0xc2, 0x00, 0x00};
    const uint8_t *mac = frame_destination(f);
    return memcmp(mac, prefix, sizeof(prefix)) == 0 && mac[5] < 0x10;
}

static inline enum drop admit(const struct port *from, struct frame *f)
{
    if (from->vlan) {
        if (frame_vlan(f))
            return DROP_BAD_VLAN;
        f->vlan |= from->vlan; // and the priority stays
    }
    if (frame_vlan(f) == VLAN_RESERVED)
        return DROP_BAD_VLAN;
    return frame_is_multicast(f) && is_reserved(f) ? DROP_RESERVED : DROP_NONE;
}

static inline bool is_like(const struct frame *f, const struct frame *other)
{
    return memcmp(f->head, other->head, 12) == 0 && f->vlan == other->vlan;
}

// Which frames go on, and the table's lines for them. Returns how many.
static unsigned pass_addresses(struct passage *w, struct frame *const frames[], unsigned n,
                               struct frame *admitted[], struct route routes[])
{
    const struct fdb *t = &w->s->fdb;
    unsigned m = 0;
    for (unsigned i = 0; i < n; i++) {
        struct frame *f = frames[i];
        enum drop reason = admit(w->from, f);
        if (unlikely(reason)) {
            passage_drop(w, f, reason);
            continue;
        }
        struct route *r = &routes[m];
        r->is_same = m && is_like(f, admitted[m - 1]);
        admitted[m++] = f;
        if (r->is_same)
            continue;
        r->source = fdb_mix(t, fdb_key(frame_source(f), frame_vlan(f)));
        r->destination = fdb_mix(t, fdb_key(frame_destination(f), frame_vlan(f)));
        fdb_prefetch(t, r->source);
        fdb_prefetch(t, r->destination);
    }
    return m;
}

static inline void see_source(struct passage *w, const struct frame *f, const struct route *r)
{
    uint32_t now_s = atomic_load_explicit(&w->s->now_s, memory_order_relaxed);
    if (likely(fdb_see(&w->s->fdb, r->source, w->from->index, now_s)) || frame_source(f)[0] & 1)
        return;
    struct sighting sighting = {fdb_key(frame_source(f), frame_vlan(f)), w->from->index};
    sightings_tell(&w->here->sightings, atomic_load_explicit(&w->s->tick, memory_order_relaxed),
                   &sighting);
}

static void pass_ports(struct passage *w, struct frame *const frames[], unsigned n,
                       struct route routes[])
{
    for (unsigned i = 0; i < n; i++) {
        struct route *r = &routes[i];
        if (r->is_same) {
            r->to = r[-1].to;
            continue;
        }
        see_source(w, frames[i], r);
        uint64_t word = frame_is_multicast(frames[i]) ? 0 : fdb_find(&w->s->fdb, r->destination);
        r->to = word ? switch_port(w->s, fdb_word_port(word)) : NULL;
        if (r->to)
            __builtin_prefetch(&r->to->receivers);
    }
}

static void pass_queues(struct passage *w, struct frame *const frames[], unsigned n,
                        const struct route routes[])
{
    for (unsigned i = 0; i < n; i++) {
        if (!routes[i].to)
            add(w, NULL, frames[i]);
        else if (likely(routes[i].to != w->from))
            send_to(w, routes[i].to, frames[i]);
        else
            passage_drop(w, frames[i], DROP_SAME_PORT);
    }
    conclude(w);
}

void switch_forward(struct port *from, struct lane *lane, struct frame *const frames[], unsigned n,
                    struct port_stats *stats)
{
    struct passage w = {
        .s = from->at,
        .from = from,
        .lane = lane,
        .here = &from->at->lanes[lane->index],
        .stats = stats,
    };
    struct frame *admitted[PASSAGE_MAX];
    struct route routes[PASSAGE_MAX];
    for (unsigned i = 0; i < n; i += PASSAGE_MAX) {
        unsigned m = pass_addresses(&w, frames + i, MIN(n - i, PASSAGE_MAX), admitted, routes);
        pass_ports(&w, admitted, m, routes);
        pass_queues(&w, admitted, m, routes);
    }
    exchange_flush(lane);
}

// ---- from other lanes --------------------------------------------------------------------

// The queue that a parcel is for, if it still is on this lane.
static struct queue *queue_of(const struct lane *lane, const struct vswitch *s, uint64_t where)
{
    const struct port *p = switch_port(s, where & 0xffff);
    if (!p)
        return NULL;
    struct queue *q = &p->device->queues[where >> 16];
    return queue_owner(q) == &lane->uring ? q : NULL;
}

// Frames in a row for one queue.
struct run {
    struct queue *to;
    unsigned n;
    struct frame *frames[PASSAGE_MAX];
};

static void end_run(struct run *r)
{
    if (r->n)
        port_deliver(r->to, r->frames, r->n);
    r->n = 0;
}

static void add_to_run(struct run *r, struct queue *to, struct frame *f)
{
    if (r->to != to || r->n == PASSAGE_MAX)
        end_run(r);
    r->to = to;
    r->frames[r->n++] = f;
    __builtin_prefetch(f); // another processor wrote it
    __builtin_prefetch(f->head);
}

// Returns the work that it was.
static unsigned receive(struct lane *lane, const struct parcel *p, struct run *r)
{
    const struct vswitch *s = switch_of(p->whose);
    if (s && p->where & PARCEL_TO_ALL) {
        end_run(r);
        return 1 + switch_flood_here(lane, s, p->frame, p->where & 0xffff);
    }
    struct queue *q = s ? queue_of(lane, s, p->where) : NULL;
    if (q) {
        add_to_run(r, q, p->frame);
        return 1;
    }
    if (s)
        counter_add(&s->lanes[lane->index].n_gone, 1);
    frame_return(lane, p->frame);
    return 1;
}

unsigned switch_receive(struct lane *lane, const struct parcel parcels[], unsigned n)
{
    struct run run = {.n = 0};
    unsigned work = 0;
    for (unsigned i = 0; i < n; i++)
        work += receive(lane, &parcels[i], &run);
    end_run(&run);
    return work;
}
