// SPDX-License-Identifier: Apache-2.0
#include "tests/disk_folder.h"

#include "devices/blk_request.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/test_disk.XXXXXX";

int disk_folder_enter(void **state)
{
    (void)state;
    return mkdtemp(folder) && chmod(folder, 0755) == 0 && chdir(folder) == 0 ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

int disk_folder_leave(void **state)
{
    (void)state;
    return chdir("/") || nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

void disk_make_file(const char *name, uint64_t bytes)
{
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    close(fd);
}

uint64_t disk_allocated(const char *name)
{
    struct stat st;
    assert_int_equal(stat(name, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

void disk_read_file(const char *name, void *data, uint64_t offset, size_t bytes)
{
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(fd, data, bytes, (off_t)offset), bytes);
    close(fd);
}

int disk_open_line(struct device **out, struct error *e, const char *keys)
{
    char line[512];
    snprintf(line, sizeof(line), "disk d socket=/unused %s", keys);
    return device_from_line(out, line, e);
}

void disk_open_rig(struct disk_rig *d, const char *file, uint64_t features)
{
    char line[512];
    snprintf(line, sizeof(line), "disk d socket=/unused file=%s", file);
    disk_rig_open(d, line, features);
}

struct image *disk_image(const struct device *d)
{
    return ((struct blk *)d->priv)->disk.image;
}

void disk_need_direct(const char *name)
{
    struct statx st;
    assert_int_equal(statx(AT_FDCWD, name, 0, STATX_DIOALIGN, &st), 0);
    if (st.stx_mask & STATX_DIOALIGN && st.stx_dio_offset_align)
        return;
    print_message("skipped: no direct I/O on the file system of /tmp\n");
    skip();
}

void disk_make_coarse(struct device *d, uint32_t block)
{
    struct image *i = disk_image(d);
    i->offset_align = block;
    i->range_align = block;
    i->section = aligned_alloc(_Alignof(struct section), sizeof(*i->section));
    assert_non_null(i->section);
    memset(i->section, 0, sizeof(*i->section));
}

void disk_mount(const char *name, const char *type, const char *options)
{
    assert_true(mkdir(name, 0755) == 0 || errno == EEXIST);
    if (unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
        mount(type, name, type, 0, options) == 0)
        return;
    print_message("skipped: a %s may not be mounted here: %s\n", type, strerror(errno));
    skip();
}

// A worker's io_uring may keep a file for a moment longer than its disk.
void disk_unmount(const char *name)
{
    assert_int_equal(umount2(name, MNT_DETACH), 0);
}

void disk_check_says(const char *what, const char *text, const char *const parts[], unsigned n)
{
    for (unsigned i = 0; i < n && parts[i]; i++) {
        if (!strstr(text, parts[i]))
            fail_msg("%s: \"%s\" does not say \"%s\"", what, text, parts[i]);
    }
}
