// SPDX-License-Identifier: Apache-2.0
// What is read of a block device: of a real one, a loop device; and of folders made up to look
// like those of eMMC and zoned disks, which this machine need not have.
#include "devices/disk_sysfs.h"
#include "devices/disk_image.h"
#include "tests/disk_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

// ---- a loop device -----------------------------------------------------------------------

// A loop device over the file @name. Skips, and says so, where there is none to be had.
static int make_loop(const char *name, char path[32])
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
    if (control >= 0)
        close(control);
    snprintf(path, 32, "/dev/loop%d", number);
    int file = open(name, O_RDWR | O_CLOEXEC);
    int loop = number < 0 ? -1 : open(path, O_RDWR | O_CLOEXEC);
    int err = loop < 0 ? -1 : ioctl(loop, LOOP_SET_FD, file);
    close(file);
    if (err) {
        print_message("skipped: no loop device can be had here: %s\n", strerror(errno));
        if (loop >= 0)
            close(loop);
        skip();
    }
    return loop;
}

// The discards of a loop device are those of its file: whole blocks of the file system.
static void limits_are_those_of_the_device(void **state)
{
    (void)state;
    char path[32], line[64], granularity[64] = "";
    disk_make_file("image", 8 << 20);
    int loop = make_loop("image", path);
    struct stat st;
    assert_int_equal(fstat(loop, &st), 0);
    int folder = disk_sysfs_open(st.st_rdev);
    assert_true(folder >= 0);
    int file = openat(folder, "queue/discard_granularity", O_RDONLY | O_CLOEXEC);
    assert_true(file >= 0 && read(file, granularity, sizeof(granularity) - 1) > 0);
    close(file);

    struct disk_sysfs facts;
    disk_sysfs_read(folder, &facts);
    close(folder);
    assert_int_equal(facts.discard_bytes, strtoul(granularity, NULL, 10));
    assert_false(facts.is_host_managed);
    assert_false(facts.has_lifetime);

    struct error e;
    struct device *d;
    snprintf(line, sizeof(line), "file=%s", path);
    check_ok(disk_open_line(&d, &e, line), &e);
    struct virtio_blk_config config;
    memcpy(&config, d->config, sizeof(config));
    assert_int_equal(config.capacity, 16384);
    assert_int_equal(config.discard_sector_alignment, MAX(facts.discard_bytes, 512) / 512);
    assert_false(d->features & VIRTIO_BIT(VIRTIO_BLK_F_LIFETIME));
    device_close(d);
    ioctl(loop, LOOP_CLR_FD);
    close(loop);
}

// ---- made-up folders ---------------------------------------------------------------------

struct folder_case {
    const char *life_time, *pre_eol_info, *zoned, *granularity; // NULL: no such file
    struct disk_sysfs facts;
};

static const struct folder_case cases[] = {
    {NULL, NULL, "none\n", "0\n", {0}},
    {NULL, NULL, NULL, NULL, {0}},
    {"0x01 0x02\n", "0x01\n", "none\n", "4096\n", {4096, false, true, {1, 1, 2}}},
    {"0x0b 0x0a\n", "0x03\n", "none\n", "512\n", {512, false, true, {3, 11, 10}}},
    {"0x00 0x00\n", "0x00\n", "none\n", "512\n", {512, false, false, {0, 0, 0}}},
    {"0x0c 0xff\n", "0x04\n", "none\n", "512\n", {512, false, false, {0, 0, 0}}}, // reserved
    {"0x05 0x0c\n", NULL, "none\n", "512\n", {512, false, true, {0, 5, 0}}},
    {"", "x\n", "", "", {0}},
    {NULL, NULL, "host-managed\n", "0\n", {0, true, false, {0, 0, 0}}},
    {NULL, NULL, "host-aware\n", "0\n", {0, false, false, {0, 0, 0}}},
};

static void make_line(const char *name, const char *text)
{
    unlink(name);
    if (!text)
        return;
    FILE *f = fopen(name, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    fclose(f);
}

static void what_is_unknown_is_nothing(void **state)
{
    (void)state;
    mkdir("device", 0700);
    mkdir("queue", 0700);
    int folder = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        const struct folder_case *c = &cases[i];
        make_line("device/life_time", c->life_time);
        make_line("device/pre_eol_info", c->pre_eol_info);
        make_line("queue/zoned", c->zoned);
        make_line("queue/discard_granularity", c->granularity);
        struct disk_sysfs facts;
        disk_sysfs_read(folder, &facts);
        assert_int_equal(facts.discard_bytes, c->facts.discard_bytes);
        assert_int_equal(facts.is_host_managed, c->facts.is_host_managed);
        assert_int_equal(facts.has_lifetime, c->facts.has_lifetime);
        assert_memory_equal(&facts.lifetime, &c->facts.lifetime, sizeof(facts.lifetime));
    }
    close(folder);
    assert_true(disk_sysfs_open(0) < 0);
}

// ---- the request -------------------------------------------------------------------------

// As much of it as there is room for.
static void the_driver_asks_for_the_lifetime(void **state)
{
    (void)state;
    static const struct {
        uint32_t n_in, used;
    } sizes[] = {{6, 7}, {5, 6}, {0, 1}, {20, 6}};
    static const struct virtio_blk_lifetime lifetime = {1, 2, 3};
    disk_make_file("image", 1 << 20);
    for (unsigned i = 0; i < disk_n_shapes; i++) {
        struct disk_rig d;
        disk_open_rig(&d, "image", rig_layouts[i % 2] | VIRTIO_BIT(VIRTIO_BLK_F_LIFETIME));
        ((struct disk_queue *)d.rig.queue->priv)->disk->lifetime = lifetime;
        for (unsigned k = 0; k < ARRAY_LEN(sizes); k++) {
            struct disk_call c = {.type = VIRTIO_BLK_T_GET_LIFETIME,
                                  .n_in = sizes[k].n_in,
                                  .n_header = 16,
                                  .has_status = true};
            assert_int_equal(disk_rig_run(&d, &disk_shapes[i], &c, 1), 1);
            assert_int_equal(c.status, VIRTIO_BLK_S_OK);
            assert_int_equal(c.used, sizes[k].used);
            assert_memory_equal(c.in, &lifetime, MIN(sizes[k].n_in, sizeof(lifetime)));
        }
        disk_rig_close(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits_are_those_of_the_device),
        cmocka_unit_test(what_is_unknown_is_nothing),
        cmocka_unit_test(the_driver_asks_for_the_lifetime),
    };
    return cmocka_run_group_tests_name("disk_sysfs", tests, disk_folder_enter, disk_folder_leave);
}
