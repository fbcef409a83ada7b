// SPDX-License-Identifier: Apache-2.0
// driver.h - the driver's side of one virtqueue, in poll mode, both layouts.
//
// It offers chains, asks whether to notify, and collects what the device used, checking each
// used entry against what the specification lets a device write. It knows no sockets and no
// device types, and shares no code with the device side.
//
// Threads  one thread a driver; the device is elsewhere.
// Memory   rings and indirect tables lie in guest memory that driver_open() allocates; nothing
//          allocates after it. A chain belongs to the driver from driver_add() until it comes
//          back from driver_poll().
// Trust    what the device wrote is checked; a violation is an error with a sentence.
#pragma once

#include "bench/guest.h"
#include "dataplane/virtio.h"

struct driver_segment {
    uint64_t addr; // guest address
    uint32_t bytes;
};

// One buffer in the specification's sense: n_out device-readable segments, then n_in writable.
struct driver_chain {
    const struct driver_segment *segments;
    uint16_t n_out, n_in;
    // The first n_direct segments become descriptors of the ring, the rest one indirect table.
    // With packed rings all or none are direct (2.8.5).
    uint16_t n_direct;
    uint16_t unused;
    uint32_t in_bytes; // sum of the writable segments
};

struct driver_used {
    struct driver_chain *chain;
    uint32_t len; // bytes that the device says it wrote
};

struct driver_config {
    uint64_t features;      // negotiated; RING_PACKED, EVENT_IDX and IN_ORDER matter here
    uint32_t size;          // descriptors
    uint32_t table_entries; // room in each indirect table; 0: no indirect chains
};

// Guest addresses of the three areas.
struct driver_areas {
    uint64_t desc, driver, device;
};

struct driver;

int driver_open(struct driver **out, struct guest *g, const struct driver_config *config,
                struct error *e);
void driver_close(struct driver *d); // NULL is fine

// As after a device reset: zeroed rings, nothing in flight; chains are forgotten.
void driver_reset(struct driver *d);

void driver_describe(const struct driver *d, struct driver_areas *areas);
uint32_t driver_size(const struct driver *d);

// Where the device has to go on once it used all it got, in the form of
// VHOST_USER_SET_VRING_BASE.
uint32_t driver_base(const struct driver *d);

// Descriptors not in use, and chains the device holds or will get.
uint32_t driver_n_free(const struct driver *d);
uint32_t driver_n_in_flight(const struct driver *d);

// Stage chains in this order. Returns how many found room.
unsigned driver_add(struct driver *d, struct driver_chain *const chains[], unsigned n);

// Make what was staged available. True if the device wants to be notified.
bool driver_publish(struct driver *d);

// Collect up to @max used chains. Returns how many, or -EPROTO with the sentence if the device
// broke the rules; the driver is of no use then until it is reset.
int driver_poll(struct driver *d, struct driver_used used[], unsigned max, struct error *e);

// Ask for an interrupt at the next used chain. False: there is one already, and no interrupt
// was asked for. driver_disarm() goes back to polling, as after driver_open().
bool driver_arm(struct driver *d);
void driver_disarm(struct driver *d);
