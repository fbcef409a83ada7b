// SPDX-License-Identifier: Apache-2.0
#include "devices/disk.h"
#include "tests/child.h"
#include "tests/disk_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { OK = VIRTIO_BLK_S_OK, IOERR = VIRTIO_BLK_S_IOERR };

static char folder[] = "/tmp/test_disk.XXXXXX"; // the working directory of all tests

static int enter_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) && chmod(folder, 0755) == 0 && chdir(folder) == 0 ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static int leave_folder(void **state)
{
    (void)state;
    return chdir("/") || nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

static void make_file(const char *name, uint64_t bytes)
{
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    close(fd);
}

static int open_line(struct device **out, struct error *e, const char *keys)
{
    char line[512];
    snprintf(line, sizeof(line), "disk d socket=/unused %s", keys);
    return device_from_line(out, line, e);
}

// ---- what is refused, and what is said ---------------------------------------------------

struct refusal {
    const char *keys;
    const char *says[3]; // parts of the sentence
    bool is_user;        // seen by one who may not do everything
};

static const struct refusal refusals[] = {
    {.keys = "file=missing", .says = {"disk d", "file=missing", "no such file"}},
    {.keys = "file=directory", .says = {"file=directory", "directory"}},
    {.keys = "file=directory read-only", .says = {"file=directory", "directory"}},
    {.keys = "file=fifo", .says = {"file=fifo", "neither"}},
    {.keys = "file=fifo read-only", .says = {"file=fifo", "neither"}},
    {.keys = "file=socket", .says = {"file=socket", "neither"}},
    {.keys = "file=/dev/zero", .says = {"file=/dev/zero", "neither"}},
    {.keys = "file=empty", .says = {"file=empty", "0 bytes", "512"}},
    {.keys = "file=short", .says = {"file=short", "511 bytes", "512"}},
    {.keys = "file=taken", .says = {"file=taken", "locked"}},
    {.keys = "file=taken read-only", .says = {"file=taken", "locked"}},
    {.keys = "file=secret", .says = {"file=secret", "permission", "read-only"}, .is_user = true},
    {.keys = "file=hidden read-only", .says = {"file=hidden", "permission"}, .is_user = true},
    {.keys = "ram=1000", .says = {"ram=1000", "multiple of 512"}},
    {.keys = "null=513", .says = {"null=513", "multiple of 512"}},
    {.keys = "ram=1T null=1T", .says = {"ram", "null"}},
    {.keys = "queues=2", .says = {"file", "ram", "null"}},
    {.keys = "ram=1M queues=0", .says = {"queues=0", "256"}},
    {.keys = "ram=1M queues=257", .says = {"queues=257", "256"}},
    {.keys = "ram=1M serial=0123456789012345678901", .says = {"serial", "20"}},
};

static unsigned n_open_files(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void check_refused(const struct refusal *r)
{
    struct error e = {{0}};
    struct device *d;
    bool drops = r->is_user && geteuid() == 0;
    if (drops)
        assert_int_equal(seteuid(65534), 0);
    int err = open_line(&d, &e, r->keys);
    if (drops)
        assert_int_equal(seteuid(0), 0);
    if (err == 0)
        fail_msg("%s: was opened", r->keys);
    for (unsigned i = 0; i < ARRAY_LEN(r->says) && r->says[i]; i++) {
        if (!strstr(e.text, r->says[i]))
            fail_msg("%s: \"%s\" does not say \"%s\"", r->keys, e.text, r->says[i]);
    }
}

static void bad_lines_are_refused(void **state)
{
    (void)state;
    assert_int_equal(mkdir("directory", 0755), 0);
    assert_int_equal(mkfifo("fifo", 0666), 0);
    assert_int_equal(mknod("socket", S_IFSOCK | 0666, 0), 0);
    make_file("empty", 0);
    make_file("short", 511);
    make_file("taken", 4096);
    make_file("secret", 4096);
    make_file("hidden", 4096);
    assert_int_equal(chmod("secret", 0444), 0);
    assert_int_equal(chmod("hidden", 0), 0);
    int taken = open("taken", O_RDONLY | O_CLOEXEC);
    assert_int_equal(flock(taken, LOCK_EX), 0);

    unsigned n_before = n_open_files();
    for (unsigned i = 0; i < ARRAY_LEN(refusals); i++)
        check_refused(&refusals[i]);
    assert_int_equal(n_open_files(), n_before);
    assert_int_not_equal(access("missing", F_OK), 0);
    close(taken);
}

// A writable image belongs to one, a read-only one to all who only read.
static void images_are_locked(void **state)
{
    (void)state;
    struct error e;
    struct device *a, *b;
    make_file("image", 1 << 20);
    check_ok(open_line(&a, &e, "file=image"), &e);
    assert_int_equal(open_line(&b, &e, "file=image"), -EBUSY);
    assert_int_equal(open_line(&b, &e, "file=image read-only"), -EBUSY);
    device_close(a);

    check_ok(open_line(&a, &e, "file=image read-only"), &e);
    check_ok(open_line(&b, &e, "file=image read-only"), &e);
    device_close(a);
    assert_int_equal(open_line(&a, &e, "file=image"), -EBUSY);
    device_close(b);
    check_ok(open_line(&a, &e, "file=image"), &e);
    device_close(a);
}

static void a_tail_below_a_sector_is_not_shown(void **state)
{
    (void)state;
    struct error e;
    struct device *d;
    make_file("tail", 1535);
    check_ok(open_line(&d, &e, "file=tail"), &e);
    struct virtio_blk_config config;
    memcpy(&config, d->config, sizeof(config));
    assert_int_equal(config.capacity, 2);
    device_close(d);
}

// ---- files -------------------------------------------------------------------------------

// What the guest wrote is in the file, at its place, whatever it looks like.
static void writes_are_in_the_file(void **state)
{
    (void)state;
    static uint8_t data[65536], found[65536];
    make_file("image", 1 << 20);
    for (unsigned l = 0; l < ARRAY_LEN(rig_layouts); l++) {
        struct disk_rig d;
        disk_rig_open(&d, "disk d socket=/unused file=image", rig_layouts[l]);
        disk_pattern(data, sizeof(data), 0, l);
        memcpy(data, "QFI\xfb\0\0\0\3", 8); // the header of an image format (never probed)
        assert_int_equal(disk_rig_write(&d, 0, data, sizeof(data)), OK);
        assert_int_equal(disk_rig_flush(&d), OK);
        disk_rig_close(&d);

        int fd = open("image", O_RDONLY | O_CLOEXEC);
        assert_int_equal(pread(fd, found, sizeof(found), 0), sizeof(found));
        close(fd);
        assert_memory_equal(found, data, sizeof(data));
        disk_rig_open(&d, "disk d socket=/unused file=image", rig_layouts[l]);
        memcpy(&found, d.rig.device->config, 8);
        assert_int_equal(found[1], 2048 >> 8); // as large as before
        assert_int_equal(disk_rig_read(&d, 0, found, sizeof(found)), OK);
        assert_memory_equal(found, data, sizeof(data));
        disk_rig_close(&d);
    }
}

// One segment more than a system call takes.
static void more_segments_than_one_call_takes(void **state)
{
    (void)state;
    static const struct disk_shape shape = {"1025 of data", {48, 32, 64}, {33, 32, 64}};
    static uint8_t data[65536];
    make_file("image", 1 << 20);
    for (unsigned l = 0; l < ARRAY_LEN(rig_layouts); l++) {
        struct disk_rig d;
        disk_rig_open(&d, "disk d socket=/unused file=image", rig_layouts[l]);
        disk_pattern(data, sizeof(data), 0, 5 + l);
        struct disk_call c = {.type = VIRTIO_BLK_T_OUT,
                              .sector = 9,
                              .out = data,
                              .n_out = sizeof(data),
                              .n_header = 16,
                              .has_status = true};
        assert_int_equal(disk_rig_run(&d, &shape, &c, 1), 1);
        assert_int_equal(c.chain.n_out, 1025);
        assert_int_equal(c.status, OK);
        c = (struct disk_call){.type = VIRTIO_BLK_T_IN,
                               .sector = 9,
                               .n_in = sizeof(data),
                               .n_header = 16,
                               .has_status = true};
        static const struct disk_shape in = {"header, 1025", {DISK_ALL}, {33, 32, 64}};
        assert_int_equal(disk_rig_run(&d, &in, &c, 1), 1);
        assert_int_equal(c.chain.n_in, 1025);
        assert_int_equal(c.status, OK);
        assert_int_equal(c.used, sizeof(data) + 1);
        assert_memory_equal(c.in, data, sizeof(data));
        disk_rig_close(&d);
    }
}

// An image that somebody cut reads as zeros beyond its end, in any shape.
static void a_cut_image_reads_as_zeros(void **state)
{
    (void)state;
    static uint8_t data[16384], expected[16384];
    for (unsigned i = 0; i < disk_n_shapes; i++) {
        struct disk_rig d;
        make_file("image", 1 << 20);
        disk_rig_open(&d, "disk d socket=/unused file=image", rig_layouts[i % 2]);
        disk_pattern(data, sizeof(data), 0, i);
        assert_int_equal(disk_rig_write(&d, 0, data, sizeof(data)), OK);
        assert_int_equal(truncate("image", 5000), 0);
        memset(expected, 0, sizeof(expected));
        memcpy(expected, data, 5000);
        for (uint64_t sector = 0; sector < 32; sector += 4) {
            struct disk_call c = {.type = VIRTIO_BLK_T_IN,
                                  .sector = sector,
                                  .n_in = 2048,
                                  .n_header = 16,
                                  .has_status = true};
            assert_int_equal(disk_rig_run(&d, &disk_shapes[i], &c, 1), 1);
            assert_int_equal(c.status, OK);
            assert_int_equal(c.used, 2049);
            assert_memory_equal(c.in, expected + sector * 512, 2048);
        }
        // A write beyond the end brings it back.
        assert_int_equal(disk_rig_write(&d, 20, data, 512), OK);
        assert_int_equal(disk_rig_read(&d, 20, expected, 512), OK);
        assert_memory_equal(expected, data, 512);
        disk_rig_close(&d);
    }
}

// What went to the kernel last.
static const struct io_uring_sqe *last_entry(const struct disk_rig *d)
{
    const struct io_uring_sq *sq = &d->rig.lane.uring.ring.sq;
    return &sq->sqes[(sq->sqe_tail - 1) & sq->ring_mask];
}

// 5.2.6.2: whether writes are stable at once depends on what the driver took.
static void without_flush_writes_are_stable(void **state)
{
    (void)state;
    static uint8_t data[8192];
    make_file("image", 1 << 20);
    for (unsigned with_flush = 0; with_flush < 2; with_flush++) {
        struct disk_rig d;
        uint64_t flush = with_flush ? VIRTIO_BIT(VIRTIO_BLK_F_FLUSH) : 0;
        disk_rig_open(&d, "disk d socket=/unused file=image", rig_layouts[0] | flush);
        const struct disk_queue *q = d.rig.queue->priv;
        assert_int_equal(q->is_write_through, !with_flush);
        assert_int_equal(disk_rig_write(&d, 3, data, sizeof(data)), OK);
        assert_int_equal(last_entry(&d)->opcode, IORING_OP_WRITE);
        assert_int_equal(last_entry(&d)->rw_flags, with_flush ? 0 : RWF_DSYNC);
        assert_int_equal(disk_rig_flush(&d), OK);
        assert_int_equal(last_entry(&d)->opcode, IORING_OP_FSYNC);
        disk_rig_close(&d);
    }
}

// ---- discard and write zeroes ------------------------------------------------------------

static const uint64_t range_features =
    VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) | VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES);

static int clear(struct disk_rig *d, uint32_t type, uint64_t sector, uint32_t n, uint32_t flags)
{
    struct virtio_blk_discard_write_zeroes range = {sector, n, flags};
    struct disk_call c = {
        .type = type, .out = (void *)&range, .n_out = 16, .n_header = 16, .has_status = true};
    assert_int_equal(disk_rig_run(d, DISK_PLAIN, &c, 1), 1);
    return c.status;
}

static uint64_t allocated(const char *name)
{
    struct stat st;
    assert_int_equal(stat(name, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

#define FULL (1u << 20)

// An image of FULL bytes, all of them written.
static void open_full(struct disk_rig *d, const char *name, uint64_t features)
{
    static uint8_t data[FULL];
    char line[128];
    make_file(name, FULL);
    snprintf(line, sizeof(line), "disk d socket=/unused file=%s", name);
    disk_rig_open(d, line, features | range_features);
    disk_pattern(data, FULL, 0, 1);
    for (uint32_t at = 0; at < FULL; at += FULL / 2)
        assert_int_equal(disk_rig_write(d, at / 512, data + at, FULL / 2), OK);
    assert_int_equal(disk_rig_flush(d), OK);
}

// The image has data everywhere but for zeros in @n sectors from @sector.
static void check_image(const char *name, uint32_t sector, uint32_t n)
{
    static uint8_t model[FULL], found[FULL];
    disk_pattern(model, FULL, 0, 1);
    memset(model + sector * 512, 0, n * 512);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, found, FULL), FULL);
    close(fd);
    assert_memory_equal(found, model, FULL);
}

static void discarded_space_is_given_back(void **state)
{
    (void)state;
    static const struct {
        uint32_t type, flags;
        bool gives_back;
    } ways[] = {{VIRTIO_BLK_T_DISCARD, 0, true},
                {VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP, true},
                {VIRTIO_BLK_T_WRITE_ZEROES, 0, false}};
    for (unsigned i = 0; i < ARRAY_LEN(ways); i++) {
        struct disk_rig d;
        open_full(&d, "image", rig_layouts[i % 2]);
        uint64_t before = allocated("image");
        assert_in_range(before, FULL, 2 * FULL);
        assert_int_equal(clear(&d, ways[i].type, 512, 1024, ways[i].flags), OK);
        uint64_t after = allocated("image");
        if (ways[i].gives_back)
            assert_in_range(after, 0, before - 1024 * 512);
        else
            assert_int_equal(after, before);
        check_image("image", 512, 1024);
        disk_rig_close(&d);
    }
}

// 5.2.6.2: zeros are a write; a driver without FLUSH has them stable.
static void without_flush_zeros_are_stable(void **state)
{
    (void)state;
    struct disk_rig d;
    open_full(&d, "image", rig_layouts[0]);
    assert_int_equal(clear(&d, VIRTIO_BLK_T_WRITE_ZEROES, 8, 8, 0), OK);
    assert_int_equal(last_entry(&d)->opcode, IORING_OP_FSYNC);
    assert_int_equal(clear(&d, VIRTIO_BLK_T_DISCARD, 16, 8, 0), OK);
    assert_int_equal(last_entry(&d)->opcode, IORING_OP_FALLOCATE);
    disk_rig_close(&d);
    open_full(&d, "image", rig_layouts[0] | VIRTIO_BIT(VIRTIO_BLK_F_FLUSH));
    assert_int_equal(clear(&d, VIRTIO_BLK_T_WRITE_ZEROES, 8, 8, 0), OK);
    assert_int_equal(last_entry(&d)->opcode, IORING_OP_FALLOCATE);
    disk_rig_close(&d);
}

// A private mount of @type at @name, as mount_small() makes one. False: not permitted here.
static bool mount_private(const char *name, const char *type)
{
    assert_true(mkdir(name, 0755) == 0 || errno == EEXIST);
    return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount(type, name, type, 0, NULL) == 0;
}

// tmpfs punches holes but has no ZERO_RANGE; ramfs has neither.
static void a_file_system_without_fallocate_serves_all_the_same(void **state)
{
    (void)state;
    static const struct {
        const char *type;
        bool can_punch;
    } systems[] = {{"tmpfs", true}, {"ramfs", false}};
    for (unsigned i = 0; i < ARRAY_LEN(systems); i++) {
        if (!mount_private("other", systems[i].type)) {
            print_message("skipped: a %s may not be mounted here\n", systems[i].type);
            skip();
        }
        bool can_punch = systems[i].can_punch;
        struct disk_rig d;
        open_full(&d, "other/image", rig_layouts[i]);
        for (unsigned again = 0; again < 2; again++) {
            assert_int_equal(clear(&d, VIRTIO_BLK_T_DISCARD, 0, 64, 0), OK);
            check_image("other/image", 0, can_punch ? 64 : 0);
        }
        assert_int_equal(clear(&d, VIRTIO_BLK_T_WRITE_ZEROES, 0, 80, 1), OK);
        check_image("other/image", 0, 80);
        assert_int_equal(clear(&d, VIRTIO_BLK_T_WRITE_ZEROES, 80, 1001, 0), OK);
        check_image("other/image", 0, 1081);
        assert_int_equal(last_entry(&d)->opcode, IORING_OP_WRITE);
        assert_int_equal(last_entry(&d)->rw_flags, RWF_DSYNC);
        assert_int_equal(clear(&d, VIRTIO_BLK_T_WRITE_ZEROES, 0, 2048, 0), OK);
        check_image("other/image", 0, 2048);
        disk_rig_close(&d);
        assert_int_equal(umount2("other", MNT_DETACH), 0);
    }
}

static void a_queue_changes_lanes_for_ever(void **state)
{
    (void)state;
    static uint8_t data[512];
    struct disk_rig d;
    make_file("image", 1 << 20);
    disk_rig_open(&d, "disk d socket=/unused file=image", rig_layouts[0]);
    struct queue *q = d.rig.queue;
    for (unsigned i = 0; i < URING_FILES_MAX + 10; i++) {
        q->device->type->lane_leave(q);
        assert_int_equal(q->device->type->lane_enter(q), 0);
    }
    assert_int_equal(disk_rig_read(&d, 0, data, sizeof(data)), OK);
    disk_rig_close(&d);
}

// ---- failing ones ------------------------------------------------------------------------

// A tmpfs of 1 MiB that nobody else sees. False: not permitted here.
static bool mount_small(const char *name)
{
    return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("small", name, "tmpfs", 0, "size=1M") == 0;
}

// A sparse image of 4 MiB meets the end of its file system; what is there stays readable.
static void a_full_file_system_is_an_error(void **state)
{
    (void)state;
    assert_int_equal(mkdir("small", 0755), 0);
    if (!mount_small("small")) {
        print_message("skipped: a tmpfs may not be mounted here\n");
        skip();
    }
    enum { BYTES = 49152, N = (4 << 20) / BYTES };
    static uint8_t data[BYTES], found[BYTES];
    struct disk_rig d;
    int statuses[N], n_failed = 0;
    make_file("small/image", 4 << 20);
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
    assert_int_equal(umount2("small", MNT_DETACH), 0); // see file_close()
}

// The guest's memory went away under a request: the kernel says EFAULT.
static void truncated_guest_memory_is_an_error(void **state)
{
    (void)state;
    make_file("image", 1 << 20);
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

// A disk whose reads and writes fail while the file "broken" exists.
static pid_t start_failing_disk(void)
{
    char *const argv[] = {"nbdfuse",
                          "failing",
                          "--command",
                          "nbdkit",
                          "-s",
                          "--exit-with-parent",
                          "--filter=error",
                          "memory",
                          "1M",
                          "error=EIO",
                          "error-rate=100%",
                          "error-file=broken",
                          NULL};
    return child_start(argv);
}

static bool is_served(pid_t pid, const char *path)
{
    time_t deadline = time(NULL) + 60;
    struct stat st;
    while (stat(path, &st) || st.st_size != 1 << 20) {
        if (waitpid(pid, NULL, WNOHANG) == pid || time(NULL) > deadline)
            return false;
        usleep(1000);
    }
    return true;
}

static void eio_is_an_error_and_passes(void **state)
{
    (void)state;
    static uint8_t data[4096], found[4096];
    make_file("failing", 0);
    pid_t pid = start_failing_disk();
    if (!is_served(pid, "failing")) {
        print_message("skipped: nbdfuse and nbdkit are not there, or may not mount\n");
        skip();
    }
    struct disk_rig d;
    disk_rig_open(&d, "disk d socket=/unused file=failing", rig_layouts[0]);
    disk_pattern(data, sizeof(data), 8, 1);
    assert_int_equal(disk_rig_write(&d, 8, data, sizeof(data)), OK);
    make_file("broken", 0);
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
    child_stop(pid, 60); // it unmounts
}

// ---- growing -----------------------------------------------------------------------------

struct growth {
    const char *keys;
    uint64_t file_bytes; // the file "growing" when the resize is asked for
    uint64_t asked;
    uint64_t bytes;      // afterwards; 0: refused
    const char *says[3]; // parts of the sentence
};

static const struct growth growths[] = {
    {"null=1M", 0, 4 << 20, 4 << 20, {NULL}},
    {"null=1M", 0, 1 << 20, 1 << 20, {NULL}},
    {"null=1M", 0, 0, 0, {"disk d", "null", "name the size"}},
    {"null=1M", 0, 512, 0, {"1048576", "512", "only grows"}},
    {"null=1M", 0, (1 << 20) + 100, 0, {"multiple of 512"}},
    {"ram=1M", 0, 8 << 20, 8 << 20, {NULL}},
    {"ram=1M", 0, (8 << 20) + 512, 0, {"8388608", "new disk"}},
    {"ram=1M", 0, 0, 0, {"ram", "name the size"}},
    {"ram=1M", 0, 512, 0, {"only grows"}},
    {"file=growing", 1 << 20, 0, 1 << 20, {NULL}},
    {"file=growing", 3 << 20, 0, 3 << 20, {NULL}},
    {"file=growing", (3 << 20) + 511, 0, 3 << 20, {NULL}},
    {"file=growing", 1 << 20, 5 << 20, 5 << 20, {NULL}},
    {"file=growing", 3 << 20, 2 << 20, 0, {"the file is larger", "leave the size out"}},
    {"file=growing", 1 << 20, 1 << 19, 0, {"only grows"}},
    {"file=growing", 1 << 19, 0, 0, {"524288", "only grows"}},
    {"file=growing", 1 << 20, UINT64_MAX - 511, 0, {"disk d"}},
    {"file=growing read-only", 3 << 20, 0, 3 << 20, {NULL}},
    {"file=growing read-only", 1 << 20, 2 << 20, 0, {"read-only", "leave the size out"}},
};

static uint64_t shown_bytes(const struct device *d)
{
    struct virtio_blk_config config;
    memcpy(&config, d->config, sizeof(config));
    return config.capacity * 512;
}

static void check_growth(const struct growth *g)
{
    struct error e = {{0}};
    struct device *d;
    make_file("growing", 1 << 20);
    assert_int_equal(open_line(&d, &e, g->keys), 0);
    if (g->file_bytes)
        assert_int_equal(truncate("growing", (off_t)g->file_bytes), 0);
    uint64_t bytes = g->asked;
    int err = d->type->resize(d, &bytes, &e);
    assert_int_equal(err == 0, g->bytes != 0);
    if (err == 0)
        assert_int_equal(bytes, g->bytes);
    assert_int_equal(shown_bytes(d), err ? 1 << 20 : g->bytes);
    for (unsigned i = 0; i < ARRAY_LEN(g->says) && g->says[i]; i++) {
        if (!strstr(e.text, g->says[i]))
            fail_msg("%s: \"%s\" does not say \"%s\"", g->keys, e.text, g->says[i]);
    }
    device_close(d);
}

static void disks_only_grow(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(growths); i++)
        check_growth(&growths[i]);
}

// A queue that runs sees the new sectors, and still what was in the old ones.
static void a_running_queue_sees_the_growth(void **state)
{
    static const char *const lines[] = {"disk d socket=/unused ram=1M",
                                        "disk d socket=/unused file=growing"};
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(lines); i++) {
        make_file("growing", 1 << 20);
        struct disk_rig d;
        uint8_t old[512], new[512], got[512];
        disk_rig_open(&d, lines[i], rig_layouts[0]);
        struct device *device = d.rig.device;
        disk_pattern(old, 512, 2047, 1);
        disk_pattern(new, 512, 4095, 2);
        assert_int_equal(disk_rig_write(&d, 2047, old, 512), OK);
        assert_int_equal(disk_rig_write(&d, 2048, new, 512), IOERR);

        struct error e;
        uint64_t bytes = 2 << 20;
        assert_int_equal(device->type->resize(device, &bytes, &e), 0);
        assert_int_equal(disk_rig_write(&d, 4095, new, 512), OK);
        assert_int_equal(disk_rig_write(&d, 4096, new, 512), IOERR);
        assert_int_equal(disk_rig_read(&d, 4095, got, 512), OK);
        assert_memory_equal(got, new, 512);
        assert_int_equal(disk_rig_read(&d, 2047, got, 512), OK);
        assert_memory_equal(got, old, 512);
        disk_rig_close(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_lines_are_refused),
        cmocka_unit_test(images_are_locked),
        cmocka_unit_test(a_tail_below_a_sector_is_not_shown),
        cmocka_unit_test(writes_are_in_the_file),
        cmocka_unit_test(more_segments_than_one_call_takes),
        cmocka_unit_test(a_cut_image_reads_as_zeros),
        cmocka_unit_test(without_flush_writes_are_stable),
        cmocka_unit_test(discarded_space_is_given_back),
        cmocka_unit_test(without_flush_zeros_are_stable),
        cmocka_unit_test(a_file_system_without_fallocate_serves_all_the_same),
        cmocka_unit_test(a_queue_changes_lanes_for_ever),
        cmocka_unit_test(a_full_file_system_is_an_error),
        cmocka_unit_test(truncated_guest_memory_is_an_error),
        cmocka_unit_test(eio_is_an_error_and_passes),
        cmocka_unit_test(disks_only_grow),
        cmocka_unit_test(a_running_queue_sees_the_growth),
    };
    return cmocka_run_group_tests_name("disk", tests, enter_folder, leave_folder);
}
