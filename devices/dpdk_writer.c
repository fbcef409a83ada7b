// SPDX-License-Identifier: Apache-2.0
//
// Frames are sent in the turn that brings them, and go back at once. The device is asked for
// nothing: checksums and segmentation are made up for here.
#include "devices/dpdk_internal.h"

#include "devices/offload.h"
#include "devices/packet.h"

#include <stdlib.h>

#define BATCH_MAX 32

struct writer {
    struct queue *queue;
    struct port_stats *stats;
    struct dpdk *dpdk;
    unsigned n; // to be sent
    struct dpdk_sent batch[BATCH_MAX];
    uint8_t heads[BATCH_MAX][FRAME_HEAD_MAX + ETHER_TAG_BYTES];
};

void *dpdk_writer_open(struct queue *q)
{
    struct writer *w = calloc(1, sizeof(*w));
    if (!w)
        return NULL;
    w->queue = q;
    w->stats = port_stats_of(q);
    w->dpdk = dpdk_of(q);
    return w;
}

static void drop(struct writer *w, enum drop reason, unsigned n)
{
    counter_add(&w->stats->n_drops[reason], n);
}

static void flush(struct writer *w)
{
    if (w->n == 0)
        return;
    unsigned n = w->dpdk->driver->send(w->dpdk->nic, w->queue->index / 2, w->batch, w->n);
    uint64_t bytes = 0;
    for (unsigned i = 0; i < n; i++)
        bytes += w->batch[i].n_head + w->batch[i].bytes;
    counter_add(&w->stats->n_frames, n);
    counter_add(&w->stats->n_bytes, bytes);
    if (n < w->n)
        drop(w, DROP_UPLINK, w->n - n);
    w->n = 0;
}

static void add_piece(struct writer *w, const struct frame *f, const struct segment *piece)
{
    if (piece->n_head + piece->bytes > w->dpdk->frame_bytes) {
        drop(w, DROP_MTU, 1);
        return;
    }
    if (w->n == BATCH_MAX)
        flush(w);
    uint16_t tag = w->dpdk->port.vlan ? 0 : f->vlan;
    struct dpdk_sent *s = &w->batch[w->n];
    s->head = w->heads[w->n];
    s->n_head = store_head(w->heads[w->n], piece->head, piece->n_head, tag);
    s->iov = f->iov;
    s->skip = (size_t)piece->offset - f->n_head + f->skip;
    s->bytes = piece->bytes;
    w->n++;
}

void dpdk_writer_deliver(struct queue *to, struct frame *const frames[], unsigned n)
{
    struct writer *w = to->priv;
    for (unsigned i = 0; i < n; i++) {
        struct segmenter segmenter;
        struct segment piece;
        if (unlikely(frames[i]->needs_csum))
            counter_add(&w->stats->n_segmented, 1);
        offload_begin(&segmenter, frames[i], 0);
        while (offload_next(&segmenter, &piece))
            add_piece(w, frames[i], &piece);
    }
    flush(w);
    for (unsigned i = 0; i < n; i++)
        frame_return(to->lane, frames[i]);
}
