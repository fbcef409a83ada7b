// SPDX-License-Identifier: Apache-2.0
// blk_zone.h - requests to a zoned disk (VIRTIO 1.3, 5.2.6): what disk_zoned.h says, done.
//
// Private to blk. The disk under the zones acts inside submit() and never fails, as ram and null
// do: so a zone's write pointer never has to come back.
//
// Threads  [W] the worker that owns the queue, [C] control.
// Trust    as blk_parts.h.
#pragma once

#include "devices/blk_parts.h"
#include "devices/disk_zoned.h"

// [C] Lay zones over @d, which is open, if @l says so. 0, or -errno with the sentence. Closed by
// disk_zones_close().
int blk_zone_open(struct disk *d, const struct line *l, struct error *e);

// [W] Make the zone request in @p's header what @r does. Its result; DISK_LATER: to be admitted.
enum disk_result blk_zone_plan(struct disk_request *r, const struct chain *c,
                               const struct blk_parts *p);

// [W] Let @r, which is DISK_LATER, do to the zones what it does. True: its result is there, or
// DISK_LATER if the disk has to act. False: it is tried again soon, and finished.
bool blk_zone_admit(struct disk_request *r);
