// SPDX-License-Identifier: Apache-2.0
// disk_sysfs.h - what the kernel tells of a block device in files: how it discards, whether it
// has zones, how worn it is.
//
// Threads  [C] all calls.
// Trust    the files are the kernel's, and short.
#pragma once

#include "dataplane/virtio.h"

#include <stdbool.h>
#include <sys/types.h>

struct disk_sysfs {
    uint32_t discard_bytes; // discards in multiples of it do most; 0: it does not discard
    bool is_host_managed;   // has zones that are written in sequence
    bool has_lifetime;
    struct virtio_blk_lifetime lifetime; // as of now, without reserved values (5.2.6.2)
};

// The folder of @device, or of the disk that it is a partition of. A descriptor, or -errno.
int disk_sysfs_open(dev_t device);

// Read what is in @folder. What is not there, or unknown, is 0.
void disk_sysfs_read(int folder, struct disk_sysfs *out);
