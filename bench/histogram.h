// SPDX-License-Identifier: Apache-2.0
// histogram.h - latencies in log-linear buckets: about 3 % wide, any 64-bit value.
//
// Threads  one writer. Memory: the caller's struct, zeroed.
#pragma once

#include "dataplane/base.h"

#define HISTOGRAM_SUB_BITS 5 // 32 buckets for each power of two
#define HISTOGRAM_BUCKETS  ((64 - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS)

struct histogram {
    uint64_t n;
    uint64_t sum;
    uint64_t max;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

static inline unsigned histogram_bucket(uint64_t v)
{
    const unsigned subs = 1u << HISTOGRAM_SUB_BITS;
    if (v < subs)
        return (unsigned)v;
    unsigned shift = 63 - (unsigned)__builtin_clzll(v) - HISTOGRAM_SUB_BITS;
    return (shift << HISTOGRAM_SUB_BITS) + (unsigned)(v >> shift);
}

static inline void histogram_add(struct histogram *h, uint64_t v)
{
    h->n++;
    h->sum += v;
    h->max = MAX(h->max, v);
    h->buckets[histogram_bucket(v)]++;
}

void histogram_merge(struct histogram *into, const struct histogram *from);

// The value that @fraction (0 to 1) of all are not above, as exact as a bucket; 0 if empty.
uint64_t histogram_percentile(const struct histogram *h, double fraction);
