// SPDX-License-Identifier: Apache-2.0
// Theory: a zone's word has its state on top and, below, how many of its sectors were written
// since its last reset. A write moves that count before its data lies in the disk, which is
// right: until a write is back, what is read there is undefined. Sectors above the count are
// unwritten whatever the disk holds, so that a reset has nothing to clear.
//
// Zones that count against a limit are counted where their state is stored, and nowhere else.
#include "devices/disk_zoned.h"

#include <stdlib.h>
#include <string.h>

#define STATE_SHIFT 56

struct zone {
    uint32_t index;
    unsigned state; // VIRTIO_BLK_ZS_
    uint64_t n_written;
    uint64_t start, n_sectors;
};

struct disk_zones *disk_zones_open(const struct disk_zones_config *config)
{
    assert(is_power_of_two(config->zone_sectors) && config->open_max <= DISK_ZONES_OPEN_MAX);
    unsigned shift = (unsigned)__builtin_ctzll(config->zone_sectors);
    uint64_t n = (config->n_sectors + config->zone_sectors - 1) >> shift;
    assert(n && n <= DISK_ZONES_MAX);
    size_t bytes = sizeof(struct disk_zones) + n * sizeof(uint64_t);
    bytes = (bytes + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1);
    struct disk_zones *z = aligned_alloc(CACHE_LINE, bytes);
    if (!z)
        return NULL;
    memset(z, 0, bytes);
    z->config = *config;
    z->zone_shift = shift;
    z->n_zones = (uint32_t)n;
    for (uint32_t i = 0; i < z->n_zones; i++)
        z->zones[i] = (uint64_t)VIRTIO_BLK_ZS_EMPTY << STATE_SHIFT;
    return z;
}

void disk_zones_close(struct disk_zones *z)
{
    free(z);
}

// ---- one zone ----------------------------------------------------------------------------

static struct zone load(const struct disk_zones *z, uint32_t index)
{
    uint64_t word = atomic_load_explicit(&z->zones[index], memory_order_relaxed);
    uint64_t start = (uint64_t)index << z->zone_shift;
    return (struct zone){.index = index,
                         .state = (unsigned)(word >> STATE_SHIFT),
                         .n_written = word & ((UINT64_C(1) << STATE_SHIFT) - 1),
                         .start = start,
                         .n_sectors = MIN(z->config.zone_sectors, z->config.n_sectors - start)};
}

static bool is_open(unsigned state)
{
    return state == VIRTIO_BLK_ZS_IOPEN || state == VIRTIO_BLK_ZS_EOPEN;
}

static bool is_active(unsigned state)
{
    return is_open(state) || state == VIRTIO_BLK_ZS_CLOSED;
}

static void list_open(struct disk_zones *z, uint32_t index)
{
    if (z->config.open_max)
        z->opened[z->n_open] = index;
    z->n_open++;
}

static void unlist_open(struct disk_zones *z, uint32_t index)
{
    z->n_open--;
    if (!z->config.open_max)
        return;
    uint32_t at = 0;
    while (z->opened[at] != index)
        at++;
    memmove(&z->opened[at], &z->opened[at + 1], (z->n_open - at) * sizeof(z->opened[0]));
}

// Store what @next says, and count it.
static void store(struct disk_zones *z, const struct zone *next)
{
    unsigned before = load(z, next->index).state;
    if (is_open(before) && !is_open(next->state))
        unlist_open(z, next->index);
    else if (!is_open(before) && is_open(next->state))
        list_open(z, next->index);
    z->n_active += is_active(next->state);
    z->n_active -= is_active(before);
    uint64_t word = (uint64_t)next->state << STATE_SHIFT | next->n_written;
    atomic_store_explicit(&z->zones[next->index], word, memory_order_relaxed);
}

// "implicitly by the device when another zone is entering": the one that is open longest.
static bool close_another(struct disk_zones *z)
{
    for (uint32_t i = 0; i < z->n_open; i++) {
        struct zone other = load(z, z->opened[i]);
        if (other.state != VIRTIO_BLK_ZS_IOPEN)
            continue;
        other.state = VIRTIO_BLK_ZS_CLOSED;
        store(z, &other);
        return true;
    }
    return false;
}

// Whether a zone in @state may open; another one may be closed for it.
static enum disk_zone_result make_room(struct disk_zones *z, unsigned state)
{
    const struct disk_zones_config *c = &z->config;
    if (!is_active(state) && c->active_max && z->n_active == c->active_max)
        return DISK_ZONE_TOO_MANY_ACTIVE; // also if open ones are too many (5.2.6)
    if (!is_open(state) && c->open_max && z->n_open == c->open_max && !close_another(z))
        return DISK_ZONE_TOO_MANY_OPEN;
    return DISK_ZONE_OK;
}

// ---- reads and writes --------------------------------------------------------------------

// The zone that has all of @n sectors from @sector on. False: there is none.
static bool find(const struct disk_zones *z, uint64_t sector, uint32_t n, struct zone *found)
{
    if (sector >= z->config.n_sectors)
        return false;
    *found = load(z, (uint32_t)(sector >> z->zone_shift));
    return n <= found->n_sectors - (sector - found->start);
}

static enum disk_zone_result write_zone(struct disk_zones *z, struct zone *zone, uint32_t n)
{
    if (n == 0)
        return DISK_ZONE_OK; // and the zone stays as it is
    if (zone->state == VIRTIO_BLK_ZS_FULL || n > zone->n_sectors - zone->n_written)
        return DISK_ZONE_INVALID;
    enum disk_zone_result result = make_room(z, zone->state);
    if (result != DISK_ZONE_OK)
        return result;
    zone->n_written += n;
    if (zone->n_written == zone->n_sectors)
        zone->state = VIRTIO_BLK_ZS_FULL;
    else if (!is_open(zone->state))
        zone->state = VIRTIO_BLK_ZS_IOPEN;
    store(z, zone);
    return DISK_ZONE_OK;
}

enum disk_zone_result disk_zones_write(struct disk_zones *z, uint64_t sector, uint32_t n)
{
    struct zone zone;
    if (!find(z, sector, n, &zone) || zone.state == VIRTIO_BLK_ZS_FULL)
        return DISK_ZONE_INVALID;
    if (sector != zone.start + zone.n_written)
        return DISK_ZONE_UNALIGNED;
    return write_zone(z, &zone, n);
}

enum disk_zone_result disk_zones_append(struct disk_zones *z, uint64_t sector, uint32_t n,
                                        uint64_t *at)
{
    struct zone zone;
    if (!find(z, sector, n, &zone) || sector != zone.start)
        return DISK_ZONE_INVALID;
    *at = zone.start + zone.n_written;
    return write_zone(z, &zone, n);
}

enum disk_zone_result disk_zones_read(const struct disk_zones *z, uint64_t sector, uint32_t n,
                                      uint32_t *n_written)
{
    struct zone zone;
    if (!find(z, sector, n, &zone))
        return DISK_ZONE_INVALID;
    uint64_t skip = sector - zone.start;
    *n_written = skip < zone.n_written ? (uint32_t)MIN(n, zone.n_written - skip) : 0;
    return DISK_ZONE_OK;
}

// ---- commands ----------------------------------------------------------------------------

static enum disk_zone_result open_zone(struct disk_zones *z, struct zone *zone)
{
    if (zone->state == VIRTIO_BLK_ZS_FULL)
        return DISK_ZONE_INVALID;
    enum disk_zone_result result = make_room(z, zone->state);
    if (result != DISK_ZONE_OK)
        return result;
    zone->state = VIRTIO_BLK_ZS_EOPEN;
    store(z, zone);
    return DISK_ZONE_OK;
}

static enum disk_zone_result close_zone(struct disk_zones *z, struct zone *zone)
{
    if (!is_active(zone->state))
        return DISK_ZONE_INVALID;
    zone->state = zone->n_written ? VIRTIO_BLK_ZS_CLOSED : VIRTIO_BLK_ZS_EMPTY;
    store(z, zone);
    return DISK_ZONE_OK;
}

// From every state, as in the standards that the section refers to.
static enum disk_zone_result finish_zone(struct disk_zones *z, struct zone *zone)
{
    zone->state = VIRTIO_BLK_ZS_FULL;
    store(z, zone);
    return DISK_ZONE_OK;
}

static enum disk_zone_result reset_zone(struct disk_zones *z, struct zone *zone)
{
    zone->state = VIRTIO_BLK_ZS_EMPTY;
    zone->n_written = 0;
    store(z, zone);
    return DISK_ZONE_OK;
}

static enum disk_zone_result reset_all(struct disk_zones *z)
{
    for (uint32_t i = 0; i < z->n_zones; i++) {
        struct zone zone = load(z, i);
        if (zone.state != VIRTIO_BLK_ZS_EMPTY)
            reset_zone(z, &zone);
    }
    return DISK_ZONE_OK;
}

enum disk_zone_result disk_zones_command(struct disk_zones *z, uint32_t command, uint64_t sector)
{
    struct zone zone;
    if (command == VIRTIO_BLK_T_ZONE_RESET_ALL)
        return reset_all(z); // the sector is not used (5.2.6)
    if (!find(z, sector, 0, &zone) || sector != zone.start)
        return DISK_ZONE_INVALID;
    switch (command) {
    case VIRTIO_BLK_T_ZONE_OPEN:
        return open_zone(z, &zone);
    case VIRTIO_BLK_T_ZONE_CLOSE:
        return close_zone(z, &zone);
    case VIRTIO_BLK_T_ZONE_FINISH:
        return finish_zone(z, &zone);
    default:
        return reset_zone(z, &zone);
    }
}

void disk_zones_describe(const struct disk_zones *z, uint32_t index,
                         struct virtio_blk_zone_descriptor *out)
{
    struct zone zone = load(z, index);
    bool is_full = zone.state == VIRTIO_BLK_ZS_FULL; // its write pointer says nothing
    *out = (struct virtio_blk_zone_descriptor){
        .z_cap = zone.n_sectors,
        .z_start = zone.start,
        .z_wp = zone.start + (is_full ? zone.n_sectors : zone.n_written),
        .z_type = VIRTIO_BLK_ZT_SWR,
        .z_state = (uint8_t)zone.state,
    };
}
