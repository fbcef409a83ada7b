// SPDX-License-Identifier: Apache-2.0
// guest.h - the memory of a simulated guest: regions of memfds at guest-physical addresses.
//
// Guest addresses map linearly to ours, also across regions, so that a buffer may cross two
// regions that touch. The "user" addresses that a front end tells are made up, one stretch a
// region in reverse order: a back end that mixes the two kinds of address fails at once.
//
// Threads  one thread a guest.
// Memory   guest_close() unmaps and closes everything; there is no free of one allocation.
#pragma once

#include "dataplane/base.h"
#include "dataplane/error.h"

#define GUEST_REGIONS_MAX 509 // the most that common back ends take

struct guest_layout {
    unsigned n_regions;
    uint64_t region_bytes; // a multiple of the page size
    uint64_t hole_bytes;   // unmapped space after each region, likewise; 0: they touch
    uint64_t first_addr;   // guest address of the first region
    bool is_huge;          // on 2 MiB pages
    bool is_one_file;      // all regions lie in one memfd
};

struct guest_region {
    uint64_t guest_addr;
    uint64_t bytes;
    uint64_t user_addr;
    uint64_t file_offset;
    int fd;
    uint64_t n_allocated; // bytes, from the start
};

struct guest {
    uint8_t *host; // of first_addr
    uint64_t first_addr;
    uint64_t span_bytes; // regions and holes
    unsigned n_regions;
    unsigned next_region; // where the next allocation looks first
    struct guest_region regions[];
};

// 0, or -errno with the sentence in @e.
int guest_open(struct guest **out, const struct guest_layout *layout, struct error *e);
void guest_close(struct guest *g); // NULL is fine

// Zeroed memory inside one region, taken from the regions in turn. NULL if none has room.
void *guest_alloc(struct guest *g, uint64_t bytes, uint64_t align);
void *guest_alloc_in(struct guest *g, unsigned region, uint64_t bytes, uint64_t align);

// What a front end tells as the user address of @addr.
uint64_t guest_user_addr(const struct guest *g, uint64_t addr);

static inline uint64_t guest_addr(const struct guest *g, const void *host)
{
    return g->first_addr + (uint64_t)((const uint8_t *)host - g->host);
}

static inline void *guest_host(const struct guest *g, uint64_t addr)
{
    return g->host + (addr - g->first_addr);
}
