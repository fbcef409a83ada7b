// SPDX-License-Identifier: Apache-2.0
// Of the chains staged since the last publish, only the first head's flags are held back: a
// device looks at one descriptor at a time, in order (2.8.2), so it sees none of them before.
#include "bench/driver_layout.h"

#include <errno.h>

#define WRAP_FLAGS (PACKED_DESC_AVAIL | PACKED_DESC_USED)

static unsigned avail_flags(bool wrap) // 2.8.1
{
    return wrap ? PACKED_DESC_AVAIL : PACKED_DESC_USED;
}

static unsigned used_flags(bool wrap)
{
    return wrap ? WRAP_FLAGS : 0;
}

static uint64_t fill_table(struct driver *d, uint16_t id, const struct driver_chain *c)
{
    unsigned n = c->n_out + c->n_in;
    assert(n <= d->table_entries && "the chain fits its indirect table");
    struct packed_desc *table = (struct packed_desc *)(void *)d->tables;
    table += (size_t)id * d->table_entries;
    for (unsigned i = 0; i < n; i++) // 2.8.7: WRITE is the only flag in a table
        table[i] = (struct packed_desc){c->segments[i].addr, c->segments[i].bytes, 0,
                                        i >= c->n_out ? PACKED_DESC_WRITE : 0};
    return d->tables_addr + (size_t)id * d->table_entries * sizeof *table;
}

// Write the next descriptor of the ring and step over it.
static void put(struct driver *d, uint64_t addr, uint32_t len, uint16_t id, unsigned flags)
{
    struct packed_desc *desc = (struct packed_desc *)d->desc + d->next_avail;
    desc->addr = addr;
    desc->len = len;
    desc->id = id;
    flags |= avail_flags(d->avail_wrap);
    if (d->is_held) {
        desc->flags = (uint16_t)flags;
    } else {
        d->is_held = true;
        d->held_at = d->next_avail;
        d->held_flags = (uint16_t)flags;
    }
    if (++d->next_avail == d->size) {
        d->next_avail = 0;
        d->avail_wrap = !d->avail_wrap;
    }
}

static bool add_one(struct driver *d, struct driver_chain *c)
{
    unsigned n = driver_chain_descs(c), n_segments = c->n_out + c->n_in;
    assert((c->n_direct == 0 || c->n_direct == n_segments) && "no mixed lists (2.8.5)");
    if (n > d->n_free)
        return false;
    uint16_t id = d->free_head;
    if (!c->n_direct)
        put(d, fill_table(d, id, c), (uint32_t)(n_segments * sizeof(struct packed_desc)), id,
            PACKED_DESC_INDIRECT);
    for (unsigned i = 0; i < c->n_direct; i++) {
        unsigned flags = i >= c->n_out ? PACKED_DESC_WRITE : 0;
        if (i + 1 < n)
            flags |= PACKED_DESC_NEXT;
        // 2.8.6: the id is in the last descriptor.
        put(d, c->segments[i].addr, c->segments[i].bytes, i + 1 < n ? 0 : id, flags);
    }
    d->free_head = d->links[id];
    d->n_staged = (uint16_t)(d->n_staged + n);
    driver_take(d, id, c, n, 0);
    return true;
}

unsigned driver_packed_add(struct driver *d, struct driver_chain *const chains[], unsigned n)
{
    unsigned i = 0;
    while (i < n && add_one(d, chains[i]))
        i++;
    return i;
}

bool driver_packed_publish(struct driver *d)
{
    if (!d->is_held)
        return false;
    struct packed_desc *desc = d->desc;
    guest_store16_release(&desc[d->held_at].flags, d->held_flags);
    uint16_t n = d->n_staged;
    d->is_held = false;
    d->n_staged = 0;
    d->published = d->next_avail;
    d->published_wrap = d->avail_wrap;
    full_fence(); // 2.8.21.3.1: flags are visible before suppression is read
    uint32_t event = guest_load32(d->device);
    unsigned flags = event >> 16 & 3, at = event & 0x7fff; // 2.8.14
    if (flags != PACKED_EVENT_DESC)
        return flags == PACKED_EVENT_ENABLE;
    if ((bool)(event & 0x8000) != d->avail_wrap)
        at -= d->size; // in the lap before
    return (uint16_t)(d->next_avail - at - 1) < n;
}

// Whether the next descriptor to look at is used; -EPROTO if it is neither that nor as left.
static int look(const struct driver *d, unsigned *flags, struct error *e)
{
    const struct packed_desc *desc = d->desc;
    *flags = guest_load16_acquire(&desc[d->next_used].flags);
    unsigned wrap = *flags & WRAP_FLAGS;
    bool is_used = wrap == used_flags(d->used_wrap);
    if (d->next_used == d->published && d->used_wrap == d->published_wrap)
        return is_used ? error_set(e, EPROTO, "the device used descriptor %u with none out",
                                   d->next_used)
                       : 0;
    if (unlikely(!is_used && wrap != avail_flags(d->used_wrap)))
        return error_set(e, EPROTO, "descriptor %u has flags %#x: a wrong wrap counter",
                         d->next_used, *flags);
    return is_used;
}

static void free_descs(struct driver *d, uint16_t id)
{
    unsigned n = d->slots[id].n_descs;
    d->n_free += n;
    d->next_used = (uint16_t)(d->next_used + n);
    if (d->next_used >= d->size) {
        d->next_used = (uint16_t)(d->next_used - d->size);
        d->used_wrap = !d->used_wrap;
    }
    if (d->is_in_order)
        return;
    d->links[id] = d->free_head;
    d->free_head = id;
}

// Read the used descriptor that look() found. The length counts only with WRITE (2.8.4).
static int read_used(struct driver *d, unsigned flags, uint32_t *id, uint32_t *len, struct error *e)
{
    const struct packed_desc *desc = (struct packed_desc *)d->desc + d->next_used;
    *id = guest_load16(&desc->id);
    *len = flags & PACKED_DESC_WRITE ? guest_load32(&desc->len) : 0;
    if (!d->is_in_order)
        return 0;
    if (*id >= d->size || !d->slots[*id].chain)
        return error_set(e, EPROTO, "the device used id %u, which is not in flight", *id);
    d->batch_id = (uint16_t)*id;
    d->batch_len = *len;
    d->is_batch = true;
    return 0;
}

int driver_packed_poll(struct driver *d, struct driver_used used[], unsigned max, struct error *e)
{
    unsigned n = 0;
    while (n < max) {
        uint32_t id = 0, len = 0;
        if (!d->is_batch) {
            unsigned flags;
            int rc = look(d, &flags, e);
            if (unlikely(rc < 0))
                return rc;
            if (rc == 0)
                break;
            rc = read_used(d, flags, &id, &len, e);
            if (unlikely(rc < 0))
                return rc;
        }
        if (d->is_in_order)
            id = driver_batch_next(d, &len);
        int rc = driver_give_back(d, id, len, &used[n], e);
        if (unlikely(rc < 0))
            return rc;
        free_descs(d, (uint16_t)id);
        n++;
    }
    return (int)n;
}

static void set_event(struct driver *d, unsigned flags)
{
    unsigned at = d->next_used | (unsigned)d->used_wrap << 15;
    guest_store32(d->driver, at | flags << 16); // 2.8.14, in one store
}

bool driver_packed_arm(struct driver *d)
{
    const struct packed_desc *desc = d->desc;
    set_event(d, d->has_event_idx ? PACKED_EVENT_DESC : PACKED_EVENT_ENABLE);
    full_fence(); // 2.8.22: the wish is visible before the descriptor is looked at again
    unsigned flags = guest_load16_acquire(&desc[d->next_used].flags) & WRAP_FLAGS;
    bool is_empty = d->next_used == d->published && d->used_wrap == d->published_wrap;
    return is_empty || flags != used_flags(d->used_wrap);
}

void driver_packed_disarm(struct driver *d)
{
    set_event(d, PACKED_EVENT_DISABLE);
}
