// SPDX-License-Identifier: Apache-2.0
// place.h - which worker a queue goes to. A pure function: it knows no thread and no machine.
//
// A worker on the queue's memory node comes first, however loaded: a cache line from the other
// node costs more than a longer turn. Among those the least loaded takes it, the first of equals.
//
// Threads  [C], but nothing here has state.
#pragma once

#define PLACE_ANY_NODE (~0u)

struct place_worker {
    unsigned node; // memory node of its core
    unsigned load; // in any unit, the same for all
};

// [C] The index of the worker among @n (at least 1) for a queue whose memory is on @node.
unsigned place_queue(const struct place_worker workers[], unsigned n, unsigned node);
