// SPDX-License-Identifier: Apache-2.0
// pinning.h - a guest's memory as fixed buffers of io_uring: pinned once, not for each request.
//
// A helper thread allocates all of the memory and registers it, in slices, with a ring of its own.
// When that is done workers take the slices into their rings' tables. Until then, where the kernel
// cannot do it, and where a limit is met, requests pin their own pages as they do without it.
//
// Memory that changes is pinned anew. What only grows stays in use meanwhile; if some of it goes,
// no queue runs then, and requests pin their own pages until the rest is pinned. Mappings stay
// until their slices are unregistered.
//
// Threads  [C] open, close, memory, tick; [W] the worker of the queue whose view it is.
// Memory   a view belongs to its queue. A mutex is taken by workers when what is pinned changes,
//          only if that does not wait.
// Trust    the memory may be truncated: its pages stay with us then, and are nobody else's.
#pragma once

#include "dataplane/mem.h"
#include "dataplane/uring.h"

#include <pthread.h>

#define PINNING_SLICE_BYTES (UINT64_C(1) << 30) // the kernel's limit of one buffer

struct pinned; // one snapshot of memory

struct pin_slice {
    uintptr_t start;
    uint64_t bytes;
};

// What one queue knows. [W] Zero: nothing yet.
struct pin_view {
    unsigned generation;
    int first; // slot, of the first slice
    struct pinned *pinned;
    const struct pin_slice *slices; // by start; NULL: none
    unsigned n_slices;
    unsigned hint;
};

struct pinning {
    const char *name;
    pthread_mutex_t lock;
    atomic_uint generation; // of current; never 0
    struct pinned *current; // under the lock

    // The rest is control's.
    bool has_said;          // why this guest's memory is not pinned
    struct mem *next;       // to be pinned
    struct pinned *working; // is being pinned
    struct pinned *retired; // those that end
};

// [C] @name is the device's. 0 or -errno; 0 with NULL, and the log says so, if the kernel cannot.
int pinning_open(struct pinning **out, const char *name, struct error *e);
// [C] No queue has a view of it. NULL is fine.
void pinning_close(struct pinning *p);

// [C] As device_type's memory().
void pinning_set_memory(struct pinning *p, const struct mem *m);
// [C] From time to time.
void pinning_tick(struct pinning *p);

// [W] Before a batch: take what is pinned now.
void pinning_change(struct pinning *p, struct pin_view *v, struct uring *u);
// [W] The queue leaves its ring.
void pinning_leave(struct pin_view *v, struct uring *u);
// The slice of an address that is not the hint's, or -1.
int pinning_search(const struct pin_view *v, uintptr_t at);

static inline void pinning_look(struct pinning *p, struct pin_view *v, struct uring *u)
{
    if (unlikely(atomic_load_explicit(&p->generation, memory_order_relaxed) != v->generation))
        pinning_change(p, v, u);
}

// [W] The slot of the buffer in which all of it lies, or -1.
static inline int pinning_find(struct pin_view *v, const void *at, size_t bytes)
{
    if (likely(!v->slices))
        return -1;
    uintptr_t start = (uintptr_t)at;
    if (unlikely(start - v->slices[v->hint].start >= v->slices[v->hint].bytes)) {
        int found = pinning_search(v, start);
        if (found < 0)
            return -1;
        v->hint = (unsigned)found;
    }
    const struct pin_slice *s = &v->slices[v->hint];
    return bytes <= s->bytes - (start - s->start) ? v->first + (int)v->hint : -1;
}
