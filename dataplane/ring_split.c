// SPDX-License-Identifier: Apache-2.0
// The split layout (VIRTIO 1.3, 2.7): a descriptor table, an available ring that the driver
// writes and a used ring that we write.
#include "dataplane/inflight.h"
#include "dataplane/ring_layout.h"

#include <errno.h>

static const struct split_desc *desc_table(const struct ring *r)
{
    return r->desc;
}

static struct split_avail *avail_ring(const struct ring *r)
{
    return r->driver;
}

static struct split_used *used_ring(const struct ring *r)
{
    return r->device;
}

// 2.7.7, 2.7.8: the event words follow the rings.
static const uint16_t *used_event(const struct ring *r)
{
    return &avail_ring(r)->ring[r->size];
}

static uint16_t *avail_event(const struct ring *r)
{
    return (uint16_t *)(void *)&used_ring(r)->ring[r->size];
}

bool ring_split_map(struct ring *r, const struct mem *m)
{
    uint64_t event_bytes = r->has_event_idx ? sizeof(uint16_t) : 0;
    r->desc = mem_at_user(m, r->desc_addr, (uint64_t)r->size * sizeof(struct split_desc));
    r->driver = mem_at_user(m, r->driver_addr,
                            sizeof(struct split_avail) + (uint64_t)r->size * 2 + event_bytes);
    r->device = mem_at_user(m, r->device_addr,
                            sizeof(struct split_used) +
                                (uint64_t)r->size * sizeof(struct split_used_elem) + event_bytes);
    return r->desc && r->driver && r->device && (uintptr_t)r->desc % 16 == 0 && // 2.7
           (uintptr_t)r->driver % 2 == 0 && (uintptr_t)r->device % 4 == 0;
}

// A driver that begins anew clears the used ring (2.7.8). An index of 0 is a new ring's, unless it
// has gone all the way round: then the last element was written, too.
static bool was_used(const struct ring *r)
{
    const struct split_used_elem *last = &used_ring(r)->ring[r->size - 1];
    return r->next_used || guest_load32(&last->id) || guest_load32(&last->len);
}

int ring_split_open(struct ring *r, const struct ring_config *config, struct error *e)
{
    // What the guest sees as used is the truth, also after a crash; the base only says the
    // same when everything was drained. A front end that lost its back end may give an old one
    // (DPDK gives 0): that is no place between what was used and what was made available.
    r->next_used = guest_load16(&used_ring(r)->idx);
    r->next_avail = (uint16_t)config->base;
    uint16_t n_open = (uint16_t)(guest_load16(&avail_ring(r)->idx) - r->next_used);
    bool is_old = (uint16_t)(r->next_avail - r->next_used) > n_open;
    if (!r->record && (config->is_resumed || is_old))
        r->next_avail = r->next_used;
    if (!r->record)
        return 0;
    if (config->record_is_own && !config->is_resumed && !was_used(r))
        ((struct inflight_split *)r->record)->version = 0;
    struct inflight_split_state state;
    int err = inflight_split_open(r->record, r->size, r->next_used, r->replay, &state);
    if (err)
        return error_set(e, -err, "the in-flight record contradicts the ring (used index %u)",
                         r->next_used);
    r->counter = state.next_age;
    r->n_replay = state.n_replay;
    r->next_avail = (uint16_t)(r->next_used + state.n_replay);
    return 0;
}

uint32_t ring_split_base(const struct ring *r)
{
    return r->next_avail;
}

// ---- pop ---------------------------------------------------------------------------------

// One descriptor, each of its words read once.
struct snapshot {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

static inline struct snapshot snapshot_of(const struct split_desc *d)
{
    uint64_t rest = guest_load64((const uint64_t *)(const void *)&d->len);
    return (struct snapshot){guest_load64(&d->addr), (uint32_t)rest, (uint16_t)(rest >> 32),
                             (uint16_t)(rest >> 48)};
}

static enum gather fault(struct ring *r, enum ring_fault reason, uint64_t detail)
{
    ring_fault(r, reason, detail);
    return GATHER_FAULT;
}

// Walk the chain whose first descriptor is @d. Direct descriptors may end in one indirect
// table (2.7.5.3.2).
static inline enum gather walk(struct ring *r, struct chain *c, struct snapshot d)
{
    const struct split_desc *table = desc_table(r);
    uint32_t n_entries = r->size, n_seen = 0;
    bool is_indirect = false;
    for (;;) {
        if (d.flags & SPLIT_DESC_INDIRECT) {
            if (is_indirect || (d.flags & SPLIT_DESC_NEXT)) // 2.7.5.3.1
                return fault(r, RING_BAD_INDIRECT, d.flags);
            table = ring_indirect(r, d.addr, d.len, &n_entries);
            if (!table)
                return GATHER_FAULT;
            is_indirect = true;
            n_seen = 0;
            d = snapshot_of(&table[0]);
            continue;
        }
        enum gather result = ring_gather(r, c, d.addr, d.len, d.flags & SPLIT_DESC_WRITE);
        if (unlikely(result != GATHER_OK))
            return result;
        if (!(d.flags & SPLIT_DESC_NEXT))
            return GATHER_OK;
        if (unlikely(d.next >= n_entries))
            return fault(r, RING_BAD_NEXT, d.next);
        if (unlikely(++n_seen >= n_entries))
            return fault(r, RING_BAD_CHAIN, d.next);
        d = snapshot_of(&table[d.next]);
    }
}

static inline enum gather build(struct ring *r, uint16_t head, struct snapshot first,
                                struct chain **out)
{
    struct chain *c = &r->slots[head];
    if (unlikely(c->state != CHAIN_FREE))
        return fault(r, RING_DUP_HEAD, head);
    ring_begin(r, head);
    enum gather result = walk(r, c, first);
    if (unlikely(result != GATHER_OK)) {
        ring_release_large(r, c);
        return result;
    }
    *out = c;
    return GATHER_OK;
}

enum gather ring_split_replay(struct ring *r, uint16_t head, struct chain **out)
{
    return build(r, head, snapshot_of(&desc_table(r)[head]), out);
}

// Read up to @max heads; the table's lines and the slots' are on their way afterwards.
static inline unsigned read_heads(struct ring *r, uint16_t heads[], unsigned max, bool with_slots)
{
    const struct split_avail *avail = avail_ring(r);
    uint16_t n = (uint16_t)(guest_load16_acquire(&avail->idx) - r->next_avail);
    if (likely(n == 0))
        return 0;
    if (unlikely(n > r->size)) { // 2.7.13.3
        ring_fault(r, RING_BAD_INDEX, (uint16_t)(r->next_avail + n));
        return 0;
    }
    n = (uint16_t)MIN(n, max);
    for (unsigned i = 0; i < n; i++) {
        heads[i] = guest_load16(&avail->ring[(r->next_avail + i) & (r->size - 1)]);
        if (unlikely(heads[i] >= r->size)) {
            ring_fault(r, RING_BAD_HEAD, heads[i]);
            return i;
        }
        __builtin_prefetch(&desc_table(r)[heads[i]]);
        if (with_slots)
            __builtin_prefetch(&r->slots[heads[i]], 1);
    }
    return n;
}

// The first descriptors; tables they lead to are on their way afterwards.
static inline void read_firsts(struct ring *r, const uint16_t heads[], struct snapshot firsts[],
                               unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        firsts[i] = snapshot_of(&desc_table(r)[heads[i]]);
        if (firsts[i].flags & SPLIT_DESC_INDIRECT) {
            uint64_t run = 1;
            __builtin_prefetch(mem_at(r->mem, &r->hint, firsts[i].addr, &run));
        }
    }
}

unsigned ring_split_pop(struct ring *r, struct chain *out[], unsigned max)
{
    uint16_t heads[RING_BATCH_MAX];
    struct snapshot firsts[RING_BATCH_MAX];
    unsigned n = read_heads(r, heads, max, true), done = 0;
    read_firsts(r, heads, firsts, n);
    for (; done < n; done++) {
        enum gather result = build(r, heads[done], firsts[done], &out[done]);
        if (unlikely(result != GATHER_OK)) {
            if (result == GATHER_SHORT)
                counter_add(&r->stats->n_full, 1);
            break;
        }
        if (r->record)
            inflight_split_take(r->record, heads[done], r->counter++);
        ring_hand_out(r, out[done]);
    }
    r->next_avail = (uint16_t)(r->next_avail + done);
    return done;
}

// ---- plain chains ------------------------------------------------------------------------

unsigned ring_split_peek(struct ring *r, struct ring_plain out[], unsigned max, bool is_writable)
{
    const uint16_t wanted = is_writable ? SPLIT_DESC_WRITE : 0;
    const uint16_t flags = SPLIT_DESC_WRITE | SPLIT_DESC_NEXT | SPLIT_DESC_INDIRECT;
    uint16_t heads[RING_BATCH_MAX];
    unsigned n = read_heads(r, heads, max, false);
    for (unsigned i = 0; i < n; i++) {
        struct snapshot d = snapshot_of(&desc_table(r)[heads[i]]);
        out[i].id = heads[i];
        if (unlikely((d.flags & flags) != wanted || !ring_plain_at(r, d.addr, d.len, &out[i])))
            return i;
    }
    return n;
}

void ring_split_spend(struct ring *r, const struct ring_plain plain[], const uint32_t lengths[],
                      unsigned n)
{
    struct split_used *used = used_ring(r);
    uint16_t at = (uint16_t)(r->next_used + r->n_spent);
    for (unsigned i = 0; i < n && ring_mark(r, plain[i].id); i++, at++) {
        struct split_used_elem *elem = &used->ring[at & (r->size - 1)];
        guest_store32(&elem->id, plain[i].id);
        guest_store32(&elem->len, lengths ? lengths[i] : 0);
    }
    r->next_avail = (uint16_t)(r->next_avail + n);
}

// ---- publish -----------------------------------------------------------------------------

static void store_elements(struct ring *r)
{
    struct split_used *used = used_ring(r);
    for (uint32_t i = 0; i < r->n_staged; i++) {
        struct split_used_elem *elem = &used->ring[(r->next_used + i) & (r->size - 1)];
        const struct chain *c = &r->slots[r->staged[i]];
        guest_store32(&elem->id, c->id);
        guest_store32(&elem->len, c->used_len);
        ring_log(r, elem, sizeof(*elem));
    }
}

static bool driver_wants_to_know(struct ring *r, uint16_t old)
{
    full_fence(); // pair N: our used index, then the driver's wish; the driver stores its wish,
                  // fences, then reads the index
    if (r->has_event_idx)
        return ring_passes_event(guest_load16(used_event(r)), r->next_used, old);
    return !(guest_load16(&avail_ring(r)->flags) & SPLIT_AVAIL_NO_INTERRUPT);
}

bool ring_split_publish(struct ring *r)
{
    struct split_used *used = used_ring(r);
    uint16_t old = r->next_used;
    store_elements(r);
    r->next_used = (uint16_t)(old + r->n_staged);
    if (r->record)
        inflight_split_retire(r->record, r->staged, r->n_staged);
    guest_store16_release(&used->idx, r->next_used); // 2.7.8.2
    if (r->record)
        inflight_split_settle(r->record, r->staged, r->n_staged, r->next_used);
    ring_log(r, &used->idx, sizeof(used->idx));
    return driver_wants_to_know(r, old);
}

bool ring_split_reveal(struct ring *r)
{
    uint16_t old = r->next_used;
    r->next_used = (uint16_t)(old + r->n_spent);
    guest_store16_release(&used_ring(r)->idx, r->next_used); // 2.7.8.2
    return driver_wants_to_know(r, old);
}

// ---- notifications by the driver ---------------------------------------------------------

bool ring_split_has_work(const struct ring *r)
{
    return guest_load16_acquire(&avail_ring(r)->idx) != r->next_avail;
}

void ring_split_want_kicks(struct ring *r, bool wanted)
{
    if (r->has_event_idx) { // 2.7.10: flags are 0; an index that lies behind asks for nothing
        if (wanted) {
            guest_store16(avail_event(r), r->next_avail);
            ring_log(r, avail_event(r), sizeof(uint16_t));
        }
        return;
    }
    struct split_used *used = used_ring(r);
    guest_store16(&used->flags, (uint16_t)(wanted ? 0 : SPLIT_USED_NO_NOTIFY));
    ring_log(r, &used->flags, sizeof(used->flags));
}
