// SPDX-License-Identifier: Apache-2.0
// pace.h - a fixed rate: when each request or frame is due.
//
// What is due and finds no room goes later, but counts from when it was due: a device that stalls
// is charged for the whole stall, not for the one request that met it.
//
// Threads  one. Memory: the caller's struct, zeroed: no rate, everything is due at once.
#pragma once

#include "dataplane/base.h"

struct pace {
    double interval; // cycles_now() ticks; 0: none
    double next;     // when the next one is due
};

static inline void pace_start(struct pace *p, double per_second, double ticks_per_second,
                              uint64_t now)
{
    p->interval = per_second > 0 ? ticks_per_second / per_second : 0;
    p->next = (double)now;
}

// Whether one is due at @now.
static inline bool pace_is_due(const struct pace *p, uint64_t now)
{
    return p->interval == 0 || p->next <= (double)now;
}

// Take it: when it was due.
static inline uint64_t pace_take(struct pace *p, uint64_t now)
{
    if (p->interval == 0)
        return now;
    uint64_t due = (uint64_t)p->next;
    p->next += p->interval;
    return due;
}
