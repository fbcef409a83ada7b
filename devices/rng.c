// SPDX-License-Identifier: Apache-2.0
// rng.c - virtio-rng (VIRTIO 1.3, 5.4): random bytes from the kernel, and the smallest device.
//
// A queue keeps a pool that one getrandom() fills, so that small requests share its cost.
#include "devices/rng.h"

#include "dataplane/vhost_user.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define POOL_BYTES 4096

struct rng_pool {
    uint32_t next;   // the first unused byte
    uint32_t n_left; // how many are unused
    uint8_t bytes[POOL_BYTES];
};

static int rng_open(struct device *d, const struct line *l, struct error *e)
{
    (void)l, (void)e;
    d->n_queues = 1; // 5.4.2
    return 0;        // no features (5.4.3) and no config space (5.4.4)
}

static void rng_close(struct device *d)
{
    (void)d;
}

static int rng_queue_start(struct queue *q, struct error *e)
{
    q->priv = calloc(1, sizeof(struct rng_pool));
    return q->priv ? 0 : error_set(e, ENOMEM, "rng %s: out of memory", q->device->name);
}

static void rng_queue_stop(struct queue *q)
{
    explicit_bzero(q->priv, sizeof(struct rng_pool));
    free(q->priv);
    q->priv = NULL;
}

static void refill(struct rng_pool *pool)
{
    ssize_t n = getrandom(pool->bytes, POOL_BYTES, GRND_NONBLOCK);
    pool->next = 0;
    pool->n_left = n > 0 ? (uint32_t)n : 0; // none this early: requests wait in the ring
}

// Fill @c from the pool, up to @max bytes, and forget what was handed out. Returns how many.
static uint32_t fill(const struct chain *c, struct rng_pool *pool, uint32_t max)
{
    uint32_t done = 0;
    for (unsigned i = c->n_out; i < c->n_out + c->n_in && done < max; i++) {
        uint8_t *from = pool->bytes + pool->next;
        uint32_t n = (uint32_t)MIN(c->iov[i].iov_len, max - done);
        memcpy(c->iov[i].iov_base, from, n);
        explicit_bzero(from, n);
        pool->next += n;
        pool->n_left -= n;
        done += n;
    }
    return done;
}

static unsigned rng_poll(struct queue *q, unsigned budget)
{
    struct rng_pool *pool = q->priv;
    struct chain *chains[RING_BATCH_MAX];
    if (pool->n_left == 0)
        refill(pool);
    // 5.4.6.2: at least one byte each, so no more chains than bytes.
    unsigned n = ring_pop(&q->ring, chains, MIN(MIN(budget, RING_BATCH_MAX), pool->n_left));
    for (unsigned i = 0; i < n; i++) {
        if (chains[i]->n_out) // 5.4.6.1: only device-writable buffers
            ring_fault(&q->ring, RING_BAD_REQUEST, chains[i]->id);
        uint32_t owed = n - 1 - i; // a byte for each chain that follows
        queue_push(q, chains[i], fill(chains[i], pool, pool->n_left - owed));
    }
    return n;
}

const struct device_type rng_device = {
    .line = {.type = "rng", .help = "a virtio-rng entropy source", .common = device_socket_keys},
    .virtio_id = VIRTIO_ID_RNG,
    .queues_max = 1,
    .protocol_features = VIRTIO_BIT(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD),
    .open = rng_open,
    .close = rng_close,
    .poll = rng_poll,
    .queue_start = rng_queue_start,
    .queue_stop = rng_queue_stop,
};
