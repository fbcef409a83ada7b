// SPDX-License-Identifier: Apache-2.0
// blk_range.h - requests on ranges of the disk: discard, write zeroes, secure erase.
//
// Private to blk. A request holds several ranges; each is read when its turn comes, checked, and
// done before the next one.
//
// Threads  [W] the worker that owns the queue.
// Trust    ranges are the guest's: each is copied once, then checked.
#pragma once

#include "devices/blk_parts.h"

// Make the first range of @r, whose header @p has, what it does. Its result.
enum disk_result blk_range_plan(struct disk_request *r, const struct chain *c,
                                const struct blk_parts *p);

// One range is done: true if another one is under way now.
bool blk_range_goes_on(struct disk_request *r);
