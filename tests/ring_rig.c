// SPDX-License-Identifier: Apache-2.0
#include "tests/ring_rig.h"
#include "tests/check.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define DESC_AREA   RIG_A
#define DRIVER_AREA (RIG_A + 0x10000)
#define DEVICE_AREA (RIG_A + 0x20000)

static void share_memory(struct rig *rig)
{
    const uint64_t starts[] = {RIG_A, RIG_B, RIG_C};
    struct mem_desc descs[3];
    int fds[3];
    rig->fd = memfd_create("rig", MFD_CLOEXEC);
    assert_int_equal(ftruncate(rig->fd, RIG_END - RIG_A), 0);
    rig->host = mmap(NULL, RIG_END - RIG_A, PROT_READ | PROT_WRITE, MAP_SHARED, rig->fd, 0);
    assert_ptr_not_equal(rig->host, MAP_FAILED);
    for (unsigned i = 0; i < 3; i++) {
        fds[i] = rig->fd;
        descs[i] = (struct mem_desc){.guest_addr = starts[i],
                                     .size = i == 2 ? RIG_C_BYTES : RIG_REGION,
                                     .user_addr = starts[i] + RIG_USER_SHIFT,
                                     .mmap_offset = starts[i] - RIG_A};
    }
    struct error e;
    check_ok(mem_set(&rig->mem, NULL, descs, fds, 3, &e), &e);
}

void rig_open_stopped(struct rig *rig, uint64_t features, uint32_t size)
{
    memset(rig, 0, sizeof(*rig));
    share_memory(rig);
    rig->is_packed = features & VIRTIO_BIT(VIRTIO_F_RING_PACKED);
    rig->wrap = true;
    rig->config = (struct ring_config){
        .features = features | VIRTIO_BIT(VIRTIO_F_VERSION_1),
        .size = size,
        .base = rig->is_packed ? 0x80008000u : 0,
        .desc_addr = DESC_AREA + RIG_USER_SHIFT,
        .driver_addr = DRIVER_AREA + RIG_USER_SHIFT,
        .device_addr = DEVICE_AREA + RIG_USER_SHIFT,
    };
}

int rig_start(struct rig *rig, struct error *e)
{
    return ring_start(&rig->ring, &rig->config, rig->mem, rig->log, &rig->stats, e);
}

void rig_open(struct rig *rig, uint64_t features, uint32_t size)
{
    rig_open_stopped(rig, features, size);
    struct error e;
    check_ok(rig_start(rig, &e), &e);
}

void rig_open_with_record(struct rig *rig, uint64_t features, uint32_t size)
{
    rig_open_stopped(rig, features, size);
    rig->config.inflight = rig->inflight;
    rig->config.inflight_bytes = sizeof(rig->inflight);
    struct error e;
    check_ok(rig_start(rig, &e), &e);
}

void rig_die_and_restart(struct rig *rig)
{
    munmap(rig->ring.block, rig->ring.block_bytes);
    memset(&rig->ring, 0, sizeof(rig->ring));
    if (rig->is_packed)
        rig->config.base = 0x80008000; // what QEMU sends after a crash: stale
    struct error e;
    check_ok(rig_start(rig, &e), &e);
}

void rig_close(struct rig *rig)
{
    ring_stop(&rig->ring);
    mem_free(rig->mem);
    munmap(rig->host, RIG_END - RIG_A);
    close(rig->fd);
}

void *rig_at(struct rig *rig, uint64_t addr)
{
    return rig->host + (addr - RIG_A);
}

static uint16_t available_bits(bool wrap)
{
    return (uint16_t)(wrap ? PACKED_DESC_AVAIL : PACKED_DESC_USED);
}

void rig_put(struct rig *rig, uint32_t i, uint64_t addr, uint32_t len, uint16_t flags,
             uint16_t next, uint16_t id)
{
    if (!rig->is_packed) {
        struct split_desc *table = rig_at(rig, DESC_AREA);
        table[i] = (struct split_desc){addr, len, flags, next};
        return;
    }
    struct packed_desc *ring = rig_at(rig, DESC_AREA);
    uint32_t at = rig->avail + i;
    bool wrap = rig->wrap;
    if (at >= rig->config.size) {
        at -= rig->config.size;
        wrap = !wrap;
    }
    // The head becomes available in rig_offer().
    uint16_t bits = i ? available_bits(wrap) : available_bits(!wrap);
    ring[at] = (struct packed_desc){addr, len, id, (uint16_t)(flags | bits)};
}

void rig_put_entry(struct rig *rig, uint64_t table, uint32_t i, uint64_t addr, uint32_t len,
                   uint16_t flags, uint16_t next)
{
    if (rig->is_packed) {
        struct packed_desc *entries = rig_at(rig, table);
        entries[i] = (struct packed_desc){addr, len, 0, flags & (uint16_t)~RIG_NEXT};
    } else {
        struct split_desc *entries = rig_at(rig, table);
        entries[i] = (struct split_desc){addr, len, flags, next};
    }
}

void rig_offer(struct rig *rig, uint16_t head, uint32_t n)
{
    if (!rig->is_packed) {
        struct split_avail *avail = rig_at(rig, DRIVER_AREA);
        avail->ring[rig->avail % rig->config.size] = head;
        guest_store16_release(&avail->idx, ++rig->avail);
        return;
    }
    struct packed_desc *ring = rig_at(rig, DESC_AREA);
    ring[rig->avail].flags ^= PACKED_DESC_AVAIL | PACKED_DESC_USED;
    rig->avail = (uint16_t)(rig->avail + n);
    if (rig->avail >= rig->config.size) {
        rig->avail = (uint16_t)(rig->avail - rig->config.size);
        rig->wrap = !rig->wrap;
    }
}

void rig_offer_simple(struct rig *rig, uint16_t id)
{
    rig_put(rig, rig->is_packed ? 0 : id, RIG_BUFFER, 64, RIG_WRITE, 0, id);
    rig_offer(rig, id, 1);
}

void rig_jump(struct rig *rig, uint16_t distance)
{
    struct split_avail *avail = rig_at(rig, DRIVER_AREA);
    avail->idx = (uint16_t)(avail->idx + distance);
}

struct chain *rig_pop(struct rig *rig)
{
    struct chain *c = NULL;
    return ring_pop(&rig->ring, &c, 1) ? c : NULL;
}

static bool is_used(const struct packed_desc *d, bool wrap)
{
    return !!(d->flags & PACKED_DESC_AVAIL) == wrap && !!(d->flags & PACKED_DESC_USED) == wrap;
}

uint32_t rig_n_used(struct rig *rig)
{
    if (!rig->is_packed)
        return ((struct split_used *)rig_at(rig, DEVICE_AREA))->idx;
    const struct packed_desc *ring = rig_at(rig, DESC_AREA);
    uint32_t n = 0;
    while (n < rig->config.size && is_used(&ring[n], true))
        n++;
    return n;
}

void rig_used(struct rig *rig, uint32_t i, uint32_t *id, uint32_t *len)
{
    if (rig->is_packed) {
        const struct packed_desc *ring = rig_at(rig, DESC_AREA);
        *id = ring[i].id;
        *len = ring[i].len;
    } else {
        const struct split_used *used = rig_at(rig, DEVICE_AREA);
        *id = used->ring[i % rig->config.size].id;
        *len = used->ring[i % rig->config.size].len;
    }
}
