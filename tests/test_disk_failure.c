// SPDX-License-Identifier: Apache-2.0
#include "tests/disk_folder.h"
#include "tests/fuse_disk.h"

#include <string.h>
#include <unistd.h>

enum { OK = VIRTIO_BLK_S_OK, IOERR = VIRTIO_BLK_S_IOERR };

// ---- failing ones ------------------------------------------------------------------------

// A sparse image of 4 MiB meets the end of its file system; what is there stays readable.
static void a_full_file_system_is_an_error(void **state)
{
    (void)state;
    disk_mount("small", "tmpfs", "size=1M");
    enum { BYTES = 49152, N = (4 << 20) / BYTES };
    static uint8_t data[BYTES], found[BYTES];
    struct disk_rig d;
    int statuses[N], n_failed = 0;
    disk_make_file("small/image", 4 << 20);
    disk_rig_open(&d, "disk d socket=/unused file=small/image", rig_layouts[1]);
    for (unsigned i = 0; i < N; i++) {
        disk_pattern(data, BYTES, i * (BYTES / 512), 3);
        statuses[i] = disk_rig_write(&d, i * (BYTES / 512), data, BYTES);
        n_failed += statuses[i] == IOERR;
        assert_in_range(statuses[i], OK, IOERR);
    }
    assert_in_range(n_failed, N / 2, N - 10);
    for (unsigned i = 0; i < N; i++) {
        if (statuses[i] != OK)
            continue;
        disk_pattern(data, BYTES, i * (BYTES / 512), 3);
        assert_int_equal(disk_rig_read(&d, i * (BYTES / 512), found, BYTES), OK);
        assert_memory_equal(found, data, BYTES);
    }
    assert_int_equal(disk_rig_flush(&d), OK);
    disk_rig_close(&d);
    disk_unmount("small");
}

// The guest's memory went away under a request: the kernel says EFAULT.
static void truncated_guest_memory_is_an_error(void **state)
{
    (void)state;
    disk_make_file("image", 1 << 20);
    for (unsigned l = 0; l < ARRAY_LEN(rig_layouts); l++) {
        struct disk_rig d;
        disk_rig_open(&d, "disk d socket=/unused file=image", rig_layouts[l]);
        struct guest *g = d.rig.guest;
        uint64_t kept = g->regions[0].bytes - 65536;
        struct virtio_blk_req_header *header = (void *)d.arena;
        uint8_t *status = d.arena + 64;
        assert_int_equal(ftruncate(g->regions[0].fd, (off_t)kept), 0);
        for (unsigned type = VIRTIO_BLK_T_IN; type <= VIRTIO_BLK_T_OUT; type++) {
            *header = (struct virtio_blk_req_header){.type = type, .sector = 8};
            *status = DISK_CANARY;
            struct driver_segment segments[] = {{guest_addr(g, header), 16},
                                                {g->first_addr + kept, 4096},
                                                {guest_addr(g, status), 1}};
            bool is_in = type == VIRTIO_BLK_T_IN;
            struct driver_chain chain = {.segments = segments,
                                         .n_out = is_in ? 1 : 2,
                                         .n_in = is_in ? 2 : 1,
                                         .n_direct = 3,
                                         .in_bytes = is_in ? 4097 : 1};
            struct driver_chain *chains[] = {&chain};
            uint32_t length;
            assert_int_equal(device_rig_run(&d.rig, chains, &length, 1), 1);
            assert_int_equal(*status, IOERR);
            assert_int_equal(length, is_in ? 0 : 1);
        }
        disk_rig_close(&d);
    }
}

static void eio_is_an_error_and_passes(void **state)
{
    (void)state;
    static uint8_t data[4096], found[4096];
    // Reads and writes fail while the file "broken" exists.
    static const char *const filter[] = {"--filter=error", "error=EIO", "error-rate=100%",
                                         "error-file=broken", NULL};
    pid_t pid = fuse_disk_start("failing", filter);
    struct disk_rig d;
    disk_rig_open(&d, "disk d socket=/unused file=failing", rig_layouts[0]);
    disk_pattern(data, sizeof(data), 8, 1);
    assert_int_equal(disk_rig_write(&d, 8, data, sizeof(data)), OK);
    disk_make_file("broken", 0);
    struct disk_call c = {
        .type = VIRTIO_BLK_T_IN, .sector = 1024, .n_in = 4096, .n_header = 16, .has_status = true};
    assert_int_equal(disk_rig_run(&d, DISK_PLAIN, &c, 1), 1);
    assert_int_equal(c.status, IOERR);
    assert_int_equal(c.used, 0);
    assert_int_equal(disk_rig_write(&d, 8, found, sizeof(found)), IOERR);
    assert_int_equal(unlink("broken"), 0);
    assert_int_equal(disk_rig_write(&d, 512, data, sizeof(data)), OK);
    assert_int_equal(disk_rig_read(&d, 1024, found, sizeof(found)), OK);
    disk_rig_close(&d);
    fuse_disk_stop(pid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_file_system_is_an_error),
        cmocka_unit_test(truncated_guest_memory_is_an_error),
        cmocka_unit_test(eio_is_an_error_and_passes),
    };
    return cmocka_run_group_tests_name("disk_failure", tests, disk_folder_enter, disk_folder_leave);
}
