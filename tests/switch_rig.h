// SPDX-License-Identifier: Apache-2.0
// switch_rig.h - a switch, lanes without workers, and ports that note what they get.
//
// A port gives a frame back at once, or (holds) when told. Frames are parsed from bytes that the
// test may change afterwards.
//
// Threads  one test thread is all lanes and control, unless the test says otherwise.
#pragma once

#include "devices/switch.h"
#include "tests/check.h"

#define RIG_QUEUES_MAX 4
#define RIG_HELD_MAX   4096
#define RIG_BYTES_MAX  128

struct rig_frame {
    struct frame frame;
    unsigned n_freed;
    struct iovec iov;
    uint8_t bytes[RIG_BYTES_MAX];
};

// What a queue got.
struct rig_note {
    unsigned queue;
    uint16_t vlan;
    uint32_t bytes;
    uint8_t head[16];
};

struct rig_port {
    struct port port; // first: port_of() leads here
    struct device device;
    struct queue queues[RIG_QUEUES_MAX]; // each sends and receives
    struct queue *receivers[RIG_QUEUES_MAX];
    struct port_stats stats[RIG_QUEUES_MAX];
    char name[16];

    struct rig_note *notes; // the last n_notes_max
    unsigned n_notes, n_notes_max;
    unsigned n_deliveries; // calls
    bool holds;
    struct frame *held[RIG_HELD_MAX];
    struct lane *held_on[RIG_HELD_MAX];
    unsigned n_held;
};

struct switch_rig {
    struct lane_set *lanes;
    struct device *device; // the switch
    struct vswitch *at;
    uint64_t now_ms;
};

void rig_open(struct switch_rig *r, unsigned n_lanes);
void rig_close(struct switch_rig *r);

// A port with @n queues, all on lane 0, the link up. @mac NULL: it is learnt. rig_new_port() only
// makes it, the other also attaches it.
struct rig_port *rig_new_port(struct switch_rig *r, const char *name, unsigned n, uint16_t vlan,
                              const char *mac);
struct rig_port *rig_add_port(struct switch_rig *r, const char *name, unsigned n, uint16_t vlan,
                              const char *mac);
void rig_free_port(struct rig_port *p); // detached
void rig_remove_port(struct rig_port *p);

// Queue @i of @p is on @lane; NULL: on none.
void rig_place(struct rig_port *p, unsigned i, struct lane *lane);

// A frame of @p's queue 0. Addresses are small numbers: 02:00:00:00:hh:ll; RIG_ALL is the
// broadcast address. @tag is a tag's control information, 0 for no tag.
#define RIG_ALL 0x10000u
struct rig_frame *rig_frame(struct rig_port *p, unsigned to, unsigned from, uint16_t tag);
void rig_put_mac(uint8_t out[6], unsigned mac);

// Send it from queue 0's lane and (not one that is held) free it.
void rig_send(struct rig_port *p, struct rig_frame *f);
void rig_send_new(struct rig_port *p, unsigned to, unsigned from, uint16_t tag);

// Let go of what is held.
void rig_release(struct rig_port *p);

// A turn of each lane, then control's, @ms later.
void rig_turn(struct switch_rig *r, uint64_t ms);

uint64_t rig_drops(const struct rig_port *p, enum drop reason);
uint64_t rig_all_drops(const struct rig_port *p);
extern _Atomic unsigned rig_n_frames; // that exist
