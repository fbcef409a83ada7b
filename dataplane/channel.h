// SPDX-License-Identifier: Apache-2.0
// channel.h - a bounded queue between exactly two threads: one sends, one receives.
//
// It carries hand-overs between control and a worker, and (later) frames between workers. A
// message is three words, copied in and out.
//
// Threads  one sender, one receiver; no locks.
// Memory   fixed at channel_open().
#pragma once

#include "dataplane/base.h"

struct channel_message {
    uint32_t kind;
    uint32_t extra;
    void *subject;
    void *argument;
};

struct channel {
    _Alignas(CACHE_LINE) _Atomic uint32_t tail; // sender writes
    uint32_t head_seen;                         // sender's copy of head
    _Alignas(CACHE_LINE) _Atomic uint32_t head; // receiver writes
    uint32_t tail_seen;                         // receiver's copy of tail
    _Alignas(CACHE_LINE) struct channel_message *messages;
    uint32_t mask;
};

// @n_messages is a power of two. 0 or -ENOMEM.
int channel_open(struct channel *c, uint32_t n_messages);
void channel_close(struct channel *c);

// [sender] False if it is full.
bool channel_send(struct channel *c, const struct channel_message *m);

// [receiver] Whether there is a message.
static inline bool channel_has_message(const struct channel *c)
{
    return atomic_load_explicit(&c->tail, memory_order_acquire) !=
           atomic_load_explicit(&c->head, memory_order_relaxed);
}

// [receiver] False if it is empty: one load of a line that is shared only while messages flow.
bool channel_receive(struct channel *c, struct channel_message *m);
