// SPDX-License-Identifier: Apache-2.0
// The packed layout (VIRTIO 1.3, 2.8): one ring of descriptors that both sides write, and a
// wrap counter on each side that tells a fresh descriptor from one of the lap before.
#include "dataplane/inflight.h"
#include "dataplane/ring_layout.h"

#include <errno.h>

#define WRAP_BIT 0x8000u // in a base and in an event: bit 15; the rest is a position

static struct packed_desc *desc_ring(const struct ring *r)
{
    return r->desc;
}

static bool is_available(uint16_t flags, bool wrap)
{
    return !!(flags & PACKED_DESC_AVAIL) == wrap && !!(flags & PACKED_DESC_USED) != wrap; // 2.8.1
}

// Move a position on by @n of the ring's descriptors.
static inline void advance(const struct ring *r, uint16_t *position, bool *wrap, uint32_t n)
{
    uint32_t next = *position + n;
    if (next >= r->size) {
        next -= r->size;
        *wrap = !*wrap;
    }
    *position = (uint16_t)next;
}

bool ring_packed_map(struct ring *r, const struct mem *m)
{
    r->desc = mem_at_user(m, r->desc_addr, (uint64_t)r->size * sizeof(struct packed_desc));
    r->driver = mem_at_user(m, r->driver_addr, sizeof(struct packed_event));
    r->device = mem_at_user(m, r->device_addr, sizeof(struct packed_event));
    return r->desc && r->driver && r->device && (uintptr_t)r->desc % 16 == 0 && // 2.8
           (uintptr_t)r->driver % 4 == 0 && (uintptr_t)r->device % 4 == 0;
}

// The record knows where the device was, also after a crash; a front end's base may be stale.
static int open_record(struct ring *r, struct error *e)
{
    struct inflight_packed_state state;
    int err = inflight_packed_open(r->record, r->size, r->desc, r->next_used, r->used_wrap,
                                   r->replay, &state);
    if (err)
        return error_set(e, -err, "the in-flight record contradicts the ring");
    r->counter = state.next_age;
    r->n_replay = state.n_replay;
    r->record_free = state.free_head;
    r->next_used = r->next_avail = state.used_idx;
    r->used_wrap = r->avail_wrap = state.used_wrap;
    advance(r, &r->next_avail, &r->avail_wrap, state.n_descs);
    return 0;
}

// One descriptor, each of its words read once; its flags before its address (2.8.21).
static inline struct packed_desc snapshot_of(const struct packed_desc *d)
{
    uint64_t rest = __atomic_load_n((const uint64_t *)(const void *)&d->len, __ATOMIC_ACQUIRE);
    return (struct packed_desc){guest_load64(&d->addr), (uint32_t)rest, (uint16_t)(rest >> 32),
                                (uint16_t)(rest >> 48)};
}

// A driver that begins anew clears the ring, and sets the USED bit only from its second lap on
// (2.8.1). Without that bit nothing is used, or whole laps are: then the last descriptor is, too.
static bool was_used(const struct ring *r)
{
    for (uint32_t i = 0; i < r->size; i++)
        if (guest_load16(&desc_ring(r)[i].flags) & PACKED_DESC_USED)
            return true;
    struct packed_desc last = snapshot_of(&desc_ring(r)[r->size - 1]);
    return !(last.flags & PACKED_DESC_AVAIL) && (last.addr || last.len || last.id);
}

int ring_packed_open(struct ring *r, const struct ring_config *config, struct error *e)
{
    uint16_t avail = (uint16_t)config->base, used = (uint16_t)(config->base >> 16);
    if (used == 0) // virtio-user sends the available half only; drained, they are equal
        used = avail;
    r->next_avail = avail & ~WRAP_BIT & UINT16_MAX;
    r->avail_wrap = avail & WRAP_BIT;
    r->next_used = used & ~WRAP_BIT & UINT16_MAX;
    r->used_wrap = used & WRAP_BIT;
    if (r->next_avail >= r->size || r->next_used >= r->size)
        return error_set(e, EINVAL, "base 0x%x lies beyond a ring of size %u", config->base,
                         r->size);
    if (!r->record) {
        ring_packed_locate(r);
        return 0;
    }
    if (config->record_is_own && !config->is_resumed && !was_used(r))
        ((struct inflight_packed *)r->record)->version = 0;
    return open_record(r, e);
}

uint32_t ring_packed_base(const struct ring *r)
{
    uint32_t avail = r->next_avail | (r->avail_wrap ? WRAP_BIT : 0);
    uint32_t used = r->next_used | (r->used_wrap ? WRAP_BIT : 0);
    return avail | used << 16;
}

// ---- pop ---------------------------------------------------------------------------------

static enum gather fault(struct ring *r, enum ring_fault reason, uint64_t detail)
{
    ring_fault(r, reason, detail);
    return GATHER_FAULT;
}

// 2.8.7: entries are used one after the other; of their flags only WRITE counts.
static enum gather add_table(struct ring *r, struct chain *c, struct packed_desc d)
{
    if (d.flags & PACKED_DESC_NEXT)
        return fault(r, RING_BAD_INDIRECT, d.flags);
    uint32_t n;
    const struct packed_desc *table = ring_indirect(r, d.addr, d.len, &n);
    if (!table)
        return GATHER_FAULT;
    for (uint32_t i = 0; i < n; i++) {
        struct packed_desc entry = snapshot_of(&table[i]);
        if (unlikely(entry.flags & PACKED_DESC_INDIRECT))
            return fault(r, RING_BAD_INDIRECT, entry.flags);
        enum gather result =
            ring_gather(r, c, entry.addr, entry.len, entry.flags & PACKED_DESC_WRITE);
        if (unlikely(result != GATHER_OK))
            return result;
    }
    return GATHER_OK;
}

// Make a chain of @n descriptors that were read into @descs. The last one has the id (2.8.6).
static inline enum gather build(struct ring *r, const struct packed_desc descs[], uint32_t n,
                                struct chain **out)
{
    uint16_t id = descs[n - 1].id;
    if (unlikely(id >= r->size))
        return fault(r, RING_BAD_HEAD, id);
    if (unlikely(r->slots[id].state != CHAIN_FREE))
        return fault(r, RING_DUP_HEAD, id);
    struct chain *c = ring_begin(r, id);
    c->n_descs = (uint16_t)n;
    for (uint32_t i = 0; i < n; i++) {
        const struct packed_desc *d = &descs[i];
        enum gather result = d->flags & PACKED_DESC_INDIRECT
                                 ? add_table(r, c, *d)
                                 : ring_gather(r, c, d->addr, d->len, d->flags & PACKED_DESC_WRITE);
        if (unlikely(result != GATHER_OK)) {
            ring_release_large(r, c);
            return result;
        }
    }
    *out = c;
    return GATHER_OK;
}

// The chain is taken: note it in the record, hand it out and go on behind it.
static inline bool take(struct ring *r, const struct packed_desc descs[], struct chain *c)
{
    if (r->record) {
        c->record = r->record_free;
        if (!inflight_packed_take(r->record, r->size, &r->record_free, descs, c->n_descs,
                                  r->counter++, &c->record_last)) {
            ring_fault(r, RING_BAD_RECORD, c->record);
            ring_release_large(r, c);
            return false;
        }
    }
    ring_hand_out(r, c);
    advance(r, &r->next_avail, &r->avail_wrap, c->n_descs);
    return true;
}

// Read the rest of a chain whose first descriptor is descs[0]; its length, or 0: faulted. The
// driver made the first one available last, so the others are there (2.8.16).
static uint32_t read_chain(struct ring *r, struct packed_desc descs[])
{
    uint32_t n = 1, position = r->next_avail;
    while (descs[n - 1].flags & PACKED_DESC_NEXT) {
        if (n == r->size) {
            ring_fault(r, RING_BAD_CHAIN, n);
            return 0;
        }
        if (n == RING_SEGS_MAX) {
            ring_fault(r, RING_TOO_LONG, n);
            return 0;
        }
        position = position + 1 == r->size ? 0 : position + 1;
        descs[n++] = snapshot_of(&desc_ring(r)[position]);
    }
    return n;
}

// A chain of several descriptors, out of the way of the common case.
static __attribute__((noinline)) enum gather pop_long(struct ring *r, struct packed_desc first,
                                                      struct chain **out)
{
    struct packed_desc descs[RING_SEGS_MAX];
    descs[0] = first;
    uint32_t n = read_chain(r, descs);
    if (n == 0)
        return GATHER_FAULT;
    enum gather result = build(r, descs, n, out);
    if (result == GATHER_OK && !take(r, descs, *out))
        return GATHER_FAULT;
    return result;
}

static inline enum gather pop_one(struct ring *r, struct packed_desc first, struct chain **out)
{
    if (unlikely(first.flags & PACKED_DESC_NEXT))
        return pop_long(r, first, out);
    enum gather result = build(r, &first, 1, out);
    if (likely(result == GATHER_OK) && unlikely(!take(r, &first, *out)))
        return GATHER_FAULT;
    return result;
}

// Look ahead over available descriptors: their tables and slots are on their way afterwards.
static inline void prefetch_run(struct ring *r, unsigned max)
{
    uint16_t position = r->next_avail;
    bool wrap = r->avail_wrap;
    for (unsigned i = 0; i < max; i++) {
        struct packed_desc d = snapshot_of(&desc_ring(r)[position]);
        if (!is_available(d.flags, wrap))
            return;
        if (likely(d.id < r->size))
            __builtin_prefetch(&r->slots[d.id], 1);
        if (d.flags & PACKED_DESC_INDIRECT) {
            uint64_t run = 1;
            __builtin_prefetch(mem_at(r->mem, &r->hint, d.addr, &run));
        }
        advance(r, &position, &wrap, 1);
    }
}

unsigned ring_packed_pop(struct ring *r, struct chain *out[], unsigned max)
{
    unsigned done = 0;
    prefetch_run(r, max);
    for (; done < max; done++) {
        struct packed_desc first = snapshot_of(&desc_ring(r)[r->next_avail]);
        if (!is_available(first.flags, r->avail_wrap))
            break;
        enum gather result = pop_one(r, first, &out[done]);
        if (unlikely(result != GATHER_OK)) {
            if (result == GATHER_SHORT)
                counter_add(&r->stats->n_full, 1);
            break;
        }
    }
    return done;
}

// Go back by @n_descs, at most the size.
void ring_packed_retreat(struct ring *r, uint32_t n_descs)
{
    r->avail_wrap ^= n_descs > r->next_avail;
    r->next_avail = (uint16_t)(r->next_avail + (n_descs > r->next_avail ? r->size : 0) - n_descs);
}

// A chain as the record keeps it: the driver may have reused its place in the ring.
enum gather ring_packed_replay(struct ring *r, uint16_t entry, struct chain **out)
{
    const struct inflight_packed *rec = r->record;
    struct packed_desc descs[RING_SEGS_MAX];
    uint32_t n = guest_load16(&rec->desc[entry].num);
    uint16_t at = entry, last = entry;
    if (n == 0 || n > MIN(r->size, RING_SEGS_MAX)) // it may have changed since it was opened
        return fault(r, RING_BAD_RECORD, entry);
    for (uint32_t i = 0; i < n; i++) {
        if (at >= r->size)
            return fault(r, RING_BAD_RECORD, at);
        const struct inflight_packed_desc *d = &rec->desc[at];
        descs[i] = (struct packed_desc){guest_load64(&d->addr), guest_load32(&d->len),
                                        guest_load16(&d->id), guest_load16(&d->flags)};
        last = at;
        at = guest_load16(&d->next);
    }
    enum gather result = build(r, descs, n, out);
    if (result == GATHER_OK) {
        (*out)->record = entry;
        (*out)->record_last = last;
    }
    return result;
}

// ---- plain chains ------------------------------------------------------------------------

unsigned ring_packed_peek(struct ring *r, struct ring_plain out[], unsigned max, bool is_writable)
{
    const uint16_t wanted = is_writable ? PACKED_DESC_WRITE : 0;
    const uint16_t flags = PACKED_DESC_WRITE | PACKED_DESC_NEXT | PACKED_DESC_INDIRECT;
    uint16_t position = r->next_avail;
    bool wrap = r->avail_wrap;
    for (unsigned i = 0; i < max; i++) {
        struct packed_desc d = snapshot_of(&desc_ring(r)[position]);
        out[i].id = d.id;
        if (!is_available(d.flags, wrap) || (d.flags & flags) != wanted || d.id >= r->size ||
            !ring_plain_at(r, d.addr, d.len, &out[i]))
            return i;
        advance(r, &position, &wrap, 1);
    }
    return max;
}

// Length, id and flags of a used descriptor: one word of it.
static inline uint64_t used_word(uint16_t id, uint32_t len, bool wrap)
{
    uint64_t flags =
        (wrap ? PACKED_DESC_AVAIL | PACKED_DESC_USED : 0) | (len ? PACKED_DESC_WRITE : 0); // 2.8.4
    return len | (uint64_t)id << 32 | flags << 48;
}

static inline uint64_t *word_at(struct ring *r, uint16_t position)
{
    return (uint64_t *)(void *)&desc_ring(r)[position].len;
}

// Nothing is in flight, so each is used in its own place. The first of all stays as it is until
// ring_packed_reveal(): the driver looks at that one first.
void ring_packed_spend(struct ring *r, const struct ring_plain plain[], const uint32_t lengths[],
                       unsigned n)
{
    bool is_first = r->n_spent == 0;
    for (unsigned i = 0; i < n && ring_mark(r, plain[i].id); i++) {
        uint64_t word = used_word(plain[i].id, lengths ? lengths[i] : 0, r->avail_wrap);
        if (unlikely(is_first))
            r->spent_word = word;
        else
            guest_store64(word_at(r, r->next_avail), word);
        is_first = false;
        advance(r, &r->next_avail, &r->avail_wrap, 1);
    }
}

// ---- publish -----------------------------------------------------------------------------

static uint16_t used_flags(const struct chain *c, bool wrap)
{
    return (uint16_t)((wrap ? PACKED_DESC_AVAIL | PACKED_DESC_USED : 0) |
                      (c->used_len ? PACKED_DESC_WRITE : 0)); // 2.8.4
}

static void retire(struct ring *r)
{
    for (uint32_t i = 0; i < r->n_staged; i++) {
        const struct chain *c = &r->slots[r->staged[i]];
        inflight_packed_retire(r->record, &r->record_free, c->record, c->record_last);
    }
}

static void settle(struct ring *r)
{
    inflight_step();
    for (uint32_t i = 0; i < r->n_staged; i++)
        inflight_packed_clear(r->record, r->slots[r->staged[i]].record);
    inflight_packed_settle(r->record, r->record_free);
}

// Write used descriptors for all that is staged. The first one's flags come last: until then
// the driver sees none of them.
static void store_used(struct ring *r, uint16_t position, bool wrap)
{
    struct packed_desc *first = &desc_ring(r)[position];
    uint16_t first_flags = 0;
    for (uint32_t i = 0; i < r->n_staged; i++) {
        const struct chain *c = &r->slots[r->staged[i]];
        struct packed_desc *d = &desc_ring(r)[position];
        uint16_t flags = used_flags(c, wrap);
        guest_store16(&d->id, c->id);
        guest_store32(&d->len, c->used_len);
        if (i == 0)
            first_flags = flags;
        else
            guest_store16(&d->flags, flags);
        ring_log(r, d, sizeof(*d));
        advance(r, &position, &wrap, c->n_descs);
    }
    guest_store16_release(&first->flags, first_flags); // 2.8.6
    ring_log(r, first, sizeof(*first));
}

// 2.8.10: the driver's wish after the used position moved on by @n_descs.
static bool driver_wants_to_know(struct ring *r, uint32_t n_descs)
{
    full_fence(); // pair N: our flags, then the driver's wish; the driver stores its wish,
                  // fences, then reads the flags
    uint32_t word = guest_load32(r->driver);
    uint16_t off_wrap = (uint16_t)word, flags = (uint16_t)(word >> 16) & 3u;
    if (flags == PACKED_EVENT_DISABLE)
        return false;
    if (flags != PACKED_EVENT_DESC || !r->has_event_idx)
        return true;
    uint16_t event = off_wrap & (uint16_t)~WRAP_BIT;
    if (!!(off_wrap & WRAP_BIT) != r->used_wrap) // of the lap before
        event = (uint16_t)(event - r->size);
    return ring_passes_event(event, r->next_used, (uint16_t)(r->next_used - n_descs));
}

bool ring_packed_publish(struct ring *r)
{
    uint16_t old = r->next_used;
    bool old_wrap = r->used_wrap;
    uint32_t n_descs = 0;
    for (uint32_t i = 0; i < r->n_staged; i++)
        n_descs += r->slots[r->staged[i]].n_descs;
    if (unlikely(n_descs > r->size)) { // made available again before they were used (2.8.1)
        ring_fault(r, RING_BAD_INDEX, n_descs);
        return false;
    }
    advance(r, &r->next_used, &r->used_wrap, n_descs);
    if (r->record) {
        retire(r);
        inflight_packed_advance(r->record, r->next_used, r->used_wrap);
    }
    store_used(r, old, old_wrap);
    if (r->record)
        settle(r);
    return driver_wants_to_know(r, n_descs);
}

bool ring_packed_reveal(struct ring *r)
{
    uint64_t *first = word_at(r, r->next_used);
    advance(r, &r->next_used, &r->used_wrap, r->n_spent);
    __atomic_store_n(first, r->spent_word, __ATOMIC_RELEASE); // 2.8.6
    return driver_wants_to_know(r, r->n_spent);
}

// ---- notifications by the driver ---------------------------------------------------------

bool ring_packed_has_work(const struct ring *r)
{
    uint16_t flags = guest_load16_acquire(&desc_ring(r)[r->next_avail].flags);
    return is_available(flags, r->avail_wrap);
}

void ring_packed_want_kicks(struct ring *r, bool wanted)
{
    struct packed_event *event = r->device;
    guest_store16(&event->flags, (uint16_t)(wanted ? PACKED_EVENT_ENABLE : PACKED_EVENT_DISABLE));
    ring_log(r, event, sizeof(*event));
}
