// SPDX-License-Identifier: Apache-2.0
// mem.h - the guest's memory as a front end shared it: guest address → host address.
//
// A struct mem is an immutable snapshot of the memory table. A change makes a new
// snapshot that shares the mappings both have; the old one is freed when no worker can
// hold it any more. Mappings are unmapped with the last snapshot that has them.
//
// Threads  [C] builds and frees snapshots; any thread reads one it was given.
// Memory   the caller owns a snapshot; the snapshot holds its mappings.
// Trust    addresses are hostile: every look-up is bounded. Descriptors are hostile: only
//          tmpfs, memfd and hugetlbfs are mapped, since on anything else (FUSE, NFS) a page
//          fault sleeps at the peer's will. Truncation later is caught by guard.h.
#pragma once

#include "dataplane/base.h"
#include "dataplane/error.h"

#define MEM_REGIONS_MAX 509 // what GET_MAX_MEM_SLOTS answers; QEMU has at most 512

struct mem_map; // one mmap(), shared by snapshots

struct mem_region {
    uint64_t guest_addr; // first guest physical address
    uint64_t size;       // bytes, never 0; guest_addr + size does not wrap
    uint64_t user_addr;  // the same byte in the front end's address space
    uint8_t *host;       // the same byte in ours
    struct mem_map *map;
};

struct mem {
    unsigned n_regions;
    struct mem_region regions[]; // by guest_addr, no two overlap
};

// A region as a front end describes it (vhost-user: memory region description).
struct mem_desc {
    uint64_t guest_addr;
    uint64_t size;
    uint64_t user_addr;
    uint64_t mmap_offset; // of the region's first byte in the descriptor
};

// [C] A snapshot with exactly the @n regions; what @old (may be NULL) maps identically (same
// file, offset, size) is shared instead of mapped again. Never takes ownership of @fds.
// 0, or -errno with the sentence in @e; *@out is untouched then.
int mem_set(struct mem **out, const struct mem *old, const struct mem_desc descs[], const int fds[],
            unsigned n, struct error *e);

// [C] A snapshot with one region more. The region that is there already succeeds (QEMU adds
// twice for net); one that overlaps another is -EINVAL.
int mem_add(struct mem **out, const struct mem *old, const struct mem_desc *desc, int fd,
            struct error *e);

// [C] A snapshot without the region (matched by guest_addr, user_addr, size). An absent one
// succeeds.
int mem_remove(struct mem **out, const struct mem *old, const struct mem_desc *desc,
               struct error *e);

// [C] Another snapshot of the same: its mappings stay as long as either is there. 0 or -errno.
int mem_copy(struct mem **out, const struct mem *old, struct error *e);

// [C] NULL is fine.
void mem_free(struct mem *m);

// [C] Whether every mapping of @old is also in @new: then publishing is enough. Otherwise
// what runs on @old must drain first.
bool mem_keeps_all(const struct mem *new, const struct mem *old);

// [C] Whether a mapping was truncated under us. Such a snapshot reads as zeros.
bool mem_is_failed(const struct mem *m);

// [C] Region @i as it was described, and which file it is of.
void mem_describe(const struct mem *m, unsigned i, struct mem_desc *desc, uint64_t *device,
                  uint64_t *inode);

// [C] Which file front-end address @user_addr lies in, so that it is known again. False if it is
// in no region.
bool mem_identify(const struct mem *m, uint64_t user_addr, uint64_t *device, uint64_t *inode);

// [C] Our address of the @bytes that start at front-end address @user_addr, NULL unless they
// lie in one region.
void *mem_at_user(const struct mem *m, uint64_t user_addr, uint64_t bytes);

// The guest address of a byte of ours; UINT64_MAX if it is in no region. Linear: for the
// dirty log and reports, not for the fast path.
uint64_t mem_guest_addr(const struct mem *m, const void *host);

// Out of line half of mem_at(): the region of @addr by binary search, or NULL.
const struct mem_region *mem_find(const struct mem *m, uint64_t addr);

// Our address of guest address @addr, NULL if it is in no region. *@bytes (on entry what is
// wanted) becomes what lies contiguously there, never 0 on success unless 0 was asked.
// *@hint, the caller's own, remembers the last region: about 4 cycles when it hits.
static inline uint8_t *mem_at(const struct mem *m, const struct mem_region **hint, uint64_t addr,
                              uint64_t *bytes)
{
    const struct mem_region *region = *hint;
    if (unlikely(!region || addr - region->guest_addr >= region->size)) {
        region = mem_find(m, addr);
        if (!region)
            return NULL;
        *hint = region;
    }
    uint64_t offset = addr - region->guest_addr;
    if (unlikely(*bytes > region->size - offset))
        *bytes = region->size - offset;
    return region->host + offset;
}
