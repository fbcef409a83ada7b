// SPDX-License-Identifier: Apache-2.0
// Theory: what changes zones needs their token, and workers do not wait. A request that finds the
// token taken leaves an empty operation in its worker's io_uring and is tried again when that
// comes back, a turn later: nobody spins, and the queue neither parks nor stops meanwhile. All
// that it needs by then is in the request: the header is not read again.
#include "devices/blk_zone.h"

#include "devices/blk_request.h"

#include <errno.h>

static_assert((int)DISK_ZONE_INVALID > (int)DISK_UNSUPPORTED &&
                  (int)DISK_ZONE_TOO_MANY_ACTIVE < (int)DISK_LATER,
              "a zone's result is a request's");
static_assert(VIRTIO_BLK_T_ZONE_APPEND > (int)DISK_OPERATIONS,
              "a zone request's type is its operation");

// ---- open --------------------------------------------------------------------------------

#define ZONE_BYTES_MIN (64u << 10)
#define ZONE_BYTES_MAX (UINT64_C(1) << 40) // their sectors are counted in 32 bits (5.2.4)

// The schema lets nothing but positive numbers through.
static int check_line(const struct disk *d, const struct line *l, struct error *e)
{
    uint64_t size = line_number(l, "zoned", 0);
    const char *text = line_text(l, "zoned", "");
    if (!line_has(l, "ram") && !line_has(l, "null"))
        return error_set(e, EINVAL,
                         "disk %s: zoned=%s: only ram= and null= disks have zones: a file would "
                         "outlive their write pointers",
                         d->name, text);
    if (!is_power_of_two(size) || size < ZONE_BYTES_MIN || size > ZONE_BYTES_MAX)
        return error_set(e, EINVAL, "disk %s: zoned=%s: a power of two from 64K to 1T", d->name,
                         text);
    if (size > d->bytes || (d->bytes - 1) / size >= DISK_ZONES_MAX)
        return error_set(e, EINVAL, "disk %s: zoned=%s: a disk has 1 to %u zones", d->name, text,
                         DISK_ZONES_MAX);
    return 0;
}

int blk_zone_open(struct disk *d, const struct line *l, struct error *e)
{
    static const char *const limits[] = {"zones-open", "zones-active"};
    for (unsigned i = 0; i < ARRAY_LEN(limits); i++) {
        if (line_has(l, limits[i]) && !line_has(l, "zoned"))
            return error_set(e, EINVAL, "disk %s: %s=%s: only a zoned= disk has that", d->name,
                             limits[i], line_text(l, limits[i], ""));
    }
    if (!line_has(l, "zoned"))
        return 0;
    int err = check_line(d, l, e);
    if (err)
        return err;
    d->zones = disk_zones_open(&(struct disk_zones_config){
        .n_sectors = d->bytes / DISK_SECTOR_BYTES,
        .zone_sectors = line_number(l, "zoned", 0) / DISK_SECTOR_BYTES,
        .open_max = (uint32_t)line_number(l, "zones-open", 0),
        .active_max = (uint32_t)line_number(l, "zones-active", 0),
    });
    return d->zones ? 0 : error_set(e, ENOMEM, "disk %s: out of memory", d->name);
}

// ---- what is asked -----------------------------------------------------------------------

// The sector of a request that has not become an operation of the disk.
static uint64_t sector_of(const struct disk_request *r)
{
    return r->offset;
}

static enum disk_result plan_append(struct disk_request *r, const struct chain *c,
                                    const struct blk_parts *p)
{
    blk_take_out(r, c, p);
    if (r->bytes % DISK_SECTOR_BYTES || c->in_bytes < sizeof(uint64_t) + 1) // 5.2.6.1
        return DISK_FAILED;
    return DISK_LATER;
}

enum disk_result blk_zone_plan(struct disk_request *r, const struct chain *c,
                               const struct blk_parts *p)
{
    const struct disk *d = r->queue->disk;
    enum disk_result result = DISK_LATER;
    if (!d->zones) // 5.2.6.2
        return DISK_UNSUPPORTED;
    switch (p->header.type) {
    case VIRTIO_BLK_T_ZONE_APPEND:
        result = plan_append(r, c, p);
        break;
    case VIRTIO_BLK_T_ZONE_REPORT:
        blk_take_in(r, c, p);
        break;
    case VIRTIO_BLK_T_ZONE_OPEN:
    case VIRTIO_BLK_T_ZONE_CLOSE:
    case VIRTIO_BLK_T_ZONE_FINISH:
    case VIRTIO_BLK_T_ZONE_RESET:
    case VIRTIO_BLK_T_ZONE_RESET_ALL:
        break;
    default:
        return DISK_UNSUPPORTED;
    }
    if (d->is_read_only && p->header.type != VIRTIO_BLK_T_ZONE_REPORT) // 5.2.6.2
        return DISK_FAILED;
    if (result == DISK_LATER) {
        r->operation = (uint8_t)p->header.type;
        r->offset = p->header.sector;
    }
    return result;
}

// ---- without the token -------------------------------------------------------------------

static void clear_from(struct disk_request *r, unsigned i, size_t skip)
{
    for (; i < r->n_iov; i++, skip = 0)
        memset((uint8_t *)r->iov[i].iov_base + skip, 0, r->iov[i].iov_len - skip);
}

// Let the disk read the first @written bytes only; the rest is zeros.
static enum disk_result read_partly(struct disk_request *r, uint32_t written)
{
    const struct disk_request whole = *r;
    unsigned i = 0;
    size_t skip = written;
    while (skip && skip >= r->iov[i].iov_len)
        skip -= r->iov[i++].iov_len;
    struct iovec *cut = &r->iov[i]; // there is more than @written
    size_t cut_bytes = cut->iov_len;
    if (written) {
        cut->iov_len = skip;
        r->n_iov = (uint16_t)(i + (skip > 0));
        r->bytes = written;
        r->queue->disk->type->submit(r->queue, &r, 1);
        cut->iov_len = cut_bytes;
        r->n_iov = whole.n_iov;
        r->bytes = whole.bytes;
    }
    clear_from(r, i, skip);
    if (r->n_done == written) // or there is a gap before the zeros
        r->n_done = r->bytes;
    return DISK_OK;
}

static enum disk_result admit_read(struct disk_request *r)
{
    uint32_t n = r->bytes / DISK_SECTOR_BYTES, n_written = 0;
    enum disk_zone_result result =
        disk_zones_read(r->queue->disk->zones, r->offset / DISK_SECTOR_BYTES, n, &n_written);
    if (result != DISK_ZONE_OK)
        return (enum disk_result)result;
    return n_written < n ? read_partly(r, n_written * DISK_SECTOR_BYTES) : DISK_LATER;
}

// As many descriptors as there is room for (5.2.6).
static enum disk_result report(struct disk_request *r)
{
    const struct disk_zones *z = r->queue->disk->zones;
    struct virtio_blk_zone_report head = {0};
    if (sector_of(r) >= z->config.n_sectors || r->bytes < sizeof(head))
        return (enum disk_result)DISK_ZONE_INVALID;
    uint32_t first = (uint32_t)(sector_of(r) >> z->zone_shift);
    uint32_t room = (r->bytes - (uint32_t)sizeof(head)) / sizeof(struct virtio_blk_zone_descriptor);
    uint32_t n = MIN(room, z->n_zones - first);
    struct blk_place place = {r->iov, 0};
    head.nr_zones = n;
    blk_write(&place, &head, sizeof(head));
    for (uint32_t i = 0; i < n; i++) {
        struct virtio_blk_zone_descriptor descriptor;
        disk_zones_describe(z, first + i, &descriptor);
        blk_write(&place, &descriptor, sizeof(descriptor));
    }
    r->n_done = (uint32_t)(sizeof(head) + n * sizeof(struct virtio_blk_zone_descriptor));
    r->operation = DISK_READ; // what it wrote is n_done
    return DISK_OK;
}

// ---- with the token ----------------------------------------------------------------------

// The data goes where the zone's write pointer was, and the guest is told where that is.
static enum disk_zone_result place_append(struct disk_request *r)
{
    uint64_t at = 0;
    enum disk_zone_result result =
        disk_zones_append(r->queue->disk->zones, sector_of(r), r->bytes / DISK_SECTOR_BYTES, &at);
    r->offset = at * DISK_SECTOR_BYTES;
    return result;
}

static enum disk_zone_result change(struct disk_request *r)
{
    struct disk_zones *z = r->queue->disk->zones;
    switch (r->operation) {
    case DISK_WRITE:
        return disk_zones_write(z, r->offset / DISK_SECTOR_BYTES, r->bytes / DISK_SECTOR_BYTES);
    case VIRTIO_BLK_T_ZONE_APPEND:
        return place_append(r);
    default:
        return disk_zones_command(z, r->operation, sector_of(r));
    }
}

static void finish_append(struct disk_request *r)
{
    const struct chain *c = blk_chain(r);
    uint64_t sector = r->offset / DISK_SECTOR_BYTES;
    r->operation = DISK_WRITE;
    r->queue->disk->type->submit(r->queue, &r, 1);
    struct blk_place place = {&c->iov[c->n_out], c->in_bytes - 1 - sizeof(sector)};
    blk_write(&place, &sector, sizeof(sector));
    r->operation = DISK_READ; // for its used length: it has written those bytes
    r->n_done = c->in_bytes == sizeof(sector) + 1 ? sizeof(sector) : 0;
}

static uring_done try_again;

static bool admit_change(struct disk_request *r)
{
    struct disk_queue *q = r->queue;
    bool is_append = r->operation == VIRTIO_BLK_T_ZONE_APPEND;
    bool is_write = r->operation == DISK_WRITE;
    if (!disk_zones_take(q->disk->zones)) {
        r->op = (struct uring_op){.done = try_again, .home = &q->queue->uring};
        io_uring_prep_nop(uring_entry(&q->queue->lane->uring, &r->op));
        return false;
    }
    r->result = (uint8_t)change(r);
    disk_zones_give(q->disk->zones);
    if (r->result == DISK_OK && is_append)
        finish_append(r);
    else if (r->result == DISK_OK && is_write)
        r->result = DISK_LATER;
    return true;
}

bool blk_zone_admit(struct disk_request *r)
{
    switch (r->operation) {
    case DISK_FLUSH:
        return true;
    case DISK_READ:
        r->result = (uint8_t)admit_read(r);
        return true;
    case VIRTIO_BLK_T_ZONE_REPORT:
        r->result = (uint8_t)report(r);
        return true;
    default:
        return admit_change(r);
    }
}

static void try_again(struct uring_op *op, int result)
{
    (void)result;
    struct disk_request *r = container_of(op, struct disk_request, op);
    if (!blk_zone_admit(r))
        return;
    if (r->result == DISK_LATER)
        r->queue->disk->type->submit(r->queue, &r, 1);
    blk_request_finish(r);
}
