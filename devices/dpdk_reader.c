// SPDX-License-Identifier: Apache-2.0
//
// What the device received is a frame in the device's own buffers, until all receivers have copied
// it. Buffers that came home are given back to the plug-in once a turn, together.
#include "devices/dpdk_internal.h"

#include "devices/switch.h"

#include <stdlib.h>

#define FRAMES    1024 // under way
#define BATCH_MAX 32

struct slot {
    struct reader *reader;
    struct dpdk_received received;
    struct frame frame;
};

struct reader {
    struct port_stats *stats;
    const struct dpdk_driver *driver;
    unsigned n_free, n_home;
    struct slot *free[FRAMES];
    void *home[FRAMES]; // handles to be released
    struct slot slots[FRAMES];
};

void *dpdk_reader_open(struct queue *q)
{
    struct reader *r = calloc(1, sizeof(*r));
    if (!r)
        return NULL;
    r->stats = port_stats_of(q);
    r->driver = dpdk_of(q)->driver;
    for (unsigned i = 0; i < FRAMES; i++) {
        r->slots[i].reader = r;
        r->free[r->n_free++] = &r->slots[FRAMES - 1 - i];
    }
    return r;
}

static void release(struct slot *s)
{
    struct reader *r = s->reader;
    r->home[r->n_home++] = s->received.handle;
    r->free[r->n_free++] = s;
}

static void frame_is_home(struct frame *f)
{
    release(container_of(f, struct slot, frame));
}

static void release_all(struct reader *r)
{
    if (r->n_home)
        r->driver->release(r->home, r->n_home);
    r->n_home = 0;
}

static enum drop parse(struct queue *q, struct slot *s)
{
    enum drop reason = frame_parse(&s->frame, s->received.iov, s->received.n_iov, 0, NULL);
    if (!reason && !port_is_within_mtu(&s->frame, port_of(q)->mtu))
        return DROP_GIANT;
    s->frame.home = q;
    s->frame.free = frame_is_home;
    return reason;
}

unsigned dpdk_reader_poll(struct queue *q, unsigned budget)
{
    struct reader *r = q->priv;
    struct dpdk_received received[BATCH_MAX];
    struct frame *frames[BATCH_MAX];
    release_all(r); // so that there are never more handles than slots
    unsigned max = MIN(MIN(budget, BATCH_MAX), r->n_free), n_frames = 0;
    unsigned n = max ? r->driver->receive(dpdk_of(q)->nic, q->index / 2, received, max) : 0;
    uint64_t bytes = 0;
    for (unsigned i = 0; i < n; i++)
        __builtin_prefetch(received[i].iov[0].iov_base);
    for (unsigned i = 0; i < n; i++) {
        struct slot *s = r->free[--r->n_free];
        s->received = received[i];
        enum drop reason = parse(q, s);
        if (unlikely(reason)) {
            counter_add(&r->stats->n_drops[reason], 1);
            release(s);
            continue;
        }
        bytes += s->frame.bytes;
        frames[n_frames++] = &s->frame;
    }
    if (n_frames) {
        counter_add(&r->stats->n_frames, n_frames);
        counter_add(&r->stats->n_bytes, bytes);
        switch_forward(port_of(q), q->lane, frames, n_frames, r->stats);
    }
    return n;
}

bool dpdk_reader_settle(struct queue *q)
{
    struct reader *r = q->priv;
    release_all(r);
    return r->n_free == FRAMES;
}
