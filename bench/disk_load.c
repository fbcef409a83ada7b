// SPDX-License-Identifier: Apache-2.0
#include "bench/disk_load.h"
#include "bench/stamp.h"

#include <errno.h>
#include <stdlib.h>

#define BATCH_MAX 64

struct load_queue {
    struct guest_request *requests; // depth
    struct guest_request **idle;    // a stack of those not in flight
    unsigned n_idle;
};

struct load_disk {
    struct guest_disk *disk;
    struct load_queue queues[GUEST_DISK_QUEUES_MAX];
    uint32_t index;
    uint64_t n_blocks;
    uint64_t next_block; // of patterns that go in order
    uint64_t seed;
    uint32_t *generations; // by block; 0: never written. NULL: no verification
    uint8_t *is_busy;      // by block: a request on it is in flight
    struct disk_load_stats stats;
};

struct disk_load {
    struct disk_load_config config;
    uint32_t sectors; // in a block
    struct pace pace;
    uint64_t n_turns;
    unsigned n_disks;
    struct load_disk disks[];
};

// ---- open --------------------------------------------------------------------------------

static int open_queue(struct disk_load *l, struct load_disk *ld, struct load_queue *q,
                      struct error *e)
{
    unsigned n = l->config.depth;
    q->requests = calloc(n, sizeof q->requests[0]);
    q->idle = calloc(n, sizeof q->idle[0]);
    if (!q->requests || !q->idle)
        return error_set(e, ENOMEM, "no memory for %u requests", n);
    for (unsigned i = 0; i < n; i++)
        q->idle[q->n_idle++] = &q->requests[i];
    return guest_request_open(q->requests, n, ld->disk->guest, l->config.block_bytes, e);
}

static int check_disk(const struct disk_load *l, const struct load_disk *ld, struct error *e)
{
    const struct guest_disk *d = ld->disk;
    const struct disk_load_config *c = &l->config;
    const char *path = d->config.path;
    bool reads = c->pattern == DISK_LOAD_READ || c->pattern == DISK_LOAD_RANDREAD;
    if ((!reads || c->verify) && d->frontend->features & VIRTIO_BIT(VIRTIO_BLK_F_RO))
        return error_set(e, EROFS, "%s is read-only", path);
    if (d->frontend->features & VIRTIO_BIT(VIRTIO_BLK_F_BLK_SIZE) && d->space.blk_size &&
        c->block_bytes % d->space.blk_size)
        return error_set(e, EINVAL, "%s has blocks of %u bytes; %u is no multiple", path,
                         d->space.blk_size, c->block_bytes);
    unsigned descs = c->form == GUEST_REQUEST_INDIRECT ? 1 : 3;
    if (d->config.ring_size < c->depth * descs)
        return error_set(e, EINVAL, "depth %u needs a ring of %u descriptors, not %u", c->depth,
                         c->depth * descs, d->config.ring_size);
    unsigned in_flight = c->depth * d->config.n_queues;
    if (ld->n_blocks < (c->verify ? 2 * in_flight : 1))
        return error_set(e, EINVAL, "%s is too small for this load: %llu blocks", path,
                         (unsigned long long)ld->n_blocks);
    return 0;
}

static int open_disk(struct disk_load *l, struct load_disk *ld, struct error *e)
{
    uint64_t bytes = ld->disk->space.capacity * VIRTIO_BLK_SECTOR_SIZE;
    if (l->config.range_bytes)
        bytes = MIN(bytes, l->config.range_bytes);
    ld->n_blocks = bytes / l->config.block_bytes;
    ld->seed = l->config.seed + ld->index;
    int rc = check_disk(l, ld, e);
    if (rc == 0 && l->config.verify) {
        ld->generations = calloc(ld->n_blocks, sizeof ld->generations[0]);
        ld->is_busy = calloc(ld->n_blocks, sizeof ld->is_busy[0]);
        if (!ld->generations || !ld->is_busy)
            rc = error_set(e, ENOMEM, "no memory to verify %llu blocks",
                           (unsigned long long)ld->n_blocks);
    }
    for (unsigned i = 0; rc == 0 && i < ld->disk->config.n_queues; i++)
        rc = open_queue(l, ld, &ld->queues[i], e);
    return rc;
}

int disk_load_open(struct disk_load **out, struct guest_disk *const disks[], unsigned n_disks,
                   const struct disk_load_config *c, struct error *e)
{
    if (!c->block_bytes || c->block_bytes % VIRTIO_BLK_SECTOR_SIZE || !c->depth)
        return error_set(e, EINVAL, "blocks are multiples of %u bytes, and the depth at least 1",
                         VIRTIO_BLK_SECTOR_SIZE);
    struct disk_load *l = calloc(1, sizeof *l + n_disks * sizeof l->disks[0]);
    if (!l)
        return error_set(e, ENOMEM, "no memory for a load");
    l->config = *c;
    l->sectors = c->block_bytes / VIRTIO_BLK_SECTOR_SIZE;
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < n_disks; i++) {
        l->n_disks = i + 1;
        l->disks[i].disk = disks[i];
        l->disks[i].index = i;
        rc = open_disk(l, &l->disks[i], e);
    }
    if (rc < 0) {
        disk_load_close(l);
        return rc;
    }
    *out = l;
    return 0;
}

void disk_load_close(struct disk_load *l)
{
    if (!l)
        return;
    for (unsigned i = 0; i < l->n_disks; i++) {
        struct load_disk *ld = &l->disks[i];
        for (unsigned k = 0; k < ld->disk->config.n_queues; k++) {
            if (ld->queues[k].requests)
                guest_request_close(ld->queues[k].requests, l->config.depth);
            free(ld->queues[k].requests);
            free(ld->queues[k].idle);
        }
        free(ld->generations);
        free(ld->is_busy);
    }
    free(l);
}

uint64_t disk_load_memory_bytes(const struct disk_load_config *c, unsigned n_queues,
                                uint32_t ring_size, uint32_t table_entries)
{
    const uint64_t page = 4096;
    uint64_t data = (c->block_bytes + page - 1) / page * page;
    uint64_t requests = c->depth * (data + CACHE_LINE) + page;
    uint64_t ring = ring_size * (UINT64_C(26) + table_entries * UINT64_C(16)) + page;
    return n_queues * (requests + ring);
}

// ---- run ---------------------------------------------------------------------------------

static bool wants_write(struct disk_load *l, struct load_disk *ld)
{
    switch (l->config.pattern) {
    case DISK_LOAD_WRITE:
    case DISK_LOAD_RANDWRITE:
        return true;
    case DISK_LOAD_RANDRW:
        return random_next(&ld->seed) >> 63;
    default:
        return false;
    }
}

static uint64_t pick_block(struct disk_load *l, struct load_disk *ld)
{
    uint64_t block;
    if (l->config.pattern == DISK_LOAD_READ || l->config.pattern == DISK_LOAD_WRITE) {
        block = ld->next_block;
        ld->next_block = block + 1 == ld->n_blocks ? 0 : block + 1;
    } else {
        block = random_below(&ld->seed, ld->n_blocks);
    }
    while (ld->is_busy && ld->is_busy[block])
        block = block + 1 == ld->n_blocks ? 0 : block + 1;
    return block;
}

static struct stamp_key key_of(const struct load_disk *ld, const struct guest_request *r,
                               uint64_t block)
{
    return (struct stamp_key){ld->index, ld->generations[block], r->sector};
}

static void prepare(struct disk_load *l, struct load_disk *ld, struct guest_request *r)
{
    uint64_t block = pick_block(l, ld);
    bool is_write = wants_write(l, ld) || (ld->generations && !ld->generations[block]);
    guest_request_prepare(r, is_write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, block * l->sectors,
                          l->config.block_bytes, l->config.form);
    if (!ld->generations)
        return;
    ld->is_busy[block] = 1;
    if (is_write) {
        ld->generations[block]++;
        stamp_write(r->data, r->bytes, key_of(ld, r, block));
    }
}

static void offer(struct disk_load *l, struct load_disk *ld, unsigned queue, uint64_t *n_left)
{
    struct load_queue *q = &ld->queues[queue];
    struct driver_chain *chains[BATCH_MAX];
    unsigned max = (unsigned)MIN((uint64_t)MIN(q->n_idle, BATCH_MAX), *n_left), n = 0;
    if (!max)
        return;
    for (uint64_t now = cycles_now(); n < max && pace_is_due(&l->pace, now); n++) {
        struct guest_request *r = q->idle[--q->n_idle];
        prepare(l, ld, r);
        r->submitted_at = pace_take(&l->pace, now);
        chains[n] = &r->chain;
    }
    if (!n)
        return;
    *n_left -= n;
    unsigned n_added = driver_add(ld->disk->drivers[queue], chains, n);
    assert(n_added == n && "the ring has room for the depth");
    if (driver_publish(ld->disk->drivers[queue])) {
        frontend_kick(ld->disk->frontend, queue);
        ld->stats.n_kicks++;
    }
}

static int verify(struct disk_load *l, struct load_disk *ld, const struct guest_request *r,
                  uint32_t len, struct error *e)
{
    uint64_t block = r->sector / l->sectors;
    ld->is_busy[block] = 0;
    if (*r->status != VIRTIO_BLK_S_OK)
        return error_set(e, EIO, "a request on sector %llu came back with status %#x",
                         (unsigned long long)r->sector, *r->status);
    if (r->type != VIRTIO_BLK_T_IN)
        return 0;
    ld->stats.n_verified++;
    if (len != r->bytes + 1)
        return error_set(e, EPROTO, "a read of %u bytes came back with used length %u", r->bytes,
                         len);
    return stamp_check(r->data, r->bytes, key_of(ld, r, block), e);
}

static int finish(struct disk_load *l, struct load_disk *ld, struct load_queue *q,
                  const struct driver_used *used, uint64_t now, struct error *e)
{
    struct guest_request *r = (struct guest_request *)used->chain;
    histogram_add(&ld->stats.latency, now - r->submitted_at);
    if (r->type == VIRTIO_BLK_T_IN)
        ld->stats.n_reads++;
    else
        ld->stats.n_writes++;
    ld->stats.n_errors += *r->status != VIRTIO_BLK_S_OK;
    q->idle[q->n_idle++] = r;
    return ld->generations ? verify(l, ld, r, used->len, e) : 0;
}

static int collect(struct disk_load *l, struct load_disk *ld, unsigned queue, struct error *e)
{
    struct driver_used used[BATCH_MAX];
    int n = driver_poll(ld->disk->drivers[queue], used, BATCH_MAX, e);
    if (n <= 0)
        return n;
    for (int i = 0; i < n; i++)
        __builtin_prefetch(((struct guest_request *)used[i].chain)->status);
    uint64_t now = cycles_now();
    for (int i = 0; i < n; i++) {
        int rc = finish(l, ld, &ld->queues[queue], &used[i], now, e);
        if (unlikely(rc < 0))
            return rc;
    }
    return n;
}

static int turn_queue(struct disk_load *l, struct load_disk *ld, unsigned queue, uint64_t *n_left,
                      struct error *e)
{
    int n = collect(l, ld, queue, e);
    if (unlikely(n < 0)) {
        struct error cause = *e;
        return error_set(e, -n, "%.107s queue %u: %.300s", ld->disk->config.path, queue,
                         cause.text);
    }
    offer(l, ld, queue, n_left);
    return n;
}

int disk_load_turn(struct disk_load *l, uint64_t *n_left, struct error *e)
{
    int total = 0;
    uint64_t first = l->n_turns++; // everyone is first in turn: at a fixed rate it gets what is due
    for (unsigned i = 0; i < l->n_disks; i++) {
        struct load_disk *ld = &l->disks[(first + i) % l->n_disks];
        unsigned n_queues = ld->disk->config.n_queues;
        for (unsigned k = 0; k < n_queues; k++) {
            int n = turn_queue(l, ld, (unsigned)((first + k) % n_queues), n_left, e);
            if (unlikely(n < 0))
                return n;
            total += n;
        }
    }
    return total;
}

void disk_load_pace(struct disk_load *l, double per_second, double ticks_per_second)
{
    pace_start(&l->pace, per_second, ticks_per_second, cycles_now());
}

static int read_block_back(struct disk_load *l, struct load_disk *ld, uint64_t block,
                           struct error *e)
{
    struct guest_request *r = &ld->queues[0].requests[0];
    guest_request_prepare(r, VIRTIO_BLK_T_IN, block * l->sectors, l->config.block_bytes,
                          l->config.form);
    int64_t len = guest_disk_run(ld->disk, 0, r, e);
    return len < 0 ? (int)len : verify(l, ld, r, (uint32_t)len, e);
}

int disk_load_read_back(struct disk_load *l, struct error *e)
{
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < l->n_disks; i++) {
        struct load_disk *ld = &l->disks[i];
        for (uint64_t block = 0; rc == 0 && block < ld->n_blocks; block++) {
            if (ld->generations[block])
                rc = read_block_back(l, ld, block, e);
        }
    }
    return rc;
}

uint64_t disk_load_n_in_flight(const struct disk_load *l)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < l->n_disks; i++) {
        for (unsigned k = 0; k < l->disks[i].disk->config.n_queues; k++)
            n += l->config.depth - l->disks[i].queues[k].n_idle;
    }
    return n;
}

uint64_t disk_load_n_done(const struct disk_load *l)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < l->n_disks; i++)
        n += l->disks[i].stats.n_reads + l->disks[i].stats.n_writes;
    return n;
}

const struct disk_load_stats *disk_load_stats(const struct disk_load *l, unsigned disk)
{
    return &l->disks[disk].stats;
}
