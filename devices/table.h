// SPDX-License-Identifier: Apache-2.0
// table.h - the device types there are.
//
// Threads  all: constant.
#pragma once

#include "dataplane/device.h"

extern const struct device_type *const device_table[];
extern const unsigned device_table_n;
