// SPDX-License-Identifier: Apache-2.0
#include "devices/blk.h"

#include "dataplane/vhost_user.h"
#include "devices/blk_request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define QUEUES_DEFAULT 64
#define SEGS_MAX       126        // 5.2.4: with header and status a chain of 128
#define SEG_BYTES_MAX  (1u << 20) // 5.2.4: what a driver may put into one segment

static const struct disk_type *const disk_types[] = {&disk_file, &disk_ram, &disk_null};

// ---- open and close ----------------------------------------------------------------------

static unsigned log2_of(uint32_t v)
{
    return 31u - (unsigned)__builtin_clz(v);
}

static void fill_ranges(struct virtio_blk_config *config, const struct disk *disk)
{
    uint32_t sectors = disk->range_bytes / DISK_SECTOR_BYTES;
    config->max_discard_sectors = sectors;
    config->max_discard_seg = disk->n_ranges;
    config->discard_sector_alignment = disk->physical_bytes / DISK_SECTOR_BYTES;
    config->max_write_zeroes_sectors = sectors;
    config->max_write_zeroes_seg = disk->n_ranges;
    config->write_zeroes_may_unmap = disk->can_unmap;
}

static void fill_config(struct device *d, const struct disk *disk)
{
    uint32_t logical = disk->logical_bytes;
    struct virtio_blk_config config = {
        .capacity = disk->bytes / DISK_SECTOR_BYTES,
        .size_max = SEG_BYTES_MAX,
        .seg_max = SEGS_MAX,
        .blk_size = logical,
        .topology.physical_block_exp = (uint8_t)log2_of(disk->physical_bytes / logical),
        .topology.min_io_size = (uint16_t)MIN(disk->physical_bytes / logical, UINT16_MAX),
        .topology.opt_io_size = disk->optimal_bytes / logical,
        .num_queues = d->n_queues,
    };
    static_assert(sizeof(config) <= sizeof(d->config), "config space holds it");
    if (!disk->is_read_only)
        fill_ranges(&config, disk);
    memcpy(d->config, &config, sizeof(config));
    d->config_bytes = sizeof(config);

    d->features = VIRTIO_BIT(VIRTIO_BLK_F_SIZE_MAX) | VIRTIO_BIT(VIRTIO_BLK_F_SEG_MAX) |
                  VIRTIO_BIT(VIRTIO_BLK_F_BLK_SIZE) | VIRTIO_BIT(VIRTIO_BLK_F_FLUSH) |
                  VIRTIO_BIT(VIRTIO_BLK_F_TOPOLOGY) | VIRTIO_BIT(VIRTIO_BLK_F_MQ);
    if (disk->is_read_only)
        d->features |= VIRTIO_BIT(VIRTIO_BLK_F_RO);
    else
        d->features |= VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) | VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES);
}

// The schema lets exactly one of the keys through.
static const struct disk_type *type_of(const struct line *l)
{
    for (unsigned i = 0; i < ARRAY_LEN(disk_types); i++) {
        if (line_has(l, disk_types[i]->key))
            return disk_types[i];
    }
    assert(false && "the schema requires one");
    return NULL;
}

static int check_size(const struct line *l, const char *key, struct error *e)
{
    if (line_number(l, key, 0) % DISK_SECTOR_BYTES == 0)
        return 0;
    return error_set(e, EINVAL, "disk %s: %s=%s: a multiple of %u", l->name, key,
                     line_text(l, key, ""), DISK_SECTOR_BYTES);
}

// What says how a file is used.
static int check_file_key(const struct line *l, const char *key, struct error *e)
{
    if (!line_has(l, key) || line_has(l, "file"))
        return 0;
    return error_set(e, EINVAL, "disk %s: %s=%s: only a file= disk has that", l->name, key,
                     line_text(l, key, ""));
}

static int blk_open(struct device *d, const struct line *l, struct error *e)
{
    int err = check_size(l, "ram", e);
    if (!err)
        err = check_size(l, "null", e);
    if (!err)
        err = check_file_key(l, "cache", e);
    if (!err)
        err = check_file_key(l, "lock", e);
    if (err)
        return err;
    struct blk *b = calloc(1, sizeof(*b));
    if (!b)
        return error_set(e, ENOMEM, "disk %s: out of memory", l->name);
    b->disk.type = type_of(l);
    b->disk.name = l->name;
    b->disk.is_read_only = line_has(l, "read-only");
    const char *serial = line_text(l, "serial", l->name);
    memcpy(b->serial, serial, strnlen(serial, sizeof(b->serial)));

    err = b->disk.type->open(&b->disk, l, e);
    if (err) {
        free(b);
        return err;
    }
    d->n_queues = (uint16_t)line_number(l, "queues", QUEUES_DEFAULT);
    d->priv = b;
    fill_config(d, &b->disk);
    return 0;
}

static void blk_close(struct device *d)
{
    struct blk *b = d->priv;
    b->disk.type->close(&b->disk);
    free(b);
}

// A request that a worker checks against the old size meanwhile fails, as it did before.
static int blk_resize(struct device *d, uint64_t *bytes, struct error *e)
{
    struct disk *disk = &((struct blk *)d->priv)->disk;
    unsigned long long now = disk->bytes;
    if (*bytes % DISK_SECTOR_BYTES)
        return error_set(e, EINVAL, "disk %s: %llu bytes: a size is a multiple of %u", d->name,
                         (unsigned long long)*bytes, DISK_SECTOR_BYTES);
    uint64_t wanted = *bytes;
    if (!wanted || wanted >= now) {
        int err = disk->type->grow(disk, &wanted, e);
        if (err)
            return err;
        wanted -= wanted % DISK_SECTOR_BYTES;
    }
    if (wanted < now)
        return error_set(e, EINVAL, "disk %s: from %llu to %llu bytes: a disk only grows", d->name,
                         now, (unsigned long long)wanted);
    disk->bytes = wanted;
    uint64_t capacity = wanted / DISK_SECTOR_BYTES;
    memcpy(d->config + offsetof(struct virtio_blk_config, capacity), &capacity, sizeof(capacity));
    *bytes = wanted;
    return 0;
}

// ---- a queue's start and stop ------------------------------------------------------------

static int blk_queue_start(struct queue *q, struct error *e)
{
    struct blk *b = q->device->priv;
    size_t bytes = sizeof(struct disk_queue) + q->ring.size * sizeof(struct disk_request);
    struct disk_queue *dq = aligned_alloc(CACHE_LINE, bytes);
    if (!dq)
        return error_set(e, ENOMEM, "disk %s: out of memory", q->device->name);
    memset(dq, 0, bytes); // also puts the pages where this thread wants them
    dq->disk = &b->disk;
    dq->queue = q;
    dq->done = blk_request_finish;
    // 5.2.6.2: a driver that did not take FLUSH relies on each write.
    dq->is_write_through = !(q->ring.features & VIRTIO_BIT(VIRTIO_BLK_F_FLUSH));
    int err = b->disk.type->queue_start ? b->disk.type->queue_start(dq, e) : 0;
    if (err) {
        free(dq);
        return err;
    }
    q->priv = dq;
    return 0;
}

static void blk_queue_stop(struct queue *q)
{
    struct disk_queue *dq = q->priv;
    if (dq->disk->type->queue_stop)
        dq->disk->type->queue_stop(dq);
    free(dq);
    q->priv = NULL;
}

static int blk_lane_enter(struct queue *q)
{
    struct disk_queue *dq = q->priv;
    const struct disk_type *type = dq->disk->type;
    return type->lane_enter ? type->lane_enter(dq) : 0;
}

static void blk_lane_leave(struct queue *q)
{
    struct disk_queue *dq = q->priv;
    if (dq->disk->type->lane_leave)
        dq->disk->type->lane_leave(dq);
}

// ---- poll --------------------------------------------------------------------------------

static void prefetch_batch(struct disk_queue *dq, struct chain *const chains[], unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        __builtin_prefetch(chains[i]->iov[0].iov_base); // the header, as a rule
        __builtin_prefetch(&dq->requests[chains[i]->id], 1);
    }
}

static unsigned blk_poll(struct queue *q, unsigned budget)
{
    struct disk_queue *dq = q->priv;
    struct chain *chains[RING_BATCH_MAX];
    unsigned n = ring_pop(&q->ring, chains, MIN(budget, RING_BATCH_MAX));
    if (n == 0)
        return 0;
    prefetch_batch(dq, chains, n);

    struct disk_request *batch[RING_BATCH_MAX];
    unsigned n_batch = 0;
    for (unsigned i = 0; i < n; i++) {
        struct disk_request *r = blk_request_parse(dq, chains[i]);
        if (likely(r && r->result == DISK_LATER))
            batch[n_batch++] = r;
        else if (r)
            blk_request_finish(r);
    }
    if (n_batch)
        dq->disk->type->submit(dq, batch, n_batch);
    for (unsigned i = 0; i < n_batch; i++) {
        if (batch[i]->result != DISK_LATER)
            blk_request_finish(batch[i]);
    }
    return n;
}

// ---- the type ----------------------------------------------------------------------------

#define STORE 1 // one_of: exactly one back end

static const struct line_key blk_keys[] = {
    {.name = "file",
     .kind = LINE_TEXT,
     .one_of = STORE,
     .value = "PATH",
     .help = "raw image or block device; never created"},
    {.name = "ram",
     .kind = LINE_SIZE,
     .one_of = STORE,
     .min = DISK_SECTOR_BYTES,
     .value = "SIZE",
     .help = "memory of the daemon, zeros at first"},
    {.name = "null",
     .kind = LINE_SIZE,
     .one_of = STORE,
     .min = DISK_SECTOR_BYTES,
     .value = "SIZE",
     .help = "stores nothing; reads leave the buffer as it is"},
    {.name = "cache",
     .kind = LINE_CHOICE,
     .choices = "direct|buffered",
     .help = "file: past the host's page cache, or through it (direct where the file can)"},
    {.name = "lock",
     .kind = LINE_CHOICE,
     .choices = "add|start",
     .help = "file: when the image's lock is taken first (add)"},
    {.name = "queues",
     .kind = LINE_NUMBER,
     .min = 1,
     .max = DEVICE_QUEUES_MAX,
     .value = "N",
     .help = "the most that a front end may use (64)"},
    {.name = "read-only", .kind = LINE_FLAG, .help = "refuse writes; an image is then shared"},
    {.name = "serial",
     .kind = LINE_TEXT,
     .max = VIRTIO_BLK_ID_BYTES,
     .value = "TEXT",
     .help = "what the guest shows as serial number (the name)"},
    {.name = NULL},
};

const struct device_type blk_device = {
    .line = {.type = "disk",
             .help = "a virtio-blk disk",
             .keys = blk_keys,
             .common = device_socket_keys},
    .virtio_id = VIRTIO_ID_BLOCK,
    .queues_max = DEVICE_QUEUES_MAX,
    .protocol_features = VIRTIO_BIT(VHOST_USER_PROTOCOL_F_CONFIG) |
                         VIRTIO_BIT(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD),
    .open = blk_open,
    .close = blk_close,
    .poll = blk_poll,
    .queue_start = blk_queue_start,
    .queue_stop = blk_queue_stop,
    .lane_enter = blk_lane_enter,
    .lane_leave = blk_lane_leave,
    .resize = blk_resize,
};
