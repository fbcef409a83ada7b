// SPDX-License-Identifier: Apache-2.0
// Theory: a front end that lost its back end does not know where a packed ring stood; QEMU then
// gives the base of the ring's last start. Without a record the ring itself still tells, as long as
// each chain is one descriptor, as network drivers make them: when the device is at position P of
// lap w, the USED bit is w in all descriptors before P (used in this lap, or available in the next
// one) and not w from P on (available in this lap, or used in the one before).
#include "dataplane/ring_layout.h"

static bool used_bit(const struct ring *r, uint32_t at)
{
    const struct packed_desc *ring = r->desc;
    return guest_load16(&ring[at].flags) & PACKED_DESC_USED;
}

// Whether the descriptor can be of a chain that was used, but its first: as the driver left it,
// and followed by another unless it is the last.
static bool is_rest(const struct ring *r, uint32_t at, bool is_last)
{
    const struct packed_desc *ring = r->desc;
    uint16_t flags = guest_load16(&ring[at].flags);
    bool is_available = !!(flags & PACKED_DESC_AVAIL) != !!(flags & PACKED_DESC_USED);
    return is_available && (is_last || flags & PACKED_DESC_NEXT);
}

// A ring that nobody has used says nothing.
static bool is_blank(const struct ring *r)
{
    const struct packed_desc *ring = r->desc;
    for (uint32_t at = 0; at < r->size; at++)
        if (guest_load16(&ring[at].flags) & (PACKED_DESC_AVAIL | PACKED_DESC_USED))
            return false;
    return true;
}

// The first position from @at on whose USED bit is @bit; the size if there is none.
static uint32_t find_bit(const struct ring *r, uint32_t at, bool bit)
{
    while (at < r->size && used_bit(r, at) != bit)
        at++;
    return at;
}

// Whether the ring can have been left at @position of lap @wrap: each bit is as it has to be, but
// for the rest of a longer chain that was used last, which keeps the driver's.
static bool is_plausible(const struct ring *r, uint32_t position, bool wrap)
{
    uint32_t n_rest = 0, at = position;
    for (uint32_t n = 0; n < r->size; n++) {
        at = at ? at - 1 : r->size - 1;
        if (used_bit(r, at) == (at < position ? wrap : !wrap))
            continue;
        if (n > n_rest || !is_rest(r, at, n == 0))
            return false;
        n_rest++;
    }
    return n_rest < r->size;
}

void ring_packed_locate(struct ring *r)
{
    if (is_blank(r) || is_plausible(r, r->next_used, r->used_wrap))
        return;
    bool first = used_bit(r, 0);
    uint32_t position = find_bit(r, 0, !first);
    if (find_bit(r, position, first) < r->size)
        return;                           // chains of several descriptors: the base is all there is
    bool is_border = position == r->size; // all alike: the lap after the one that marked them
    r->next_used = r->next_avail = (uint16_t)(is_border ? 0 : position);
    r->used_wrap = r->avail_wrap = is_border ? !first : first;
}
