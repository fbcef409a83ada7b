// SPDX-License-Identifier: Apache-2.0
// ports.h - the device type `port`, and the one list of port types.
//
// It reads what all ports have in common from the line, finds the switch, and hands each call on
// to the port type that the line names.
//
// Threads, Memory and Trust as port.h and device.h say.
#pragma once

#include "devices/port.h"

extern const struct device_type port_device;
