// SPDX-License-Identifier: Apache-2.0
// disk_load.h - a load on the disks of one or many guests, all from one thread.
//
// Each queue of each disk is kept at a depth. With verification every written block carries a
// stamp, a ledger knows which, and each read is compared with it.
//
// Threads  one thread.
// Memory   disks are borrowed; a load allocates its requests from their guests' memory.
// Trust    what a device returns is checked (driver.h), and its data if asked.
#pragma once

#include "bench/guest_disk.h"
#include "bench/histogram.h"
#include "bench/pace.h"

enum disk_load_pattern {
    DISK_LOAD_READ, // in order
    DISK_LOAD_WRITE,
    DISK_LOAD_RANDREAD,
    DISK_LOAD_RANDWRITE,
    DISK_LOAD_RANDRW, // half each
};

struct disk_load_config {
    enum disk_load_pattern pattern;
    uint32_t block_bytes; // a multiple of 512
    unsigned depth;       // requests in flight on each queue
    enum guest_request_form form;
    bool verify;          // a block that was never written is written before it is read
    uint64_t range_bytes; // of each disk, from its start; 0: all
    uint64_t seed;
};

// Of one disk.
struct disk_load_stats {
    uint64_t n_reads, n_writes; // came back
    uint64_t n_errors;          // of these, with another status than OK
    uint64_t n_verified;        // reads that were compared
    uint64_t n_kicks;           // system calls to notify the device
    struct histogram latency;   // cycles_now() ticks
};

struct disk_load;

int disk_load_open(struct disk_load **out, struct guest_disk *const disks[], unsigned n_disks,
                   const struct disk_load_config *config, struct error *e);
void disk_load_close(struct disk_load *l); // NULL is fine

// Guest memory that one disk needs for this load and its rings of @ring_size.
uint64_t disk_load_memory_bytes(const struct disk_load_config *config, unsigned n_queues,
                                uint32_t ring_size, uint32_t table_entries);

// Go once over all queues: collect, then offer new requests as long as @n_left allows (each one
// counts it down). Returns how many came back, or -errno with the sentence: the device broke
// the rules, or data differ.
int disk_load_turn(struct disk_load *l, uint64_t *n_left, struct error *e);

// From now on so many requests are offered each second, on all disks together; 0: as many as come
// back.
void disk_load_pace(struct disk_load *l, double per_second, double ticks_per_second);

// With verification, and nothing in flight: read back every block that was ever written and compare
// it with the ledger. 0, or -errno with the sentence.
int disk_load_read_back(struct disk_load *l, struct error *e);

uint64_t disk_load_n_in_flight(const struct disk_load *l);
// What came back so far, of all.
uint64_t disk_load_n_done(const struct disk_load *l);

const struct disk_load_stats *disk_load_stats(const struct disk_load *l, unsigned disk);
