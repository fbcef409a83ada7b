// SPDX-License-Identifier: Apache-2.0
#include "pollers/cycles.h"

#include <time.h>

#define ENOUGH_NS 200000 // to be right within a percent

// The clock between two looks at the cycle counter that lie close together.
static uint64_t clock_ns(uint64_t *cycles)
{
    for (unsigned i = 0;; i++) {
        struct timespec t;
        uint64_t before = cycles_now();
        clock_gettime(CLOCK_MONOTONIC, &t);
        *cycles = cycles_now();
        if (*cycles - before < 10000 || i == 100)
            return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
    }
}

uint64_t cycles_per_us(void)
{
    static uint64_t known;
    if (known)
        return known;
    uint64_t first, last, ns;
    uint64_t start = clock_ns(&first);
    do
        ns = clock_ns(&last) - start;
    while (ns < ENOUGH_NS);
    known = MAX((last - first) * 1000 / ns, 1);
    return known;
}
