// SPDX-License-Identifier: Apache-2.0
// disk_zoned.h - an emulated host-managed zone model (VIRTIO 1.3, 5.2): states, write pointers.
//
// It says which writes a zoned disk takes, and where zones stand. It knows neither requests nor
// what stores the sectors, and keeps nothing across the daemon's end: it suits disks whose
// contents end with it too. All zones are sequential-write-required, and all but the last have
// the same size, which is their capacity.
//
//                write, append           open
//     EMPTY ───────────────────▶ IOPEN ───────▶ EOPEN      any: finish ─▶ FULL
//       ▲                        │   ▲           │              reset  ─▶ EMPTY
//       │ reset          close,  ▼   │ write     │ close   full up ─▶ FULL
//       └──────────────── room: CLOSED ◀─────────┘
//
// Threads  A disk's queues lie on several workers, which never wait for each other: who changes
//          a zone takes the one token first, and tries again later if somebody has it. Holding
//          it takes no longer than a look at the zones. Reading needs no token.
// Memory   one block a disk, from open to close.
// Trust    sectors and counts are the guest's, unchecked.
#pragma once

#include "dataplane/base.h"
#include "dataplane/error.h"
#include "dataplane/virtio.h"

#define DISK_ZONES_MAX      65536
#define DISK_ZONES_OPEN_MAX 1024 // what a limit may be: closing one to open another looks at all

struct disk_zones; // below the calls

struct disk_zones_config {
    uint64_t n_sectors;    // of the disk
    uint64_t zone_sectors; // a power of two below 2^32
    uint32_t open_max;     // zones open at once, up to DISK_ZONES_OPEN_MAX; 0: any number
    uint32_t active_max;   // zones open or closed at once; 0: any number
};

// What a request's status says (5.2.6).
enum disk_zone_result {
    DISK_ZONE_OK = VIRTIO_BLK_S_OK,
    DISK_ZONE_INVALID = VIRTIO_BLK_S_ZONE_INVALID_CMD,
    DISK_ZONE_UNALIGNED = VIRTIO_BLK_S_ZONE_UNALIGNED_WP,
    DISK_ZONE_TOO_MANY_OPEN = VIRTIO_BLK_S_ZONE_OPEN_RESOURCE,
    DISK_ZONE_TOO_MANY_ACTIVE = VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE,
};

// [C] NULL: out of memory.
struct disk_zones *disk_zones_open(const struct disk_zones_config *config);
void disk_zones_close(struct disk_zones *z); // NULL is fine

// [W] Take the token. False: another worker has it.
static inline bool disk_zones_take(struct disk_zones *z);
static inline void disk_zones_give(struct disk_zones *z);

// [W] With the token. @n sectors are about to be written at @sector: the write pointer moves.
enum disk_zone_result disk_zones_write(struct disk_zones *z, uint64_t sector, uint32_t n);
// [W] With the token. The same at the write pointer of the zone that begins at @sector; *@at is
// where that is.
enum disk_zone_result disk_zones_append(struct disk_zones *z, uint64_t sector, uint32_t n,
                                        uint64_t *at);
// [W] With the token. What the request VIRTIO_BLK_T_ZONE_@command says, to the zone that begins
// at @sector.
enum disk_zone_result disk_zones_command(struct disk_zones *z, uint32_t command, uint64_t sector);

// [W] Of @n sectors at @sector the first *@n_written can be read; the others are unwritten.
enum disk_zone_result disk_zones_read(const struct disk_zones *z, uint64_t sector, uint32_t n,
                                      uint32_t *n_written);
// [W] Describe zone @index, of n_zones.
void disk_zones_describe(const struct disk_zones *z, uint32_t index,
                         struct virtio_blk_zone_descriptor *out);

// ---- the structure -----------------------------------------------------------------------

struct disk_zones {
    struct disk_zones_config config; // constant
    unsigned zone_shift;             // of a sector
    uint32_t n_zones;

    _Alignas(CACHE_LINE) atomic_bool is_taken; // the token
    // With the token.
    uint32_t n_open, n_active;
    uint32_t opened[DISK_ZONES_OPEN_MAX]; // with open_max: the open zones, longest open first

    // State and write pointer of each zone in one word, so that readers see both as they were at
    // one time. Written with the token.
    _Atomic uint64_t zones[];
};

static inline bool disk_zones_take(struct disk_zones *z)
{
    return !atomic_exchange_explicit(&z->is_taken, true, memory_order_acquire); // (pair Z)
}

static inline void disk_zones_give(struct disk_zones *z)
{
    atomic_store_explicit(&z->is_taken, false, memory_order_release); // (pair Z)
}
