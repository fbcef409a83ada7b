// SPDX-License-Identifier: Apache-2.0
// disk_image_cache.c - whether an image's data goes past the page cache, and what that asks for.
#include "devices/disk_image.h"

#include "dataplane/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>

// What direct I/O asks for. NULL, or why there is none.
static const char *read_alignment(struct image *i, const struct disk *d)
{
    struct statx st;
    if (statx(i->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st))
        return strerror(errno);
    if (!(st.stx_mask & STATX_DIOALIGN) || !st.stx_dio_offset_align)
        return "its file system has no direct I/O";
    i->memory_align = MAX(st.stx_dio_mem_align, 1);
    i->offset_align = MAX(st.stx_dio_offset_align, DISK_SECTOR_BYTES);
    if (i->memory_align > IMAGE_MEMORY_ALIGN_MAX || i->offset_align > IMAGE_ALIGN_MAX ||
        !is_power_of_two(i->memory_align) || !is_power_of_two(i->offset_align))
        return "its direct I/O asks for blocks of an uncommon size";
    if (!d->is_read_only && d->bytes % i->offset_align)
        return "its size is no multiple of its direct I/O's blocks";
    if (fcntl(i->fd, F_SETFL, O_DIRECT))
        return strerror(errno);
    return NULL;
}

static int set_cache(struct image *i, struct disk *d, const struct line *l, struct error *e)
{
    const char *cache = line_text(l, "cache", "");
    const char *obstacle = strcmp(cache, "buffered") == 0 ? "" : read_alignment(i, d);
    i->is_direct = !obstacle;
    if (i->is_direct) {
        d->physical_bytes = MAX(d->physical_bytes, i->offset_align);
        i->range_align = MAX(i->range_align, i->offset_align);
        return 0;
    }
    i->memory_align = i->offset_align = 1;
    if (strcmp(cache, "direct") == 0)
        return error_set(e, EINVAL,
                         "disk %s: file=%s: cache=direct: %s; cache=buffered goes through the page "
                         "cache",
                         d->name, i->path, obstacle);
    if (*obstacle)
        log_info("disk %s: file=%s: through the page cache: %s", d->name, i->path, obstacle);
    return 0;
}

// io_uring gives every read and write of a file without RWF_NOWAIT to a helper thread.
static bool needs_helpers(const struct image *i)
{
    static _Alignas(IMAGE_MEMORY_ALIGN_MAX) uint8_t block[IMAGE_MEMORY_ALIGN_MAX];
    struct iovec iov = {.iov_base = block, .iov_len = sizeof(block)};
    return preadv2(i->fd, &iov, 1, 0, RWF_NOWAIT) < 0 && errno == EOPNOTSUPP;
}

static int open_section(struct image *i, const struct disk *d, struct error *e)
{
    if (d->is_read_only || i->offset_align <= DISK_SECTOR_BYTES)
        return 0;
    i->section = aligned_alloc(_Alignof(struct section), sizeof(*i->section));
    if (!i->section)
        return error_set(e, ENOMEM, "disk %s: out of memory", d->name);
    memset(i->section, 0, sizeof(*i->section));
    return 0;
}

int image_choose_cache(struct image *i, struct disk *d, const struct line *l, struct error *e)
{
    int err = set_cache(i, d, l, e);
    if (err)
        return err;
    i->is_helped = needs_helpers(i);
    return open_section(i, d, e);
}
