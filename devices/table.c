// SPDX-License-Identifier: Apache-2.0
#include "devices/table.h"

#include "devices/blk.h"
#include "devices/ports.h"
#include "devices/rng.h"
#include "devices/switch.h"

const struct device_type *const device_table[] = {
    &blk_device,
    &rng_device,
    &switch_device,
    &port_device,
};
const unsigned device_table_n = ARRAY_LEN(device_table);
