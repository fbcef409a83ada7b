// SPDX-License-Identifier: Apache-2.0
//
// A batch goes through in three passes, each prefetching what the next one reads: which addresses
// (the table's buckets), which ports (their structs), which queues. Frames in a row for one queue
// are delivered together, and frames in a row for everybody as well: then the ports are the outer
// loop.
//
// Nobody but the switch writes n_holders before the first deliver(). For a frame that goes to many
// it holds one itself until all have it.
#include "devices/switch_internal.h"

#define BATCH 32

#define TO_ALL (1ull << 63) // parcel.where: with the sender's number; else queue << 16 | number

// A step of switch_forward().
struct passage {
    struct vswitch *s;
    struct port *from;
    struct lane *lane;
    struct switch_lane *here;
    struct port_stats *stats;

    struct queue *to; // frames[] are for this queue, of this lane; NULL: for all of the VLAN
    uint16_t vlan;
    unsigned n;
    struct frame *frames[BATCH];
};

struct route {
    uint64_t source, destination; // fdb_mix()
    struct port *to;              // NULL: everybody
    bool is_same;                 // as the frame before
};

static void drop(struct passage *w, struct frame *f, enum drop reason)
{
    counter_add(&w->stats->n_drops[reason], 1);
    f->free(f);
}

static uint16_t vlan_of(const struct frame *f)
{
    return f->vlan & 0xfff;
}

static inline void deliver(struct queue *to, struct frame *const frames[], unsigned n)
{
    port_of(to)->type->deliver(to, frames, n);
}

// Whose worker has @q; NULL: nobody's.
static inline struct uring *owner_of(const struct queue *q)
{
    return atomic_load_explicit(&q->uring, memory_order_relaxed);
}

// ---- to everybody ------------------------------------------------------------------------

// The port at place @i if it takes frames of @vlan.
static struct port *member_at(const struct vswitch *s, unsigned i, uint16_t vlan)
{
    uint16_t its = atomic_load_explicit(&s->vlans[i], memory_order_relaxed);
    if (its && its != vlan)
        return NULL;
    struct port *p = atomic_load_explicit(&s->ports[i], memory_order_acquire);
    return p && (!p->vlan || p->vlan == vlan) ? p : NULL;
}

static unsigned count_places(const struct vswitch *s)
{
    return atomic_load_explicit(&s->n_places, memory_order_acquire);
}

// How many ports are in @vlan.
static uint32_t count_members(const struct vswitch *s, uint16_t vlan)
{
    uint32_t n = atomic_load_explicit(&s->n_of_vlan[0], memory_order_relaxed);
    if (vlan)
        n += atomic_load_explicit(&s->n_of_vlan[vlan], memory_order_relaxed);
    return n;
}

// Deliver those of the frames that @p takes on this lane; note the lanes of its other queues.
// Returns how many of either.
static unsigned flood_port(struct passage *w, const struct port *p, unsigned *n_targets)
{
    unsigned n_reached = 0;
    for (unsigned i = 0, n; i < w->n; i += n) {
        struct queue *q = port_receiver(p, w->frames[i]);
        struct uring *owner = q ? owner_of(q) : NULL;
        n = p->n_receivers_max == 1 ? w->n : 1;
        if (!owner)
            continue;
        n_reached += n;
        if (owner == &w->lane->uring) {
            for (unsigned j = i; j < i + n; j++)
                w->frames[j]->n_holders++;
            deliver(q, w->frames + i, n);
            continue;
        }
        unsigned lane = exchange_lane_of(owner);
        if (w->here->flooded[lane] != w->here->n_floods) {
            w->here->flooded[lane] = w->here->n_floods;
            w->here->targets[(*n_targets)++] = lane;
        }
    }
    return n_reached;
}

// The lanes that were noted find the receivers on them by themselves.
static void flood_lanes(struct passage *w, struct frame *f, unsigned n_targets)
{
    struct parcel parcel = {f, TO_ALL | w->from->index, w->s->id};
    f->n_holders++;
    atomic_store_explicit(&f->n_away, n_targets, memory_order_relaxed);
    for (unsigned i = 0; i < n_targets; i++) {
        if (exchange_send(w->lane, w->here->targets[i], &parcel))
            continue;
        counter_add(&w->stats->n_drops[DROP_CHANNEL_FULL], 1);
        if (atomic_fetch_sub_explicit(&f->n_away, 1, memory_order_acq_rel) == 1)
            f->n_holders--;
    }
}

// Keep of the frames as many as may be flooded.
static void limit_flood(struct passage *w)
{
    unsigned n_ports = atomic_load_explicit(&w->s->n_ports, memory_order_relaxed), n = 0;
    uint32_t cost = count_members(w->s, w->vlan);
    for (unsigned i = 0; i < w->n; i++) {
        struct frame *f = w->frames[i];
        if (flood_allows(&w->here->flood, w->lane->now, port_index(w->from->index), n_ports, cost))
            w->frames[n++] = f;
        else
            drop(w, f, DROP_FLOOD);
    }
    w->n = n;
}

static void flood(struct passage *w)
{
    unsigned n_targets = 0, n_reached = 0;
    limit_flood(w);
    for (unsigned i = 0; i < w->n; i++)
        w->frames[i]->n_holders = 1;
    w->here->n_floods++;
    for (unsigned i = 0, n = w->n ? count_places(w->s) : 0; i < n; i++) {
        const struct port *p = member_at(w->s, i, w->vlan);
        if (p && p != w->from)
            n_reached += flood_port(w, p, &n_targets);
    }
    if (!n_reached)
        counter_add(&w->stats->n_drops[DROP_NO_PORT], w->n);
    for (unsigned i = 0; i < w->n; i++) {
        if (n_targets)
            flood_lanes(w, w->frames[i], n_targets);
        frame_return(w->lane, w->frames[i]);
    }
    w->n = 0;
}

// ---- to one ------------------------------------------------------------------------------

// What was put together goes out.
static void conclude(struct passage *w)
{
    if (w->n == 0)
        return;
    if (!w->to) {
        flood(w);
        return;
    }
    deliver(w->to, w->frames, w->n);
    w->n = 0;
}

// @to NULL: for everybody in the frame's VLAN.
static inline void add(struct passage *w, struct queue *to, struct frame *f)
{
    if (w->to != to || (!to && w->vlan != vlan_of(f))) {
        conclude(w);
        w->to = to;
        w->vlan = vlan_of(f);
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
        drop(w, f, DROP_CHANNEL_FULL);
}

static inline void send_to(struct passage *w, const struct port *p, struct frame *f)
{
    struct queue *q = port_receiver(p, f);
    struct uring *owner = q ? owner_of(q) : NULL;
    if (likely(owner == &w->lane->uring))
        add(w, q, f);
    else if (owner)
        send_away(w, p, q, owner, f);
    else
        drop(w, f, DROP_LINK_DOWN);
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
        if (vlan_of(f))
            return DROP_BAD_VLAN;
        f->vlan |= from->vlan; // and the priority stays
    }
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
            drop(w, f, reason);
            continue;
        }
        struct route *r = &routes[m];
        r->is_same = m && is_like(f, admitted[m - 1]);
        admitted[m++] = f;
        if (r->is_same)
            continue;
        r->source = fdb_mix(t, fdb_key(frame_source(f), vlan_of(f)));
        r->destination = fdb_mix(t, fdb_key(frame_destination(f), vlan_of(f)));
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
    struct sighting sighting = {fdb_key(frame_source(f), vlan_of(f)), w->from->index};
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
            drop(w, frames[i], DROP_SAME_PORT);
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
    struct frame *admitted[BATCH];
    struct route routes[BATCH];
    for (unsigned i = 0; i < n; i += BATCH) {
        unsigned m = pass_addresses(&w, frames + i, MIN(n - i, BATCH), admitted, routes);
        pass_ports(&w, admitted, m, routes);
        pass_queues(&w, admitted, m, routes);
    }
    exchange_flush(lane);
}

// ---- from other lanes --------------------------------------------------------------------

// Deliver @f to whoever is on this lane. Returns to how many.
static unsigned flood_here(struct lane *lane, const struct vswitch *s, struct frame *f,
                           unsigned sender)
{
    unsigned n = 0;
    exchange_begin_fan(lane, f);
    for (unsigned i = 0, n_places = count_places(s); i < n_places; i++) {
        const struct port *p = member_at(s, i, vlan_of(f));
        struct queue *q = p && p->index != sender ? port_receiver(p, f) : NULL;
        if (q && owner_of(q) == &lane->uring) {
            deliver(q, &f, 1);
            n++;
        }
    }
    exchange_end_fan(lane, n);
    return n;
}

// The queue that a parcel is for, if it still is on this lane.
static struct queue *queue_of(const struct lane *lane, const struct vswitch *s, uint64_t where)
{
    const struct port *p = switch_port(s, where & 0xffff);
    if (!p)
        return NULL;
    struct queue *q = &p->device->queues[where >> 16];
    return owner_of(q) == &lane->uring ? q : NULL;
}

unsigned switch_receive(struct lane *lane, const struct parcel parcels[], unsigned n)
{
    struct frame *run[BATCH];
    struct queue *to = NULL;
    unsigned n_run = 0, work = 0;
    for (unsigned i = 0; i < n; i++) {
        struct frame *f = parcels[i].frame;
        struct vswitch *s = switch_of(parcels[i].whose);
        bool is_to_all = s && parcels[i].where & TO_ALL;
        struct queue *q = s && !is_to_all ? queue_of(lane, s, parcels[i].where) : NULL;
        if (n_run && (q != to || n_run == BATCH)) {
            deliver(to, run, n_run);
            n_run = 0;
        }
        to = q;
        work++;
        if (q) {
            run[n_run++] = f;
        } else if (is_to_all) {
            work += flood_here(lane, s, f, parcels[i].where & 0xffff);
        } else {
            if (s)
                counter_add(&s->lanes[lane->index].n_gone, 1);
            frame_return(lane, f);
        }
    }
    if (n_run)
        deliver(to, run, n_run);
    return work;
}
