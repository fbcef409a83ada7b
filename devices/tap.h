// SPDX-License-Identifier: Apache-2.0
// tap.h - a port whose other side is a TAP interface of this host.
//
// Each of its queue= pairs is one queue of the interface, and two queues here: an even one takes
// frames for the interface, the odd one after it brings the interface's frames.
//
// Threads  as port.h.
// Memory   a queue's buffers, from its start to its stop; pages that no frame needed have none.
// Trust    the kernel's frames are checked as a guest's are.
#pragma once

#include "devices/port.h"

extern const struct port_type tap_port;
