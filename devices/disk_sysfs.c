// SPDX-License-Identifier: Apache-2.0
#include "devices/disk_sysfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define LINE_MAX_BYTES 64

int disk_sysfs_open(dev_t device)
{
    char path[64];
    snprintf(path, sizeof(path), "/sys/dev/block/%u:%u", major(device), minor(device));
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (faccessat(fd, "partition", F_OK, 0))
        return fd;
    int disk = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int code = errno;
    close(fd);
    return disk < 0 ? -code : disk;
}

static bool read_line(int folder, const char *name, char text[LINE_MAX_BYTES])
{
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, LINE_MAX_BYTES - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    return n > 0;
}

// eMMC and UFS tell "0x01 0x02" for cells of type A and B, and "0x01" for the reserve.
static bool read_lifetime(int folder, struct virtio_blk_lifetime *out)
{
    char text[LINE_MAX_BYTES], *end = text;
    *out = (struct virtio_blk_lifetime){0};
    if (read_line(folder, "device/life_time", text)) {
        unsigned long a = strtoul(text, &end, 16), b = strtoul(end, NULL, 16);
        out->device_lifetime_est_typ_a = (uint16_t)(a <= 11 ? a : 0);
        out->device_lifetime_est_typ_b = (uint16_t)(b <= 11 ? b : 0);
    }
    if (read_line(folder, "device/pre_eol_info", text)) {
        unsigned long info = strtoul(text, NULL, 16);
        out->pre_eol_info = (uint16_t)(info <= 3 ? info : 0);
    }
    return out->device_lifetime_est_typ_a || out->device_lifetime_est_typ_b || out->pre_eol_info;
}

void disk_sysfs_read(int folder, struct disk_sysfs *out)
{
    char text[LINE_MAX_BYTES];
    *out = (struct disk_sysfs){0};
    if (read_line(folder, "queue/discard_granularity", text))
        out->discard_bytes = (uint32_t)strtoul(text, NULL, 10);
    if (read_line(folder, "queue/zoned", text))
        out->is_host_managed = strncmp(text, "host-managed", strlen("host-managed")) == 0;
    out->has_lifetime = read_lifetime(folder, &out->lifetime);
}
