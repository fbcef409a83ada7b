// SPDX-License-Identifier: Apache-2.0
#include "bench/guest_nic.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_MAX 64

// ---- open and close ----------------------------------------------------------------------

static int negotiate(struct guest_nic *n, struct error *e)
{
    const struct guest_nic_config *c = &n->config;
    uint64_t wanted = c->features | c->required | VIRTIO_BIT(VIRTIO_F_VERSION_1);
    int rc = frontend_negotiate(n->frontend, wanted, c->protocol, e);
    if (rc < 0)
        return rc;
    uint64_t missing = c->required & ~n->frontend->features;
    if (missing)
        return error_set(e, ENOTSUP, "%s does not offer feature bits %#llx", c->path,
                         (unsigned long long)missing);
    if (c->n_pairs > n->frontend->n_queues)
        return error_set(e, ENOTSUP, "%s has %u queue pairs, not %u", c->path,
                         n->frontend->n_queues, c->n_pairs);
    const uint64_t v1_or_merge =
        VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF);
    uint64_t got = n->frontend->features;
    n->is_mergeable = got & VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF);
    n->header_bytes = got & VIRTIO_BIT(VIRTIO_NET_F_HASH_REPORT) ? VIRTIO_NET_HDR_BYTES_HASH
                      : got & v1_or_merge                        ? VIRTIO_NET_HDR_BYTES
                                                                 : VIRTIO_NET_HDR_BYTES_LEGACY;
    if (n->frontend->protocol_features & VIRTIO_BIT(VHOST_USER_PROTOCOL_F_CONFIG))
        rc = frontend_get_config(n->frontend, 0, &n->space, sizeof n->space, e);
    return rc < 0 ? rc : frontend_share_memory(n->frontend, e);
}

static int alloc_buffers(struct guest_nic *n, struct nic_buffer **out, uint32_t bytes, bool is_in,
                         struct error *e)
{
    struct nic_buffer *buffers = *out = calloc(n->config.ring_size, sizeof buffers[0]);
    for (unsigned i = 0; buffers && i < n->config.ring_size; i++) {
        struct nic_buffer *b = &buffers[i];
        b->data = guest_alloc(n->guest, bytes, CACHE_LINE);
        if (!b->data)
            return error_set(e, ENOMEM, "no room in guest memory for %u buffers of %u bytes",
                             n->config.ring_size, bytes);
        b->index = i;
        b->segments[0] = (struct driver_segment){guest_addr(n->guest, b->data), bytes};
        b->chain = (struct driver_chain){.segments = b->segments, .n_direct = 1};
        b->chain.n_in = is_in;
        b->chain.n_out = !is_in;
        b->chain.in_bytes = is_in ? bytes : 0;
    }
    return buffers ? 0 : error_set(e, ENOMEM, "no memory for %u buffers", n->config.ring_size);
}

static unsigned post(struct nic_pair *p, struct nic_buffer *const buffers[], unsigned n)
{
    struct driver_chain *chains[BATCH_MAX];
    for (unsigned i = 0; i < n; i++)
        chains[i] = &buffers[i]->chain;
    return driver_add(p->receive, chains, n);
}

static int open_pair(struct guest_nic *n, struct nic_pair *p, struct error *e)
{
    const struct guest_nic_config *c = &n->config;
    struct driver_config dc = {n->frontend->features, c->ring_size, c->table_entries};
    int rc = driver_open(&p->receive, n->guest, &dc, e);
    if (rc == 0)
        rc = driver_open(&p->send, n->guest, &dc, e);
    if (rc == 0)
        rc = alloc_buffers(n, &p->receive_buffers, c->receive_bytes, true, e);
    if (rc == 0)
        rc = alloc_buffers(n, &p->send_buffers, c->send_bytes, false, e);
    if (rc == 0 && !(p->idle = calloc(c->ring_size, sizeof p->idle[0])))
        rc = error_set(e, ENOMEM, "no memory for %u buffers", c->ring_size);
    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < c->ring_size; i++) {
        struct nic_buffer *b = &p->receive_buffers[i];
        post(p, &b, 1);
        p->idle[p->n_idle++] = &p->send_buffers[c->ring_size - 1 - i];
    }
    driver_publish(p->receive);
    return 0;
}

static int open_rings(struct guest_nic *n, struct error *e)
{
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < n->config.n_pairs; i++)
        rc = open_pair(n, &n->pairs[i], e);
    struct driver_config dc = {n->frontend->features, 64, 0};
    if (rc == 0 && n->config.has_control)
        rc = driver_open(&n->control, n->guest, &dc, e);
    return rc < 0 ? rc : guest_nic_start(n, e);
}

int guest_nic_open(struct guest_nic **out, const struct guest_nic_config *c, struct error *e)
{
    if (!c->n_pairs || c->n_pairs > GUEST_NIC_PAIRS_MAX)
        return error_set(e, EINVAL, "1 to %u queue pairs, not %u", GUEST_NIC_PAIRS_MAX, c->n_pairs);
    struct guest_nic *n = calloc(1, sizeof *n);
    if (!n)
        return error_set(e, ENOMEM, "no memory for a device");
    n->config = *c;
    n->config.path = strdup(c->path);
    int rc = n->config.path ? guest_open(&n->guest, &c->memory, e)
                            : error_set(e, ENOMEM, "no memory for a device");
    if (rc < 0)
        goto err_nic;
    int fd = rc = frontend_connect(c->path, FRONTEND_TIMEOUT_MS, e);
    if (rc < 0)
        goto err_nic;
    rc = frontend_open(&n->frontend, fd, n->guest, e);
    if (rc == 0)
        rc = negotiate(n, e);
    if (rc == 0)
        rc = open_rings(n, e);
    if (rc < 0)
        goto err_nic;
    *out = n;
    return 0;

err_nic:
    guest_nic_close(n);
    return rc;
}

void guest_nic_close(struct guest_nic *n)
{
    if (!n)
        return;
    frontend_close(n->frontend);
    for (unsigned i = 0; i < n->config.n_pairs; i++) {
        struct nic_pair *p = &n->pairs[i];
        driver_close(p->receive);
        driver_close(p->send);
        free(p->receive_buffers);
        free(p->send_buffers);
        free(p->idle);
    }
    driver_close(n->control);
    guest_close(n->guest);
    free((char *)n->config.path);
    free(n);
}

uint64_t guest_nic_memory_bytes(const struct guest_nic_config *c)
{
    const uint64_t page = 4096;
    uint64_t buffers = c->ring_size * (UINT64_C(2) * CACHE_LINE + c->receive_bytes + c->send_bytes);
    uint64_t rings = 2 * (c->ring_size * (UINT64_C(26) + c->table_entries * UINT64_C(16)) + page);
    return c->n_pairs * (buffers + rings) + 2 * page;
}

// ---- start and stop ----------------------------------------------------------------------

static const struct driver *ring_driver(const struct guest_nic *n, unsigned index)
{
    if (index == 2 * n->config.n_pairs)
        return n->control;
    const struct nic_pair *p = &n->pairs[index / 2];
    return index % 2 ? p->send : p->receive;
}

static unsigned n_rings(const struct guest_nic *n)
{
    return 2 * n->config.n_pairs + n->config.has_control;
}

// The control ring stands behind all the pairs that the device has (5.1.2).
static unsigned ring_index(const struct guest_nic *n, unsigned i)
{
    return i == 2 * n->config.n_pairs ? 2 * n->frontend->n_queues : i;
}

int guest_nic_start(struct guest_nic *n, struct error *e)
{
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < n_rings(n); i++) {
        const struct driver *d = ring_driver(n, i);
        uint32_t base = n->has_bases ? n->bases[i] : driver_base(d);
        rc = frontend_start_ring(n->frontend, ring_index(n, i), d, base, e);
    }
    n->has_bases = false;
    return rc;
}

int guest_nic_stop(struct guest_nic *n, struct error *e)
{
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < n_rings(n); i++)
        rc = frontend_stop_ring(n->frontend, ring_index(n, i), &n->bases[i], e);
    n->has_bases = rc == 0;
    return rc;
}

int guest_nic_reconnect(struct guest_nic *n, struct error *e)
{
    int fd = frontend_connect(n->config.path, FRONTEND_TIMEOUT_MS, e);
    if (fd < 0)
        return fd;
    int rc = frontend_reconnect(n->frontend, fd, e);
    if (rc == 0)
        rc = guest_nic_start(n, e);
    for (unsigned i = 0; rc == 0 && i < n_rings(n); i++)
        frontend_kick(n->frontend, ring_index(n, i));
    return rc;
}

// ---- transmit ----------------------------------------------------------------------------

void guest_nic_send(struct guest_nic *n, unsigned pair, struct nic_buffer *b, uint32_t bytes)
{
    uint32_t header = n->header_bytes;
    uint64_t addr = b->segments[0].addr;
    bool is_apart = n->config.is_header_apart;
    b->segments[0].bytes = is_apart ? header : bytes;
    b->segments[1] = (struct driver_segment){addr + header, bytes - header};
    b->chain.n_out = is_apart ? 2 : 1;
    b->chain.n_direct = n->config.table_entries ? 0 : b->chain.n_out;
    struct driver_chain *chain = &b->chain;
    unsigned n_added = driver_add(n->pairs[pair].send, &chain, 1);
    assert(n_added == 1 && "the ring has room for its buffers");
}

void guest_nic_flush(struct guest_nic *n, unsigned pair)
{
    if (!driver_publish(n->pairs[pair].send))
        return;
    frontend_kick(n->frontend, 2 * pair + 1);
    n->n_kicks++;
}

int guest_nic_reap(struct guest_nic *n, unsigned pair, struct error *e)
{
    struct nic_pair *p = &n->pairs[pair];
    struct driver_used used[BATCH_MAX];
    int n_used = driver_poll(p->send, used, BATCH_MAX, e);
    for (int i = 0; i < n_used; i++)
        p->idle[p->n_idle++] = (struct nic_buffer *)used[i].chain;
    return n_used;
}

// ---- receive -----------------------------------------------------------------------------

// The first buffer of a frame says how many it has (5.1.6.4).
static int begin_frame(const struct guest_nic *n, struct nic_pair *p, const struct nic_buffer *b,
                       struct error *e)
{
    p->n_parts_wanted = 1;
    if (b->used < n->header_bytes)
        return error_set(e, EPROTO, "a received frame of %u bytes has no header", b->used);
    if (!n->is_mergeable)
        return 0;
    const struct virtio_net_hdr *h = (const struct virtio_net_hdr *)(const void *)b->data;
    p->n_parts_wanted = h->num_buffers;
    if (p->n_parts_wanted == 0 || p->n_parts_wanted > GUEST_NIC_MERGE_MAX)
        return error_set(e, EPROTO, "a received frame of %u buffers", p->n_parts_wanted);
    return 0;
}

static int take(struct guest_nic *n, struct nic_pair *p, const struct driver_used *used,
                guest_nic_frame *frame, void *context, struct error *e)
{
    struct nic_buffer *b = (struct nic_buffer *)used->chain;
    b->used = used->len;
    if (p->n_parts == 0) {
        int rc = begin_frame(n, p, b, e);
        if (rc < 0)
            return rc;
    }
    p->parts[p->n_parts++] = b;
    if (p->n_parts < p->n_parts_wanted)
        return 0;
    int rc = frame(context, p->parts, p->n_parts, e);
    if (rc < 0)
        return rc;
    post(p, p->parts, p->n_parts);
    p->n_parts = 0;
    return 1;
}

int guest_nic_receive(struct guest_nic *n, unsigned pair, unsigned max, guest_nic_frame *frame,
                      void *context, struct error *e)
{
    struct nic_pair *p = &n->pairs[pair];
    struct driver_used used[BATCH_MAX];
    int n_used = driver_poll(p->receive, used, MIN(max, BATCH_MAX), e);
    if (n_used <= 0)
        return n_used;
    for (int i = 0; i < n_used; i++)
        __builtin_prefetch(((struct nic_buffer *)used[i].chain)->data);
    int n_frames = 0;
    for (int i = 0; i < n_used; i++) {
        int rc = take(n, p, &used[i], frame, context, e);
        if (rc < 0)
            return rc;
        n_frames += rc;
    }
    if (driver_publish(p->receive)) {
        frontend_kick(n->frontend, 2 * pair);
        n->n_kicks++;
    }
    return n_frames;
}

int guest_nic_copy(const struct guest_nic *n, struct nic_buffer *const parts[], unsigned n_parts,
                   void *to, uint32_t room)
{
    uint32_t done = 0;
    for (unsigned i = 0; i < n_parts; i++) {
        uint32_t skip = i == 0 ? n->header_bytes : 0, bytes = parts[i]->used - skip;
        if (bytes > room - done)
            return -EMSGSIZE;
        memcpy((uint8_t *)to + done, parts[i]->data + skip, bytes);
        done += bytes;
    }
    return (int)done;
}
