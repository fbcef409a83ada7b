// SPDX-License-Identifier: Apache-2.0
// bench_options.h - the command line of sluice-bench.
//
// Threads  one.
// Memory   bench_options_close() frees the socket paths.
// Trust    the text is the user's: a bad value is an error that names the option and the choices.
#pragma once

#include "bench/disk_load.h"
#include "bench/net_load.h"

#include <limits.h>
#include <stdio.h>

#define BENCH_GUESTS_MAX 1024
#define BENCH_NO_CPU     UINT_MAX

enum bench_command { BENCH_BLK, BENCH_NET };

struct bench_options {
    enum bench_command command;
    char **sockets; // one a guest
    unsigned n_guests;

    // As given.
    unsigned ring, ring_size, n_regions, n_queues, depth;
    unsigned cpu, server_cpu; // BENCH_NO_CPU: not told
    bool has_event_idx, has_in_order, is_huge, is_direct, is_indirect, is_mergeable;
    bool is_verified, is_json, is_help;
    double seconds;   // 0: until n_units
    uint64_t n_units; // UINT64_MAX: until seconds
    uint64_t rate;    // units a second; 0: as many as come back
    unsigned pattern, block_bytes;
    uint64_t range_bytes, seed;
    unsigned mode;
    const char *size;

    // What follows from it. Paths are NULL; the rest is the same for every guest.
    struct disk_load_config disk_load;
    struct guest_disk_config disk;
    struct net_load_config net_load;
    struct guest_nic_config nic;
};

void bench_options_help(FILE *to);

// "split" or "packed"; "randread"; "forward".
const char *bench_options_layout(const struct bench_options *o);
const char *bench_options_pattern(const struct bench_options *o);
const char *bench_options_mode(const struct bench_options *o);

// 0, or -EINVAL with the sentence.
int bench_options_parse(struct bench_options *o, int argc, char *argv[], struct error *e);
void bench_options_close(struct bench_options *o);
