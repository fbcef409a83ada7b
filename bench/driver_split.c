// SPDX-License-Identifier: Apache-2.0
#include "bench/driver_layout.h"

#include <errno.h>

// How far the event index may lag behind what was collected before polling moves it on. A
// stale one would come round again after 65536 chains and interrupt.
#define EVENT_LAG_MAX 16384

static uint16_t *used_event(const struct driver *d) // 2.7.6
{
    return &((struct split_avail *)d->driver)->ring[d->size];
}

static uint16_t *avail_event(const struct driver *d) // 2.7.8
{
    return (uint16_t *)(void *)&((struct split_used *)d->device)->ring[d->size];
}

static uint64_t fill_table(struct driver *d, uint16_t id, const struct driver_chain *c)
{
    unsigned n = c->n_out + c->n_in - c->n_direct;
    assert(n <= d->table_entries && "the chain fits its indirect table");
    struct split_desc *table = d->tables + (size_t)id * d->table_entries;
    for (unsigned i = 0; i < n; i++) {
        unsigned at = c->n_direct + i;
        unsigned flags = at >= c->n_out ? SPLIT_DESC_WRITE : 0;
        if (i + 1 < n)
            flags |= SPLIT_DESC_NEXT;
        table[i] = (struct split_desc){c->segments[at].addr, c->segments[at].bytes, (uint16_t)flags,
                                       (uint16_t)(i + 1 < n ? i + 1 : 0)};
    }
    return d->tables_addr + (size_t)id * d->table_entries * sizeof *table;
}

static bool add_one(struct driver *d, struct driver_chain *c)
{
    unsigned n = driver_chain_descs(c);
    if (n > d->n_free)
        return false;
    struct split_desc *desc = d->desc;
    uint16_t head = d->free_head, at = head, last = head;
    for (unsigned i = 0; i < c->n_direct; i++) {
        unsigned flags = i >= c->n_out ? SPLIT_DESC_WRITE : 0;
        if (i + 1 < n)
            flags |= SPLIT_DESC_NEXT;
        desc[at] = (struct split_desc){c->segments[i].addr, c->segments[i].bytes, (uint16_t)flags,
                                       d->links[at]};
        last = at;
        at = d->links[at];
    }
    if (n > c->n_direct) { // 2.7.5.3
        uint32_t bytes = (uint32_t)((c->n_out + c->n_in - c->n_direct) * sizeof(struct split_desc));
        desc[at] = (struct split_desc){fill_table(d, at, c), bytes, SPLIT_DESC_INDIRECT, 0};
        last = at;
        at = d->links[at];
    }
    d->free_head = at;
    driver_take(d, head, c, n, last);
    struct split_avail *avail = d->driver;
    guest_store16(&avail->ring[d->next_avail++ & (d->size - 1)], head);
    return true;
}

unsigned driver_split_add(struct driver *d, struct driver_chain *const chains[], unsigned n)
{
    unsigned i = 0;
    while (i < n && add_one(d, chains[i]))
        i++;
    return i;
}

bool driver_split_publish(struct driver *d)
{
    struct split_avail *avail = d->driver;
    const struct split_used *used = d->device;
    uint16_t old = d->published, new = d->next_avail;
    if (old == new)
        return false;
    guest_store16_release(&avail->idx, new);
    d->published = new;
    full_fence(); // 2.7.13.4.1: idx is visible before suppression is read
    if (!d->has_event_idx)
        return !(guest_load16(&used->flags) & SPLIT_USED_NO_NOTIFY); // 2.7.10
    uint16_t event = guest_load16(avail_event(d));
    return (uint16_t)(new - event - 1) < (uint16_t)(new - old); // 2.7.10
}

// Put the descriptors of used @head back in the list of free ones.
static void free_descs(struct driver *d, uint16_t head)
{
    const struct driver_slot *s = &d->slots[head];
    d->n_free += s->n_descs;
    if (d->is_in_order)
        return;
    d->links[s->last] = d->free_head;
    d->free_head = head;
}

static int collect(struct driver *d, const struct split_used_elem *elem, struct driver_used *used,
                   struct error *e)
{
    uint32_t id = guest_load32(&elem->id), len = guest_load32(&elem->len);
    if (d->is_in_order) {
        if (!d->is_batch) {
            if (id >= d->size || !d->slots[id].chain)
                return error_set(e, EPROTO, "the device used id %u, which is not in flight", id);
            d->batch_id = (uint16_t)id;
            d->batch_len = len;
        }
        id = driver_batch_next(d, &len);
    }
    int rc = driver_give_back(d, id, len, used, e);
    if (rc == 0)
        free_descs(d, (uint16_t)id);
    return rc;
}

int driver_split_poll(struct driver *d, struct driver_used used[], unsigned max, struct error *e)
{
    const struct split_used *ring = d->device;
    uint16_t ready = (uint16_t)(guest_load16_acquire(&ring->idx) - d->next_used);
    uint16_t out = (uint16_t)(d->published - d->next_used);
    if (unlikely(ready > out))
        return error_set(e, EPROTO, "the device's used index is %u ahead with %u chains out", ready,
                         out);
    unsigned n = MIN(ready, max);
    for (unsigned i = 0; i < n; i++) {
        const struct split_used_elem *elem = &ring->ring[d->next_used & (d->size - 1)];
        int rc = collect(d, elem, &used[i], e);
        if (unlikely(rc < 0))
            return rc;
        d->next_used++;
    }
    if (unlikely(d->is_batch && n == ready)) // 2.7.9
        return error_set(e, EPROTO, "the device's batch up to id %u exceeds its used index",
                         d->batch_id);
    if (d->has_event_idx && !d->is_armed &&
        (uint16_t)(d->next_used - guest_load16(used_event(d))) > EVENT_LAG_MAX)
        driver_split_disarm(d);
    return (int)n;
}

bool driver_split_arm(struct driver *d)
{
    struct split_avail *avail = d->driver;
    const struct split_used *used = d->device;
    if (d->has_event_idx)
        guest_store16(used_event(d), d->next_used);
    else
        guest_store16(&avail->flags, 0);
    full_fence(); // 2.7.14: the wish is visible before the used index is looked at again
    return guest_load16_acquire(&used->idx) == d->next_used;
}

// With the event index, flags stay 0 and the index stands just behind (2.7.7.1).
void driver_split_disarm(struct driver *d)
{
    struct split_avail *avail = d->driver;
    if (d->has_event_idx)
        guest_store16(used_event(d), (uint16_t)(d->next_used - 1));
    else
        guest_store16(&avail->flags, SPLIT_AVAIL_NO_INTERRUPT);
}
