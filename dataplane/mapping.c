// SPDX-License-Identifier: Apache-2.0
#include "dataplane/mapping.h"

#include "dataplane/guard.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

// Only for the sentence; what is not here is shown as a number.
static const struct {
    uint32_t magic;
    const char *name;
} file_systems[] = {
    {EXT4_SUPER_MAGIC, "ext4"},   {XFS_SUPER_MAGIC, "XFS"},   {BTRFS_SUPER_MAGIC, "btrfs"},
    {FUSE_SUPER_MAGIC, "FUSE"},   {NFS_SUPER_MAGIC, "NFS"},   {OVERLAYFS_SUPER_MAGIC, "overlay"},
    {PIPEFS_MAGIC, "a pipe"},     {SOCKFS_MAGIC, "a socket"}, {ANON_INODE_FS_MAGIC, "no file"},
    {PROC_SUPER_MAGIC, "procfs"}, {SYSFS_MAGIC, "sysfs"},
};

static int refuse_file_system(uint32_t magic, const char *what, struct error *e)
{
    static const char accepted[] = "only tmpfs, memfd and hugetlbfs are accepted";
    for (size_t i = 0; i < ARRAY_LEN(file_systems); i++) {
        if (file_systems[i].magic == magic)
            return error_set(e, EINVAL, "%s: the descriptor is of %s; %s", what,
                             file_systems[i].name, accepted);
    }
    return error_set(e, EINVAL, "%s: the descriptor is of file system 0x%" PRIx32 "; %s", what,
                     magic, accepted);
}

// Whether @fd may be mapped. Its pages and its length come back.
static int check_file(int fd, uint64_t *page_bytes, uint64_t *file_bytes, const char *what,
                      struct error *e)
{
    struct statfs fs;
    struct stat st;
    if (fstatfs(fd, &fs) < 0 || fstat(fd, &st) < 0)
        return error_set(e, errno, "%s: the descriptor: %s", what, strerror(errno));

    uint32_t magic = (uint32_t)fs.f_type;
    if (magic != TMPFS_MAGIC && magic != HUGETLBFS_MAGIC)
        return refuse_file_system(magic, what, e);
    // Devices in /dev are on a tmpfs too.
    if (!S_ISREG(st.st_mode))
        return error_set(e, EINVAL, "%s: the descriptor is not a regular file", what);

    *page_bytes = magic == HUGETLBFS_MAGIC ? (uint64_t)fs.f_bsize : (uint64_t)getpagesize();
    *file_bytes = (uint64_t)st.st_size;
    return 0;
}

static int check_range(uint64_t offset, uint64_t bytes, uint64_t file_bytes, const char *what,
                       struct error *e)
{
    uint64_t end;
    if (bytes == 0)
        return error_set(e, EINVAL, "%s: its size is 0", what);
    if (__builtin_add_overflow(offset, bytes, &end) || end > file_bytes)
        return error_set(e, EINVAL,
                         "%s: 0x%" PRIx64 " bytes from offset 0x%" PRIx64
                         " are not in a file of 0x%" PRIx64 " bytes",
                         what, bytes, offset, file_bytes);
    return 0;
}

int mapping_open(struct mapping *m, int fd, uint64_t offset, uint64_t bytes, atomic_bool *failed,
                 const char *what, struct error *e)
{
    uint64_t page_bytes = 0, file_bytes = 0;
    int err = check_file(fd, &page_bytes, &file_bytes, what, e);
    if (!err)
        err = check_range(offset, bytes, file_bytes, what, e);
    if (err)
        return err;
    assert(is_power_of_two(page_bytes));

    // hugetlbfs wants whole huge pages here, and again when the guard maps over them.
    uint64_t skip = offset % page_bytes;
    uint64_t base_bytes = (skip + bytes + page_bytes - 1) / page_bytes * page_bytes;
    void *base = mmap(NULL, base_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
                      (off_t)(offset - skip));
    if (base == MAP_FAILED)
        return error_set(e, errno, "%s: cannot map 0x%" PRIx64 " bytes: %s", what, base_bytes,
                         strerror(errno));
    madvise(base, base_bytes, MADV_DONTDUMP); // a guest's secrets stay out of our core dumps

    int guard = guard_add(base, base_bytes, failed);
    if (guard < 0) {
        munmap(base, base_bytes);
        return error_set(e, -guard, "%s: over %d mappings in this process", what, GUARD_MAX);
    }
    *m = (struct mapping){
        .at = (uint8_t *)base + skip, .base = base, .base_bytes = base_bytes, .guard = guard};
    return 0;
}

void mapping_close(struct mapping *m)
{
    guard_remove(m->guard);
    munmap(m->base, m->base_bytes);
    m->at = NULL;
}
