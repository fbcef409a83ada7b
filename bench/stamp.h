// SPDX-License-Identifier: Apache-2.0
// stamp.h - what a verified block holds: every 512 bytes say whose they are.
//
// A sector carries its disk, number and generation, a checksum of those, and a pattern that
// follows from the checksum. So a wrong one tells whether it is old, of elsewhere, or torn.
//
// Threads  all: nothing here has state.
#pragma once

#include "dataplane/base.h"
#include "dataplane/error.h"

#define STAMP_SECTOR_BYTES 512

struct stamp_key {
    uint32_t disk;
    uint32_t generation; // of the block
    uint64_t sector;     // of the block's first byte
};

// @bytes is a multiple of the sector size, @data aligned to 8.
void stamp_write(void *data, uint32_t bytes, struct stamp_key key);

// 0, or -EIO with a sentence that says what the first wrong sector holds instead.
int stamp_check(const void *data, uint32_t bytes, struct stamp_key key, struct error *e);

// The generation that @data says it has; 0 in a block of zeros.
uint32_t stamp_generation(const void *data);
