// SPDX-License-Identifier: Apache-2.0
#include "bench/guest_disk.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WAIT_SECONDS 30 // for one request

#define GUEST_DISK_FEATURES                                                                        \
    (VIRTIO_BIT(VIRTIO_BLK_F_SIZE_MAX) | VIRTIO_BIT(VIRTIO_BLK_F_SEG_MAX) |                        \
     VIRTIO_BIT(VIRTIO_BLK_F_RO) | VIRTIO_BIT(VIRTIO_BLK_F_BLK_SIZE) |                             \
     VIRTIO_BIT(VIRTIO_BLK_F_FLUSH) | VIRTIO_BIT(VIRTIO_BLK_F_TOPOLOGY) |                          \
     VIRTIO_BIT(VIRTIO_BLK_F_MQ))

static const struct {
    unsigned bit;
    const char *name;
} feature_names[] = {
    {VIRTIO_F_VERSION_1, "VERSION_1"},       {VIRTIO_F_INDIRECT_DESC, "indirect descriptors"},
    {VIRTIO_F_EVENT_IDX, "the event index"}, {VIRTIO_F_RING_PACKED, "packed rings"},
    {VIRTIO_F_IN_ORDER, "in-order use"},
};

static int check_features(const struct guest_disk *d, uint64_t wanted, struct error *e)
{
    for (unsigned i = 0; i < ARRAY_LEN(feature_names); i++) {
        uint64_t bit = VIRTIO_BIT(feature_names[i].bit);
        if (wanted & bit & ~d->frontend->features)
            return error_set(e, ENOTSUP, "%s does not offer %s", d->config.path,
                             feature_names[i].name);
    }
    return 0;
}

// Other back ends have no more config space than their features need, and refuse to read beyond.
static uint32_t space_bytes(const struct guest_disk *d)
{
    uint64_t later = VIRTIO_BIT(VIRTIO_BLK_F_SECURE_ERASE) | VIRTIO_BIT(VIRTIO_BLK_F_ZONED);
    return d->frontend->features & later
               ? sizeof d->space
               : offsetof(struct virtio_blk_config, max_secure_erase_sectors);
}

static int negotiate(struct guest_disk *d, struct error *e)
{
    const struct guest_disk_config *c = &d->config;
    uint64_t wanted = c->features | VIRTIO_BIT(VIRTIO_F_VERSION_1);
    int rc = frontend_negotiate(d->frontend, wanted | GUEST_DISK_FEATURES, c->protocol, e);
    if (rc == 0)
        rc = check_features(d, wanted, e);
    if (rc == 0 && c->n_queues > d->frontend->n_queues)
        rc = error_set(e, ENOTSUP, "%s has %u queues, not %u", c->path, d->frontend->n_queues,
                       c->n_queues);
    uint64_t acknowledged = d->frontend->protocol_features;
    if (rc == 0 && acknowledged & VIRTIO_BIT(VHOST_USER_PROTOCOL_F_CONFIG))
        rc = frontend_get_config(d->frontend, 0, &d->space, space_bytes(d), e);
    if (rc == 0 && acknowledged & VIRTIO_BIT(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD))
        rc = frontend_open_inflight(d->frontend, c->n_queues, c->ring_size, e);
    return rc < 0 ? rc : frontend_share_memory(d->frontend, e);
}

static int open_drivers(struct guest_disk *d, struct error *e)
{
    struct driver_config c = {d->frontend->features, d->config.ring_size, d->config.table_entries};
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < d->config.n_queues; i++)
        rc = driver_open(&d->drivers[i], d->guest, &c, e);
    return rc;
}

int guest_disk_open(struct guest_disk **out, const struct guest_disk_config *c, struct error *e)
{
    if (!c->n_queues || c->n_queues > GUEST_DISK_QUEUES_MAX)
        return error_set(e, EINVAL, "1 to %u queues, not %u", GUEST_DISK_QUEUES_MAX, c->n_queues);
    struct guest_disk *d = calloc(1, sizeof *d);
    if (!d)
        return error_set(e, ENOMEM, "no memory for a disk");
    d->config = *c;
    d->config.path = strdup(c->path);
    if (!d->config.path) {
        free(d);
        return error_set(e, ENOMEM, "no memory for a disk");
    }
    int rc = guest_open(&d->guest, &c->memory, e);
    if (rc < 0)
        goto err_disk;
    int fd = rc = frontend_connect(c->path, FRONTEND_TIMEOUT_MS, e);
    if (rc < 0)
        goto err_disk;
    rc = frontend_open(&d->frontend, fd, d->guest, e);
    if (rc == 0)
        rc = negotiate(d, e);
    if (rc == 0)
        rc = open_drivers(d, e);
    if (rc == 0)
        rc = guest_disk_start(d, e);
    if (rc < 0)
        goto err_disk;
    *out = d;
    return 0;

err_disk:
    guest_disk_close(d);
    return rc;
}

int guest_disk_start(struct guest_disk *d, struct error *e)
{
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < d->config.n_queues; i++)
        rc = frontend_start_ring(d->frontend, i, d->drivers[i], driver_base(d->drivers[i]), e);
    return rc;
}

int guest_disk_stop(struct guest_disk *d, struct error *e)
{
    for (unsigned i = 0; i < d->config.n_queues; i++) {
        uint32_t base = 0, expected = driver_base(d->drivers[i]);
        int rc = frontend_stop_ring(d->frontend, i, &base, e);
        if (rc < 0)
            return rc;
        if (base != expected)
            return error_set(e, EPROTO, "ring %u stopped at base %#x, its driver is at %#x", i,
                             base, expected);
    }
    return 0;
}

int guest_disk_reconnect(struct guest_disk *d, struct error *e)
{
    int fd = frontend_connect(d->config.path, FRONTEND_TIMEOUT_MS, e);
    if (fd < 0)
        return fd;
    int rc = frontend_reconnect(d->frontend, fd, e);
    if (rc == 0)
        rc = guest_disk_start(d, e);
    for (unsigned i = 0; rc == 0 && i < d->config.n_queues; i++)
        frontend_kick(d->frontend, i);
    return rc;
}

void guest_disk_close(struct guest_disk *d)
{
    if (!d)
        return;
    frontend_close(d->frontend);
    for (unsigned i = 0; i < d->config.n_queues; i++)
        driver_close(d->drivers[i]);
    guest_close(d->guest);
    free((char *)d->config.path);
    free(d);
}

bool guest_disk_submit(struct guest_disk *d, unsigned queue, struct guest_request *r)
{
    struct driver_chain *chain = &r->chain;
    if (!driver_add(d->drivers[queue], &chain, 1))
        return false;
    if (driver_publish(d->drivers[queue]))
        frontend_kick(d->frontend, queue);
    return true;
}

int64_t guest_disk_run(struct guest_disk *d, unsigned queue, struct guest_request *r,
                       struct error *e)
{
    if (!guest_disk_submit(d, queue, r))
        return error_set(e, EAGAIN, "the ring of queue %u is full", queue);
    time_t deadline = time(NULL) + WAIT_SECONDS;
    for (;;) {
        struct driver_used used;
        int n = driver_poll(d->drivers[queue], &used, 1, e);
        if (n < 0)
            return n;
        if (n && used.chain != &r->chain)
            return error_set(e, EPROTO, "another request came back on queue %u", queue);
        if (n)
            return used.len;
        if (time(NULL) > deadline)
            return error_set(e, ETIMEDOUT, "no answer on queue %u within %u s", queue,
                             WAIT_SECONDS);
        sched_yield();
    }
}
