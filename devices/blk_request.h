// SPDX-License-Identifier: Apache-2.0
// blk_request.h - one virtio-blk request: from a chain to what a disk does, and back.
//
// Private to blk. Header, data and status may be cut into descriptors in any way (VIRTIO 1.3,
// 2.7.4.1): the header is the first 16 readable bytes, the status is the last writable byte, and
// data is what remains on the side that the type uses. Where data shares a segment with one of
// them, the chain's segment is trimmed until the request is finished.
//
// Threads  [W] the worker that owns the queue.
// Memory   requests lie in the disk_queue; a chain is ours from parse to finish.
// Trust    the chain's contents are hostile: the header is read once, into a local.
#pragma once

#include "devices/disk.h"

struct blk {
    struct disk disk;
    uint8_t serial[VIRTIO_BLK_ID_BYTES]; // filled up with zeros
};

// [W] Take @c apart. The request's result is DISK_LATER if the disk has to act, else it is
// final. NULL: not a request, the ring has faulted and the chain is gone.
struct disk_request *blk_request_parse(struct disk_queue *q, struct chain *c);

// [W] The result is there: write the status and give the chain back, or go on with the next of
// its ranges.
void blk_request_finish(struct disk_request *r);
