// SPDX-License-Identifier: Apache-2.0
// flood.h - how much one lane may copy for everybody in a turn, and who of its ports may.
//
// A frame for all of a thousand ports costs a thousand copies. Half of what a turn may cost is for
// who comes first, the other half is shared equally, so that one port that floods takes from
// others nothing but the first half. What a port saves is enough for one frame, not for more.
//
// Threads  [W] the lane's worker.
// Memory   embedded, zeroed.
#pragma once

#include "dataplane/base.h"

#define FLOOD_TURN_MAX  8192 // deliveries
#define FLOOD_PORTS_MAX 1024

struct flood {
    uint64_t turn; // lane's now
    uint32_t common;
    uint32_t shared;
    struct {
        uint64_t turn;
        uint32_t saved;
    } ports[FLOOD_PORTS_MAX];
};

// [W] Whether port @index of @n_ports may send a frame to @cost receivers in the turn @now (not 0).
bool flood_allows(struct flood *f, uint64_t now, unsigned index, unsigned n_ports, uint32_t cost);
