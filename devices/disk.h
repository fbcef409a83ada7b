// SPDX-License-Identifier: Apache-2.0
// disk.h - the contract between virtio-blk and what stores the sectors.
//
// A back end is a table of functions; blk.c checks requests and hands them over in batches.
// A back end knows neither chains nor status bytes: it sees segments of guest memory and an
// offset that is inside the disk, and it tells how far it came.
//
//     open ─▶ queue_start ─▶ lane_enter ─▶ submit, submit … ─▶ lane_leave ─▶ queue_stop ─▶ close
//              │              └──────────── once a stay on a worker ─┘            │
//              └──────────────── once a start of a queue ─────────────────────────┘
//
// Threads  each call says [C] or [W]; [W] is the worker that owns the queue.
// Memory   a request belongs to the back end from submit() until its result is there.
// Trust    segments are guest memory: they change, and may be truncated, at any time. Their
//          addresses, and offset and bytes, were checked.
#pragma once

#include "dataplane/device.h"

#define DISK_SECTOR_BYTES VIRTIO_BLK_SECTOR_SIZE

enum disk_operation {
    DISK_READ,
    DISK_WRITE,
    DISK_FLUSH,
    // These act on a range of the disk and move no data.
    DISK_DISCARD, // whatever is read there afterwards; the space may be given back
    DISK_ZERO,    // zeros, and the space stays taken
    DISK_UNMAP,   // zeros, and the space may be given back
    DISK_ERASE,   // as zeros, and nothing can bring back what was there; where can_erase
    DISK_OPERATIONS,
};

enum disk_result {
    DISK_OK,
    DISK_FAILED,
    DISK_UNSUPPORTED,
    DISK_LATER = UINT8_MAX, // not there yet
};

struct disk_queue;
struct image;
struct pinning;

// One request. Its place is fixed by the chain's id: nothing is allocated for it.
struct disk_request {
    struct uring_op op; // the back end's; its home is the queue's uring
    struct disk_queue *queue;
    uint8_t *status;   // [blk] the guest's status byte
    struct iovec *iov; // data, in guest memory; constant for the back end
    uint64_t offset;   // in the disk, bytes; a multiple of a sector
    uint32_t bytes;    // of data or range: a multiple of a sector, not 0 but for a flush
    uint32_t n_done;   // bytes moved, from the first on; the back end counts
    uint16_t n_iov;
    uint8_t operation;  // enum disk_operation
    uint8_t result;     // enum disk_result
    uint8_t n_retries;  // the back end's; 0 at submit()
    uint8_t front_trim; // [blk] bytes cut off the first segment
    uint8_t back_trim;  // [blk] bytes cut off the last segment
    uint8_t n_ranges;   // [blk] ranges that come after this one
};
static_assert(sizeof(struct disk_request) == CACHE_LINE, "one line a request");

struct disk {
    const struct disk_type *type;
    const char *name; // of the device, for sentences
    bool is_read_only;

    // Filled in by open(). Sizes in bytes.
    _Atomic uint64_t bytes;  // what the guest sees: a multiple of a sector, not 0; it may grow
    uint32_t logical_bytes;  // smallest unit that can be addressed
    uint32_t physical_bytes; // smallest unit that is written without reading
    uint32_t optimal_bytes;  // preferred size of a transfer; 0: none
    uint32_t range_bytes;    // the longest range of a discard or of zeros: whole sectors
    uint8_t n_ranges;        // of one request, at most
    uint32_t discard_bytes;  // discards in multiples of it do most; 0: physical_bytes
    bool can_unmap;          // zeros may give space back
    bool can_erase;
    bool has_lifetime; // what can be known of how worn it is
    struct virtio_blk_lifetime lifetime;
    struct disk_zones *zones; // [blk] NULL: not zoned
    uint8_t *memory;          // ram
    uint64_t reserved_bytes;  // ram: of addresses
    struct image *image;      // file
    struct pinning *pinning;  // file: pin=on; else NULL
};

// One queue's share of a disk.
struct disk_queue {
    struct disk *disk;
    struct queue *queue;
    // [W] A request that was DISK_LATER has its result. Never called inside submit().
    void (*done)(struct disk_request *r);
    void *priv;    // the back end's, from its queue_start to its queue_stop
    int file_slot; // file: in the lane's file table, or its descriptor
    // [blk] enum blk_cache of the device; NULL: is_write_through stays as it is.
    _Atomic uint8_t *cache;
    bool is_write_through; // a write is stable when its result is DISK_OK
    _Alignas(CACHE_LINE) struct disk_request requests[]; // by chain id
};

struct disk_type {
    const char *key; // of the line: "file"

    // [C] Read the line's key; fill in the disk. 0, or -errno with the sentence and nothing
    // left behind.
    int (*open)(struct disk *d, const struct line *l, struct error *e);
    // [C] Give back what open took.
    void (*close)(struct disk *d);
    // [C] Optional; default: nothing. A queue starts; it has stopped, and nothing of it is out.
    // 0, or -errno with the sentence; -EWOULDBLOCK: not now, it is asked again soon.
    int (*queue_start)(struct disk_queue *q, struct error *e);
    void (*queue_stop)(struct disk_queue *q);
    // [W] Act on the batch. On return each result is there, or is DISK_LATER as it was on
    // entry and done() will be called once. A flush covers every write whose result was there.
    void (*submit)(struct disk_queue *q, struct disk_request *const batch[], unsigned n);
    // [W] Optional; default: nothing. 0 or -errno.
    int (*lane_enter)(struct disk_queue *q);
    void (*lane_leave)(struct disk_queue *q);
    // [C] Queues may run. Make room for *@bytes, a multiple of a sector and no less than now, or
    // (0) say in *@bytes how much room there is. 0, or -errno with the sentence.
    int (*grow)(struct disk *d, uint64_t *bytes, struct error *e);
};

extern const struct disk_type disk_file;
extern const struct disk_type disk_ram;
extern const struct disk_type disk_null;
