// SPDX-License-Identifier: Apache-2.0
#include "bench/driver_layout.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int check_config(const struct driver_config *c, struct error *e)
{
    bool packed = c->features & VIRTIO_BIT(VIRTIO_F_RING_PACKED);
    if (!c->size || c->size > (packed ? PACKED_SIZE_MAX : SPLIT_SIZE_MAX))
        return error_set(e, EINVAL, "a ring has 1 to %u descriptors, not %u", PACKED_SIZE_MAX,
                         c->size);
    if (!packed && !is_power_of_two(c->size)) // 2.7
        return error_set(e, EINVAL, "a split ring's size is a power of two, not %u", c->size);
    if (c->table_entries && !(c->features & VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC))) // 2.7.5.3.1
        return error_set(e, EINVAL, "indirect tables were not negotiated");
    return 0;
}

static void *alloc_area(struct driver *d, uint64_t bytes, uint64_t align)
{
    return guest_alloc(d->guest, (bytes + CACHE_LINE - 1) & ~(uint64_t)(CACHE_LINE - 1), align);
}

// Sizes: 2.7 for split, 2.8.10.1 for packed. Split tails hold the event index (2.7.6, 2.7.8).
static int alloc_rings(struct driver *d, struct error *e)
{
    d->desc_bytes = d->size * sizeof(struct split_desc);
    d->driver_bytes = d->is_packed ? sizeof(struct packed_event)
                                   : sizeof(struct split_avail) + 2ull * d->size + 2;
    d->device_bytes =
        d->is_packed ? sizeof(struct packed_event)
                     : sizeof(struct split_used) + d->size * sizeof(struct split_used_elem) + 2;
    d->desc = alloc_area(d, d->desc_bytes, CACHE_LINE);
    d->driver = alloc_area(d, d->driver_bytes, CACHE_LINE);
    d->device = alloc_area(d, d->device_bytes, CACHE_LINE);
    if (!d->desc || !d->driver || !d->device)
        return error_set(e, ENOMEM, "no room in guest memory for a ring of %u", d->size);
    if (!d->table_entries)
        return 0;
    uint64_t bytes = (uint64_t)d->size * d->table_entries * sizeof(struct split_desc);
    d->tables = alloc_area(d, bytes, CACHE_LINE);
    if (!d->tables)
        return error_set(e, ENOMEM, "no room in guest memory for %u indirect tables", d->size);
    d->tables_addr = guest_addr(d->guest, d->tables);
    return 0;
}

static int alloc_state(struct driver *d, struct error *e)
{
    uint32_t circle = 1;
    while (circle < d->size)
        circle *= 2;
    d->order_mask = circle - 1;
    d->slots = calloc(d->size, sizeof d->slots[0]);
    d->links = calloc(d->size, sizeof d->links[0]);
    d->order = calloc(circle, sizeof d->order[0]);
    return d->slots && d->links && d->order ? 0 : error_set(e, ENOMEM, "no memory for a driver");
}

int driver_open(struct driver **out, struct guest *g, const struct driver_config *c,
                struct error *e)
{
    int rc = check_config(c, e);
    if (rc < 0)
        return rc;
    struct driver *d = calloc(1, sizeof *d);
    if (!d)
        return error_set(e, ENOMEM, "no memory for a driver");
    d->guest = g;
    d->size = c->size;
    d->table_entries = c->table_entries;
    d->is_packed = c->features & VIRTIO_BIT(VIRTIO_F_RING_PACKED);
    d->has_event_idx = c->features & VIRTIO_BIT(VIRTIO_F_EVENT_IDX);
    d->is_in_order = c->features & VIRTIO_BIT(VIRTIO_F_IN_ORDER);
    rc = alloc_rings(d, e);
    if (rc == 0)
        rc = alloc_state(d, e);
    if (rc < 0) {
        driver_close(d);
        return rc;
    }
    driver_reset(d);
    *out = d;
    return 0;
}

void driver_close(struct driver *d)
{
    if (!d)
        return;
    free(d->slots);
    free(d->links);
    free(d->order);
    free(d);
}

void driver_reset(struct driver *d)
{
    memset(d->desc, 0, d->desc_bytes);
    memset(d->driver, 0, d->driver_bytes);
    memset(d->device, 0, d->device_bytes);
    memset(d->slots, 0, d->size * sizeof d->slots[0]);
    for (uint32_t i = 0; i < d->size; i++)
        d->links[i] = (uint16_t)(i + 1 == d->size ? 0 : i + 1);
    d->n_free = d->size;
    d->n_in_flight = 0;
    d->order_head = d->order_tail = 0;
    d->free_head = d->next_avail = d->published = d->next_used = 0;
    d->avail_wrap = d->published_wrap = d->used_wrap = true; // 2.8.1
    d->is_held = d->is_batch = false;
    d->n_staged = 0;
    driver_disarm(d);
}

void driver_describe(const struct driver *d, struct driver_areas *areas)
{
    areas->desc = guest_addr(d->guest, d->desc);
    areas->driver = guest_addr(d->guest, d->driver);
    areas->device = guest_addr(d->guest, d->device);
}

uint32_t driver_size(const struct driver *d)
{
    return d->size;
}

uint32_t driver_base(const struct driver *d)
{
    if (!d->is_packed)
        return d->next_used;
    uint32_t half = d->next_used | (uint32_t)d->used_wrap << 15;
    return half | half << 16;
}

uint32_t driver_n_free(const struct driver *d)
{
    return d->n_free;
}

uint32_t driver_n_in_flight(const struct driver *d)
{
    return d->n_in_flight;
}

int driver_give_back(struct driver *d, uint32_t id, uint32_t len, struct driver_used *used,
                     struct error *e)
{
    if (unlikely(id >= d->size || !d->slots[id].chain))
        return error_set(e, EPROTO, "the device used id %u, which is not in flight", id);
    struct driver_chain *c = d->slots[id].chain;
    if (unlikely(len > c->in_bytes)) // 2.7.8.2, 2.8.4
        return error_set(e, EPROTO, "the device says it wrote %u bytes of %u writable", len,
                         c->in_bytes);
    d->slots[id].chain = NULL;
    d->n_in_flight--;
    *used = (struct driver_used){c, len};
    return 0;
}

// Chains that a batch skips count as used completely (2.7.9, 2.8.8).
uint16_t driver_batch_next(struct driver *d, uint32_t *len)
{
    uint16_t id = d->order[d->order_head++ & d->order_mask];
    d->is_batch = id != d->batch_id;
    *len = d->is_batch ? d->slots[id].chain->in_bytes : d->batch_len;
    return id;
}

unsigned driver_add(struct driver *d, struct driver_chain *const chains[], unsigned n)
{
    return d->is_packed ? driver_packed_add(d, chains, n) : driver_split_add(d, chains, n);
}

bool driver_publish(struct driver *d)
{
    return d->is_packed ? driver_packed_publish(d) : driver_split_publish(d);
}

int driver_poll(struct driver *d, struct driver_used used[], unsigned max, struct error *e)
{
    return d->is_packed ? driver_packed_poll(d, used, max, e) : driver_split_poll(d, used, max, e);
}

bool driver_arm(struct driver *d)
{
    d->is_armed = true;
    if (d->is_packed ? driver_packed_arm(d) : driver_split_arm(d))
        return true;
    driver_disarm(d);
    return false;
}

void driver_disarm(struct driver *d)
{
    d->is_armed = false;
    if (d->is_packed)
        driver_packed_disarm(d);
    else
        driver_split_disarm(d);
}
