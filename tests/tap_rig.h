// SPDX-License-Identifier: Apache-2.0
// tap_rig.h - TAP ports on a lane that the test turns by hand, each in a namespace of its own, and
// a switch that the test writes: switch_forward() and frame_return() are the rig's.
#pragma once

#include "devices/tap_internal.h"

#define TAP_RIG_PORTS 2

struct tap_rig_port {
    struct device device;
    struct line *line;
    struct tap *tap;
    int space;
    bool is_attached, is_asleep[2 * TAP_PAIRS_MAX];
};

struct tap_rig {
    struct lane lane;
    struct tap_rig_port ports[TAP_RIG_PORTS];
    uint64_t n_turns;
    // Each frame from port @from; the default sends it to the other port.
    void (*forward)(struct tap_rig *rig, unsigned from, struct frame *f);
    unsigned n_forwarded;
};

extern struct tap_rig tap_rig; // there is one

void tap_rig_open(void);
void tap_rig_close(void); // checks that everything came home

// Open "port NAME @keys" as port @i, in a namespace of its own, and start its queues on the lane.
void tap_rig_add(unsigned i, const char *keys);
void tap_rig_remove(unsigned i);
// The same by hand: open alone (0 or -errno with the sentence).
int tap_rig_open_port(unsigned i, const char *keys, struct error *e);
void tap_rig_close_port(unsigned i);
// Put the queues of port @i on the lane; take them off it.
void tap_rig_attach(unsigned i);
void tap_rig_detach(unsigned i);

// One turn of the lane.
void tap_rig_turn(void);
// Whether a turn would do nothing: all queues sleep.
bool tap_rig_is_asleep(void);
// Turns until @is_done, or the test fails.
void tap_rig_until(bool (*is_done)(void *context), void *context);

// Give @f to port @to's queue 0. It is @f's free() that hears when it is back.
void tap_rig_deliver(unsigned to, struct frame *f);
uint64_t tap_rig_drops(unsigned i, enum drop reason); // of all queues
