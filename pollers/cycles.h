// SPDX-License-Identifier: Apache-2.0
// cycles.h - how fast cycles_now() counts, measured against the clock.
//
// Threads  [C] only.
#pragma once

#include "dataplane/base.h"

// [C] Cycles in a microsecond. The first call measures, for 200 us.
uint64_t cycles_per_us(void);
