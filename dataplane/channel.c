// SPDX-License-Identifier: Apache-2.0
#include "dataplane/channel.h"

#include <errno.h>
#include <stdlib.h>

int channel_open(struct channel *c, uint32_t n_messages)
{
    assert(is_power_of_two(n_messages));
    *c = (struct channel){.mask = n_messages - 1};
    c->messages = calloc(n_messages, sizeof(c->messages[0]));
    return c->messages ? 0 : -ENOMEM;
}

void channel_close(struct channel *c)
{
    free(c->messages);
    c->messages = NULL;
}

// Positions run freely; their difference is the number of messages in the channel. Each side
// loads the other's position only when its own copy no longer suffices.
bool channel_send(struct channel *c, const struct channel_message *m)
{
    uint32_t tail = atomic_load_explicit(&c->tail, memory_order_relaxed);
    if (tail - c->head_seen > c->mask) {
        // (channel pair A) The receiver has copied the message whose place we take.
        c->head_seen = atomic_load_explicit(&c->head, memory_order_acquire);
        if (tail - c->head_seen > c->mask)
            return false;
    }
    c->messages[tail & c->mask] = *m;
    // (channel pair B)
    atomic_store_explicit(&c->tail, tail + 1, memory_order_release);
    return true;
}

bool channel_receive(struct channel *c, struct channel_message *m)
{
    uint32_t head = atomic_load_explicit(&c->head, memory_order_relaxed);
    if (head == c->tail_seen) {
        // (channel pair B) The message is there when its number is.
        c->tail_seen = atomic_load_explicit(&c->tail, memory_order_acquire);
        if (head == c->tail_seen)
            return false;
    }
    *m = c->messages[head & c->mask];
    // (channel pair A)
    atomic_store_explicit(&c->head, head + 1, memory_order_release);
    return true;
}
