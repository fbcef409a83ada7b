// SPDX-License-Identifier: Apache-2.0
// blk_request.h - one virtio-blk request: from a chain to what a disk does, and back.
//
// Private to blk.
//
// Threads  [W] the worker that owns the queue.
// Memory   requests lie in the disk_queue; a chain is ours from parse to finish.
// Trust    the chain's contents are hostile: the header is read once, into a local.
#pragma once

#include "devices/disk.h"

struct blk {
    struct disk disk;
    uint8_t serial[VIRTIO_BLK_ID_BYTES]; // filled up with zeros
    _Atomic uint8_t cache;               // enum blk_cache
    unsigned n_started;                  // [C] queues
    bool is_config_read;                 // [C] by a front end, since the disk was opened
};

// [W] Take @c apart. The request's result is DISK_LATER if the disk has to act, else it is
// final. NULL: nothing is to be done with it now: it is finished later, or it was no request, the
// ring has faulted and the chain is gone.
struct disk_request *blk_request_parse(struct disk_queue *q, struct chain *c);

// [W] The result is there: write the status and give the chain back, or go on with the next of
// its ranges.
void blk_request_finish(struct disk_request *r);
