// SPDX-License-Identifier: Apache-2.0
//
// The control queue (VIRTIO 1.3, 5.1.6.5): one table of command → handler. A command's data is
// read once, front to back; what a handler wants to know of it, it reads into locals and checks
// before anything is changed. So a command that is refused changes nothing.
#include "devices/net_internal.h"

#include <string.h>

// The device-readable part of a chain, from where it was read last.
struct reader {
    const struct iovec *iov;
    size_t at; // in the segment
    uint32_t n_left;
};

typedef bool control_handler(struct net *net, uint64_t features, struct reader *r);

// ---- reading -----------------------------------------------------------------------------

// The next @bytes; @to may be NULL. False if there are fewer.
static bool read_bytes(struct reader *r, void *to, uint32_t bytes)
{
    if (bytes > r->n_left)
        return false;
    r->n_left -= bytes;
    for (uint32_t done = 0; done < bytes;) {
        if (r->at == r->iov->iov_len) {
            r->iov++;
            r->at = 0;
        }
        uint32_t run = (uint32_t)MIN(bytes - done, r->iov->iov_len - r->at);
        if (to)
            memcpy((uint8_t *)to + done, (const uint8_t *)r->iov->iov_base + r->at, run);
        r->at += run;
        done += run;
    }
    __asm__ volatile("" ::: "memory"); // decide by the copy
    return true;
}

// That and nothing more.
static bool read_last(struct reader *r, void *to, uint32_t bytes)
{
    return r->n_left == bytes && read_bytes(r, to, bytes);
}

// ---- 5.1.6.5.1: receive modes ------------------------------------------------------------

static bool set_mode(struct net *net, struct reader *r, enum net_mode mode)
{
    uint8_t on;
    if (!read_last(r, &on, sizeof(on)) || on > 1)
        return false;
    net_filter_set_mode(&net->filter, mode, on);
    return true;
}

#define MODE(name)                                                                                 \
    static bool set_##name(struct net *net, uint64_t features, struct reader *r)                   \
    {                                                                                              \
        (void)features;                                                                            \
        return set_mode(net, r, NET_MODE_##name);                                                  \
    }
MODE(PROMISC)
MODE(ALLMULTI)
MODE(ALLUNI)
MODE(NOMULTI)
MODE(NOUNI)
MODE(NOBCAST)

// ---- 5.1.6.5.2: addresses ----------------------------------------------------------------

// A number, then so many addresses. Those beyond what the table holds are skipped.
static bool read_macs(struct reader *r, struct net_macs *macs)
{
    uint32_t n;
    if (!read_bytes(r, &n, sizeof(n)) || n > r->n_left / 6)
        return false;
    for (uint32_t i = 0; i < MIN(n, NET_FILTER_MACS_MAX); i++) {
        uint64_t mac = 0;
        read_bytes(r, &mac, 6);
        atomic_store_explicit(&macs->macs[i], mac, memory_order_relaxed);
    }
    atomic_store_explicit(&macs->n, n, memory_order_relaxed);
    return n <= NET_FILTER_MACS_MAX || read_bytes(r, NULL, (n - NET_FILTER_MACS_MAX) * 6);
}

static bool set_mac_table(struct net *net, uint64_t features, struct reader *r)
{
    (void)features;
    struct net_mac_table *table = net_filter_spare(&net->filter);
    if (!read_macs(r, &table->unicast) || !read_macs(r, &table->multicast) || r->n_left)
        return false;
    net_filter_use_spare(&net->filter);
    return true;
}

static bool set_mac(struct net *net, uint64_t features, struct reader *r)
{
    (void)features;
    uint64_t mac = 0;
    if (!read_last(r, &mac, 6) || mac == 0 || mac & 1) // a station's
        return false;
    atomic_store_explicit(&net->filter.mac, mac, memory_order_relaxed);
    return true;
}

// ---- 5.1.6.5.3: VLANs --------------------------------------------------------------------

static bool set_vlan(struct net *net, struct reader *r, bool on)
{
    uint16_t vid;
    if (!read_last(r, &vid, sizeof(vid)) || vid >= 4096)
        return false;
    net_filter_set_vlan(&net->filter, vid, on);
    return true;
}

static bool add_vlan(struct net *net, uint64_t features, struct reader *r)
{
    (void)features;
    return set_vlan(net, r, true);
}

static bool remove_vlan(struct net *net, uint64_t features, struct reader *r)
{
    (void)features;
    return set_vlan(net, r, false);
}

// ---- 5.1.6.5.4: announcing ---------------------------------------------------------------

static bool acknowledge_announce(struct net *net, uint64_t features, struct reader *r)
{
    (void)features;
    if (r->n_left)
        return false;
    atomic_store_explicit(&net->must_announce, false, memory_order_relaxed);
    return true;
}

// ---- 5.1.6.5.5 to 5.1.6.5.7: several pairs -----------------------------------------------

static void want_pairs(struct net *net, unsigned n)
{
    atomic_store(&net->n_wanted, n);
    net_update_receivers(net);
}

// Automatic steering; what RSS said is forgotten (5.1.6.5.7).
static bool set_pairs(struct net *net, uint64_t features, struct reader *r)
{
    (void)features;
    uint16_t n;
    if (!read_last(r, &n, sizeof(n)) || n == 0 || n > net->n_pairs)
        return false;
    rss_set_steering(&net->rss, NULL);
    want_pairs(net, n);
    return true;
}

struct hash_setting {
    uint32_t types;
    uint8_t n_key;
    uint8_t key[RSS_KEY_BYTES];
};

// A length, then the key, then nothing.
static bool read_key(struct reader *r, struct hash_setting *h)
{
    return !(h->types & ~RSS_TYPES) && read_bytes(r, &h->n_key, 1) && h->n_key <= RSS_KEY_BYTES &&
           read_last(r, h->key, h->n_key);
}

// 5.1.6.5.6.4: only what is reported; the steering stays.
static bool set_hash(struct net *net, uint64_t features, struct reader *r)
{
    (void)features;
    struct hash_setting h;
    uint16_t reserved[4];
    if (!read_bytes(r, &h.types, sizeof(h.types)) || !read_bytes(r, reserved, sizeof(reserved)) ||
        !read_key(r, &h))
        return false;
    rss_set_hash(&net->rss, h.types, h.key, h.n_key);
    return true;
}

// The table with its mask and the queue of frames without a hash; queues are pairs, from 0 on.
static bool read_steering(struct reader *r, struct rss_steering *s, unsigned n_pairs,
                          unsigned *n_used)
{
    uint16_t mask;
    if (!read_bytes(r, &mask, sizeof(mask)) || mask >= RSS_TABLE_MAX ||
        !is_power_of_two(mask + 1u) || !read_bytes(r, &s->unclassified, sizeof(s->unclassified)))
        return false;
    s->n = mask + 1u;
    unsigned highest = s->unclassified;
    if (!read_bytes(r, s->table, s->n * (uint32_t)sizeof(s->table[0])))
        return false;
    for (unsigned i = 0; i < s->n; i++)
        highest = MAX(highest, s->table[i]);
    *n_used = highest + 1;
    return highest < n_pairs;
}

static bool set_rss(struct net *net, uint64_t features, struct reader *r)
{
    (void)features;
    struct hash_setting h;
    struct rss_steering s;
    uint16_t n_transmit;
    unsigned n_used;
    if (!read_bytes(r, &h.types, sizeof(h.types)) || !read_steering(r, &s, net->n_pairs, &n_used) ||
        !read_bytes(r, &n_transmit, sizeof(n_transmit)) || n_transmit == 0 ||
        n_transmit > net->n_pairs || !read_key(r, &h))
        return false;
    rss_set_hash(&net->rss, h.types, h.key, h.n_key);
    rss_set_steering(&net->rss, &s);
    want_pairs(net, MAX(n_used, n_transmit));
    return true;
}

// ---- 5.1.6.5.8: offloads -----------------------------------------------------------------

static bool set_offloads(struct net *net, uint64_t features, struct reader *r)
{
    uint64_t offloads;
    if (!read_last(r, &offloads, sizeof(offloads)) || offloads & ~(features & NET_GUEST_OFFLOADS))
        return false;
    atomic_store_explicit(&net->offloads, offloads, memory_order_relaxed);
    return true;
}

// ---- commands ----------------------------------------------------------------------------

struct command {
    uint8_t class, command;
    uint8_t feature; // that it needs
    control_handler *handle;
};

// clang-format off
static const struct command commands[] = {
    {VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, VIRTIO_NET_F_CTRL_RX, set_PROMISC},
    {VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI, VIRTIO_NET_F_CTRL_RX, set_ALLMULTI},
    {VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLUNI, VIRTIO_NET_F_CTRL_RX_EXTRA, set_ALLUNI},
    {VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOMULTI, VIRTIO_NET_F_CTRL_RX_EXTRA, set_NOMULTI},
    {VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOUNI, VIRTIO_NET_F_CTRL_RX_EXTRA, set_NOUNI},
    {VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOBCAST, VIRTIO_NET_F_CTRL_RX_EXTRA, set_NOBCAST},
    {VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, VIRTIO_NET_F_CTRL_RX, set_mac_table},
    {VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, VIRTIO_NET_F_CTRL_MAC_ADDR, set_mac},
    {VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, VIRTIO_NET_F_CTRL_VLAN, add_vlan},
    {VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_DEL, VIRTIO_NET_F_CTRL_VLAN, remove_vlan},
    {VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, VIRTIO_NET_F_GUEST_ANNOUNCE,
     acknowledge_announce},
    {VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_F_MQ, set_pairs},
    {VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_RSS_CONFIG, VIRTIO_NET_F_RSS, set_rss},
    {VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_HASH_CONFIG, VIRTIO_NET_F_HASH_REPORT, set_hash},
    {VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
     VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, set_offloads},
};
// clang-format on

static bool execute(struct net *net, uint64_t features, const struct chain *c)
{
    struct reader r = {.iov = c->iov, .n_left = c->out_bytes};
    struct virtio_net_ctrl header;
    if (!read_bytes(&r, &header, sizeof(header)))
        return false;
    for (unsigned i = 0; i < ARRAY_LEN(commands); i++) {
        const struct command *command = &commands[i];
        if (command->class == header.class && command->command == header.command)
            return features & VIRTIO_BIT(command->feature) && command->handle(net, features, &r);
    }
    return false;
}

unsigned net_control_poll(struct queue *q, unsigned budget)
{
    struct net_queue *nq = q->priv;
    struct chain *chains[RING_BATCH_MAX];
    unsigned n = ring_pop(&q->ring, chains, MIN(budget, RING_BATCH_MAX));
    for (unsigned i = 0; i < n; i++) {
        struct chain *c = chains[i];
        if (!c->n_in) { // 5.1.6.5: a byte to answer in
            ring_fault(&q->ring, RING_BAD_REQUEST, c->id);
            queue_push(q, c, 0);
            continue;
        }
        bool is_done = !q->ring.fault && execute(nq->net, nq->features, c);
        uint8_t *ack = c->iov[c->n_out].iov_base;
        if (is_done)
            *ack = VIRTIO_NET_OK;
        else
            *ack = VIRTIO_NET_ERR;
        queue_push(q, c, 1);
    }
    return n;
}
