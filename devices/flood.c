// SPDX-License-Identifier: Apache-2.0
#include "devices/flood.h"

static void begin_turn(struct flood *f, uint64_t now)
{
    f->turn = now;
    f->common = FLOOD_TURN_MAX / 2;
    f->shared = FLOOD_TURN_MAX / 2;
}

static void add_share(struct flood *f, uint64_t now, unsigned index, unsigned n_ports)
{
    uint32_t share = MAX(FLOOD_TURN_MAX / 2 / MAX(n_ports, 1u), 1u);
    f->ports[index].turn = now;
    f->ports[index].saved = MIN(f->ports[index].saved + share, MAX(share, n_ports));
}

bool flood_allows(struct flood *f, uint64_t now, unsigned index, unsigned n_ports, uint32_t cost)
{
    if (f->turn != now)
        begin_turn(f, now);
    if (f->common >= cost) {
        f->common -= cost;
        return true;
    }
    if (f->ports[index].turn != now)
        add_share(f, now, index, n_ports);
    if (f->ports[index].saved < cost || f->shared < cost)
        return false;
    f->ports[index].saved -= cost;
    f->shared -= cost;
    return true;
}
