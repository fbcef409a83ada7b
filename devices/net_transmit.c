// SPDX-License-Identifier: Apache-2.0
//
// A transmit queue's poll: chains become frames, which go into the switch as one batch. The chain
// stays popped until everybody has copied the frame. Frames are taken from a stack, so that a
// queue whose frames come home at once uses the same few lines again and again.
#include "devices/net_internal.h"

#include "devices/switch.h"

#include <stdlib.h>
#include <string.h>

#define RARP_BYTES 60 // an Ethernet frame's least, without its check sequence

struct net_transmit {
    struct net_queue queue;   // first
    uint32_t mtu;             // 0: no limit
    uint32_t gso_types;       // one bit for each gso_type that was negotiated
    uint8_t gso_flags, flags; // bits of gso_type and of flags, likewise
    unsigned n_free, n_frames;
    unsigned n_slow;    // polls for which frames are expected to stay away
    bool is_announcing; // announcement is under way
    struct frame announcement;
    struct frame *free[NET_FRAMES_MAX];
    struct iovec whole[NET_FRAMES_MAX]; // by frame: the sender's bytes, when no chain has them
    struct frame frames[];
};

// ---- life --------------------------------------------------------------------------------

// What 5.1.6.2 lets a driver ask for with @features.
static void allow(struct net_transmit *t, uint64_t features)
{
    static const struct {
        unsigned feature;
        uint32_t bit;
    } types[] = {
        {VIRTIO_NET_F_HOST_TSO4, 1u << VIRTIO_NET_HDR_GSO_TCPV4},
        {VIRTIO_NET_F_HOST_TSO6, 1u << VIRTIO_NET_HDR_GSO_TCPV6},
        {VIRTIO_NET_F_HOST_UFO, 1u << VIRTIO_NET_HDR_GSO_UDP},
        {VIRTIO_NET_F_HOST_USO, 1u << VIRTIO_NET_HDR_GSO_UDP_L4},
    };
    if (!(features & VIRTIO_BIT(VIRTIO_NET_F_CSUM)))
        return; // 5.1.3.1: all the others need it
    t->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    t->gso_types = 1u << VIRTIO_NET_HDR_GSO_NONE;
    for (unsigned i = 0; i < ARRAY_LEN(types); i++) {
        if (features & VIRTIO_BIT(types[i].feature))
            t->gso_types |= types[i].bit;
    }
    if (features & VIRTIO_BIT(VIRTIO_NET_F_HOST_ECN))
        t->gso_flags = VIRTIO_NET_HDR_GSO_ECN;
}

struct net_queue *net_transmit_open(struct queue *q)
{
    unsigned n = MIN(q->ring.size, NET_FRAMES_MAX);
    // Pages are the worker's when it touches them, and frames that are never used have none.
    struct net_transmit *t = calloc(1, sizeof(*t) + n * sizeof(t->frames[0]));
    if (!t)
        return NULL;
    t->mtu = port_of(q)->mtu;
    t->n_frames = t->n_free = n;
    for (unsigned i = 0; i < n; i++)
        t->free[i] = &t->frames[n - 1 - i];
    allow(t, q->ring.features);
    return &t->queue;
}

// Frames hold chains, which the ring counts; the announcement has none.
bool net_transmit_settle(struct queue *q)
{
    const struct net_transmit *t = q->priv;
    return t->n_free == t->n_frames && !t->is_announcing;
}

// ---- one frame ---------------------------------------------------------------------------

static void frame_is_home(struct frame *f)
{
    struct queue *q = f->home;
    struct net_transmit *t = q->priv;
    t->free[t->n_free++] = f;
    queue_push(q, &q->ring.slots[f->id], 0);
}

// Decide by the copy: without this a compiler may load the driver's bytes again.
static inline void copied(void)
{
    __asm__ volatile("" ::: "memory");
}

// A header that descriptors cut anywhere.
static __attribute__((noinline)) void gather_header(const struct iovec *iov, uint8_t *to,
                                                    uint32_t bytes)
{
    for (; bytes; iov++) {
        uint32_t part = (uint32_t)MIN(iov->iov_len, bytes);
        memcpy(to, iov->iov_base, part);
        to += part;
        bytes -= part;
    }
    copied();
}

static bool is_allowed(const struct net_transmit *t, const struct virtio_net_hdr *hdr)
{
    unsigned flags = hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;
    unsigned gso_flags = hdr->gso_type & VIRTIO_NET_HDR_GSO_ECN;
    unsigned type = hdr->gso_type & ~VIRTIO_NET_HDR_GSO_ECN;
    return !(flags & ~(unsigned)t->flags) && !(gso_flags & ~(unsigned)t->gso_flags) &&
           type < 8 * sizeof(t->gso_types) && t->gso_types >> type & 1;
}

// The driver asks for something (5.1.6.2).
static __attribute__((noinline)) enum drop parse_request(const struct net_transmit *t,
                                                         const struct chain *c, struct frame *f,
                                                         const struct virtio_net_hdr *hdr)
{
    if (!is_allowed(t, hdr))
        return DROP_BAD_HEADER;
    return frame_parse(f, c->iov, c->n_out, t->queue.header_bytes, hdr);
}

static inline enum drop parse(const struct net_transmit *t, const struct chain *c, struct frame *f)
{
    const uint32_t skip = t->queue.header_bytes;
    struct virtio_net_hdr hdr;
    enum drop reason;
    if (unlikely(c->out_bytes < skip + FRAME_BYTES_MIN))
        return DROP_RUNT;
    if (likely(c->iov->iov_len >= VIRTIO_NET_HDR_BYTES_LEGACY)) {
        memcpy(&hdr, c->iov->iov_base, VIRTIO_NET_HDR_BYTES_LEGACY);
        copied();
    } else {
        gather_header(c->iov, (uint8_t *)&hdr, VIRTIO_NET_HDR_BYTES_LEGACY);
    }
    if (likely(!(hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) && !hdr.gso_type))
        reason = frame_parse(f, c->iov, c->n_out, skip, NULL);
    else
        reason = parse_request(t, c, f, &hdr);
    if (unlikely(!reason && !port_is_within_mtu(f, t->mtu)))
        return DROP_GIANT;
    return reason;
}

// ---- a batch -----------------------------------------------------------------------------

// It goes nowhere; the chain goes back.
static __attribute__((noinline)) void drop(struct queue *q, struct chain *c, enum drop reason)
{
    struct net_queue *nq = q->priv;
    counter_add(&nq->stats->n_drops[reason], 1);
    queue_push(q, c, 0);
}

static inline bool is_illegal(const struct chain *c)
{
    return c->n_in || !c->n_out; // 5.1.6.2: the buffer is device-readable
}

// Frames out of chains; how many.
static unsigned parse_batch(struct queue *q, struct chain *const chains[], unsigned n,
                            struct frame *frames[], uint64_t *bytes)
{
    struct net_transmit *t = q->priv;
    unsigned n_frames = 0;
    for (unsigned i = 0; i < n; i++) {
        struct chain *c = chains[i];
        if (unlikely(is_illegal(c))) {
            ring_fault(&q->ring, RING_BAD_REQUEST, c->id);
            drop(q, c, DROP_FAULT);
            continue;
        }
        struct frame *f = t->free[t->n_free - 1];
        enum drop reason = parse(t, c, f);
        if (unlikely(reason)) {
            drop(q, c, reason);
            continue;
        }
        f->home = q;
        f->id = c->id;
        f->free = frame_is_home;
        t->n_free--;
        *bytes += f->bytes;
        frames[n_frames++] = f;
    }
    return n_frames;
}

static unsigned poll_chains(struct queue *q, unsigned max)
{
    struct net_transmit *t = q->priv;
    struct chain *chains[RING_BATCH_MAX];
    struct frame *frames[RING_BATCH_MAX];
    unsigned n = ring_pop(&q->ring, chains, max);
    if (n == 0)
        return 0;
    for (unsigned i = 0; i < n; i++)
        __builtin_prefetch(chains[i]->iov[0].iov_base);

    uint64_t bytes = 0;
    unsigned n_frames = parse_batch(q, chains, n, frames, &bytes);
    if (n_frames == 0)
        return n;
    counter_add(&t->queue.stats->n_frames, n_frames);
    counter_add(&t->queue.stats->n_bytes, bytes);
    switch_forward(port_of(q), q->lane, frames, n_frames, t->queue.stats);
    return n;
}

// ---- plain chains ------------------------------------------------------------------------
//
// Most frames are one descriptor, ask for nothing, and are home before switch_forward() returns:
// then the ring needs no slots for them. If some are not home, because another worker or an uplink
// has them, the chains are popped after all.

#define AT_HOME   UINT32_MAX // frame.id
#define SLOW_RUNS 64         // polls with slots, after one that had to pop late

static void plain_is_home(struct frame *f)
{
    struct net_transmit *t = f->home->priv;
    t->free[t->n_free++] = f;
    f->id = AT_HOME;
}

// The chain that it came from is not what it was.
static void lost_is_home(struct frame *f)
{
    struct net_transmit *t = f->home->priv;
    t->free[t->n_free++] = f;
}

// Some frames are away: have their chains popped. The driver may have changed what we looked at.
static __attribute__((noinline)) void pop_late(struct queue *q, const struct ring_plain plain[],
                                               struct frame *const all[], unsigned n)
{
    struct net_transmit *t = q->priv;
    struct chain *chains[RING_BATCH_MAX];
    unsigned n_popped = ring_pop(&q->ring, chains, n);
    t->n_slow = SLOW_RUNS;
    for (unsigned i = 0; i < n; i++) {
        bool is_same = i < n_popped && chains[i]->id == plain[i].id;
        bool is_away = all[i] && all[i]->id != AT_HOME;
        if (!is_same)
            ring_fault(&q->ring, RING_BAD_HEAD, plain[i].id);
        if (is_away) {
            all[i]->id = plain[i].id;
            all[i]->free = is_same ? frame_is_home : lost_is_home;
        }
        if (i < n_popped && !(is_same && is_away))
            queue_push(q, chains[i], 0);
    }
}

// A frame of @p; NULL: dropped. False: it asks for something.
static inline bool parse_plain(struct net_transmit *t, struct queue *q, const struct ring_plain *p,
                               struct frame **out)
{
    const uint32_t skip = t->queue.header_bytes;
    struct virtio_net_hdr hdr;
    *out = NULL;
    enum drop reason = DROP_RUNT;
    if (likely(p->bytes >= skip + FRAME_BYTES_MIN)) {
        memcpy(&hdr, p->at, VIRTIO_NET_HDR_BYTES_LEGACY);
        copied();
        if (unlikely(hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM || hdr.gso_type))
            return false;
        struct frame *f = t->free[t->n_free - 1];
        struct iovec *whole = &t->whole[f - t->frames];
        *whole = (struct iovec){p->at, p->bytes};
        reason = frame_parse(f, whole, 1, skip, NULL);
        if (likely(!reason && port_is_within_mtu(f, t->mtu))) {
            f->home = q;
            f->id = p->id;
            f->free = plain_is_home;
            t->n_free--;
            *out = f;
            return true;
        }
        reason = reason ? reason : DROP_GIANT;
    }
    counter_add(&t->queue.stats->n_drops[reason], 1);
    return true;
}

// Take the plain chains at the front. Returns how many.
static unsigned poll_plain(struct queue *q, unsigned max)
{
    struct net_transmit *t = q->priv;
    struct ring_plain plain[RING_BATCH_MAX];
    struct frame *all[RING_BATCH_MAX], *frames[RING_BATCH_MAX];
    unsigned n_plain = ring_peek(&q->ring, plain, max, false), n = 0, n_frames = 0;
    uint64_t bytes = 0;
    for (unsigned i = 0; i < n_plain; i++)
        __builtin_prefetch(plain[i].at);
    const unsigned n_free = t->n_free;
    for (; n < n_plain && parse_plain(t, q, &plain[n], &all[n]); n++) {
        if (likely(all[n] != NULL)) {
            bytes += all[n]->bytes;
            frames[n_frames++] = all[n];
        }
    }
    if (n == 0)
        return 0;
    counter_add(&t->queue.stats->n_frames, n_frames);
    counter_add(&t->queue.stats->n_bytes, bytes);
    if (likely(n_frames))
        switch_forward(port_of(q), q->lane, frames, n_frames, t->queue.stats);
    if (likely(t->n_free == n_free)) {
        ring_spend(&q->ring, plain, NULL, n);
        queue_touch(q);
    } else {
        pop_late(q, plain, all, n);
    }
    return n;
}

// ---- poll --------------------------------------------------------------------------------

unsigned net_transmit_poll(struct queue *q, unsigned budget)
{
    struct net_transmit *t = q->priv;
    unsigned max = MIN(MIN(budget, RING_BATCH_MAX), t->n_free);
    unsigned n = 0;
    if (likely(!t->n_slow))
        n = poll_plain(q, max);
    else
        t->n_slow--;
    return likely(n) ? n : poll_chains(q, max);
}

// ---- announcing --------------------------------------------------------------------------

static void announcement_is_home(struct frame *f)
{
    struct net_transmit *t = f->home->priv;
    t->is_announcing = false;
}

// RFC 903: "reverse request", who asks and who is asked for the same.
static void write_rarp(uint8_t frame[RARP_BYTES], uint64_t mac)
{
    static const uint8_t fixed[] = {0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3};
    memset(frame, 0, RARP_BYTES);
    memset(frame, 0xff, 6);
    memcpy(frame + 6, &mac, 6);
    memcpy(frame + 12, fixed, sizeof(fixed));
    memcpy(frame + 22, &mac, 6);
    memcpy(frame + 32, &mac, 6);
}

void net_transmit_announce(struct queue *q)
{
    struct net_transmit *t = q->priv;
    struct net *net = net_of(q);
    if (t->is_announcing) // another one says the same
        return;
    uint64_t due = atomic_exchange(&net->announced_mac, 0);
    if (!due)
        return;
    struct frame *f = &t->announcement;
    *f = (struct frame){
        .bytes = RARP_BYTES,
        .n_head = RARP_BYTES,
        .home = q,
        .free = announcement_is_home,
    };
    write_rarp(f->head, due & ~RARP_DUE);
    t->is_announcing = true;
    switch_forward(port_of(q), q->lane, &f, 1, t->queue.stats);
}
