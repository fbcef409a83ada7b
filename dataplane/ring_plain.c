// SPDX-License-Identifier: Apache-2.0
// Theory: a chain that is used before the next one is looked at needs no slot. Its descriptor is
// read, acted upon, and its used entry written, in ring order; the index (or the first entry's
// flags) follows when the turn ends. That halves what a small frame costs. Whatever slots are for
// (requests in flight, a record, a log) sends the caller to ring_pop().
#include "dataplane/ring_layout.h"

#include <string.h>

// What a chain's slot is for: its place in an order, a record, a log, a repeated head.
static inline bool needs_slots(const struct ring *r)
{
    return r->fault || r->n_in_flight || r->record || r->log;
}

unsigned ring_peek(struct ring *r, struct ring_plain out[], unsigned max, bool is_writable)
{
    if (unlikely(needs_slots(r)))
        return 0;
    assert(max <= RING_BATCH_MAX);
    return r->is_packed ? ring_packed_peek(r, out, max, is_writable)
                        : ring_split_peek(r, out, max, is_writable);
}

void ring_spend(struct ring *r, const struct ring_plain plain[], const uint32_t lengths[],
                unsigned n)
{
    uint64_t bytes_in = 0, bytes_out = 0;
    for (unsigned i = 0; i < n; i++) {
        bytes_in += lengths ? lengths[i] : 0;
        bytes_out += lengths ? 0 : plain[i].bytes;
    }
    if (r->is_packed)
        ring_packed_spend(r, plain, lengths, n);
    else
        ring_split_spend(r, plain, lengths, n);
    r->n_spent += n;
    r->spent_bytes += bytes_in;
    counter_add(&r->stats->n_chains, n);
    counter_add(&r->stats->n_bytes_out, bytes_out);
}

static void next_epoch(struct ring *r)
{
    if (unlikely(++r->epoch == 0)) { // an old mark could be taken for a new one
        memset(r->marks, 0, r->size * sizeof(*r->marks));
        r->epoch = 1;
    }
}

bool ring_reveal(struct ring *r)
{
    uint32_t n = r->n_spent;
    uint64_t bytes = r->spent_bytes;
    bool notify = r->notify_once;
    if (likely(!r->fault))
        notify |= r->is_packed ? ring_packed_reveal(r) : ring_split_reveal(r);
    r->n_spent = 0;
    r->spent_bytes = 0;
    next_epoch(r);
    if (unlikely(r->fault))
        return false;
    ring_count_publication(r, n, bytes, notify);
    return notify;
}
