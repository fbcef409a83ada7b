// SPDX-License-Identifier: Apache-2.0
// disk_section.h - who may write to a disk now: many together, or one alone.
//
// A read-modify-write of a block loses what others write there meanwhile, so it is alone on its
// disk. Each queue counts its own writes, on a line of its own; who wants to be alone takes a
// ticket, which keeps new writers out, and waits until all counts are 0. A writer that finds a
// ticket out takes one as well: nobody starves. Nothing here waits: who cannot enter asks again.
//
// Threads  [W] any number of workers; a side belongs to the one that owns its queue.
// Memory   part of an image.
#pragma once

#include "dataplane/device.h"

enum section_entry {
    SECTION_ENTERED,
    SECTION_BUSY,     // others are in it, or before us: ask again later
    SECTION_BUSY_OWN, // only this side is in it: ask again when it leaves
};

struct section_side {
    _Alignas(CACHE_LINE) atomic_uint n_writes; // the owner writes, all read
    // The owner's.
    unsigned ticket;
    bool has_ticket;
    bool is_alone;
};

struct section {
    _Alignas(CACHE_LINE) atomic_uint tickets; // given out
    atomic_uint served;                       // gone in: the ticket whose turn it is
    atomic_uint n_sides;
    struct section_side sides[DEVICE_QUEUES_MAX];
};

// [C] Side @index will enter.
void section_add(struct section *s, unsigned index);

// One request a side at a time may wait: the next call, for that request, goes on with its ticket.
enum section_entry section_enter(struct section *s, unsigned index, bool alone);
void section_leave(struct section *s, unsigned index, bool alone);
