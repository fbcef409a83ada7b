// SPDX-License-Identifier: Apache-2.0
#include "devices/switch_internal.h"

#include <stdio.h>

static void tell_port(const struct vswitch *s, const struct port *p, struct describer *to)
{
    const struct member *m = &s->members[port_index(p->index)];
    unsigned n_receivers = atomic_load_explicit(&p->n_receivers, memory_order_relaxed);
    to->open_object(to, NULL);
    to->text(to, "port", p->name);
    to->text(to, "link", n_receivers ? "up" : "down");
    to->number(to, "vlan", p->vlan);
    to->number(to, "receivers", n_receivers);
    to->number(to, "learnt", m->n_learnt);
    to->number(to, "refused", m->n_refused);
    to->close(to);
}

static void tell_address(const struct vswitch *s, const struct fdb_entry *entry,
                         struct describer *to)
{
    char mac[18];
    const struct port *p = switch_port(s, entry->port);
    const uint8_t *k = (const uint8_t *)&entry->key; // its octets come first
    snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", k[0], k[1], k[2], k[3], k[4], k[5]);
    to->open_object(to, NULL);
    to->text(to, "mac", mac);
    to->number(to, "vlan", entry->key >> 48);
    to->text(to, "port", p ? p->name : "");
    to->text(to, "kind", entry->is_static ? "static" : "learnt");
    to->number(to, "age_s", entry->is_static ? 0 : s->now_s - entry->seen_s);
    to->close(to);
}

// Sums over the lanes.
static void tell_lanes(const struct vswitch *s, struct describer *to)
{
    uint64_t n_gone = 0, n_lost = 0;
    for (unsigned i = 0; i < s->n_lanes; i++) {
        n_gone += counter_read(&s->lanes[i].n_gone);
        n_lost += counter_read(&s->lanes[i].sightings.n_lost);
    }
    to->number(to, "gone", n_gone);
    to->number(to, "unheard", n_lost);
}

void switch_tell(const struct vswitch *s, struct describer *to)
{
    struct fdb_entry entry;
    to->number(to, "learnt", s->n_learnt);
    to->number(to, "crowded", s->n_crowded);
    tell_lanes(s, to);
    to->open_list(to, "ports");
    for (unsigned i = 0; i < SWITCH_PORTS_MAX; i++) {
        const struct port *p = atomic_load_explicit(&s->ports[i], memory_order_relaxed);
        if (p)
            tell_port(s, p, to);
    }
    to->close(to);
    to->open_list(to, "addresses");
    for (uint32_t at = 0; fdb_next(&s->fdb, &at, &entry);)
        tell_address(s, &entry, to);
    to->close(to);
}
