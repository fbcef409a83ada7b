// SPDX-License-Identifier: Apache-2.0
// net.h - virtio-net (VIRTIO 1.3, 5.1): the port whose other end is a guest's driver.
//
// Threads, Memory and Trust as port.h says.
#pragma once

#include "devices/port.h"

extern const struct port_type net_port;
