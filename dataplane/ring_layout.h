// SPDX-License-Identifier: Apache-2.0
// ring_layout.h - what ring.c and the two layouts share. Private to them.
//
// A layout finds chains in guest memory and marks them used; building the chain, the checks
// on addresses and lengths, ordering and accounting are here and in ring.c, once.
//
// Threads  [W] the ring's owner.
// Trust    as ring.h: everything read from the ring is hostile.
#pragma once

#include "dataplane/ring.h"

// A layout's answer for one chain.
enum gather {
    GATHER_OK,
    GATHER_FAULT, // the ring has faulted
    GATHER_SHORT, // no large slot is free: the chain stays in the ring
};

// ---- split -------------------------------------------------------------------------------
int ring_split_open(struct ring *r, const struct ring_config *config, struct error *e);
bool ring_split_map(struct ring *r, const struct mem *m);
unsigned ring_split_pop(struct ring *r, struct chain *out[], unsigned max);
enum gather ring_split_replay(struct ring *r, uint16_t entry, struct chain **out);
bool ring_split_publish(struct ring *r);
unsigned ring_split_peek(struct ring *r, struct ring_plain out[], unsigned max, bool is_writable);
void ring_split_spend(struct ring *r, const struct ring_plain plain[], const uint32_t lengths[],
                      unsigned n);
bool ring_split_reveal(struct ring *r);
bool ring_split_has_work(const struct ring *r);
void ring_split_want_kicks(struct ring *r, bool wanted);
uint32_t ring_split_base(const struct ring *r);

// ---- packed ------------------------------------------------------------------------------
int ring_packed_open(struct ring *r, const struct ring_config *config, struct error *e);
bool ring_packed_map(struct ring *r, const struct mem *m);
unsigned ring_packed_pop(struct ring *r, struct chain *out[], unsigned max);
enum gather ring_packed_replay(struct ring *r, uint16_t entry, struct chain **out);
// Go on where the device was, if the ring says that the base is an old one.
void ring_packed_locate(struct ring *r);
void ring_packed_retreat(struct ring *r, uint32_t n_descs);
bool ring_packed_publish(struct ring *r);
unsigned ring_packed_peek(struct ring *r, struct ring_plain out[], unsigned max, bool is_writable);
void ring_packed_spend(struct ring *r, const struct ring_plain plain[], const uint32_t lengths[],
                       unsigned n);
bool ring_packed_reveal(struct ring *r);
bool ring_packed_has_work(const struct ring *r);
void ring_packed_want_kicks(struct ring *r, bool wanted);
uint32_t ring_packed_base(const struct ring *r);

// ---- publishing --------------------------------------------------------------------------

// What ring_spend() used becomes visible. True if the driver must be notified.
bool ring_reveal(struct ring *r);

// @n chains, with @bytes written, are visible.
void ring_count_publication(struct ring *r, uint32_t n, uint64_t bytes, bool notify);

// ---- building a chain --------------------------------------------------------------------

// The out-of-line half of ring_gather(): a segment over several regions, a chain that leaves
// its small slot, and every fault.
enum gather ring_gather_slow(struct ring *r, struct chain *c, uint64_t addr, uint32_t len,
                             bool is_write);

// Append guest range [@addr, @addr + @len) to @c. About 10 cycles when it is one region.
static inline enum gather ring_gather(struct ring *r, struct chain *c, uint64_t addr, uint32_t len,
                                      bool is_write)
{
    uint32_t n = (uint32_t)c->n_out + c->n_in;
    uint64_t run = len;
    uint64_t total = (uint64_t)c->out_bytes + c->in_bytes + len;
    uint8_t *host = mem_at(r->mem, &r->hint, addr, &run);
    bool is_plain = host && run == len && len && n < RING_SEGS_SMALL && total <= UINT32_MAX &&
                    (is_write || !c->n_in);
    if (unlikely(!is_plain))
        return ring_gather_slow(r, c, addr, len, is_write);
    c->iov[n] = (struct iovec){host, len};
    if (is_write) {
        c->n_in++;
        c->in_bytes += len;
    } else {
        c->n_out++;
        c->out_bytes += len;
    }
    return GATHER_OK;
}

// The indirect table at [@addr, @addr + @len) as one piece of our memory; its number of entries
// in *@n. NULL: faulted (2.7.5.3, 2.8.7).
const void *ring_indirect(struct ring *r, uint64_t addr, uint32_t len, uint32_t *n);

// The one piece of our memory that a plain chain is. False: it is not plain, or wrong.
static inline bool ring_plain_at(struct ring *r, uint64_t addr, uint32_t len,
                                 struct ring_plain *out)
{
    uint64_t run = len;
    out->at = mem_at(r->mem, &r->hint, addr, &run);
    out->bytes = len;
    return out->at && run == len && len;
}

// Note that @id is used; false, and faulted, if it already is (2.7.13).
static inline bool ring_mark(struct ring *r, uint16_t id)
{
    if (unlikely(r->marks[id] == r->epoch)) {
        ring_fault(r, RING_DUP_HEAD, id);
        return false;
    }
    r->marks[id] = r->epoch;
    return true;
}

// Start a chain in slot @id. The slot is free.
static inline struct chain *ring_begin(struct ring *r, uint16_t id)
{
    struct chain *c = &r->slots[id];
    c->iov = c->small;
    c->n_out = 0;
    c->n_in = 0;
    c->id = id;
    c->n_descs = 0;
    c->out_bytes = 0;
    c->in_bytes = 0;
    return c;
}

// Give back what a chain holds beyond its slot.
static inline void ring_release_large(struct ring *r, struct chain *c)
{
    if (unlikely(c->large)) {
        r->large_free[r->n_large_free++] = (uint16_t)(c->large - 1);
        c->large = 0;
    }
}

// The chain is whole: it is the device's now.
static inline void ring_hand_out(struct ring *r, struct chain *c)
{
    c->state = CHAIN_POPPED;
    r->n_in_flight++;
    if (r->is_ordered)
        r->order[r->order_tail++ & r->order_mask] = c->id;
}

// One bit a page, when a migration is under way.
static inline void ring_log(struct ring *r, const void *host, size_t bytes)
{
    if (unlikely(r->log))
        dirty_mark_host(r->log, r->mem, host, bytes);
}

// 2.7.10, 2.8.10: whether the step from @old to @new passes @event.
static inline bool ring_passes_event(uint16_t event, uint16_t new, uint16_t old)
{
    return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}
