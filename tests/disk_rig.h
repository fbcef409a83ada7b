// SPDX-License-Identifier: Apache-2.0
// disk_rig.h - virtio-blk requests in any cut, written byte by byte into guest memory.
//
// A request is two streams, readable and writable; a shape cuts both into segments. Segments
// lie apart, with canaries between them.
//
// Threads  one thread a rig.
#pragma once

#include "tests/device_rig.h"

#define DISK_CANARY   0xa5 // also in data that a device has not written
#define DISK_ALL      (UINT32_MAX - 1)
#define DISK_BUT_LAST UINT32_MAX
#define DISK_CALLS    64

// Sizes of segments in turn, the last one that is not 0 again and again; DISK_ALL takes what is
// left, DISK_BUT_LAST all of it but one byte.
struct disk_shape {
    const char *name;
    uint32_t out[4], in[4];
};

extern const struct disk_shape disk_shapes[];
extern const unsigned disk_n_shapes;
#define DISK_PLAIN (&disk_shapes[0])

// A request to make, then what came of it.
struct disk_call {
    uint32_t type;
    uint64_t sector;
    const uint8_t *out; // n_out bytes of data that follow the header, or NULL: zeros
    uint32_t n_out;
    uint32_t n_in;     // bytes of writable data before the status
    uint32_t n_header; // bytes of the header that are sent
    bool has_status;

    // Filled in by disk_rig_run().
    int status;       // -1: not written
    uint32_t used;    // length
    uint32_t n_clean; // bytes at the end of the data that still are canaries
    uint8_t *in;      // n_in bytes, gathered
    struct driver_chain chain;
    struct driver_segment pieces[RIG_SEGMENTS_MAX];
};

struct disk_rig {
    struct device_rig rig;
    uint8_t *arena; // guest memory for requests
    uint32_t n_arena;
    uint8_t *gathered; // copies of what was read
    uint32_t n_gathered;
};

void disk_rig_open(struct disk_rig *d, const char *line, uint64_t features);
void disk_rig_close(struct disk_rig *d);
// As device_rig_join().
void disk_rig_join(struct disk_rig *d, struct device *device, unsigned queue, uint64_t features);

// Make @n requests at once; returns how many came back.
unsigned disk_rig_run(struct disk_rig *d, const struct disk_shape *shape, struct disk_call calls[],
                      unsigned n);

// One plain request. Returns its status.
int disk_rig_write(struct disk_rig *d, uint64_t sector, const void *data, uint32_t bytes);
int disk_rig_read(struct disk_rig *d, uint64_t sector, void *data, uint32_t bytes);
int disk_rig_flush(struct disk_rig *d);

// Bytes that differ from sector to sector and from @seed to @seed.
void disk_pattern(uint8_t *data, uint32_t bytes, uint64_t sector, unsigned seed);
