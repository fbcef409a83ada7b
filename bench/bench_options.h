// SPDX-License-Identifier: Apache-2.0
// bench_options.h - the command line of sluice-bench.
//
// Threads  one.
// Memory   bench_options_close() frees the socket paths.
// Trust    the text is the user's: a bad value is an error that names the option and the choices.
#pragma once

#include "bench/disk_load.h"

#define BENCH_GUESTS_MAX 1024

struct bench_options {
    char **sockets; // one a guest
    unsigned n_guests;
    struct disk_load_config load;
    struct guest_disk_config disk; // path: NULL; the rest is the same for every guest
    double seconds;                // 0: until n_ios
    uint64_t n_ios;                // UINT64_MAX: until seconds
    int cpu;                       // to be pinned to, -1: not
    bool is_json;
    bool is_help;
};

extern const char bench_options_help[];

// "split" or "packed".
const char *bench_options_layout(const struct bench_options *o);
const char *bench_options_pattern(const struct bench_options *o);

// 0, or -EINVAL with the sentence.
int bench_options_parse(struct bench_options *o, int argc, char *argv[], struct error *e);
void bench_options_close(struct bench_options *o);
