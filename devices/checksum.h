// SPDX-License-Identifier: Apache-2.0
// checksum.h - the Internet checksum (RFC 1071) over bytes that lie in several pieces.
//
// Threads  any: no state but the caller's.
// Trust    the bytes may change while they are summed: the sum is then anything.
#pragma once

#include "dataplane/base.h"

struct checksum {
    uint64_t sum; // of 16-bit words in the host's byte order
    bool is_odd;  // an odd number of bytes so far: the next one is the second of its word
};

// Add @bytes at @data, which follow those added before.
void checksum_add(struct checksum *c, const void *data, size_t bytes);

// The ones' complement sum of all words, not complemented; as a big-endian word's value.
uint16_t checksum_sum(const struct checksum *c);

// What goes into a checksum field: the complement, and never 0, which means "none" in UDP and the
// same as 0xffff elsewhere.
uint16_t checksum_field(const struct checksum *c);
