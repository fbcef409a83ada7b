// SPDX-License-Identifier: Apache-2.0
#include "devices/disk_section.h"

void section_add(struct section *s, unsigned index)
{
    if (atomic_load(&s->n_sides) <= index)
        atomic_store(&s->n_sides, index + 1);
}

static void take_ticket(struct section *s, struct section_side *side)
{
    side->ticket = atomic_fetch_add(&s->tickets, 1);
    side->has_ticket = true;
}

static enum section_entry busy(const struct section_side *side)
{
    return side->is_alone ? SECTION_BUSY_OWN : SECTION_BUSY;
}

static bool is_turn(const struct section *s, const struct section_side *side)
{
    return atomic_load(&s->served) == side->ticket;
}

static void serve_next(struct section *s)
{
    atomic_store(&s->served, atomic_load(&s->served) + 1); // only whose turn it is
}

// A writer counts itself first and looks at the tickets then; who is alone takes a ticket first and
// looks at the counts then. All of it is sequentially consistent: one of them sees the other.
static enum section_entry enter_shared(struct section *s, struct section_side *side)
{
    if (!side->has_ticket) {
        atomic_fetch_add(&side->n_writes, 1);
        if (likely(atomic_load(&s->tickets) == atomic_load(&s->served)))
            return SECTION_ENTERED;
        atomic_fetch_sub(&side->n_writes, 1);
        take_ticket(s, side);
    }
    if (!is_turn(s, side))
        return busy(side);
    side->has_ticket = false;
    atomic_fetch_add(&side->n_writes, 1);
    serve_next(s);
    return SECTION_ENTERED;
}

static enum section_entry enter_alone(struct section *s, struct section_side *side)
{
    if (!side->has_ticket)
        take_ticket(s, side);
    if (!is_turn(s, side))
        return busy(side);
    enum section_entry entry = SECTION_ENTERED;
    unsigned n = atomic_load(&s->n_sides);
    for (unsigned i = 0; i < n; i++) {
        if (atomic_load(&s->sides[i].n_writes) == 0)
            continue;
        if (&s->sides[i] != side)
            return SECTION_BUSY;
        entry = SECTION_BUSY_OWN;
    }
    if (entry == SECTION_ENTERED) {
        side->has_ticket = false;
        side->is_alone = true;
    }
    return entry;
}

enum section_entry section_enter(struct section *s, unsigned index, bool alone)
{
    struct section_side *side = &s->sides[index];
    return alone ? enter_alone(s, side) : enter_shared(s, side);
}

void section_leave(struct section *s, unsigned index, bool alone)
{
    struct section_side *side = &s->sides[index];
    if (!alone) {
        atomic_fetch_sub(&side->n_writes, 1);
        return;
    }
    side->is_alone = false;
    serve_next(s);
}
