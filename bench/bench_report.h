// SPDX-License-Identifier: Apache-2.0
// bench_report.h - what sluice-bench prints: a table for people, JSON for machines.
//
// Threads  one. Memory: nothing is kept.
#pragma once

#include "bench/bench_run.h"

// A named figure of one guest, or of all.
struct bench_figure {
    const char *name; // "errors", also the key in JSON
    uint64_t value;
};

#define BENCH_FIGURES_MAX 6

struct bench_row {
    const char *name;
    uint64_t n_done;
    uint64_t n_bytes;
    const struct histogram *latency;
    struct bench_figure figures[BENCH_FIGURES_MAX];
    unsigned n_figures;
};

// The last part of a path.
const char *bench_tail(const char *path);

// @rows has one for each guest, @sum is of all.
void bench_report_table(const struct bench_result *r, const struct bench_row *sum,
                        const struct bench_row rows[], unsigned n_rows, FILE *to);
void bench_report_json(const struct bench_result *r, const struct bench_row *sum,
                       const struct bench_row rows[], unsigned n_rows, FILE *to);
