// SPDX-License-Identifier: Apache-2.0
#include "pollers/place.h"

#include <stdbool.h>

static bool is_better(const struct place_worker *a, const struct place_worker *b, unsigned node)
{
    bool a_near = a->node == node, b_near = b->node == node;
    if (a_near != b_near)
        return a_near;
    return a->load < b->load;
}

unsigned place_queue(const struct place_worker workers[], unsigned n, unsigned node)
{
    unsigned best = 0;
    for (unsigned i = 1; i < n; i++) {
        if (is_better(&workers[i], &workers[best], node))
            best = i;
    }
    return best;
}
