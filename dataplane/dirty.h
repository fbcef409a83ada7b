// SPDX-License-Identifier: Apache-2.0
// dirty.h - the dirty log of a live migration: one bit for each 4 KiB page of guest memory.
//
// The front end shares the bitmap (VHOST_USER_SET_LOG_BASE); it clears bits while we set
// them, so a bit is set atomically.
//
// Threads  [C] opens and closes; [W] marks.
// Memory   [C] owns it; closed only when no ring holds it.
// Trust    a page beyond the bitmap is counted, never written (hostile guest, short log).
#pragma once

#include "dataplane/base.h"
#include "dataplane/error.h"
#include "dataplane/mapping.h"
#include "dataplane/mem.h"

#define DIRTY_PAGE_BYTES 4096 // vhost-user: "log page size"

struct dirty {
    uint8_t *bits;
    uint64_t n_bytes;   // of the bitmap
    counter n_missed;   // pages that lie beyond it
    atomic_bool failed; // truncated by its owner
    struct mapping mapping;
};

// [C] Map @bytes of @fd from @offset. Does not take ownership of @fd. 0 or -errno.
int dirty_open(struct dirty **out, int fd, uint64_t bytes, uint64_t offset, struct error *e);

// [C] NULL is fine.
void dirty_close(struct dirty *d);

// [W] Mark the pages of guest range [@addr, @addr + @bytes).
void dirty_mark(struct dirty *d, uint64_t addr, uint64_t bytes);

// [W] Mark what the @bytes at our address @host are in the guest.
void dirty_mark_host(struct dirty *d, const struct mem *m, const void *host, uint64_t bytes);
