// SPDX-License-Identifier: Apache-2.0
#include "devices/disk_image.h"

#include "dataplane/log.h"
#include "devices/disk_sysfs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE_CACHE_BYTES 4096 // a write of less reads the page first
#define RANGE_BYTES_MAX  (1u << 31)
#define RANGES_MAX       64

// A lock that is not held keeps no other disk of this process away.
static struct image *open_images;

// ---- sentences ---------------------------------------------------------------------------

static int refuse(const struct image *i, int code, const char *why, struct error *e)
{
    return error_set(e, code, "disk %s: file=%s: %s", i->disk->name, i->path, why);
}

static int refuse_open(const struct image *i, int code, struct error *e)
{
    switch (code) {
    case ENOENT:
        return refuse(i, code, "there is no such file; it is never created here", e);
    case EISDIR:
        return refuse(i, code, "a directory, not an image", e);
    case EACCES:
    case EPERM:
        return refuse(i, code,
                      i->disk->is_read_only
                          ? "no permission to read it"
                          : "no permission to read and write it (or add read-only)",
                      e);
    case EROFS:
        return refuse(i, code, "on a read-only file system (add read-only)", e);
    case ENXIO:
        return refuse(i, code, "neither an image file nor a block device", e);
    default:
        return refuse(i, code, strerror(code), e);
    }
}

// ---- whose it is -------------------------------------------------------------------------

static int lock(struct image *i, int busy, struct error *e)
{
    if (flock(i->fd, (i->disk->is_read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0) {
        i->is_locked = true;
        return 0;
    }
    if (errno == EWOULDBLOCK)
        return refuse(i, busy, "locked: another disk or program uses it", e);
    int code = errno;
    return error_set(e, code, "disk %s: file=%s: cannot lock it: %s", i->disk->name, i->path,
                     strerror(code));
}

static void unlock(struct image *i)
{
    if (i->is_locked)
        flock(i->fd, LOCK_UN); // a worker's io_uring may keep the file for a moment longer
    i->is_locked = false;
}

static int claim(struct image *i, const struct line *l, struct error *e)
{
    for (const struct image *other = open_images; other; other = other->next) {
        bool is_same = other->device == i->device && other->node == i->node;
        if (is_same && !(other->disk->is_read_only && i->disk->is_read_only))
            return error_set(e, EBUSY, "disk %s: file=%s: locked: disk %s uses it", i->disk->name,
                             i->path, other->disk->name);
    }
    bool waits = strcmp(line_text(l, "lock", "add"), "start") == 0;
    int err = waits ? 0 : lock(i, EBUSY, e);
    if (err)
        return err;
    i->next = open_images;
    open_images = i;
    return 0;
}

static void unclaim(struct image *i)
{
    struct image **at = &open_images;
    while (*at != i)
        at = &(*at)->next;
    *at = i->next;
    unlock(i);
}

int image_start(struct image *i, struct error *e)
{
    int err = i->is_locked ? 0 : lock(i, EWOULDBLOCK, e);
    if (!err)
        i->n_started++;
    return err;
}

void image_stop(struct image *i)
{
    if (--i->n_started == 0)
        unlock(i);
}

// ---- how large it is ---------------------------------------------------------------------

static int read_block_device(struct image *i, struct disk *d, uint64_t *bytes)
{
    int logical;
    unsigned physical, optimal;
    if (ioctl(i->fd, BLKGETSIZE64, bytes) || ioctl(i->fd, BLKSSZGET, &logical) ||
        ioctl(i->fd, BLKPBSZGET, &physical) || ioctl(i->fd, BLKIOOPT, &optimal))
        return -errno;
    d->logical_bytes = (uint32_t)logical;
    i->range_align = (uint32_t)logical;
    d->physical_bytes = MAX(physical, (uint32_t)logical);
    d->optimal_bytes = optimal;
    return 0;
}

// 5.2.4: what a driver is told beside sizes.
static int read_facts(const struct image *i, struct disk *d, struct error *e)
{
    struct disk_sysfs facts = {0};
    int folder = disk_sysfs_open(i->device);
    if (folder >= 0) {
        disk_sysfs_read(folder, &facts);
        close(folder);
    }
    if (facts.is_host_managed)
        return refuse(i, EOPNOTSUPP,
                      "has zones itself; only ram= and null= disks are served with "
                      "zones (zoned=)",
                      e);
    d->discard_bytes = facts.discard_bytes;
    d->has_lifetime = facts.has_lifetime;
    d->lifetime = facts.lifetime;
    return 0;
}

static int read_kind(struct image *i, struct disk *d, uint64_t *bytes, struct error *e)
{
    struct stat st;
    if (fstat(i->fd, &st))
        return refuse(i, errno, strerror(errno), e);
    if (S_ISBLK(st.st_mode)) {
        i->device = st.st_rdev;
        int err = read_block_device(i, d, bytes);
        return err ? refuse(i, -err, strerror(-err), e) : read_facts(i, d, e);
    }
    if (S_ISDIR(st.st_mode))
        return refuse(i, EISDIR, "a directory, not an image", e);
    if (!S_ISREG(st.st_mode))
        return refuse(i, EINVAL, "neither an image file nor a block device", e);
    *bytes = (uint64_t)st.st_size;
    i->device = st.st_dev;
    i->node = st.st_ino;
    i->range_align = 1;
    d->logical_bytes = DISK_SECTOR_BYTES;
    d->physical_bytes = PAGE_CACHE_BYTES;
    return 0;
}

static int measure(struct image *i, struct disk *d, struct error *e)
{
    uint64_t bytes = 0;
    int err = read_kind(i, d, &bytes, e);
    if (err)
        return err;
    d->range_bytes = RANGE_BYTES_MAX;
    d->n_ranges = RANGES_MAX;
    d->can_unmap = true;
    d->bytes = bytes - bytes % DISK_SECTOR_BYTES;
    if (d->bytes == 0)
        return error_set(e, EINVAL, "disk %s: file=%s: %llu bytes; a disk has at least %u", d->name,
                         i->path, (unsigned long long)bytes, DISK_SECTOR_BYTES);
    if (d->bytes != bytes)
        log_warning("disk %s: file=%s: the last %u bytes are no whole sector and are not shown",
                    d->name, i->path, (unsigned)(bytes - d->bytes));
    return 0;
}

// What is shown of @size bytes.
static uint64_t whole_blocks(const struct image *i, uint64_t size)
{
    return i->section ? size - size % i->offset_align : size;
}

static int refuse_growth(const struct image *i, int code, const char *why, struct error *e)
{
    return error_set(e, code, "disk %s: %s", i->disk->name, why);
}

// Block devices are grown by what made them, files also by others: those are measured.
int image_grow(struct image *i, uint64_t *bytes, struct error *e)
{
    struct stat st;
    uint64_t size;
    if (fstat(i->fd, &st))
        return refuse_growth(i, errno, strerror(errno), e);
    if (!S_ISBLK(st.st_mode))
        size = (uint64_t)st.st_size;
    else if (ioctl(i->fd, BLKGETSIZE64, &size))
        return refuse_growth(i, errno, strerror(errno), e);

    if (*bytes == 0 || *bytes == size) {
        *bytes = whole_blocks(i, size);
        return 0;
    }
    if (S_ISBLK(st.st_mode))
        return refuse_growth(
            i, EINVAL, "a block device has the size it has: grow it, then leave the size out", e);
    if (*bytes < size)
        return refuse_growth(i, EINVAL, "the file is larger: leave the size out to show all of it",
                             e);
    if (i->disk->is_read_only)
        return refuse_growth(i, EROFS, "it is read-only: grow the file, then leave the size out",
                             e);
    if (*bytes != whole_blocks(i, *bytes))
        return error_set(e, EINVAL, "disk %s: %llu bytes: a multiple of %u, for its direct I/O",
                         i->disk->name, (unsigned long long)*bytes, i->offset_align);
    if (ftruncate(i->fd, (off_t)*bytes))
        return refuse_growth(i, errno, strerror(errno), e);
    return 0;
}

// ---- open and close ----------------------------------------------------------------------

int image_open(struct image **out, struct disk *d, const struct line *l, struct error *e)
{
    struct image *i = calloc(1, sizeof(*i));
    if (!i)
        return error_set(e, ENOMEM, "disk %s: out of memory", d->name);
    i->disk = d;
    i->path = line_text(l, "file", "");
    // O_NONBLOCK: a FIFO must not hold us up.
    int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (d->is_read_only ? O_RDONLY : O_RDWR);
    i->fd = open(i->path, flags);
    int err = i->fd < 0 ? refuse_open(i, errno, e) : 0;
    if (err)
        goto err_free;
    err = measure(i, d, e);
    // O_NONBLOCK is taken back: io_uring would obey it.
    if (!err && fcntl(i->fd, F_SETFL, 0))
        err = refuse(i, errno, strerror(errno), e);
    if (!err)
        err = image_choose_cache(i, d, l, e);
    if (!err)
        err = claim(i, l, e);
    if (err)
        goto err_close;
    *out = i;
    return 0;

err_close:
    free(i->section);
    close(i->fd);
err_free:
    free(i);
    return err;
}

void image_close(struct image *i)
{
    unclaim(i);
    close(i->fd);
    free(i->section);
    free(i);
}
