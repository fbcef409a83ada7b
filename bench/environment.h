// SPDX-License-Identifier: Apache-2.0
// environment.h - where a figure was taken, and what spoilt it.
//
// Threads  one; a round trip starts a second one for a moment.
// Memory   the caller's structs.
#pragma once

#include "dataplane/base.h"
#include "dataplane/error.h"

struct environment {
    char processor[96];
    char kernel[96];
    char governor[32]; // of the first processor; "" if the kernel does not say
    char clock[32];    // the kernel's clock source
    unsigned n_processors;
    uint64_t n_huge_pages;   // of 2 MiB, reserved
    double ticks_per_second; // cycles_now()
};

void environment_read(struct environment *env);

// Below: two processors that share a cache; above: they do not. Nanoseconds.
#define ENVIRONMENT_NEAR_NS 150

// How long a cache line takes from @here to @there and back: the best of many tries, so that it
// holds also while others use the processors. The calling thread stays on @here. 0 or -errno with
// the sentence.
int environment_round_trip(int here, int there, double *ns, struct error *e);

// What took the processor away from the calling thread.
struct disturbance {
    uint64_t n_switches; // it was made to wait for others
    uint64_t stolen_ms;  // the hypervisor ran something else, on all processors
};
void disturbance_read(struct disturbance *d);
