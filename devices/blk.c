// SPDX-License-Identifier: Apache-2.0
#include "devices/blk.h"

#include "dataplane/pinning.h"
#include "dataplane/vhost_user.h"
#include "devices/blk_config.h"
#include "devices/blk_zone.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define QUEUES_DEFAULT 64

static const struct disk_type *const disk_types[] = {&disk_file, &disk_ram, &disk_null};

// ---- open and close ----------------------------------------------------------------------

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
    if (!err)
        err = check_file_key(l, "pin", e);
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
    err = blk_zone_open(&b->disk, l, e);
    if (err) {
        b->disk.type->close(&b->disk);
        free(b);
        return err;
    }
    d->n_queues = (uint16_t)line_number(l, "queues", QUEUES_DEFAULT);
    d->wants_tick = b->disk.pinning;
    d->priv = b;
    blk_config_fill(d);
    return 0;
}

static void blk_close(struct device *d)
{
    struct blk *b = d->priv;
    disk_zones_close(b->disk.zones);
    b->disk.type->close(&b->disk);
    free(b);
}

static void blk_memory(struct device *d, const struct mem *m)
{
    struct blk *b = d->priv;
    if (b->disk.pinning)
        pinning_set_memory(b->disk.pinning, m);
}

static void blk_tick(struct device *d, uint64_t now_ms)
{
    (void)now_ms;
    pinning_tick(((struct blk *)d->priv)->disk.pinning);
}

// A request that a worker checks against the old size meanwhile fails, as it did before.
static int blk_resize(struct device *d, uint64_t *bytes, struct error *e)
{
    struct disk *disk = &((struct blk *)d->priv)->disk;
    unsigned long long now = disk->bytes;
    if (*bytes % DISK_SECTOR_BYTES)
        return error_set(e, EINVAL, "disk %s: %llu bytes: a size is a multiple of %u", d->name,
                         (unsigned long long)*bytes, DISK_SECTOR_BYTES);
    if (disk->zones)
        return error_set(e, EINVAL, "disk %s: a zoned= disk keeps its size", d->name);
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
    blk_config_resized(d);
    *bytes = wanted;
    return 0;
}

// ---- a queue's start and stop ------------------------------------------------------------

static int blk_queue_start(struct queue *q, struct error *e)
{
    struct blk *b = q->device->priv;
    // 5.2.5.2: such a disk fails a driver that knows no zones. There is no status to refuse here.
    if (b->disk.zones && !(q->ring.features & VIRTIO_BIT(VIRTIO_BLK_F_ZONED)))
        return error_set(e, EPROTO, "disk %s: zoned=: the driver did not accept zones",
                         q->device->name);
    size_t bytes = sizeof(struct disk_queue) + q->ring.size * sizeof(struct disk_request);
    struct disk_queue *dq = aligned_alloc(CACHE_LINE, bytes);
    if (!dq)
        return error_set(e, ENOMEM, "disk %s: out of memory", q->device->name);
    memset(dq, 0, bytes); // also puts the pages where this thread wants them
    dq->disk = &b->disk;
    dq->queue = q;
    dq->done = blk_request_finish;
    int err = b->disk.type->queue_start ? b->disk.type->queue_start(dq, e) : 0;
    if (err) {
        free(dq);
        return err;
    }
    blk_cache_start(dq);
    q->priv = dq;
    return 0;
}

static void blk_queue_stop(struct queue *q)
{
    struct disk_queue *dq = q->priv;
    blk_cache_stop(dq);
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
    blk_cache_look(dq);

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
    {.name = "pin",
     .kind = LINE_CHOICE,
     .choices = "on|off",
     .help = "file: keep all of the guest's memory pinned; not with a balloon (off)"},
    {.name = "zoned",
     .kind = LINE_SIZE,
     .min = 1,
     .value = "SIZE",
     .help = "ram, null: host-managed zones of that size, a power of two from 64K to 1T, all "
             "empty at first"},
    {.name = "zones-open",
     .kind = LINE_NUMBER,
     .min = 1,
     .max = DISK_ZONES_OPEN_MAX,
     .value = "N",
     .help = "zoned: the most that can be open at once (any number)"},
    {.name = "zones-active",
     .kind = LINE_NUMBER,
     .min = 1,
     .max = DISK_ZONES_MAX,
     .value = "N",
     .help = "zoned: the most that can be open or closed at once (any number)"},
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
    .protocol_features =
        VIRTIO_BIT(VHOST_USER_PROTOCOL_F_CONFIG) | VIRTIO_BIT(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD),
    .open = blk_open,
    .close = blk_close,
    .poll = blk_poll,
    .queue_start = blk_queue_start,
    .queue_stop = blk_queue_stop,
    .lane_enter = blk_lane_enter,
    .lane_leave = blk_lane_leave,
    .config_read = blk_config_read,
    .config_write = blk_config_write,
    .resize = blk_resize,
    .memory = blk_memory,
    .tick = blk_tick,
};
