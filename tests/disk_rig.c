// SPDX-License-Identifier: Apache-2.0
#include "tests/disk_rig.h"

#include <stdlib.h>
#include <string.h>

#define ARENA (4u << 20)
#define GAP   3 // bytes between segments

const struct disk_shape disk_shapes[] = {
    {"one segment each", {16, DISK_ALL}, {DISK_BUT_LAST, 1}},
    {"data in many segments", {16, 512, 1024}, {512, 1024}},
    {"one segment a side", {DISK_ALL}, {DISK_ALL}},
    {"header with data", {DISK_ALL}, {DISK_BUT_LAST, 1}},
    {"status with data", {16, DISK_ALL}, {DISK_ALL}},
    {"header in pieces", {1, 7, 8, DISK_ALL}, {DISK_BUT_LAST, 1}},
    {"header in pieces, with data", {5, 10, 100, DISK_ALL}, {1, DISK_BUT_LAST, 1}},
    {"data begins with one byte", {17, DISK_ALL}, {1, 510, DISK_ALL}},
    {"odd pieces", {37}, {41}},
};
const unsigned disk_n_shapes = ARRAY_LEN(disk_shapes);

static void open_arena(struct disk_rig *d)
{
    d->arena = guest_alloc(d->rig.guest, ARENA, 4096);
    d->gathered = malloc(ARENA);
    assert_non_null(d->arena);
    assert_non_null(d->gathered);
}

void disk_rig_open(struct disk_rig *d, const char *line, uint64_t features)
{
    *d = (struct disk_rig){0};
    device_rig_open(&d->rig, line, features);
    open_arena(d);
}

void disk_rig_join(struct disk_rig *d, struct device *device, unsigned queue, uint64_t features)
{
    *d = (struct disk_rig){0};
    device_rig_join(&d->rig, device, queue, features);
    open_arena(d);
}

void disk_rig_close(struct disk_rig *d)
{
    free(d->gathered);
    device_rig_close(&d->rig);
}

// ---- a request in memory -----------------------------------------------------------------

static uint32_t cut(const uint32_t sizes[4], unsigned i, uint32_t left)
{
    unsigned last = 3;
    while (sizes[last] == 0)
        last--;
    uint32_t size = sizes[MIN(i, last)];
    if (size == DISK_BUT_LAST)
        return left > 1 ? left - 1 : 1;
    return MIN(size, left);
}

// Lay @bytes out in segments and copy @from there; returns how many segments.
static uint16_t lay_out(struct disk_rig *d, const uint32_t sizes[4], const uint8_t *from,
                        uint32_t bytes, struct driver_segment pieces[])
{
    uint16_t n = 0;
    for (uint32_t done = 0; done < bytes; n++) {
        uint32_t size = cut(sizes, n, bytes - done);
        uint8_t *at = d->arena + d->n_arena;
        assert_true(d->n_arena + size + GAP <= ARENA);
        pieces[n] = (struct driver_segment){guest_addr(d->rig.guest, at), size};
        if (from)
            memcpy(at, from + done, size);
        d->n_arena += size + GAP;
        done += size;
    }
    return n;
}

static void build(struct disk_rig *d, const struct disk_shape *shape, struct disk_call *c)
{
    struct virtio_blk_req_header header = {.type = c->type, .sector = c->sector};
    uint8_t *out = calloc(1, sizeof(header) + c->n_out);
    memcpy(out, &header, sizeof(header));
    if (c->out)
        memcpy(out + c->n_header, c->out, c->n_out);
    c->chain.segments = c->pieces;
    c->chain.n_out = lay_out(d, shape->out, out, c->n_header + c->n_out, c->pieces);
    c->chain.in_bytes = c->n_in + c->has_status;
    c->chain.n_in = lay_out(d, shape->in, NULL, c->chain.in_bytes, &c->pieces[c->chain.n_out]);
    c->chain.n_direct = (uint16_t)(c->chain.n_out + c->chain.n_in);
    free(out);
}

static void gather(struct disk_rig *d, struct disk_call *c)
{
    c->in = d->gathered + d->n_gathered;
    for (unsigned i = 0; i < c->chain.n_in; i++) {
        struct driver_segment *s = &c->pieces[c->chain.n_out + i];
        memcpy(d->gathered + d->n_gathered, guest_host(d->rig.guest, s->addr), s->bytes);
        d->n_gathered += s->bytes;
    }
    c->status = c->has_status && c->in[c->n_in] != DISK_CANARY ? c->in[c->n_in] : -1;
    for (c->n_clean = 0; c->n_clean < c->n_in; c->n_clean++) {
        if (c->in[c->n_in - 1 - c->n_clean] != DISK_CANARY)
            break;
    }
}

static void check_gaps(struct disk_rig *d, const struct disk_call *c)
{
    for (unsigned i = 0; i < (unsigned)c->chain.n_out + c->chain.n_in; i++) {
        const uint8_t *end = guest_host(d->rig.guest, c->pieces[i].addr + c->pieces[i].bytes);
        for (unsigned k = 0; k < GAP; k++)
            assert_int_equal(end[k], DISK_CANARY);
    }
}

static uint32_t n_bytes(const struct iovec *iov, unsigned n)
{
    uint32_t bytes = 0;
    for (unsigned i = 0; i < n; i++)
        bytes += (uint32_t)iov[i].iov_len;
    return bytes;
}

// The ring still needs the segments it made (for the dirty log): a device leaves them so.
static void check_slots(const struct ring *r)
{
    for (uint32_t i = 0; i < r->size; i++) {
        const struct chain *c = &r->slots[i];
        if (c->iov != c->small) // never used, or its large slot is another's now
            continue;
        assert_int_equal(n_bytes(c->iov, c->n_out), c->out_bytes);
        assert_int_equal(n_bytes(c->iov + c->n_out, c->n_in), c->in_bytes);
    }
}

unsigned disk_rig_run(struct disk_rig *d, const struct disk_shape *shape, struct disk_call calls[],
                      unsigned n)
{
    struct driver_chain *chains[DISK_CALLS];
    uint32_t lengths[DISK_CALLS];
    assert_in_range(n, 1, DISK_CALLS);
    memset(d->arena, DISK_CANARY, ARENA);
    d->n_arena = 0;
    d->n_gathered = 0;
    for (unsigned i = 0; i < n; i++) {
        build(d, shape, &calls[i]);
        chains[i] = &calls[i].chain;
    }
    unsigned n_back = device_rig_run(&d->rig, chains, lengths, n);
    for (unsigned i = 0; i < n; i++) {
        calls[i].used = lengths[i];
        gather(d, &calls[i]);
        check_gaps(d, &calls[i]);
    }
    check_slots(&d->rig.queue->ring);
    return n_back;
}

// ---- plain requests ----------------------------------------------------------------------

int disk_rig_write(struct disk_rig *d, uint64_t sector, const void *data, uint32_t bytes)
{
    struct disk_call c = {.type = VIRTIO_BLK_T_OUT,
                          .sector = sector,
                          .out = data,
                          .n_out = bytes,
                          .n_header = 16,
                          .has_status = true};
    assert_int_equal(disk_rig_run(d, DISK_PLAIN, &c, 1), 1);
    return c.status;
}

int disk_rig_read(struct disk_rig *d, uint64_t sector, void *data, uint32_t bytes)
{
    struct disk_call c = {.type = VIRTIO_BLK_T_IN,
                          .sector = sector,
                          .n_in = bytes,
                          .n_header = 16,
                          .has_status = true};
    assert_int_equal(disk_rig_run(d, DISK_PLAIN, &c, 1), 1);
    memcpy(data, c.in, bytes);
    return c.status;
}

int disk_rig_flush(struct disk_rig *d)
{
    struct disk_call c = {.type = VIRTIO_BLK_T_FLUSH, .n_header = 16, .has_status = true};
    assert_int_equal(disk_rig_run(d, DISK_PLAIN, &c, 1), 1);
    return c.status;
}

void disk_pattern(uint8_t *data, uint32_t bytes, uint64_t sector, unsigned seed)
{
    for (uint32_t i = 0; i < bytes; i++) {
        uint64_t at = sector * 512 + i;
        data[i] = (uint8_t)((at * 2654435761u + (at >> 9) + seed * 97u) >> 3);
    }
}
