// SPDX-License-Identifier: Apache-2.0
// tap_internal.h - what the files of tap share; nobody else includes it.
//
// tap.c has the interface and the queues' life, tap_reader.c brings its frames to the switch,
// tap_writer.c takes frames to it.
//
// Threads  as device.h.
// Memory   as tap.h.
#pragma once

#include "devices/tap.h"

#define TAP_PAIRS_MAX 127

struct tap {
    struct port port; // first
    unsigned n_pairs;
    unsigned offloads; // enum offload: what the kernel takes
    int fds[TAP_PAIRS_MAX];
    bool is_started[TAP_PAIRS_MAX]; // [C] the writers
    // [W] of any reader: what ended the interface (errno). 0: it is there.
    _Atomic int error;
};

static inline struct tap *tap_of(const struct queue *q)
{
    return (struct tap *)port_of(q);
}

// ---- tap_reader.c ------------------------------------------------------------------------

void *tap_reader_open(struct queue *q); // [C] q->priv, or NULL
void tap_reader_close(struct queue *q);
void tap_reader_enter(struct queue *q, int file_slot); // [W]
int tap_reader_leave(struct queue *q);                 // [W] its file slot
unsigned tap_reader_poll(struct queue *q, unsigned budget);
bool tap_reader_settle(struct queue *q);
enum queue_rest tap_reader_rest(struct queue *q);

// ---- tap_writer.c ------------------------------------------------------------------------

void *tap_writer_open(struct queue *q);
void tap_writer_close(struct queue *q);
void tap_writer_enter(struct queue *q, int file_slot);
int tap_writer_leave(struct queue *q);
bool tap_writer_settle(struct queue *q);
void tap_writer_deliver(struct queue *to, struct frame *const frames[], unsigned n);
