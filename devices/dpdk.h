// SPDX-License-Identifier: Apache-2.0
// dpdk.h - a port whose other side is a network device driven by DPDK.
//
// Each of its queues= pairs is one queue of the device in each direction, and two queues here: an
// even one sends, the odd one after it receives, and is polled without end. DPDK itself is in a
// plug-in (dpdk_driver.h), loaded when the first line asks for it.
//
// Threads  as port.h. Opening the first one starts DPDK, which takes some tenths of a second.
// Memory   a queue's frames, from its start to its stop.
// Trust    the network's frames are checked as a guest's are.
#pragma once

#include "devices/port.h"

extern const struct port_type dpdk_port;
