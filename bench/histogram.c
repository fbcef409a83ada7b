// SPDX-License-Identifier: Apache-2.0
#include "bench/histogram.h"

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    into->n += from->n;
    into->sum += from->sum;
    into->max = MAX(into->max, from->max);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        into->buckets[i] += from->buckets[i];
}

// The largest value of bucket @i.
static uint64_t bucket_top(unsigned i)
{
    const unsigned subs = 1u << HISTOGRAM_SUB_BITS;
    if (i < subs)
        return i;
    unsigned shift = (i >> HISTOGRAM_SUB_BITS) - 1;
    uint64_t first = (uint64_t)((i & (subs - 1)) | subs) << shift;
    return first + (UINT64_C(1) << shift) - 1;
}

uint64_t histogram_percentile(const struct histogram *h, double fraction)
{
    if (!h->n)
        return 0;
    uint64_t rank = (uint64_t)(fraction * (double)h->n + 0.5), seen = 0;
    rank = MAX(1, MIN(rank, h->n));
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen >= rank)
            return MIN(bucket_top(i), h->max);
    }
    return h->max;
}
