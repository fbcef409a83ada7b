// SPDX-License-Identifier: Apache-2.0
// dpdk_internal.h - what the files of dpdk share; nobody else includes it.
//
// dpdk.c has the plug-in, the device and the queues' life, dpdk_reader.c and dpdk_writer.c are the
// two directions.
//
// Threads  as device.h.
// Memory   as dpdk.h.
#pragma once

#include "devices/dpdk.h"
#include "devices/dpdk_driver.h"

struct dpdk {
    struct port port; // first
    const struct dpdk_driver *driver;
    struct dpdk_nic *nic;
    uint32_t frame_bytes; // the largest that the device takes, without a tag
    unsigned n_pairs;
    bool is_started[DPDK_PAIRS_MAX]; // [C] the senders
};

static inline struct dpdk *dpdk_of(const struct queue *q)
{
    return (struct dpdk *)port_of(q);
}

void *dpdk_reader_open(struct queue *q); // [C] q->priv, or NULL
unsigned dpdk_reader_poll(struct queue *q, unsigned budget);
bool dpdk_reader_settle(struct queue *q);

void *dpdk_writer_open(struct queue *q);
void dpdk_writer_deliver(struct queue *to, struct frame *const frames[], unsigned n);
