// SPDX-License-Identifier: Apache-2.0
#include "dataplane/lane.h"

void lane_add_poll(struct lane *lane, struct lane_poll *p)
{
    assert(!p->lane && "added once");
    p->lane = lane;
    p->next = lane->polls;
    lane->polls = p;
}

void lane_remove_poll(struct lane_poll *p)
{
    struct lane_poll **at = &p->lane->polls;
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    p->lane = NULL;
}

unsigned lane_poll_all(struct lane *lane)
{
    unsigned work = 0;
    for (struct lane_poll *p = lane->polls, *next; p; p = next) {
        next = p->next; // it may remove itself
        work += p->poll(p, LANE_BUDGET);
    }
    return work;
}

bool lane_has_work(const struct lane *lane)
{
    for (const struct lane_poll *p = lane->polls; p; p = p->next) {
        if (p->has_work(p))
            return true;
    }
    return false;
}
