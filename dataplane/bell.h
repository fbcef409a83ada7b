// SPDX-License-Identifier: Apache-2.0
// bell.h - wakes a worker that sleeps, once for each sleep.
//
// Who sends a worker something asks bell_is_due() afterwards: as long as the worker is awake that
// is a fence and a load. The eventfd is written by a system call, or by the sender's io_uring.
//
// Threads  the owner, which sleeps, and any number of senders; no locks.
// Memory   embedded; outlives whoever may ring it.
#pragma once

#include "dataplane/uring.h"

struct bell {
    int fd; // eventfd, non-blocking; readable: rung
    _Alignas(CACHE_LINE) atomic_bool is_asleep;
};

// [C] 0 or -errno.
int bell_open(struct bell *b);
void bell_close(struct bell *b);

// [owner] Before it sleeps on fd: it then looks again at everything that others may have sent,
// and does not sleep if there is something.
void bell_doze(struct bell *b);
// [owner] It does not sleep, or not any more.
void bell_rise(struct bell *b);

// [sender] What was sent is where the owner looks. True: the owner sleeps, and the caller has to
// ring; nobody else is told so.
bool bell_is_due(struct bell *b);

// [sender] Write fd: at once, or as an entry of the caller's ring.
void bell_ring(struct bell *b);
void bell_ring_through(struct bell *b, struct uring *u);
