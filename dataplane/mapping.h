// SPDX-License-Identifier: Apache-2.0
// mapping.h - a piece of a file that a peer sent, mapped so that the peer cannot hurt us.
//
// Guest memory, the dirty log and the in-flight region come as descriptors. All are checked,
// mapped and guarded here; what the bytes mean is the caller's.
//
// Threads  [C] opens and closes; any thread touches the bytes.
// Memory   the caller owns the struct and the failed flag.
// Trust    the descriptor, offset and size are hostile. Only regular files of tmpfs (memfd is
//          one) and hugetlbfs are mapped: on anything else (FUSE, NFS) a page fault sleeps at
//          the peer's will. Truncation later is caught by guard.h.
#pragma once

#include "dataplane/base.h"
#include "dataplane/error.h"

struct mapping {
    uint8_t *at;       // the first byte asked for
    void *base;        // the whole mapping, whole pages
    size_t base_bytes; // of it
    int guard;         // its slot
};

// [C] Map @bytes of @fd from @offset, read and write. Does not take ownership of @fd. *@failed
// becomes true when the file is truncated under us. @what begins the sentence in @e ("dirty
// log"). 0 or -errno.
int mapping_open(struct mapping *m, int fd, uint64_t offset, uint64_t bytes, atomic_bool *failed,
                 const char *what, struct error *e);

// [C] Nobody may touch the bytes any more.
void mapping_close(struct mapping *m);
