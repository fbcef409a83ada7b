// SPDX-License-Identifier: Apache-2.0
// rss.h - receive-side scaling (VIRTIO 1.3, 5.1.6.5.7): a hash that the driver chose, and the
// queue that it chose for each hash.
//
// What the driver set is read by every worker that sends to it, word by word: while it is being
// changed, a frame may go by a mixture of old and new. Every value is bounded where it is used.
//
// Threads  [W] the control queue's worker sets; [any worker] hashes.
// Memory   embedded in its device; nothing allocates.
// Trust    rss_set_...() check what a driver sent.
#pragma once

#include "devices/frame.h"

#define RSS_KEY_BYTES VIRTIO_NET_RSS_KEY_BYTES_MIN
#define RSS_TABLE_MAX VIRTIO_NET_RSS_TABLE_MIN
#define RSS_TYPES                                                                                  \
    (VIRTIO_NET_HASH_TYPE_IPV4 | VIRTIO_NET_HASH_TYPE_TCP4 | VIRTIO_NET_HASH_TYPE_UDP4 |           \
     VIRTIO_NET_HASH_TYPE_IPV6 | VIRTIO_NET_HASH_TYPE_TCP6 | VIRTIO_NET_HASH_TYPE_UDP6)

struct rss {
    _Atomic uint32_t types; // VIRTIO_NET_HASH_TYPE_... that are hashed
    _Atomic uint64_t key[RSS_KEY_BYTES / 8];
    atomic_bool is_steering; // the table is in force
    _Atomic uint32_t mask;   // entries of the table, less one
    _Atomic uint16_t table[RSS_TABLE_MAX];
    _Atomic uint16_t unclassified; // the queue of frames without a hash
};

struct rss_steering {
    uint32_t n; // entries, a power of two up to RSS_TABLE_MAX
    uint16_t unclassified;
    uint16_t table[RSS_TABLE_MAX];
};

// [W] What is hashed, and with which key of @bytes; the rest of it is zeros.
void rss_set_hash(struct rss *r, uint32_t types, const uint8_t *key, unsigned bytes);

// [W] Spread by this table from now on; NULL: not by a table.
void rss_set_steering(struct rss *r, const struct rss_steering *steering);

// [any worker] The hash of @f, and VIRTIO_NET_HASH_REPORT_... in @report.
uint32_t rss_hash(const struct rss *r, const struct frame *f, uint16_t *report);

// [any worker] The receive queue of @f, below @n.
unsigned rss_spread(const struct rss *r, const struct frame *f, unsigned n);
