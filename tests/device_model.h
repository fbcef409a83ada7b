// SPDX-License-Identifier: Apache-2.0
// device_model.h - a slow, plain device side of one virtqueue, to test the driver against.
//
// Written from the specification like the driver, and simple rather than fast: it believes the
// driver, but fails the test at what the specification forbids a driver.
//
// Threads  one. Memory: the caller's struct; rings lie in the guest's memory.
#pragma once

#include "bench/driver.h"

#define MODEL_SEGMENTS_MAX 64

struct model_chain {
    uint16_t id;
    uint16_t n_descs;
    unsigned n_out, n_in;
    struct driver_segment segments[MODEL_SEGMENTS_MAX];
};

struct model {
    struct guest *guest;
    uint8_t *desc, *driver, *device; // the three areas
    uint32_t size;
    bool is_packed, has_event_idx;
    uint16_t next_avail; // split: free running; packed: position
    uint16_t next_used;
    bool avail_wrap, used_wrap;
};

void model_open(struct model *m, struct guest *g, const struct driver *d, uint64_t features);

// Take the next available chain.
bool model_pop(struct model *m, struct model_chain *out);

// Use @n chains at once, the last of which has @id, with one used entry (IN_ORDER); @n_descs is
// the sum of theirs. Returns whether the driver wants an interrupt.
bool model_push_batch(struct model *m, unsigned n, unsigned n_descs, uint16_t id, uint32_t len);

static inline bool model_push(struct model *m, const struct model_chain *c, uint32_t len)
{
    return model_push_batch(m, 1, c->n_descs, c->id, len);
}

// What the driver reads before it notifies: never, always, or (event index) when it makes the
// chain (split) or descriptor (packed) available that is @ahead of what the device looks at.
void model_want_no_kicks(struct model *m);
void model_want_kicks(struct model *m);
void model_want_kick_at(struct model *m, unsigned ahead);

// The next available position in the form of VHOST_USER_GET_VRING_BASE.
uint32_t model_base(const struct model *m);
