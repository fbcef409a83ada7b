// SPDX-License-Identifier: Apache-2.0
//
// Frames for a driver. Plain ones go into plain buffers, which takes no slot of the ring. For the
// others buffers are popped a batch ahead, frames are copied into them, and what is
// left is given back to the ring. A frame that the driver takes as it is becomes one piece: the
// header we build, the bytes of head[], then the sender's. One that it does not becomes several.
//
//     supply:  [ taken by frames so far | reserved for this piece | popped ahead ]
//                                       ^ n_taken                 ^ + n          ^ n_popped
#include "devices/net_internal.h"

#include "devices/offload.h"
#include "devices/packet.h"

#include <stdlib.h>
#include <string.h>

#define SUPPLY_MAX (NET_MERGED_MAX + RING_BATCH_MAX)

struct net_receive {
    struct net_queue queue; // first
    unsigned n_merged_max;  // buffers of one frame
    bool is_filtered;       // CTRL_RX or CTRL_VLAN
    bool is_hashed;         // HASH_REPORT
    unsigned n_popped, n_taken;
    struct chain *supply[SUPPLY_MAX];
};

// What holds for a batch.
struct rules {
    unsigned offloads;  // enum offload
    bool is_valid_told; // DATA_VALID is understood
    uint16_t tags;      // bits of frame.vlan that the driver sees: all or none
    uint32_t mtu;       // 0: no limit
};

// What was delivered of a batch.
struct tally {
    uint64_t n_frames, bytes;
};

// What becomes one received frame: @n_head bytes at @head, then @bytes of @frame from @offset on.
struct piece {
    struct virtio_net_hdr header;
    const uint8_t *head;
    const struct frame *frame;
    uint32_t n_head, offset, bytes;
};

struct net_queue *net_receive_open(struct queue *q)
{
    const uint64_t features = q->ring.features;
    struct net_receive *r = calloc(1, sizeof(*r));
    if (!r)
        return NULL;
    bool is_mergeable = features & VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF);
    r->n_merged_max = is_mergeable ? NET_MERGED_MAX : 1;
    r->is_filtered =
        features & VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ) &&
        features & (VIRTIO_BIT(VIRTIO_NET_F_CTRL_RX) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_VLAN));
    r->is_hashed = features & VIRTIO_BIT(VIRTIO_NET_F_HASH_REPORT);
    return &r->queue;
}

// ---- buffers -----------------------------------------------------------------------------

// Pop up to @n more; false if there are none.
static bool refill(struct net_receive *r, struct queue *q, unsigned n)
{
    if (r->n_popped + RING_BATCH_MAX > SUPPLY_MAX) {
        r->n_popped -= r->n_taken;
        memmove(&r->supply[0], &r->supply[r->n_taken], r->n_popped * sizeof(r->supply[0]));
        r->n_taken = 0;
    }
    unsigned n_new = ring_pop(&q->ring, &r->supply[r->n_popped], MIN(n, RING_BATCH_MAX));
    for (unsigned i = 0; i < n_new; i++)
        __builtin_prefetch(r->supply[r->n_popped + i]->iov[0].iov_base, 1);
    r->n_popped += n_new;
    return n_new > 0;
}

// What is left of the supply is the ring's again.
static void give_back(struct net_receive *r, struct queue *q)
{
    if (r->n_popped > r->n_taken)
        ring_unpop(&q->ring, &r->supply[r->n_taken], r->n_popped - r->n_taken);
    r->n_popped = r->n_taken = 0;
}

static enum drop why_short(const struct queue *q, unsigned n)
{
    if (q->ring.fault)
        return DROP_FAULT;
    return n ? DROP_TOO_SMALL : DROP_NO_BUFFER;
}

// Reserve buffers for @bytes; their number in @n.
static enum drop reserve(struct net_receive *r, struct queue *q, uint32_t bytes, unsigned *n)
{
    uint64_t room = 0;
    uint32_t last = 1;
    for (*n = 0; room < bytes; ++*n) {
        if (*n == r->n_merged_max)
            return DROP_TOO_SMALL;
        if (r->n_taken + *n == r->n_popped && !refill(r, q, (unsigned)((bytes - room) / last + 1)))
            return why_short(q, *n);
        const struct chain *c = r->supply[r->n_taken + *n];
        if (unlikely(c->n_out)) { // 5.1.6.3: receive buffers are device-writable
            ring_fault(&q->ring, RING_BAD_REQUEST, c->id);
            return DROP_FAULT;
        }
        room += c->in_bytes;
        last = c->in_bytes;
    }
    return DROP_NONE;
}

// ---- writing one piece -------------------------------------------------------------------

struct writer {
    struct chain *const *chain;
    unsigned segment;
    size_t at; // in the segment
};

// Where the next of @bytes go, and as many of them as go there in @run.
static uint8_t *next_run(struct writer *w, uint32_t bytes, uint32_t *run)
{
    if (w->at == (*w->chain)->iov[w->segment].iov_len) {
        w->at = 0;
        if (++w->segment == (*w->chain)->n_in) {
            w->segment = 0;
            w->chain++;
        }
    }
    const struct iovec *segment = &(*w->chain)->iov[w->segment];
    uint8_t *to = (uint8_t *)segment->iov_base + w->at;
    *run = (uint32_t)MIN(bytes, segment->iov_len - w->at);
    w->at += *run;
    return to;
}

static void write_bytes(struct writer *w, const void *from, uint32_t bytes)
{
    for (uint32_t done = 0, run; done < bytes; done += run) {
        uint8_t *to = next_run(w, bytes - done, &run);
        memcpy(to, (const uint8_t *)from + done, run);
    }
}

static void write_frame(struct writer *w, const struct frame *f, uint32_t offset, uint32_t bytes)
{
    for (uint32_t done = 0, run; done < bytes; done += run) {
        uint8_t *to = next_run(w, bytes - done, &run);
        frame_copy(f, offset + done, to, run);
    }
}

// 5.1.6.4: each buffer but the last is used whole.
static void push_reserved(struct net_receive *r, struct queue *q, unsigned n, uint32_t bytes)
{
    for (unsigned i = 0; i < n; i++) {
        struct chain *c = r->supply[r->n_taken++];
        uint32_t used = MIN(bytes, c->in_bytes);
        queue_push(q, c, used);
        bytes -= used;
    }
}

static enum drop put_piece(struct net_receive *r, struct queue *q, struct piece *p)
{
    uint32_t total = r->queue.header_bytes + p->n_head + p->bytes;
    unsigned n;
    enum drop reason = reserve(r, q, total, &n);
    if (reason)
        return reason;
    p->header.num_buffers = (uint16_t)n; // 5.1.6.4: 1 without MRG_RXBUF
    struct writer w = {.chain = &r->supply[r->n_taken]};
    write_bytes(&w, &p->header, r->queue.header_bytes);
    write_bytes(&w, p->head, p->n_head);
    write_frame(&w, p->frame, p->offset, p->bytes);
    push_reserved(r, q, n, total);
    return DROP_NONE;
}

// ---- from a frame to pieces --------------------------------------------------------------

// Copy a head to @to, with the tag that @f lost.
static uint32_t put_tag(uint8_t *to, const uint8_t *head, uint32_t n_head, const struct frame *f)
{
    memcpy(to, head, ETHER_TYPE_AT);
    store_be16(to + ETHER_TYPE_AT, ETHER_VLAN);
    store_be16(to + ETHER_TYPE_AT + 2, f->vlan);
    memcpy(to + ETHER_TYPE_AT + ETHER_TAG_BYTES, head + ETHER_TYPE_AT, n_head - ETHER_TYPE_AT);
    return n_head + ETHER_TAG_BYTES;
}

// Put a piece whose header and head are without a tag.
static enum drop put_tagged(struct net_receive *r, struct queue *q, const struct rules *rules,
                            struct piece *p)
{
    uint8_t head[FRAME_HEAD_MAX + ETHER_TAG_BYTES];
    if (p->frame->vlan & rules->tags) {
        p->n_head = put_tag(head, p->head, p->n_head, p->frame);
        p->head = head;
        if (p->header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
            p->header.csum_start += ETHER_TAG_BYTES;
        if (p->header.hdr_len)
            p->header.hdr_len += ETHER_TAG_BYTES;
    }
    return put_piece(r, q, p);
}

static uint8_t gso_type_of(const struct frame *f)
{
    static const uint8_t types[] = {
        [FRAME_GSO_NONE] = VIRTIO_NET_HDR_GSO_NONE,   [FRAME_GSO_TCP4] = VIRTIO_NET_HDR_GSO_TCPV4,
        [FRAME_GSO_TCP6] = VIRTIO_NET_HDR_GSO_TCPV6,  [FRAME_GSO_UDP] = VIRTIO_NET_HDR_GSO_UDP,
        [FRAME_GSO_USO4] = VIRTIO_NET_HDR_GSO_UDP_L4, [FRAME_GSO_USO6] = VIRTIO_NET_HDR_GSO_UDP_L4,
    };
    return types[f->gso] | (f->has_ecn ? VIRTIO_NET_HDR_GSO_ECN : 0);
}

// 5.1.6.4, from what was checked and nothing else.
static void build_header(struct virtio_net_hdr *h, const struct frame *f, const struct rules *rules)
{
    *h = (struct virtio_net_hdr){0};
    if (f->needs_csum) {
        h->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        h->csum_start = f->csum_start;
        h->csum_offset = f->csum_offset;
    } else if (f->is_csum_good && rules->is_valid_told) {
        h->flags = VIRTIO_NET_HDR_F_DATA_VALID;
    }
    if (f->gso) {
        h->gso_type = gso_type_of(f);
        h->gso_size = f->gso_size;
        h->hdr_len = f->n_l4_head;
    }
}

static void add_hash(const struct net_receive *r, struct virtio_net_hdr *h, const struct frame *f)
{
    uint16_t report;
    h->hash_value = rss_hash(&r->queue.net->rss, f, &report);
    h->hash_report = report;
}

static enum drop put_whole(struct net_receive *r, struct queue *q, const struct frame *f,
                           const struct rules *rules)
{
    struct piece p = {.head = f->head,
                      .frame = f,
                      .n_head = f->n_head,
                      .offset = f->n_head,
                      .bytes = f->bytes - f->n_head};
    build_header(&p.header, f, rules);
    if (r->is_hashed)
        add_hash(r, &p.header, f);
    return put_tagged(r, q, rules, &p);
}

// In pieces that the driver takes. Those that find no room are dropped; one is enough for a
// reason.
static __attribute__((noinline)) enum drop put_cut(struct net_receive *r, struct queue *q,
                                                   const struct frame *f, const struct rules *rules)
{
    struct segmenter s;
    struct segment cut;
    struct virtio_net_hdr hashed = {0};
    enum drop reason = DROP_NONE;
    if (r->is_hashed)
        add_hash(r, &hashed, f); // addresses and ports are the same in all of them
    counter_add(&r->queue.stats->n_segmented, 1);
    offload_begin(&s, f, rules->offloads);
    while (!reason && offload_next(&s, &cut)) {
        struct piece p = {.header = hashed,
                          .head = cut.head,
                          .frame = f,
                          .n_head = cut.n_head,
                          .offset = cut.offset,
                          .bytes = cut.bytes};
        if (cut.needs_csum) {
            p.header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
            p.header.csum_start = f->csum_start;
            p.header.csum_offset = f->csum_offset;
        }
        reason = put_tagged(r, q, rules, &p);
    }
    return reason;
}

// Whether the driver gets @f at all.
static inline enum drop admit(const struct net_receive *r, const struct frame *f,
                              const struct rules *rules)
{
    if (unlikely(!port_is_within_mtu(f, rules->mtu)))
        return DROP_MTU;
    if (unlikely(r->is_filtered) &&
        !net_filter_takes(&r->queue.net->filter, f, f->vlan & rules->tags))
        return DROP_FILTERED;
    return DROP_NONE;
}

static enum drop put(struct net_receive *r, struct queue *q, const struct frame *f,
                     const struct rules *rules)
{
    enum drop reason = admit(r, f, rules);
    if (reason)
        return reason;
    if (offload_is_taken(f, rules->offloads))
        return put_whole(r, q, f, rules);
    return put_cut(r, q, f, rules);
}

// ---- plain frames ------------------------------------------------------------------------

// A frame that asks for nothing, into a buffer that holds it. Returns the bytes written.
static inline uint32_t write_plain(uint8_t *to, const struct frame *f, const struct rules *rules)
{
    struct virtio_net_hdr header = {.num_buffers = 1};
    if (f->is_csum_good && rules->is_valid_told)
        header.flags = VIRTIO_NET_HDR_F_DATA_VALID;
    memcpy(to, &header, VIRTIO_NET_HDR_BYTES);
    to += VIRTIO_NET_HDR_BYTES;
    uint32_t left = f->bytes - f->n_head;
    if (likely(f->n_head == FRAME_BYTES_MIN))
        memcpy(to, f->head, FRAME_BYTES_MIN);
    else
        memcpy(to, f->head, f->n_head);
    to += f->n_head;
    if (likely(f->n_iov && f->iov->iov_len - f->skip >= left))
        memcpy(to, (const uint8_t *)f->iov->iov_base + f->skip, left);
    else
        frame_copy(f, f->n_head, to, left);
    return VIRTIO_NET_HDR_BYTES + f->bytes;
}

static inline bool is_plain(const struct frame *f, const struct rules *rules)
{
    return !(f->gso | f->needs_csum) && !(f->vlan & rules->tags);
}

// Put the frames at the front that are plain into plain buffers. Returns how many; @tally adds up.
static unsigned put_plain(const struct net_receive *r, struct queue *q,
                          struct frame *const frames[], unsigned n, const struct rules *rules,
                          struct tally *tally)
{
    struct ring_plain buffers[RING_BATCH_MAX];
    uint32_t lengths[RING_BATCH_MAX];
    unsigned n_buffers = ring_peek(&q->ring, buffers, MIN(n, RING_BATCH_MAX), true);
    for (unsigned i = 0; i < n_buffers; i++)
        __builtin_prefetch(buffers[i].at, 1);
    unsigned done = 0, used = 0;
    for (; done < n && used < n_buffers; done++) {
        const struct frame *f = frames[done];
        if (unlikely(!is_plain(f, rules) || buffers[used].bytes < VIRTIO_NET_HDR_BYTES + f->bytes))
            break;
        enum drop reason = admit(r, f, rules);
        if (unlikely(reason)) {
            counter_add(&r->queue.stats->n_drops[reason], 1);
            continue;
        }
        lengths[used] = write_plain(buffers[used].at, f, rules);
        tally->bytes += f->bytes;
        used++;
    }
    if (used) {
        ring_spend(&q->ring, buffers, lengths, used);
        queue_touch(q);
    }
    tally->n_frames += used;
    return done;
}

// ---- a batch -----------------------------------------------------------------------------

static inline struct rules rules_of(const struct net_receive *r)
{
    const struct net *net = r->queue.net;
    uint64_t features =
        r->queue.features &
        (atomic_load_explicit(&net->offloads, memory_order_relaxed) | ~NET_GUEST_OFFLOADS);
    return (struct rules){
        .offloads = offload_of_guest(features),
        .is_valid_told = features & VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM),
        .tags = net->port.vlan ? 0 : UINT16_MAX,
        .mtu = net->port.mtu,
    };
}

// The others, with all that a driver may ask for.
static __attribute__((noinline)) void put_others(struct net_receive *r, struct queue *q,
                                                 struct frame *const frames[], unsigned n,
                                                 const struct rules *rules, struct tally *tally)
{
    refill(r, q, n);
    for (unsigned i = 0; i < n; i++) {
        enum drop reason = put(r, q, frames[i], rules);
        if (reason) {
            counter_add(&r->queue.stats->n_drops[reason], 1);
        } else {
            tally->n_frames++;
            tally->bytes += frames[i]->bytes;
        }
    }
    give_back(r, q);
}

void net_deliver(struct queue *to, struct frame *const frames[], unsigned n)
{
    struct net_receive *r = to->priv;
    const struct rules rules = rules_of(r);
    struct tally tally = {0};
    unsigned done = 0;
    if (likely(r->queue.header_bytes == VIRTIO_NET_HDR_BYTES))
        done = put_plain(r, to, frames, n, &rules, &tally);
    if (unlikely(done < n))
        put_others(r, to, frames + done, n - done, &rules, &tally);
    for (unsigned i = 0; i < n; i++)
        frame_return(to->lane, frames[i]);
    counter_add(&r->queue.stats->n_frames, tally.n_frames);
    counter_add(&r->queue.stats->n_bytes, tally.bytes);
}
