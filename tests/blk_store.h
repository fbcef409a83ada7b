// SPDX-License-Identifier: Apache-2.0
// blk_store.h - the disks that requests are tried on: one of each back end, with known contents.
//
// Threads  one.
#pragma once

#include "tests/disk_rig.h"

#define SECTORS  2048u // of every disk here: 1 MiB
#define LAST     (SECTORS - 1)
#define WRAPS    (UINT64_MAX / 512)  // × 512 is almost 2^64
#define WRAPS_TO (UINT64_C(1) << 55) // × 512 is 0

enum { OK = VIRTIO_BLK_S_OK, IOERR = VIRTIO_BLK_S_IOERR, UNSUPP = VIRTIO_BLK_S_UNSUPP };

struct store {
    const char *name, *keys;
    bool has_data; // reads bring something
    bool is_read_only;
};

enum { STORE_NULL, STORE_RAM, STORE_FILE, STORE_READ_ONLY, STORES };
extern const struct store stores[STORES];

// What all but null hold when a test begins. A test leaves them so.
extern uint8_t store_contents[SECTORS * 512];

// Group set-up and tear-down: the image.
int store_make(void **state);
int store_remove(void **state);

void store_open(struct disk_rig *d, const struct store *s, uint64_t features);

// A case @f over the back end @i, which has that name.
#define OVER(f, store, i)                                                                          \
    {                                                                                              \
        .name = store ": " #f, .test_func = f, .initial_state = (void *)&stores[i]                 \
    }
