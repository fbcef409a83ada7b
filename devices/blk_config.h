// SPDX-License-Identifier: Apache-2.0
// blk_config.h - what a virtio-blk driver is told of its disk, and what it can set: the cache.
//
// Private to blk. The one field that can be written is writeback (VIRTIO 1.3, 5.2.5): whether
// writes are stable only after a flush, or each when it completes.
//
// The mode outlives drivers, as 5.2.5 allows: a front end keeps its copy of config space when
// its guest starts again. It does not outlive this process, while guests do: rings that go on
// from another process, or a front end that has not read config space from this one, leave it
// unknown what the driver believes. Each write is then stable, until the driver says which it
// is, or sends a flush, as no driver does that believes its writes are stable.
//
// Threads  as each call says. The mode is read by workers at any time.
// Trust    offset, size and contents of a write are the front end's.
#pragma once

#include "devices/blk_request.h"

enum blk_cache {
    BLK_CACHE_BACK,    // stable after a flush
    BLK_CACHE_THROUGH, // stable when complete
    BLK_CACHE_UNKNOWN, // so that it is safe whatever the driver believes: as THROUGH
};

// [C] Fill in features and config space of @d, whose disk is open.
void blk_config_fill(struct device *d);

// [C] The disk has another size.
void blk_config_resized(struct device *d);

// [C] As device_type's config_read() and config_write().
void blk_config_read(struct device *d);
int blk_config_write(struct device *d, uint32_t offset, const void *data, uint32_t bytes);

// [C] A queue of the device starts, or has stopped.
void blk_cache_start(struct disk_queue *q);
void blk_cache_stop(struct disk_queue *q);

// [W] Before the requests of a batch are looked at.
static inline void blk_cache_look(struct disk_queue *q)
{
    if (q->cache)
        q->is_write_through =
            atomic_load_explicit(q->cache, memory_order_relaxed) != BLK_CACHE_BACK;
}

// [W] The driver flushes.
static inline void blk_cache_flushed(struct disk_queue *q)
{
    uint8_t unknown = BLK_CACHE_UNKNOWN;
    if (q->cache && atomic_load_explicit(q->cache, memory_order_relaxed) == unknown)
        atomic_compare_exchange_strong(q->cache, &unknown, BLK_CACHE_BACK);
}
