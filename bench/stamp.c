// SPDX-License-Identifier: Apache-2.0
#include "bench/stamp.h"

#include <errno.h>

#define STAMP_WORDS (STAMP_SECTOR_BYTES / 8 - 3)
#define STAMP_STEP  UINT64_C(0x9e3779b97f4a7c15)
#define STAMP_MAGIC UINT64_C(0x736c756963652121) // zeros are no stamp

struct stamp {
    uint32_t disk;
    uint32_t generation;
    uint64_t sector;
    uint64_t checksum;
    uint64_t pattern[STAMP_WORDS];
};
static_assert(sizeof(struct stamp) == STAMP_SECTOR_BYTES, "one a sector");

static uint64_t checksum(uint32_t disk, uint32_t generation, uint64_t sector)
{
    uint64_t v = (sector + STAMP_MAGIC) * STAMP_STEP ^ ((uint64_t)disk << 32 | generation);
    v = (v ^ v >> 32) * UINT64_C(0xd6e8feb86659fd93);
    return v ^ v >> 32;
}

void stamp_write(void *data, uint32_t bytes, struct stamp_key key)
{
    struct stamp *s = data;
    for (uint32_t i = 0; i < bytes / STAMP_SECTOR_BYTES; i++) {
        uint64_t sum = checksum(key.disk, key.generation, key.sector + i);
        s[i].disk = key.disk;
        s[i].generation = key.generation;
        s[i].sector = key.sector + i;
        s[i].checksum = sum;
        for (unsigned k = 0; k < STAMP_WORDS; k++)
            s[i].pattern[k] = sum + k * STAMP_STEP;
    }
}

static int report(const struct stamp *s, struct stamp_key key, struct error *e)
{
    unsigned long long sector = key.sector;
    if (s->checksum != checksum(s->disk, s->generation, s->sector))
        return error_set(e, EIO, "sector %llu of disk %u (generation %u) holds no stamp: %016llx",
                         sector, key.disk, key.generation, *(const unsigned long long *)s);
    return error_set(e, EIO,
                     "sector %llu of disk %u (generation %u) holds sector %llu of disk %u, "
                     "generation %u",
                     sector, key.disk, key.generation, (unsigned long long)s->sector, s->disk,
                     s->generation);
}

int stamp_check(const void *data, uint32_t bytes, struct stamp_key key, struct error *e)
{
    const struct stamp *s = data;
    for (uint32_t i = 0; i < bytes / STAMP_SECTOR_BYTES; i++, key.sector++) {
        uint64_t sum = checksum(key.disk, key.generation, key.sector);
        uint64_t wrong = (s[i].disk ^ key.disk) | (s[i].generation ^ key.generation) |
                         (s[i].sector ^ key.sector) | (s[i].checksum ^ sum);
        if (wrong)
            return report(&s[i], key, e);
        for (unsigned k = 0; k < STAMP_WORDS; k++)
            wrong |= s[i].pattern[k] ^ (sum + k * STAMP_STEP);
        if (wrong)
            return error_set(e, EIO, "sector %llu of disk %u (generation %u) is torn",
                             (unsigned long long)key.sector, key.disk, key.generation);
    }
    return 0;
}

uint32_t stamp_generation(const void *data)
{
    return ((const struct stamp *)data)->generation;
}
