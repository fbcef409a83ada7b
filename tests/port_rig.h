// SPDX-License-Identifier: Apache-2.0
// port_rig.h - uplink ports on a lane that the test turns by hand, each in a namespace of its own,
// and a switch that the test writes: switch_forward() and frame_return() are the rig's.
//
// A test reaches ports through the rig alone: one called by name would bring the real switch.
#pragma once

#include "devices/port.h"
#include "tests/packet_rig.h"

#define PORT_RIG_PORTS    2
#define PORT_RIG_CUTS_MAX 200

struct port_rig_port {
    struct device device;
    struct line *line;
    struct port *port;
    int space;
    bool is_attached, is_asleep[DEVICE_QUEUES_MAX];
};

struct port_rig {
    struct lane lane;
    struct port_rig_port ports[PORT_RIG_PORTS];
    uint64_t n_turns;
    // Each frame from port @from; the default sends it to the other port.
    void (*forward)(struct port_rig *rig, unsigned from, struct frame *f);
    unsigned n_forwarded;
};

extern struct port_rig port_rig; // there is one

void port_rig_open(void);
void port_rig_close(void); // checks that everything came home
// The same as set-up and tear-down of a test.
int port_rig_setup(void **state);
int port_rig_teardown(void **state);

// Open "port NAME @keys" as port @i, in a namespace of its own, and start its queues on the lane.
void port_rig_add(unsigned i, const char *keys);
void port_rig_remove(unsigned i);
// The same by hand: open alone (0 or -errno with the sentence).
int port_rig_open_port(unsigned i, const char *keys, struct error *e);
void port_rig_close_port(unsigned i);
// Put the queues of port @i on the lane; take them off it.
void port_rig_attach(unsigned i);
void port_rig_detach(unsigned i);

// One turn of the lane.
void port_rig_turn(void);
// Whether a turn would do nothing: all queues sleep.
bool port_rig_is_asleep(void);
// Turns until @is_done, or the test fails.
void port_rig_until(bool (*is_done)(void *context), void *context);
void port_rig_until_asleep(void);

// Give @f to port @to's queue 0. It is @f's free() that hears when it is back.
void port_rig_deliver(unsigned to, struct frame *f);
// Give @p, cut into segments that end at @cuts, to port @to, and turn until it is back.
void port_rig_send(unsigned to, const struct packet *p, const uint32_t *cuts, unsigned n_cuts);
// A frame that forward() kept goes back.
void port_rig_return(struct frame *f);
uint64_t port_rig_drops(unsigned i, enum drop reason); // of all queues
