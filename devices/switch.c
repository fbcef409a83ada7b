// SPDX-License-Identifier: Apache-2.0
#include "devices/switch_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static struct vswitch *_Atomic switches[SWITCHES_MAX];
static uint32_t n_opened; // [C] switches so far

struct vswitch *switch_of(uint32_t id)
{
    struct vswitch *s = atomic_load_explicit(&switches[id % SWITCHES_MAX], memory_order_acquire);
    return s && s->id == id ? s : NULL;
}

struct vswitch *switch_find(const char *name)
{
    for (unsigned i = 0; i < SWITCHES_MAX; i++) {
        struct vswitch *s = atomic_load_explicit(&switches[i], memory_order_relaxed);
        if (s && strcmp(s->name, name) == 0)
            return s;
    }
    return NULL;
}

unsigned switch_list(char *names, size_t bytes)
{
    unsigned n = 0;
    size_t used = 0;
    names[0] = '\0';
    for (unsigned i = 0; i < SWITCHES_MAX; i++) {
        const struct vswitch *s = atomic_load_explicit(&switches[i], memory_order_relaxed);
        if (s && used < bytes)
            used += (size_t)snprintf(names + used, bytes - used, "%s%s", n ? ", " : "", s->name);
        n += s != NULL;
    }
    return n;
}

// ---- ports -------------------------------------------------------------------------------

static struct port *port_at(const struct vswitch *s, unsigned i)
{
    return atomic_load_explicit(&s->ports[i], memory_order_relaxed);
}

static void add_to(_Atomic uint16_t *n, int by)
{
    atomic_store_explicit(n, (uint16_t)(atomic_load_explicit(n, memory_order_relaxed) + by),
                          memory_order_relaxed);
}

static unsigned read_n_ports(const struct vswitch *s)
{
    return atomic_load_explicit(&s->n_ports, memory_order_relaxed);
}

// Workers see the place last of all.
static void publish(struct vswitch *s, struct port *p)
{
    unsigned i = port_index(p->index);
    atomic_store_explicit(&s->vlans[i], p->vlan, memory_order_relaxed);
    atomic_store_explicit(&s->ports[i], p, memory_order_release);
    add_to(&s->n_of_vlan[p->vlan], 1);
    atomic_store_explicit(&s->n_ports, read_n_ports(s) + 1, memory_order_relaxed);
    if (i >= atomic_load_explicit(&s->n_places, memory_order_relaxed))
        atomic_store_explicit(&s->n_places, i + 1, memory_order_release);
}

int switch_attach(struct vswitch *s, struct port *p, struct error *e)
{
    unsigned i = 0;
    while (i < SWITCH_PORTS_MAX && port_at(s, i))
        i++;
    if (i == SWITCH_PORTS_MAX)
        return error_set(e, ENOSPC, "port %s: switch %s has %u ports, and no room for more",
                         p->name, s->name, i);
    struct member *m = &s->members[i];
    *m = (struct member){.life = (m->life + 1) % PORT_LIVES};
    p->at = s;
    p->index = m->life << PORT_INDEX_BITS | i;
    int err = p->has_mac ? switch_add_static(s, p, e) : 0;
    if (!err)
        publish(s, p);
    return err;
}

void switch_detach(struct port *p)
{
    struct vswitch *s = p->at;
    atomic_store_explicit(&s->ports[port_index(p->index)], NULL, memory_order_relaxed);
    add_to(&s->n_of_vlan[p->vlan], -1);
    atomic_store_explicit(&s->n_ports, read_n_ports(s) - 1, memory_order_relaxed);
    switch_forget(s, p->index);
}

// ---- the device --------------------------------------------------------------------------

static void close_lanes(struct vswitch *s)
{
    for (unsigned i = 0; s->lanes && i < s->n_lanes; i++) {
        sightings_close(&s->lanes[i].sightings);
        free(s->lanes[i].targets);
        free(s->lanes[i].flooded);
    }
    free(s->lanes);
}

static int open_lanes(struct vswitch *s, unsigned n)
{
    s->lanes = aligned_alloc(_Alignof(struct switch_lane), n * sizeof(s->lanes[0]));
    if (!s->lanes)
        return -ENOMEM;
    memset(s->lanes, 0, n * sizeof(s->lanes[0]));
    s->n_lanes = n;
    for (unsigned i = 0; i < n; i++) {
        struct switch_lane *here = &s->lanes[i];
        here->targets = calloc(n, sizeof(here->targets[0]));
        here->flooded = calloc(n, sizeof(here->flooded[0]));
        if (!here->targets || !here->flooded || sightings_open(&here->sightings))
            return -ENOMEM;
    }
    return 0;
}

static struct vswitch *new_switch(const struct device *d)
{
    struct vswitch *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->name = d->name;
    s->tick = 1;
    if (!fdb_open(&s->fdb)) {
        if (!open_lanes(s, d->lanes->n) && !exchange_open(d->lanes, switch_receive))
            return s;
        close_lanes(s);
        fdb_close(&s->fdb);
    }
    free(s);
    return NULL;
}

static int enroll(struct vswitch *s)
{
    for (unsigned i = 0; i < SWITCHES_MAX; i++) {
        s->id = n_opened++;
        struct vswitch *_Atomic *place = &switches[s->id % SWITCHES_MAX];
        if (!atomic_load_explicit(place, memory_order_relaxed)) {
            atomic_store_explicit(place, s, memory_order_release);
            return 0;
        }
    }
    return -ENOSPC;
}

static void free_switch(struct vswitch *s)
{
    exchange_close();
    close_lanes(s);
    fdb_close(&s->fdb);
    free(s);
}

static int switch_open(struct device *d, const struct line *l, struct error *e)
{
    (void)l;
    struct vswitch *s = new_switch(d);
    if (!s)
        return error_set(e, ENOMEM, "switch %s: out of memory", d->name);
    if (enroll(s)) {
        free_switch(s);
        return error_set(e, ENOSPC, "switch %s: there are %u switches, and no room for more",
                         d->name, SWITCHES_MAX);
    }
    d->wants_tick = true;
    d->priv = s;
    return 0;
}

static void switch_leave(struct device *d)
{
    struct vswitch *s = d->priv;
    atomic_store_explicit(&switches[s->id % SWITCHES_MAX], NULL, memory_order_relaxed);
}

static void switch_close(struct device *d)
{
    struct vswitch *s = d->priv;
    if (switch_of(s->id) == s) // opened in vain
        switch_leave(d);
    free_switch(s);
}

static int switch_busy(const struct device *d, struct error *e)
{
    const struct vswitch *s = d->priv;
    unsigned n_ports = read_n_ports(s);
    char names[ERROR_TEXT_MAX / 2] = "";
    size_t n = 0;
    if (!n_ports)
        return 0;
    for (unsigned i = 0; i < SWITCH_PORTS_MAX && n < sizeof(names); i++) {
        const struct port *p = port_at(s, i);
        if (p)
            n += (size_t)snprintf(names + n, sizeof(names) - n, "%s%s", n ? ", " : "", p->name);
    }
    return error_set(e, EBUSY, "switch %s: %u port%s: %s%s", d->name, n_ports,
                     n_ports == 1 ? " uses it" : "s use it", names, n < sizeof(names) ? "" : "...");
}

static void switch_join(struct device *d, struct lane *lane)
{
    (void)d;
    exchange_join(lane);
}

static void switch_part(struct device *d, struct lane *lane)
{
    (void)d;
    exchange_part(lane);
}

static void tick(struct device *d, uint64_t now_ms)
{
    switch_tick(d->priv, now_ms);
}

static void tell(const struct device *d, struct describer *to)
{
    switch_tell(d->priv, to);
}

// It has no queues: its ports have.
static unsigned switch_poll(struct queue *q, unsigned budget)
{
    (void)q, (void)budget;
    return 0;
}

const struct device_type switch_device = {
    .line = {.type = "switch", .help = "a virtual Ethernet switch, for ports"},
    .open = switch_open,
    .close = switch_close,
    .poll = switch_poll,
    .leave = switch_leave,
    .busy = switch_busy,
    .lane_join = switch_join,
    .lane_part = switch_part,
    .tick = tick,
    .tell = tell,
};
