// SPDX-License-Identifier: Apache-2.0
// disk_image.h - an image file or a block device: its size, what it can do, and whose it is.
//
// A writable image belongs to one disk (flock), a read-only one to all who only read. The lock is
// held from the start on, or with lock=start from the first start of a queue. It is let go when
// the last queue stops, and taken again when one starts: so an image changes its daemon while no
// guest uses it. Nothing waits for a lock.
//
// Data goes past the host's page cache (direct I/O) where the file can do that, or through it
// (buffered); which of them is decided once, so that the two never mix on one image.
//
// Threads  [C] all calls. Workers read, and set cannot_punch and cannot_zero.
// Memory   an image belongs to its disk.
#pragma once

#include "devices/disk.h"
#include "devices/disk_section.h"

// More than that is not direct.
#define IMAGE_ALIGN_MAX        (64u << 10)
#define IMAGE_MEMORY_ALIGN_MAX 4096u

struct image {
    int fd;
    bool is_direct;
    bool is_helped;          // each of its reads and writes takes a helper thread of the kernel's
    uint32_t memory_align;   // direct: of addresses; else 1
    uint32_t offset_align;   // direct: of offsets and lengths, at least a sector; else 1
    uint32_t range_align;    // of fallocate()
    struct section *section; // of writers, if blocks are larger than sectors; else NULL
    atomic_uint n_helped;    // requests of any queue that may be in a helper thread
    const char *path;        // the line's
    // [W] any worker writes: the file system refused it once.
    atomic_bool cannot_punch, cannot_zero;

    // The rest is control's.
    const struct disk *disk;
    bool is_locked;
    unsigned n_started;    // queues
    uint64_t device, node; // what the path led to, whatever it was called
    struct image *next;    // of all that are open
};

// Open what file= names, and fill in @d. 0, or -errno with the sentence and nothing left behind.
int image_open(struct image **out, struct disk *d, const struct line *l, struct error *e);
void image_close(struct image *i);

// A queue starts: the lock is taken, if none has started. -EWOULDBLOCK: somebody else has it.
int image_start(struct image *i, struct error *e);
void image_stop(struct image *i);

// Private to image_open(): direct or buffered, as the line and the file have it. The size is there.
int image_choose_cache(struct image *i, struct disk *d, const struct line *l, struct error *e);

static inline bool image_is_refused(const atomic_bool *flag)
{
    return atomic_load_explicit(flag, memory_order_relaxed);
}

// As disk_type's grow().
int image_grow(struct image *i, uint64_t *bytes, struct error *e);
