// SPDX-License-Identifier: Apache-2.0
#include "devices/net.h"

#include "dataplane/vhost_user.h"
#include "devices/net_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FEATURES                                                                                   \
    (VIRTIO_BIT(VIRTIO_NET_F_CSUM) | VIRTIO_BIT(VIRTIO_NET_F_HOST_TSO4) |                          \
     VIRTIO_BIT(VIRTIO_NET_F_HOST_TSO6) | VIRTIO_BIT(VIRTIO_NET_F_HOST_ECN) |                      \
     VIRTIO_BIT(VIRTIO_NET_F_HOST_UFO) | VIRTIO_BIT(VIRTIO_NET_F_HOST_USO) | NET_GUEST_OFFLOADS |  \
     VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF) | VIRTIO_BIT(VIRTIO_NET_F_STATUS) |                        \
     VIRTIO_BIT(VIRTIO_NET_F_SPEED_DUPLEX) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_ANNOUNCE) |             \
     VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_RX) |                         \
     VIRTIO_BIT(VIRTIO_NET_F_CTRL_RX_EXTRA) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_VLAN) |                 \
     VIRTIO_BIT(VIRTIO_NET_F_CTRL_MAC_ADDR) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) |       \
     VIRTIO_BIT(VIRTIO_NET_F_HASH_REPORT))

#define SPEED_UNKNOWN UINT32_MAX // 5.1.4
#define DUPLEX_FULL   1

// ---- the device --------------------------------------------------------------------------

static uint64_t mac_of(const struct port *p)
{
    uint64_t mac = 0;
    memcpy(&mac, p->mac, sizeof(p->mac));
    return mac;
}

static void fill_config(struct device *d, const struct net *net)
{
    struct virtio_net_config config = {
        .status = VIRTIO_NET_S_LINK_UP,
        .max_virtqueue_pairs = (uint16_t)net->n_pairs,
        .mtu = net->port.mtu,
        .speed = SPEED_UNKNOWN,
        .duplex = DUPLEX_FULL,
        .rss_max_key_size = RSS_KEY_BYTES,
        .rss_max_indirection_table_length = RSS_TABLE_MAX,
        .supported_hash_types = RSS_TYPES,
    };
    memcpy(config.mac, net->port.mac, sizeof(config.mac));
    memcpy(d->config, &config, sizeof(config));
    d->config_bytes = sizeof(config);

    d->features = FEATURES;
    if (net->port.has_mac)
        d->features |= VIRTIO_BIT(VIRTIO_NET_F_MAC);
    if (net->port.mtu)
        d->features |= VIRTIO_BIT(VIRTIO_NET_F_MTU);
    if (net->n_pairs > 1)
        d->features |= VIRTIO_BIT(VIRTIO_NET_F_MQ) | VIRTIO_BIT(VIRTIO_NET_F_RSS);
}

// What is taken for a driver's wishes as long as nothing is known of them.
static void assume_widest(struct net *net)
{
    atomic_store(&net->n_wanted, net->n_pairs);
    atomic_store(&net->offloads, NET_GUEST_OFFLOADS);
    net_filter_reset(&net->filter, mac_of(&net->port), false);
    rss_set_hash(&net->rss, 0, NULL, 0);
    rss_set_steering(&net->rss, NULL);
}

static int net_open(struct port *p, struct device *d, const struct line *l, struct error *e)
{
    (void)e;
    struct net *net = (struct net *)p;
    net->n_pairs = (unsigned)line_number(l, "queues", 1);
    d->n_queues = (uint16_t)(2 * net->n_pairs + 1);
    p->n_receivers_max = net->n_pairs;
    fill_config(d, net);
    assume_widest(net);
    return 0;
}

static void net_config_read(struct device *d)
{
    const struct net *net = d->priv;
    bool must_announce = atomic_load_explicit(&net->must_announce, memory_order_relaxed);
    uint16_t status = VIRTIO_NET_S_LINK_UP | (must_announce ? VIRTIO_NET_S_ANNOUNCE : 0);
    memcpy(d->config + offsetof(struct virtio_net_config, status), &status, sizeof(status));
}

// ---- which queues take frames ------------------------------------------------------------

static unsigned usable_pairs(const struct net *net)
{
    return MIN(atomic_load(&net->n_ready), atomic_load(&net->n_wanted));
}

// Both writers store what they know and look again: whoever stores last has seen everything.
void net_update_receivers(struct net *net)
{
    unsigned n;
    do {
        n = usable_pairs(net);
        atomic_store(&net->port.n_receivers, n);
    } while (n != usable_pairs(net));
}

static void count_ready(struct net *net)
{
    unsigned n = 0;
    while (n < net->n_pairs && net->is_receiving[n])
        n++;
    atomic_store(&net->n_ready, n);
    net_update_receivers(net);
}

// ---- a queue's life ----------------------------------------------------------------------

// 5.1.2: where the control queue is depends on what was negotiated. The index of a queue beyond
// those of the driver's says what its role was if they were its.
static enum net_role role_of(const struct net *net, unsigned index, uint64_t features)
{
    bool has_pairs = features & (VIRTIO_BIT(VIRTIO_NET_F_MQ) | VIRTIO_BIT(VIRTIO_NET_F_RSS));
    unsigned control = has_pairs ? 2 * net->n_pairs : 2;
    if (features & VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ) && index == control)
        return NET_CONTROL;
    if (index >= 2 * net->n_pairs)
        return NET_IDLE;
    return index % 2 ? NET_TRANSMIT : NET_RECEIVE;
}

// 5.1.6.5.5: a driver has one pair until it asks for more.
static void meet_driver(struct net *net, uint64_t features)
{
    bool has_pairs = features & (VIRTIO_BIT(VIRTIO_NET_F_MQ) | VIRTIO_BIT(VIRTIO_NET_F_RSS));
    assume_widest(net);
    if (has_pairs)
        atomic_store(&net->n_wanted, 1);
    net_filter_reset(&net->filter, mac_of(&net->port),
                     features & VIRTIO_BIT(VIRTIO_NET_F_CTRL_VLAN));
    atomic_store(&net->must_announce, false);
    net->has_met = true;
    net_update_receivers(net);
}

// 5.1.6.5.4: a driver that goes on after it was told otherwise by somebody else is at another
// place in the network now.
static void meet_again(struct net *net, uint64_t features)
{
    if (net->has_met)
        return;
    net->has_met = true;
    if (!(features & VIRTIO_BIT(VIRTIO_NET_F_GUEST_ANNOUNCE)))
        return;
    atomic_store(&net->must_announce, true);
    atomic_store(&net->port.device->has_new_config, true);
}

// What a driver may have asked for on a control queue is forgotten with the first start of
// another one, or when there is none.
static void greet(struct net *net, const struct ring *r, enum net_role role)
{
    if (role == NET_CONTROL && r->is_fresh)
        meet_driver(net, r->features);
    else if (role == NET_CONTROL)
        meet_again(net, r->features);
    else if (net->n_started == 0 && !(r->features & VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ)))
        assume_widest(net);
}

// 5.1.6.1
static uint32_t header_bytes_of(uint64_t features)
{
    if (features & VIRTIO_BIT(VIRTIO_NET_F_HASH_REPORT))
        return VIRTIO_NET_HDR_BYTES_HASH;
    if (features & (VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF)))
        return VIRTIO_NET_HDR_BYTES;
    return VIRTIO_NET_HDR_BYTES_LEGACY;
}

static struct net_queue *open_queue(struct queue *q, enum net_role role)
{
    switch (role) {
    case NET_RECEIVE:
        return net_receive_open(q);
    case NET_TRANSMIT:
        return net_transmit_open(q);
    case NET_CONTROL:
    case NET_IDLE:
        break;
    }
    return calloc(1, sizeof(struct net_queue));
}

static int net_queue_start(struct queue *q, struct error *e)
{
    struct net *net = net_of(q);
    enum net_role role = role_of(net, q->index, q->ring.features);
    struct net_queue *nq = open_queue(q, role);
    if (!nq)
        return error_set(e, ENOMEM, "port %s: out of memory", q->device->name);
    greet(net, &q->ring, role);
    nq->role = role;
    nq->net = net;
    nq->stats = port_stats_of(q);
    nq->features = q->ring.features;
    nq->header_bytes = header_bytes_of(q->ring.features);
    q->priv = nq;
    net->n_started++;
    if (role == NET_RECEIVE) {
        net->port.receivers[q->index / 2] = q;
        net->is_receiving[q->index / 2] = true;
        count_ready(net);
    }
    return 0;
}

static void net_queue_stop(struct queue *q)
{
    struct net *net = net_of(q);
    const struct net_queue *nq = q->priv;
    net->n_started--;
    if (nq->role == NET_RECEIVE) {
        net->is_receiving[q->index / 2] = false;
        count_ready(net);
    }
    free(q->priv);
    q->priv = NULL;
}

static int net_lane_enter(struct queue *q)
{
    const struct net_queue *nq = q->priv;
    if (nq->role == NET_TRANSMIT)
        net_transmit_announce(q);
    return 0;
}

static bool net_settle(struct queue *q)
{
    const struct net_queue *nq = q->priv;
    return nq->role != NET_TRANSMIT || net_transmit_settle(q);
}

// Receive buffers are looked at when a frame comes.
static enum queue_rest net_rest(struct queue *q)
{
    const struct net_queue *nq = q->priv;
    return nq->role == NET_RECEIVE || nq->role == NET_IDLE ? QUEUE_SLEEPS : QUEUE_PARKS;
}

static unsigned net_poll(struct queue *q, unsigned budget)
{
    const struct net_queue *nq = q->priv;
    if (nq->role == NET_TRANSMIT)
        return net_transmit_poll(q, budget);
    return nq->role == NET_CONTROL ? net_control_poll(q, budget) : 0;
}

// ---- what the front end tells ------------------------------------------------------------

static int net_notify(struct device *d, enum device_event event, uint64_t value, struct error *e)
{
    struct net *net = d->priv;
    unsigned mtu = net->port.mtu;
    switch (event) {
    case DEVICE_MTU:
        if (mtu && value > mtu)
            return error_set(e, EINVAL, "port %s: an MTU of %u: mtu=%u allows less", d->name,
                             (unsigned)value, mtu);
        break;
    case DEVICE_RARP:
        atomic_store(&net->announced_mac, value | RARP_DUE);
        break;
    }
    return 0;
}

static void net_queue_notify(struct queue *q, enum device_event event, uint64_t value)
{
    (void)value;
    const struct net_queue *nq = q->priv;
    if (event == DEVICE_RARP && nq->role == NET_TRANSMIT)
        net_transmit_announce(q);
}

static unsigned net_spread(const struct port *p, const struct frame *f, unsigned n)
{
    return rss_spread(&((const struct net *)p)->rss, f, n);
}

const struct port_type net_port = {
    .key = "socket",
    .bytes = sizeof(struct net),
    .open = net_open,
    .poll = net_poll,
    .deliver = net_deliver,
    .queue_start = net_queue_start,
    .queue_stop = net_queue_stop,
    .lane_enter = net_lane_enter,
    .settle = net_settle,
    .rest = net_rest,
    .notify = net_notify,
    .queue_notify = net_queue_notify,
    .config_read = net_config_read,
    .spread = net_spread,
};
