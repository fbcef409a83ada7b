// SPDX-License-Identifier: Apache-2.0
//
// Frames for the interface are written where they lie: one WRITEV of a header of ours, the frame's
// head, and the sender's own bytes. The kernel copies them while it submits; the frame goes back
// with the completion, one turn later.
//
// A frame that the kernel cannot take as it is leaves in pieces: a header and a range of the
// sender's bytes each. The first of them, the lead, counts how many are out.
#include "devices/tap_internal.h"

#include "devices/offload.h"
#include "devices/packet.h"

#include <limits.h>
#include <stdlib.h>

#define WRITES 512 // out at a time

struct write {
    struct uring_op op; // without a home: the queue leaves its lane when none is out
    struct writer *writer;
    struct write *lead;
    struct frame *frame; // a lead's
    unsigned n_left;     // a lead's: pieces out
    uint32_t bytes;
    // The virtio-net header, then the frame's headers with its tag.
    uint8_t top[VIRTIO_NET_HDR_BYTES + FRAME_HEAD_MAX + ETHER_TAG_BYTES];
    struct iovec iov[IOV_MAX]; // as far as a frame had so many segments, there are pages
};

struct writer {
    struct queue *queue;
    struct port_stats *stats;
    struct tap *tap;
    int file_slot;
    bool is_leaving;
    unsigned n_free;
    struct write *free[WRITES];
    struct write writes[WRITES];
};

void *tap_writer_open(struct queue *q)
{
    struct writer *w = calloc(1, sizeof(*w));
    if (!w)
        return NULL;
    w->queue = q;
    w->stats = port_stats_of(q);
    w->tap = tap_of(q);
    for (unsigned i = 0; i < WRITES; i++)
        w->free[w->n_free++] = &w->writes[WRITES - 1 - i];
    return w;
}

void tap_writer_close(struct queue *q)
{
    free(q->priv);
}

void tap_writer_enter(struct queue *q, int file_slot)
{
    struct writer *w = q->priv;
    w->file_slot = file_slot;
    w->is_leaving = false;
}

int tap_writer_leave(struct queue *q)
{
    struct writer *w = q->priv;
    return w->file_slot;
}

bool tap_writer_settle(struct queue *q)
{
    struct writer *w = q->priv;
    w->is_leaving = true; // else frames that keep coming would keep it here
    return w->n_free == WRITES;
}

// ---- one write ---------------------------------------------------------------------------

static void drop(struct writer *w, enum drop reason)
{
    counter_add(&w->stats->n_drops[reason], 1);
}

static void release_piece(struct write *lead)
{
    struct writer *w = lead->writer;
    if (--lead->n_left)
        return;
    w->free[w->n_free++] = lead;
    frame_return(w->queue->lane, lead->frame);
}

static void write_done(struct uring_op *op, int result)
{
    struct write *wr = container_of(op, struct write, op);
    struct writer *w = wr->writer;
    struct write *lead = wr->lead;
    if (likely(result >= 0)) {
        counter_add(&w->stats->n_frames, 1);
        counter_add(&w->stats->n_bytes, wr->bytes);
    } else { // EIO: the interface is down. EBADFD: it has gone, as the reader says
        drop(w, DROP_UPLINK);
    }
    if (wr != lead)
        w->free[w->n_free++] = wr;
    release_piece(lead);
}

// Point @iov at @bytes of the sender's from @offset on; how many segments, 0: more than @max.
static unsigned fill_payload(struct iovec *iov, unsigned max, const struct frame *f,
                             uint32_t offset, uint32_t bytes)
{
    size_t at = (size_t)offset - f->n_head + f->skip;
    unsigned n = 0;
    for (const struct iovec *from = f->iov; bytes; from++) {
        if (at >= from->iov_len) {
            at -= from->iov_len;
            continue;
        }
        if (n == max)
            return 0;
        uint32_t part = (uint32_t)MIN(bytes, from->iov_len - at);
        iov[n++] = (struct iovec){(uint8_t *)from->iov_base + at, part};
        bytes -= part;
        at = 0;
    }
    return n;
}

// The header (5.1.6) of a frame that goes as it is, or of a piece with a begun checksum: from
// what frame_parse() found, never the sender's.
static struct virtio_net_hdr header_of(const struct frame *f, uint32_t n_head, bool needs_csum,
                                       bool is_whole, uint16_t tag)
{
    static const uint8_t types[] = {
        [FRAME_GSO_NONE] = VIRTIO_NET_HDR_GSO_NONE,   [FRAME_GSO_TCP4] = VIRTIO_NET_HDR_GSO_TCPV4,
        [FRAME_GSO_TCP6] = VIRTIO_NET_HDR_GSO_TCPV6,  [FRAME_GSO_UDP] = VIRTIO_NET_HDR_GSO_UDP,
        [FRAME_GSO_USO4] = VIRTIO_NET_HDR_GSO_UDP_L4, [FRAME_GSO_USO6] = VIRTIO_NET_HDR_GSO_UDP_L4,
    };
    uint32_t more = tag ? ETHER_TAG_BYTES : 0;
    struct virtio_net_hdr hdr = {0};
    if (!needs_csum)
        return hdr;
    hdr.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    hdr.csum_start = (uint16_t)(f->csum_start + more);
    hdr.csum_offset = f->csum_offset;
    if (is_whole && f->gso) {
        hdr.gso_type = types[f->gso] | (f->has_ecn ? VIRTIO_NET_HDR_GSO_ECN : 0);
        hdr.gso_size = f->gso_size;
        hdr.hdr_len = (uint16_t)(n_head + more);
    }
    return hdr;
}

// What one write takes to the interface: headers, and a range of the sender's bytes.
struct part {
    const uint8_t *head;
    uint32_t n_head;
    uint32_t offset, bytes;
    bool needs_csum;
    bool is_whole; // not a piece
};

static bool write_part(struct writer *w, struct write *lead, const struct part *part)
{
    const struct frame *f = lead->frame;
    // A port with a VLAN of its own has no tags.
    uint16_t tag = w->tap->port.vlan ? 0 : f->vlan;
    struct write *wr = lead;
    if (lead->n_left) {
        if (!w->n_free)
            return false;
        wr = w->free[w->n_free - 1];
    }
    unsigned n = fill_payload(wr->iov + 1, IOV_MAX - 1, f, part->offset, part->bytes);
    if (!n && part->bytes)
        return false;
    if (wr != lead)
        w->n_free--;
    struct virtio_net_hdr hdr = header_of(f, part->n_head, part->needs_csum, part->is_whole, tag);
    memcpy(wr->top, &hdr, VIRTIO_NET_HDR_BYTES);
    uint32_t n_top = store_head(wr->top + VIRTIO_NET_HDR_BYTES, part->head, part->n_head, tag);
    wr->iov[0] = (struct iovec){wr->top, VIRTIO_NET_HDR_BYTES + n_top};
    wr->bytes = part->n_head + part->bytes;
    wr->lead = lead;
    wr->writer = w;
    wr->op = (struct uring_op){.done = write_done};
    lead->n_left++;
    struct io_uring_sqe *sqe = uring_entry(&w->queue->lane->uring, &wr->op);
    io_uring_prep_writev(sqe, w->file_slot, wr->iov, n + 1, 0);
    sqe->flags |= IOSQE_FIXED_FILE;
    return true;
}

// ---- frames ------------------------------------------------------------------------------

static bool write_pieces(struct writer *w, struct write *lead)
{
    struct segmenter segmenter;
    struct segment piece;
    bool is_good = true;
    counter_add(&w->stats->n_segmented, 1);
    offload_begin(&segmenter, lead->frame, w->tap->offloads);
    while (is_good && offload_next(&segmenter, &piece)) {
        is_good = write_part(w, lead,
                             &(struct part){
                                 .head = piece.head,
                                 .n_head = piece.n_head,
                                 .offset = piece.offset,
                                 .bytes = piece.bytes,
                                 .needs_csum = piece.needs_csum,
                             });
    }
    return is_good;
}

static bool write_whole(struct writer *w, struct write *lead)
{
    const struct frame *f = lead->frame;
    return write_part(w, lead,
                      &(struct part){
                          .head = f->head,
                          .n_head = f->n_head,
                          .offset = f->n_head,
                          .bytes = f->bytes - f->n_head,
                          .needs_csum = f->needs_csum,
                          .is_whole = true,
                      });
}

static enum drop refusal(const struct writer *w, const struct frame *f)
{
    if (w->is_leaving)
        return DROP_LINK_DOWN;
    if (!w->n_free)
        return DROP_UPLINK;
    return port_is_within_mtu(f, w->tap->port.mtu) ? DROP_NONE : DROP_MTU;
}

void tap_writer_deliver(struct queue *to, struct frame *const frames[], unsigned n)
{
    struct writer *w = to->priv;
    for (unsigned i = 0; i < n; i++) {
        enum drop reason = refusal(w, frames[i]);
        if (unlikely(reason)) {
            drop(w, reason);
            frame_return(to->lane, frames[i]);
            continue;
        }
        struct write *lead = w->free[--w->n_free];
        lead->writer = w;
        lead->frame = frames[i];
        lead->n_left = 0;
        // A full io_uring is submitted meanwhile, but nothing is reaped: no piece is done yet.
        bool is_taken = offload_is_taken(frames[i], w->tap->offloads);
        if (unlikely(!(is_taken ? write_whole(w, lead) : write_pieces(w, lead))))
            drop(w, DROP_UPLINK);
        if (unlikely(!lead->n_left)) {
            lead->n_left = 1;
            release_piece(lead);
        }
    }
}
