// SPDX-License-Identifier: Apache-2.0
// bench_report.h - what sluice-bench prints.
//
// Threads  one. Memory: nothing is kept.
#pragma once

#include "bench/bench_options.h"

#include <stdio.h>

struct bench_result {
    const struct bench_options *options;
    const struct disk_load *load;
    double seconds;
    double ns_per_tick; // of cycles_now()
};

// Requests that came back so far, of all guests.
uint64_t bench_report_n_done(const struct bench_result *r);

void bench_report_table(const struct bench_result *r, FILE *to);
void bench_report_json(const struct bench_result *r, FILE *to);
