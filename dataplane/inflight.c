// SPDX-License-Identifier: Apache-2.0
// Theory: a record is updated in small steps around the one store that makes a batch visible to
// the driver (the used index, or the first descriptor's flags). Whoever reads it later compares
// it with the ring to learn on which side of that store the writer died.
#include "dataplane/inflight.h"

#include <errno.h>
#include <stdlib.h>

#define RECORD_VERSION 1 // 0: never used

size_t inflight_queue_bytes(uint64_t features, uint32_t queue_size)
{
    size_t bytes =
        features & VIRTIO_BIT(VIRTIO_F_RING_PACKED)
            ? sizeof(struct inflight_packed) + queue_size * sizeof(struct inflight_packed_desc)
            : sizeof(struct inflight_split) + queue_size * sizeof(struct inflight_split_desc);
    return (bytes + INFLIGHT_ALIGN - 1) & ~(size_t)(INFLIGHT_ALIGN - 1);
}

// What sorting by age needs; read once from the record, which may change meanwhile.
struct aged {
    uint64_t counter;
    uint16_t entry;
};

static int older(const void *a, const void *b)
{
    const struct aged *x = a, *y = b;
    return (x->counter > y->counter) - (x->counter < y->counter);
}

// Sort by age, hand the entries over, return the counter after the youngest.
static uint64_t order_by_age(struct aged found[], uint32_t n, uint16_t out[])
{
    qsort(found, n, sizeof(found[0]), older);
    for (uint32_t i = 0; i < n; i++)
        out[i] = found[i].entry;
    return n ? found[n - 1].counter + 1 : 0;
}

// ---- split -------------------------------------------------------------------------------

static void split_set_up(struct inflight_split *rec, uint32_t size, uint16_t used_idx)
{
    for (uint32_t i = 0; i < size; i++)
        rec->desc[i] = (struct inflight_split_desc){0};
    rec->features = 0;
    rec->desc_num = (uint16_t)size;
    rec->last_batch_head = 0;
    rec->used_idx = used_idx;
    inflight_step();
    rec->version = RECORD_VERSION;
}

// The last batch was published, but perhaps not all of it cleared.
static int split_finish_batch(struct inflight_split *rec, uint32_t size, uint16_t used_idx)
{
    uint16_t n = (uint16_t)(used_idx - guest_load16(&rec->used_idx));
    if (n > size)
        return -EINVAL;
    uint16_t head = guest_load16(&rec->last_batch_head);
    for (; n; n--) {
        if (head >= size)
            return -EINVAL;
        rec->desc[head].inflight = 0;
        head = guest_load16(&rec->desc[head].next);
    }
    inflight_step();
    rec->used_idx = used_idx;
    return 0;
}

int inflight_split_open(struct inflight_split *rec, uint32_t size, uint16_t used_idx,
                        uint16_t replay[], struct inflight_split_state *out)
{
    *out = (struct inflight_split_state){0};
    if (guest_load16(&rec->version) == 0) {
        split_set_up(rec, size, used_idx);
        return 0;
    }
    if (guest_load16(&rec->desc_num) != size || split_finish_batch(rec, size, used_idx))
        return -EINVAL;

    struct aged *found = calloc(size, sizeof(*found));
    if (!found)
        return -ENOMEM;
    for (uint32_t i = 0; i < size; i++)
        if (rec->desc[i].inflight)
            found[out->n_replay++] =
                (struct aged){guest_load64(&rec->desc[i].counter), (uint16_t)i};
    out->next_age = order_by_age(found, out->n_replay, replay);
    free(found);
    return 0;
}

void inflight_split_retire(struct inflight_split *rec, const uint16_t heads[], uint32_t n)
{
    uint16_t last = rec->last_batch_head;
    for (uint32_t i = 0; i < n; i++) {
        rec->desc[heads[i]].next = last;
        last = heads[i];
    }
    inflight_step();
    rec->last_batch_head = last;
    inflight_step();
}

void inflight_split_settle(struct inflight_split *rec, const uint16_t heads[], uint32_t n,
                           uint16_t used_idx)
{
    inflight_step();
    for (uint32_t i = 0; i < n; i++)
        rec->desc[heads[i]].inflight = 0;
    inflight_step();
    rec->used_idx = used_idx;
}

// ---- packed ------------------------------------------------------------------------------

static struct inflight_packed_position position_load(const struct inflight_packed *rec)
{
    union {
        uint64_t word;
        struct inflight_packed_position position;
    } u = {.word = guest_load64((const uint64_t *)(const void *)&rec->position)};
    return u.position;
}

static void position_store(struct inflight_packed *rec, struct inflight_packed_position position)
{
    union {
        uint64_t word;
        struct inflight_packed_position position;
    } u = {.word = 0};
    u.position = position;
    __atomic_store_n((uint64_t *)(void *)&rec->position, u.word, __ATOMIC_RELAXED);
}

static void packed_set_up(struct inflight_packed *rec, uint32_t size, uint16_t used_idx,
                          bool used_wrap)
{
    for (uint32_t i = 0; i < size; i++)
        rec->desc[i] = (struct inflight_packed_desc){.next = (uint16_t)(i + 1)};
    rec->features = 0;
    rec->desc_num = (uint16_t)size;
    rec->free_head = rec->old_free_head = 0;
    position_store(
        rec, (struct inflight_packed_position){used_idx, used_idx, used_wrap, used_wrap, {0}});
    inflight_step();
    rec->version = RECORD_VERSION;
}

// Commit the last batch if the driver could see it, else roll it back.
static void packed_finish_batch(struct inflight_packed *rec, const struct packed_desc *ring,
                                uint32_t size)
{
    struct inflight_packed_position p = position_load(rec);
    bool wrap = p.old_used_wrap_counter;
    if (p.old_used_idx < size &&
        (p.old_used_idx != p.used_idx || p.old_used_wrap_counter != p.used_wrap_counter)) {
        uint16_t flags = guest_load16(&ring[p.old_used_idx].flags);
        bool is_still_available =
            !!(flags & PACKED_DESC_AVAIL) == wrap && !!(flags & PACKED_DESC_USED) != wrap;
        if (!is_still_available) {
            rec->old_free_head = guest_load16(&rec->free_head);
            p.old_used_idx = p.used_idx;
            p.old_used_wrap_counter = p.used_wrap_counter;
        }
    }
    p.used_idx = p.old_used_idx;
    p.used_wrap_counter = p.old_used_wrap_counter;
    position_store(rec, p);
    inflight_step();
    rec->free_head = guest_load16(&rec->old_free_head);
}

// Entries in the free list are not in flight, whatever their flag says. A list that leads
// nowhere is longer than the record.
static int packed_clear_free(struct inflight_packed *rec, uint32_t size)
{
    uint16_t entry = guest_load16(&rec->free_head);
    uint32_t n = 0;
    for (; entry < size; n++) {
        if (n >= size)
            return -EINVAL;
        rec->desc[entry].inflight = 0;
        entry = guest_load16(&rec->desc[entry].next);
    }
    return 0;
}

int inflight_packed_open(struct inflight_packed *rec, uint32_t size, const struct packed_desc *ring,
                         uint16_t used_idx, bool used_wrap, uint16_t replay[],
                         struct inflight_packed_state *out)
{
    *out = (struct inflight_packed_state){.used_idx = used_idx, .used_wrap = used_wrap};
    if (guest_load16(&rec->version) == 0) {
        packed_set_up(rec, size, used_idx, used_wrap);
        return 0;
    }
    if (guest_load16(&rec->desc_num) != size)
        return -EINVAL;
    packed_finish_batch(rec, ring, size);
    struct inflight_packed_position p = position_load(rec);
    out->used_idx = p.used_idx;
    out->used_wrap = p.used_wrap_counter & 1;
    out->free_head = guest_load16(&rec->free_head);
    if (out->used_idx >= size || packed_clear_free(rec, size))
        return -EINVAL;

    struct aged *found = calloc(size, sizeof(*found));
    if (!found)
        return -ENOMEM;
    for (uint32_t i = 0; i < size; i++) {
        if (!rec->desc[i].inflight)
            continue;
        out->n_descs += guest_load16(&rec->desc[i].num);
        found[out->n_replay++] = (struct aged){guest_load64(&rec->desc[i].counter), (uint16_t)i};
    }
    out->next_age = order_by_age(found, out->n_replay, replay);
    free(found);
    return out->n_descs <= size ? 0 : -EINVAL;
}

bool inflight_packed_take(struct inflight_packed *rec, uint32_t size, uint16_t *free_head,
                          const struct packed_desc chain[], uint16_t n, uint64_t age,
                          uint16_t *last)
{
    uint16_t first = *free_head, entry = first;
    if (first >= size)
        return false;
    rec->desc[first].num = 0;
    rec->desc[first].counter = age;
    rec->desc[first].inflight = 1;
    for (uint16_t i = 0; i < n; i++) {
        if (entry >= size)
            return false;
        struct inflight_packed_desc *d = &rec->desc[entry];
        d->addr = chain[i].addr;
        d->len = chain[i].len;
        d->flags = chain[i].flags;
        d->id = chain[i].id;
        *last = entry;
        entry = guest_load16(&d->next);
    }
    rec->desc[first].last = *last;
    rec->desc[first].num = n;
    inflight_step();
    rec->free_head = entry;
    inflight_step();
    rec->old_free_head = entry; // from here on the chain counts as in flight
    *free_head = entry;
    return true;
}

void inflight_packed_retire(struct inflight_packed *rec, uint16_t *free_head, uint16_t first,
                            uint16_t last)
{
    rec->desc[last].next = *free_head;
    *free_head = first;
    inflight_step();
    rec->free_head = first;
}

void inflight_packed_advance(struct inflight_packed *rec, uint16_t used_idx, bool used_wrap)
{
    struct inflight_packed_position p = position_load(rec);
    p.used_idx = used_idx;
    p.used_wrap_counter = used_wrap;
    position_store(rec, p);
    inflight_step();
}

void inflight_packed_settle(struct inflight_packed *rec, uint16_t free_head)
{
    struct inflight_packed_position p = position_load(rec);
    p.old_used_idx = p.used_idx;
    p.old_used_wrap_counter = p.used_wrap_counter;
    inflight_step();
    rec->old_free_head = free_head;
    inflight_step();
    position_store(rec, p);
}
