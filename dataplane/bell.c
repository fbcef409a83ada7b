// SPDX-License-Identifier: Apache-2.0
#include "dataplane/bell.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

static const uint64_t one = 1;

int bell_open(struct bell *b)
{
    *b = (struct bell){.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    return b->fd < 0 ? -errno : 0;
}

void bell_close(struct bell *b)
{
    close(b->fd);
}

// (pair: doze) Our wish to be woken, then what was sent; senders send, then look at our wish.
void bell_doze(struct bell *b)
{
    atomic_store_explicit(&b->is_asleep, true, memory_order_relaxed);
    full_fence();
}

void bell_rise(struct bell *b)
{
    atomic_store_explicit(&b->is_asleep, false, memory_order_relaxed);
}

bool bell_is_due(struct bell *b)
{
    full_fence(); // pair: doze
    if (likely(!atomic_load_explicit(&b->is_asleep, memory_order_relaxed)))
        return false;
    return atomic_exchange_explicit(&b->is_asleep, false, memory_order_relaxed);
}

void bell_ring(struct bell *b)
{
    (void)!eventfd_write(b->fd, 1);
}

static void rung(struct uring_op *op, int result)
{
    (void)op, (void)result; // a counter that is full is readable too
}

void bell_ring_through(struct bell *b, struct uring *u)
{
    static struct uring_op op = {.done = rung}; // it has no state: any number may be out
    io_uring_prep_write(uring_entry(u, &op), b->fd, &one, sizeof(one), 0);
}
