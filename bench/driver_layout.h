// SPDX-License-Identifier: Apache-2.0
// driver_layout.h - inside the driver: the structure, and what each layout implements.
//
// Split rings keep free descriptors in a list, packed ones free buffer ids; one array of links
// serves both. With IN_ORDER everything comes back as it went, so the list is a fixed circle.
//
// Threads  as driver.h.
#pragma once

#include "bench/driver.h"

// What is in flight under a head (split) or buffer id (packed).
struct driver_slot {
    struct driver_chain *chain; // NULL: nothing
    uint16_t n_descs;           // ring entries
    uint16_t last;              // split: its last descriptor
};

struct driver {
    struct driver_slot *slots; // by id
    uint16_t *links;           // by id: the next free one
    uint16_t *order;           // IN_ORDER: ids as they were added, a circle
    void *desc;
    void *driver;
    void *device;
    struct split_desc *tables; // table_entries for each id; packed entries are as large
    uint64_t tables_addr;

    uint32_t size;
    uint32_t n_free; // descriptors
    uint32_t n_in_flight;
    uint32_t table_entries;
    uint32_t order_mask;
    uint32_t order_head, order_tail; // free running
    uint16_t free_head;
    uint16_t next_avail; // split: free running; packed: position
    uint16_t published;  // next_avail as the device knows it
    uint16_t next_used;
    bool avail_wrap, published_wrap, used_wrap; // packed wrap counters
    bool is_packed, has_event_idx, is_in_order, is_armed;
    bool is_held;        // packed: the first staged head is not available yet…
    uint16_t held_at;    // …this one…
    uint16_t held_flags; // …and gets these flags
    uint16_t n_staged;   // packed: descriptors since the last publish

    bool is_batch; // IN_ORDER: chains up to batch_id are used, the last with batch_len
    uint16_t batch_id;
    uint32_t batch_len;

    struct guest *guest;
    uint64_t desc_bytes, driver_bytes, device_bytes;
};

// Ring entries that @c occupies.
static inline unsigned driver_chain_descs(const struct driver_chain *c)
{
    return c->n_direct + (c->n_direct < c->n_out + c->n_in);
}

static inline void driver_take(struct driver *d, uint16_t id, struct driver_chain *c, unsigned n,
                               uint16_t last)
{
    d->slots[id] = (struct driver_slot){c, (uint16_t)n, last};
    d->n_free -= n;
    d->n_in_flight++;
    if (d->is_in_order)
        d->order[d->order_tail++ & d->order_mask] = id;
}

// The device used @id: check it and give the chain back. Descriptors are freed by the layout.
int driver_give_back(struct driver *d, uint32_t id, uint32_t len, struct driver_used *used,
                     struct error *e);

// IN_ORDER: the id whose turn it is, as part of the current batch, and its length.
uint16_t driver_batch_next(struct driver *d, uint32_t *len);

unsigned driver_split_add(struct driver *d, struct driver_chain *const chains[], unsigned n);
bool driver_split_publish(struct driver *d);
int driver_split_poll(struct driver *d, struct driver_used used[], unsigned max, struct error *e);
bool driver_split_arm(struct driver *d);
void driver_split_disarm(struct driver *d);

unsigned driver_packed_add(struct driver *d, struct driver_chain *const chains[], unsigned n);
bool driver_packed_publish(struct driver *d);
int driver_packed_poll(struct driver *d, struct driver_used used[], unsigned max, struct error *e);
bool driver_packed_arm(struct driver *d);
void driver_packed_disarm(struct driver *d);
