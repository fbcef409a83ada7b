// SPDX-License-Identifier: Apache-2.0
// event.h - an eventfd on a worker's io_uring: at most one READ or WRITE of it is out.
//
// A READ ends when somebody wrote, a WRITE when the counter had room. Either can be out for
// ever, so both can be cancelled. The eventfd lies in the ring's file table.
//
// Threads  [W] all calls, on the thread of the ring.
// Memory   the owner embeds it; it stays until event_close().
// Trust    the other holder of the eventfd is hostile: it may fill, drain or never read it.
#pragma once

#include "dataplane/uring.h"

struct event;
typedef void event_ended(struct event *ev, int result);

struct event {
    struct uring_op transfer;
    struct uring_op cancel;
    struct uring *uring;
    event_ended *ended; // the READ or WRITE is over: 8, or -errno
    uint64_t value;     // what a READ brought
    int slot;           // in the file table; -1: there is no eventfd
    bool is_out;        // a READ or WRITE is
    bool is_ending;     // … and is to end
    bool is_cancelling; // a cancellation is out
};

// @fd may be -1: then the event exists in name alone. Does not take @fd over. 0 or -errno.
int event_open(struct event *ev, struct uring *u, int fd, event_ended *ended);
// Nothing may be out.
void event_close(struct event *ev);

static inline bool event_is_open(const struct event *ev)
{
    return ev->slot >= 0;
}

// Go on with another eventfd. What is out on the old one is cancelled, and ended() told.
int event_replace(struct event *ev, int fd);

// Nothing may be out, and the event must be open.
void event_read(struct event *ev);
void event_write(struct event *ev);

// End what is out. True once nothing is; else to be asked again after completions.
bool event_settle(struct event *ev);
