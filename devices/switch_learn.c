// SPDX-License-Identifier: Apache-2.0
//
// Workers say where they saw an address that was not there; control decides whether it is to be
// there. An address given by mac= is its port's for good: in the port's VLAN, or, on a port that
// takes all VLANs, in all of them.
#include "devices/switch_internal.h"

#include <errno.h>

#define AGE_EVERY_S 1

static void count_learnt(struct vswitch *s, unsigned number, int by)
{
    s->members[port_index(number)].n_learnt += by;
    s->n_learnt += by;
}

static void forget(struct vswitch *s, const struct fdb_entry *entry)
{
    fdb_remove(&s->fdb, entry->key);
    if (!entry->is_static)
        count_learnt(s, entry->port, -1);
}

int switch_add_static(struct vswitch *s, const struct port *p, struct error *e)
{
    struct fdb_entry entry = {fdb_key(p->mac, p->vlan), p->index, .is_static = true}, before;
    if (fdb_get(&s->fdb, entry.key, &before)) {
        if (before.is_static)
            return error_set(e, EEXIST, "port %s: port %s has that mac", p->name,
                             switch_port(s, before.port)->name);
        forget(s, &before);
    }
    if (!fdb_put(&s->fdb, &entry))
        return error_set(e, ENOSPC, "port %s: switch %s has no room for its mac", p->name, s->name);
    return 0;
}

void switch_forget(struct vswitch *s, unsigned number)
{
    struct fdb_entry entry;
    for (uint32_t at = 0; fdb_next(&s->fdb, &at, &entry);) {
        if (entry.port == number)
            forget(s, &entry);
    }
}

// It is another port's by mac=, whatever VLAN it is in.
static bool is_taken(const struct vswitch *s, const struct sighting *what)
{
    struct fdb_entry entry;
    uint64_t untagged = what->key & ((1ull << 48) - 1);
    return fdb_get(&s->fdb, untagged, &entry) && entry.is_static && entry.port != what->port;
}

static void learn(struct vswitch *s, const struct sighting *what)
{
    struct member *m = &s->members[port_index(what->port)];
    struct fdb_entry before, now = {what->key, what->port, .seen_s = s->now_s};
    bool is_known = fdb_get(&s->fdb, what->key, &before);
    if (!switch_port(s, what->port) || is_taken(s, what))
        return;
    if (is_known && (before.is_static || before.port == what->port))
        return;
    if (m->n_learnt >= SWITCH_LEARN_MAX || (!is_known && s->n_learnt >= SWITCH_ADDRESSES_MAX)) {
        m->n_refused++;
        return;
    }
    if (!fdb_put(&s->fdb, &now)) {
        s->n_crowded++;
        return;
    }
    if (is_known)
        count_learnt(s, before.port, -1);
    count_learnt(s, what->port, 1);
}

static void age(struct vswitch *s)
{
    struct fdb_entry entry;
    for (uint32_t at = 0; s->n_learnt && fdb_next(&s->fdb, &at, &entry);) {
        // A worker may have marked it a moment before now_s was written.
        if (!entry.is_static && (int32_t)(s->now_s - entry.seen_s) > SWITCH_AGE_S)
            forget(s, &entry);
    }
}

void switch_tick(struct vswitch *s, uint64_t now_ms)
{
    uint32_t now_s = (uint32_t)(now_ms / 1000), n = 0;
    struct sighting what;
    atomic_store_explicit(&s->now_s, now_s, memory_order_relaxed);
    for (unsigned i = 0; i < s->n_lanes; i++) {
        for (unsigned j = 0; j < SIGHTINGS_MAX && sightings_hear(&s->lanes[i].sightings, &what);
             j++, n++)
            learn(s, &what);
    }
    if (n)
        atomic_store_explicit(&s->tick, s->tick + 1, memory_order_relaxed);
    if (now_s - s->aged_s >= AGE_EVERY_S) {
        s->aged_s = now_s;
        age(s);
    }
}
