// SPDX-License-Identifier: Apache-2.0
// rng.h - virtio-rng (VIRTIO 1.3, 5.4): hands the guest random bytes.
//
// Threads, Memory and Trust as device.h says.
#pragma once

#include "dataplane/device.h"

extern const struct device_type rng_device;
