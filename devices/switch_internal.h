// SPDX-License-Identifier: Apache-2.0
// switch_internal.h - what the files of the switch share.
//
// switch.c opens and closes, attaches and detaches; switch_learn.c keeps the addresses;
// switch_forward.c and switch_flood.c are the workers' part; switch_tell.c says how it stands.
#pragma once

#include "devices/exchange.h"
#include "devices/fdb.h"
#include "devices/flood.h"
#include "devices/sighting.h"
#include "devices/switch.h"

#define SWITCHES_MAX 256 // in a daemon
#define VLANS        4096

// A port's number while it is attached: its place, and which of those that had the place it is.
// So who still has the number of a port that left does not take its successor for it.
#define PORT_INDEX_BITS 10
#define PORT_LIVES      (1u << (FDB_PORT_BITS - PORT_INDEX_BITS))
static_assert(SWITCH_PORTS_MAX == 1u << PORT_INDEX_BITS && SWITCH_PORTS_MAX <= FLOOD_PORTS_MAX,
              "a place for each index");

static inline unsigned port_index(unsigned number)
{
    return number & (SWITCH_PORTS_MAX - 1);
}

// One lane's part. [W]
struct switch_lane {
    _Alignas(CACHE_LINE) struct sightings sightings;
    struct flood flood;
    counter n_gone; // frames that came for a queue which had left the lane
    // Scratch of a flood: lanes that get it, and by lane which flood it got last.
    unsigned *targets;
    uint64_t *flooded;
    uint64_t n_floods;
};

// What control knows of a port. [C]
struct member {
    unsigned life;
    unsigned n_learnt;
    uint64_t n_refused; // sightings, for one of the limits
};

struct vswitch {
    // Constant.
    const char *name;
    uint32_t id; // of all switches there ever were
    unsigned n_lanes;
    struct switch_lane *lanes;

    // Control writes, workers read.
    struct fdb fdb;
    _Atomic uint32_t now_s; // of the last tick
    _Atomic uint32_t tick;  // changes when sightings were heard
    _Atomic unsigned n_ports;
    _Atomic unsigned n_places;         // of ports[] and vlans[], in use or not
    _Atomic uint16_t n_of_vlan[VLANS]; // access ports; of 0: ports that take all VLANs
    struct port *_Atomic ports[SWITCH_PORTS_MAX];
    _Atomic uint16_t vlans[SWITCH_PORTS_MAX]; // of ports[], to skip most; the port's own decides

    // Control's.
    struct member members[SWITCH_PORTS_MAX];
    unsigned n_learnt;
    uint64_t n_crowded; // addresses whose bucket was full
    uint32_t aged_s;
};

// [any worker] The port with @number; NULL: it has left.
static inline struct port *switch_port(const struct vswitch *s, unsigned number)
{
    struct port *p = atomic_load_explicit(&s->ports[port_index(number)], memory_order_acquire);
    return p && p->index == number ? p : NULL;
}

// [any worker] The switch with @id; NULL: it has left.
struct vswitch *switch_of(uint32_t id);

// [W] What the exchange brings.
unsigned switch_receive(struct lane *lane, const struct parcel parcels[], unsigned n);

// [C] @p is in its place: its own address. 0 or -errno with the sentence.
int switch_add_static(struct vswitch *s, const struct port *p, struct error *e);
// [C] All addresses of the port with @number.
void switch_forget(struct vswitch *s, unsigned number);
// [C] Hear what workers saw, forget what is old.
void switch_tick(struct vswitch *s, uint64_t now_ms);

// [C] For `show`.
void switch_tell(const struct vswitch *s, struct describer *to);
