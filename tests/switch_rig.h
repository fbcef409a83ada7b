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

#define HUB_QUEUES_MAX 4
#define HUB_PORTS_MAX  64
#define HUB_HELD_MAX   4096
#define HUB_BYTES_MAX  128

struct hub_frame {
    struct frame frame;
    unsigned n_freed;
    struct iovec iov;
    uint8_t bytes[HUB_BYTES_MAX];
};

// What a queue got.
struct hub_note {
    unsigned queue;
    uint16_t vlan;
    uint32_t bytes;
    uint8_t head[16];
};

struct hub_port {
    struct port port; // first: port_of() leads here
    struct device device;
    struct queue queues[HUB_QUEUES_MAX]; // each sends and receives
    struct queue *receivers[HUB_QUEUES_MAX];
    struct port_stats stats[HUB_QUEUES_MAX];
    char name[16];

    struct hub_note *notes; // the last n_notes_max
    unsigned n_notes, n_notes_max;
    unsigned n_deliveries; // calls
    bool holds;
    struct frame *held[HUB_HELD_MAX];
    struct lane *held_on[HUB_HELD_MAX];
    unsigned n_held;
};

struct hub {
    struct lane_set *lanes;
    struct device *device; // the switch
    struct vswitch *at;
    uint64_t now_ms;
    struct hub_port *ports[HUB_PORTS_MAX]; // by hub_plug(), on lane 0
    unsigned n_ports;
};

void hub_open(struct hub *r, unsigned n_lanes);
void hub_close(struct hub *r);

// Set-up and tear-down of a test on one lane; what is plugged is unplugged.
extern struct hub hub;
int hub_setup(void **state);
int hub_teardown(void **state);

// A port with @n queues, all on lane 0, the link up. @mac NULL: it is learnt. hub_new_port() only
// makes it, the other also attaches it.
struct hub_port *hub_new_port(struct hub *r, const char *name, unsigned n, uint16_t vlan,
                              const char *mac);
struct hub_port *hub_add_port(struct hub *r, const char *name, unsigned n, uint16_t vlan,
                              const char *mac);
void hub_free_port(struct hub_port *p); // detached
void hub_remove_port(struct hub_port *p);

// Queue @i of @p is on @lane; NULL: on none.
void hub_place(struct hub_port *p, unsigned i, struct lane *lane);

// A frame of @p's queue 0. Addresses are small numbers: 02:00:00:00:hh:ll; HUB_ALL is the
// broadcast address. @tag is a tag's control information, 0 for no tag.
#define HUB_ALL 0x10000u
struct hub_frame *hub_frame(struct hub_port *p, unsigned to, unsigned from, uint16_t tag);
void hub_put_mac(uint8_t out[6], unsigned mac);

// Send it from queue 0's lane and (not one that is held) free it.
void hub_send(struct hub_port *p, struct hub_frame *f);
void hub_send_new(struct hub_port *p, unsigned to, unsigned from, uint16_t tag);

// Let go of what is held.
void hub_release(struct hub_port *p);

// A turn of each lane, then control's, @ms later.
void hub_turn(struct hub *r, uint64_t ms);

// More ports, with numbers from 0 on; all of them go away again.
struct hub_port *hub_plug(struct hub *r, uint16_t vlan, const char *mac);
void hub_plug_many(struct hub *r, unsigned n);
void hub_unplug_all(struct hub *r);
void hub_unplug_last(struct hub *r);

// Who of them got something since the last time: a bit each.
uint64_t hub_receivers(struct hub *r);
#define hub_check_goes_to(r, bits) assert_true(hub_receivers(r) == (bits))

// @mac says something through port @i, and control hears of it.
void hub_introduce(struct hub *r, unsigned i, unsigned mac, uint16_t tag);

uint64_t hub_drops(const struct hub_port *p, enum drop reason);
uint64_t hub_all_drops(const struct hub_port *p);
extern _Atomic unsigned hub_n_frames; // that exist
