// SPDX-License-Identifier: Apache-2.0
#include "dataplane/mem.h"

#include "dataplane/mapping.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

// The file's identity and the description together say whether two regions are the same.
struct mem_map {
    struct mapping mapping;
    unsigned n_snapshots; // that have it
    atomic_bool failed;
    dev_t dev;
    ino_t ino;
    struct mem_desc desc;
};

static bool is_same_desc(const struct mem_desc *a, const struct mem_desc *b)
{
    return a->guest_addr == b->guest_addr && a->size == b->size && a->user_addr == b->user_addr;
}

static int check_desc(const struct mem_desc *d, struct error *e)
{
    uint64_t end;
    if (__builtin_add_overflow(d->guest_addr, d->size, &end) ||
        __builtin_add_overflow(d->user_addr, d->size, &end) ||
        __builtin_add_overflow(d->mmap_offset, d->size, &end))
        return error_set(e, EINVAL,
                         "memory region 0x%" PRIx64 ": size 0x%" PRIx64 ", user address 0x%" PRIx64
                         " or offset 0x%" PRIx64 " wraps",
                         d->guest_addr, d->size, d->user_addr, d->mmap_offset);
    return 0;
}

// ---- mappings ----------------------------------------------------------------------------

static void map_put(struct mem_map *map)
{
    if (--map->n_snapshots > 0)
        return;
    mapping_close(&map->mapping);
    free(map);
}

// The mapping in @old of the same region of the same file, or NULL. A truncated one reads as
// zeros for good, so it is never taken again.
static struct mem_map *map_find(const struct mem *old, const struct mem_desc *d,
                                const struct stat *st)
{
    const struct mem_region *region = old ? mem_find(old, d->guest_addr) : NULL;
    if (!region)
        return NULL;
    struct mem_map *map = region->map;
    bool is_same = map->dev == st->st_dev && map->ino == st->st_ino &&
                   map->desc.mmap_offset == d->mmap_offset && is_same_desc(&map->desc, d);
    return is_same && !atomic_load_explicit(&map->failed, memory_order_acquire) ? map : NULL;
}

// Find or make the mapping of @d. One is owed to map_put() afterwards.
static int map_get(struct mem_map **out, const struct mem *old, const struct mem_desc *d, int fd,
                   struct error *e)
{
    char what[64];
    struct stat st;
    snprintf(what, sizeof(what), "memory region 0x%" PRIx64, d->guest_addr);
    if (fstat(fd, &st) < 0)
        return error_set(e, errno, "%s: the descriptor: %s", what, strerror(errno));

    struct mem_map *map = map_find(old, d, &st);
    if (map) {
        map->n_snapshots++;
        *out = map;
        return 0;
    }
    map = calloc(1, sizeof(*map));
    if (!map)
        return error_set(e, ENOMEM, "%s: out of memory", what);
    int err = mapping_open(&map->mapping, fd, d->mmap_offset, d->size, &map->failed, what, e);
    if (err) {
        free(map);
        return err;
    }
    map->n_snapshots = 1;
    map->dev = st.st_dev;
    map->ino = st.st_ino;
    map->desc = *d;
    *out = map;
    return 0;
}

// ---- snapshots ---------------------------------------------------------------------------

// An empty snapshot with room for @n regions.
static struct mem *mem_alloc(size_t n, struct error *e)
{
    struct mem *m = calloc(1, sizeof(*m) + n * sizeof(m->regions[0]));
    if (!m)
        error_set(e, ENOMEM, "memory table: out of memory");
    return m;
}

// Put a region where it belongs; it must not overlap another. @m has room.
static int insert(struct mem *m, const struct mem_desc *d, struct mem_map *map, struct error *e)
{
    unsigned i = m->n_regions;
    while (i > 0 && m->regions[i - 1].guest_addr > d->guest_addr)
        i--;
    const struct mem_region *below = i > 0 ? &m->regions[i - 1] : NULL;
    const struct mem_region *above = i < m->n_regions ? &m->regions[i] : NULL;
    if ((below && d->guest_addr - below->guest_addr < below->size) ||
        (above && above->guest_addr - d->guest_addr < d->size))
        return error_set(e, EINVAL, "memory region 0x%" PRIx64 " overlaps another", d->guest_addr);

    memmove(&m->regions[i + 1], &m->regions[i], (m->n_regions - i) * sizeof(m->regions[0]));
    m->regions[i] = (struct mem_region){.guest_addr = d->guest_addr,
                                        .size = d->size,
                                        .user_addr = d->user_addr,
                                        .host = map->mapping.at,
                                        .map = map};
    m->n_regions++;
    return 0;
}

// Check @d, map it and put it into @m.
static int append(struct mem *m, const struct mem *old, const struct mem_desc *d, int fd,
                  struct error *e)
{
    struct mem_map *map = NULL;
    int err = check_desc(d, e);
    if (!err)
        err = map_get(&map, old, d, fd, e);
    if (err)
        return err;
    err = insert(m, d, map, e);
    if (err)
        map_put(map);
    return err;
}

// Copy the regions of @old but the one that @without (may be NULL) describes.
static void copy(struct mem *m, const struct mem *old, const struct mem_desc *without)
{
    for (unsigned i = 0; i < old->n_regions; i++) {
        struct mem_map *map = old->regions[i].map;
        if (without && is_same_desc(&map->desc, without))
            continue;
        map->n_snapshots++;
        m->regions[m->n_regions++] = old->regions[i];
    }
}

int mem_set(struct mem **out, const struct mem *old, const struct mem_desc descs[], const int fds[],
            unsigned n, struct error *e)
{
    if (n > MEM_REGIONS_MAX)
        return error_set(e, EINVAL, "memory table: %u regions; at most %d", n, MEM_REGIONS_MAX);
    struct mem *m = mem_alloc(n, e);
    if (!m)
        return -ENOMEM;
    for (unsigned i = 0; i < n; i++) {
        int err = append(m, old, &descs[i], fds[i], e);
        if (err) {
            mem_free(m);
            return err;
        }
    }
    *out = m;
    return 0;
}

// Whether @old has exactly this region already.
static bool has_region(const struct mem *old, const struct mem_desc *desc, int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && map_find(old, desc, &st);
}

int mem_add(struct mem **out, const struct mem *old, const struct mem_desc *desc, int fd,
            struct error *e)
{
    unsigned n_old = old ? old->n_regions : 0;
    bool is_present = has_region(old, desc, fd);
    if (!is_present && n_old == MEM_REGIONS_MAX)
        return error_set(e, ENOSPC, "memory region 0x%" PRIx64 ": there are %d regions already",
                         desc->guest_addr, MEM_REGIONS_MAX);
    struct mem *m = mem_alloc(n_old + 1, e);
    if (!m)
        return -ENOMEM;
    if (old)
        copy(m, old, NULL);
    int err = is_present ? 0 : append(m, NULL, desc, fd, e);
    if (err) {
        mem_free(m);
        return err;
    }
    *out = m;
    return 0;
}

int mem_remove(struct mem **out, const struct mem *old, const struct mem_desc *desc,
               struct error *e)
{
    struct mem *m = mem_alloc(old ? old->n_regions : 0, e);
    if (!m)
        return -ENOMEM;
    if (old)
        copy(m, old, desc);
    *out = m;
    return 0;
}

int mem_copy(struct mem **out, const struct mem *old, struct error *e)
{
    struct mem *m = mem_alloc(old->n_regions, e);
    if (!m)
        return -ENOMEM;
    copy(m, old, NULL);
    *out = m;
    return 0;
}

void mem_free(struct mem *m)
{
    if (!m)
        return;
    for (unsigned i = 0; i < m->n_regions; i++)
        map_put(m->regions[i].map);
    free(m);
}

bool mem_keeps_all(const struct mem *new, const struct mem *old)
{
    for (unsigned i = 0; old && i < old->n_regions; i++) {
        const struct mem_region *kept = new ? mem_find(new, old->regions[i].guest_addr) : NULL;
        if (!kept || kept->map != old->regions[i].map)
            return false;
    }
    return true;
}

bool mem_is_failed(const struct mem *m)
{
    for (unsigned i = 0; i < m->n_regions; i++) {
        if (atomic_load_explicit(&m->regions[i].map->failed, memory_order_acquire))
            return true;
    }
    return false;
}

// ---- look-ups ----------------------------------------------------------------------------

static const struct mem_region *find_user(const struct mem *m, uint64_t user_addr)
{
    for (unsigned i = 0; i < m->n_regions; i++) {
        if (user_addr - m->regions[i].user_addr < m->regions[i].size)
            return &m->regions[i];
    }
    return NULL;
}

void mem_describe(const struct mem *m, unsigned i, struct mem_desc *desc, uint64_t *device,
                  uint64_t *inode)
{
    const struct mem_map *map = m->regions[i].map;
    *desc = map->desc;
    *device = map->dev;
    *inode = map->ino;
}

bool mem_identify(const struct mem *m, uint64_t user_addr, uint64_t *device, uint64_t *inode)
{
    const struct mem_region *region = find_user(m, user_addr);
    if (!region)
        return false;
    *device = region->map->dev;
    *inode = region->map->ino;
    return true;
}

void *mem_at_user(const struct mem *m, uint64_t user_addr, uint64_t bytes)
{
    for (unsigned i = 0; i < m->n_regions; i++) {
        const struct mem_region *region = &m->regions[i];
        uint64_t offset = user_addr - region->user_addr;
        if (offset < region->size && bytes <= region->size - offset)
            return region->host + offset;
    }
    return NULL;
}

uint64_t mem_guest_addr(const struct mem *m, const void *host)
{
    for (unsigned i = 0; i < m->n_regions; i++) {
        uint64_t offset = (uintptr_t)host - (uintptr_t)m->regions[i].host;
        if (offset < m->regions[i].size)
            return m->regions[i].guest_addr + offset;
    }
    return UINT64_MAX;
}

const struct mem_region *mem_find(const struct mem *m, uint64_t addr)
{
    unsigned low = 0, high = m->n_regions;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        const struct mem_region *region = &m->regions[middle];
        if (addr - region->guest_addr < region->size)
            return region;
        if (addr < region->guest_addr)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}
