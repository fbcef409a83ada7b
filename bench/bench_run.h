// SPDX-License-Identifier: Apache-2.0
// bench_run.h - one measured run of a load: the clock, progress, the rate, and what spoilt it.
//
// It knows neither disks nor frames: a load is turned until its time is over and all is back.
//
// Threads  one.
// Memory   the load is borrowed.
#pragma once

#include "bench/bench_options.h"
#include "bench/environment.h"

struct bench_load {
    void *load;
    const char *unit; // "requests", "frames"
    int (*turn)(void *load, uint64_t *n_left, struct error *e);
    void (*pace)(void *load, double per_second, double ticks_per_second);
    uint64_t (*n_in_flight)(const void *load);
    uint64_t (*n_done)(const void *load);
    // Nothing came for so long that nothing will. True: that is a loss, go on without it.
    bool (*give_up)(void *load);
};

struct bench_result {
    const struct bench_options *options;
    struct environment environment;
    double seconds;
    double ns_per_tick;
    double idle;                  // share of the turns in which nothing came back
    double longest_gap_us;        // between two turns: the processor was away
    struct disturbance disturbed; // during the run
    bool has_distance;
    double near_before_ns, near_after_ns; // cache line to the back end's processor and back
};

// Sentences that a reader of the figures must know, into @to; how many.
unsigned bench_run_warnings(const struct bench_result *r, char to[][160], unsigned max);

// Run it. 0, or -errno with the sentence: what was measured until then is in @r.
int bench_run(struct bench_result *r, const struct bench_options *o, const struct bench_load *load,
              struct error *e);
