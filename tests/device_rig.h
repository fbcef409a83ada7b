// SPDX-License-Identifier: Apache-2.0
// device_rig.h - one queue of a device, its driver and a lane in one thread.
//
// No session and no worker: a rig starts the ring, polls the device, reaps its io_uring and
// publishes, so that a test sees what each chain came back with.
//
// Threads  one thread a rig.
#pragma once

#include "bench/driver.h"
#include "dataplane/device.h"
#include "tests/check.h"

#define RIG_SEGMENTS_MAX 1100

// Features of both layouts; tests run over each.
extern const uint64_t rig_layouts[2];

struct device_rig {
    struct guest *guest;
    struct mem *mem;
    struct driver *driver;
    uint64_t features; // the driver's
    struct lane lane;
    struct device *device;
    struct queue *queue; // the device's first
    bool has_joined;     // the device is another rig's
};

// Parse @text, or fail to with the sentence in @e, and open the device.
int device_from_line(struct device **out, const char *text, struct error *e);

// Open the device of @line and start its first queue with these @features.
void device_rig_open(struct device_rig *rig, const char *line, uint64_t features);
void device_rig_close(struct device_rig *rig);
// Another queue of a device that is open, by the thread that shall run it.
void device_rig_join(struct device_rig *rig, struct device *device, unsigned queue,
                     uint64_t features);

// What stands in the queue moves to another start of the ring, as after a reset.
void device_rig_restart(struct device_rig *rig, uint64_t features);
// The ring stops, and starts where the driver is.
void device_rig_resume(struct device_rig *rig);

// Offer @n chains and run until they are all used, or the ring has faulted. Used lengths by
// position in @lengths. Returns how many came back.
unsigned device_rig_run(struct device_rig *rig, struct driver_chain *const chains[],
                        uint32_t lengths[], unsigned n);
