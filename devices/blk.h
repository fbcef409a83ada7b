// SPDX-License-Identifier: Apache-2.0
// blk.h - virtio-blk (VIRTIO 1.3, 5.2) over the disk back ends of disk.h.
//
// Requests are checked here, so that a back end only sees sound ones; completions come back
// through it too. It knows neither files nor memory.
//
// Threads  as device.h says.
// Memory   one block a queue, from its start to its stop: a line a descriptor.
// Trust    every request is hostile; the line is the operator's.
#pragma once

#include "dataplane/device.h"

extern const struct device_type blk_device;
