// SPDX-License-Identifier: Apache-2.0
#include "bench/guest.h"

#include <errno.h>
#include <linux/memfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE_BYTES  (UINT64_C(2) << 20)
#define USER_BASE   UINT64_C(0x5a0000000000)
#define USER_STRIDE (UINT64_C(1) << 32)

static int file_open(const struct guest_layout *l, uint64_t bytes, struct error *e)
{
    int fd = memfd_create("guest", MFD_CLOEXEC | (l->is_huge ? MFD_HUGETLB | MFD_HUGE_2MB : 0));
    if (fd < 0)
        return error_set(e, errno, "cannot create guest memory: %s", strerror(errno));
    if (ftruncate(fd, (off_t)bytes) < 0) {
        int code = errno;
        close(fd);
        return error_set(e, code, "cannot size guest memory: %s", strerror(code));
    }
    return fd;
}

// A descriptor of its own for region @i, and where in it the region begins.
static int region_file(const struct guest *g, const struct guest_layout *l, unsigned i,
                       uint64_t *offset, struct error *e)
{
    *offset = 0;
    if (!l->is_one_file)
        return file_open(l, l->region_bytes, e);
    *offset = i * l->region_bytes;
    if (i == 0)
        return file_open(l, l->n_regions * l->region_bytes, e);
    int fd = dup(g->regions[0].fd);
    return fd < 0 ? error_set(e, errno, "cannot share guest memory: %s", strerror(errno)) : fd;
}

static int region_open(struct guest *g, const struct guest_layout *l, unsigned i, struct error *e)
{
    struct guest_region *r = &g->regions[i];
    r->fd = region_file(g, l, i, &r->file_offset, e);
    if (r->fd < 0)
        return r->fd;
    g->n_regions = i + 1;
    r->bytes = l->region_bytes;
    r->guest_addr = l->first_addr + i * (l->region_bytes + l->hole_bytes);
    r->user_addr = USER_BASE + (l->n_regions - 1 - i) * USER_STRIDE + (i << 16);
    void *p = mmap(guest_host(g, r->guest_addr), r->bytes, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_FIXED, r->fd, (off_t)r->file_offset);
    if (p == MAP_FAILED)
        return error_set(e, errno, "cannot map guest memory: %s", strerror(errno));
    return 0;
}

// Reserve the whole span; holes stay inaccessible.
static int span_reserve(struct guest *g, const struct guest_layout *l, struct error *e)
{
    g->first_addr = l->first_addr;
    g->span_bytes = l->n_regions * (l->region_bytes + l->hole_bytes) + HUGE_BYTES;
    void *p =
        mmap(NULL, g->span_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return error_set(e, errno, "cannot reserve guest memory: %s", strerror(errno));
    uint64_t gap = -(uintptr_t)p & (HUGE_BYTES - 1);
    if (gap)
        munmap(p, gap);
    g->host = (uint8_t *)p + gap;
    g->span_bytes -= gap;
    return 0;
}

int guest_open(struct guest **out, const struct guest_layout *l, struct error *e)
{
    uint64_t align = l->is_huge ? HUGE_BYTES : 4096;
    if (!l->n_regions || l->n_regions > GUEST_REGIONS_MAX || !l->region_bytes ||
        (l->region_bytes | l->hole_bytes) % align || l->region_bytes > USER_STRIDE / 2)
        return error_set(e, EINVAL, "guest memory: 1 to %u regions in units of %llu bytes",
                         GUEST_REGIONS_MAX, (unsigned long long)align);
    struct guest *g = calloc(1, sizeof *g + l->n_regions * sizeof g->regions[0]);
    if (!g)
        return error_set(e, ENOMEM, "no memory for a guest");
    int rc = span_reserve(g, l, e);
    for (unsigned i = 0; rc == 0 && i < l->n_regions; i++)
        rc = region_open(g, l, i, e);
    if (rc < 0) {
        guest_close(g);
        return rc;
    }
    *out = g;
    return 0;
}

void guest_close(struct guest *g)
{
    if (!g)
        return;
    for (unsigned i = 0; i < g->n_regions; i++)
        close(g->regions[i].fd);
    if (g->host)
        munmap(g->host, g->span_bytes);
    free(g);
}

void *guest_alloc_in(struct guest *g, unsigned region, uint64_t bytes, uint64_t align)
{
    struct guest_region *r = &g->regions[region];
    uint64_t start = (r->n_allocated + align - 1) / align * align;
    if (start > r->bytes || bytes > r->bytes - start)
        return NULL;
    r->n_allocated = start + bytes;
    return guest_host(g, r->guest_addr + start);
}

void *guest_alloc(struct guest *g, uint64_t bytes, uint64_t align)
{
    for (unsigned i = 0; i < g->n_regions; i++) {
        unsigned region = (g->next_region + i) % g->n_regions;
        void *p = guest_alloc_in(g, region, bytes, align);
        if (p) {
            g->next_region = (region + 1) % g->n_regions;
            return p;
        }
    }
    return NULL;
}

uint64_t guest_user_addr(const struct guest *g, uint64_t addr)
{
    for (unsigned i = 0; i < g->n_regions; i++) {
        const struct guest_region *r = &g->regions[i];
        if (addr - r->guest_addr < r->bytes)
            return r->user_addr + (addr - r->guest_addr);
    }
    return 0;
}
