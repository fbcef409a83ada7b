// SPDX-License-Identifier: Apache-2.0
//
// The ports of this lane get the frames at once. Another lane gets each frame once, whatever ports
// it has, and finds them itself. Until all have it the switch holds a frame as well.
#include "devices/switch_passage.h"

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
        struct uring *owner = q ? queue_owner(q) : NULL;
        n = p->n_receivers_max == 1 ? w->n : 1;
        if (!owner)
            continue;
        n_reached += n;
        if (owner == &w->lane->uring) {
            for (unsigned j = i; j < i + n; j++)
                w->frames[j]->n_holders++;
            port_deliver(q, w->frames + i, n);
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
static void send_to_lanes(struct passage *w, struct frame *f, unsigned n_targets)
{
    struct parcel parcel = {f, PARCEL_TO_ALL | w->from->index, w->s->id};
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
            passage_drop(w, f, DROP_FLOOD);
    }
    w->n = n;
}

void switch_flood(struct passage *w)
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
            send_to_lanes(w, w->frames[i], n_targets);
        frame_return(w->lane, w->frames[i]);
    }
    w->n = 0;
}

unsigned switch_flood_here(struct lane *lane, const struct vswitch *s, struct frame *f,
                           unsigned sender)
{
    unsigned n = 0;
    exchange_begin_fan(lane, f);
    for (unsigned i = 0, n_places = count_places(s); i < n_places; i++) {
        const struct port *p = member_at(s, i, frame_vlan(f));
        struct queue *q = p && p->index != sender ? port_receiver(p, f) : NULL;
        if (q && queue_owner(q) == &lane->uring) {
            port_deliver(q, &f, 1);
            n++;
        }
    }
    exchange_end_fan(lane, n);
    return n;
}
