// SPDX-License-Identifier: Apache-2.0
#include "tests/disk_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OK = VIRTIO_BLK_S_OK, IOERR = VIRTIO_BLK_S_IOERR };

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
    {.keys = "file=empty lock=now", .says = {"lock=now", "add", "start"}},
    {.keys = "ram=1M lock=start", .says = {"lock=start", "file="}},
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
    int err = disk_open_line(&d, &e, r->keys);
    if (drops)
        assert_int_equal(seteuid(0), 0);
    if (err == 0)
        fail_msg("%s: was opened", r->keys);
    disk_check_says(r->keys, e.text, r->says, ARRAY_LEN(r->says));
}

static void bad_lines_are_refused(void **state)
{
    (void)state;
    assert_int_equal(mkdir("directory", 0755), 0);
    assert_int_equal(mkfifo("fifo", 0666), 0);
    assert_int_equal(mknod("socket", S_IFSOCK | 0666, 0), 0);
    disk_make_file("empty", 0);
    disk_make_file("short", 511);
    disk_make_file("taken", 4096);
    disk_make_file("secret", 4096);
    disk_make_file("hidden", 4096);
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
    disk_make_file("image", 1 << 20);
    check_ok(disk_open_line(&a, &e, "file=image"), &e);
    assert_int_equal(disk_open_line(&b, &e, "file=image"), -EBUSY);
    assert_int_equal(disk_open_line(&b, &e, "file=image read-only"), -EBUSY);
    device_close(a);

    check_ok(disk_open_line(&a, &e, "file=image read-only"), &e);
    check_ok(disk_open_line(&b, &e, "file=image read-only"), &e);
    device_close(a);
    assert_int_equal(disk_open_line(&a, &e, "file=image"), -EBUSY);
    device_close(b);
    check_ok(disk_open_line(&a, &e, "file=image"), &e);
    device_close(a);
}

static int start_queue(struct device *d, unsigned index, struct error *e)
{
    d->queues[index].ring.size = 8; // all that is looked at
    return d->type->queue_start(&d->queues[index], e);
}

// Between the last stop of a queue and the first start the image may go to another daemon.
static void the_lock_is_let_go_while_no_queue_runs(void **state)
{
    (void)state;
    struct error e;
    struct device *d;
    disk_make_file("image", 1 << 20);
    int other = open("image", O_RDONLY | O_CLOEXEC);
    check_ok(disk_open_line(&d, &e, "file=image"), &e);
    assert_int_not_equal(flock(other, LOCK_EX | LOCK_NB), 0);
    check_ok(start_queue(d, 0, &e), &e);
    check_ok(start_queue(d, 1, &e), &e);
    d->type->queue_stop(&d->queues[0]);
    assert_int_not_equal(flock(other, LOCK_EX | LOCK_NB), 0);
    d->type->queue_stop(&d->queues[1]);
    assert_int_equal(flock(other, LOCK_EX | LOCK_NB), 0);

    static const char *const says[] = {"disk d", "file=image", "locked"};
    assert_int_equal(start_queue(d, 0, &e), -EWOULDBLOCK);
    disk_check_says("a start", e.text, says, ARRAY_LEN(says));
    assert_null(d->queues[0].priv);
    assert_int_equal(flock(other, LOCK_UN), 0);
    check_ok(start_queue(d, 0, &e), &e);
    assert_int_not_equal(flock(other, LOCK_EX | LOCK_NB), 0);
    d->type->queue_stop(&d->queues[0]);
    device_close(d);
    close(other);
}

// The other end of a migration opens an image that is still in use.
static void a_lock_can_wait_for_the_start(void **state)
{
    (void)state;
    struct error e;
    struct device *d;
    disk_make_file("image", 1 << 20);
    int other = open("image", O_RDONLY | O_CLOEXEC);
    assert_int_equal(flock(other, LOCK_EX), 0);
    assert_int_equal(disk_open_line(&d, &e, "file=image lock=add"), -EBUSY);
    check_ok(disk_open_line(&d, &e, "file=image lock=start"), &e);
    assert_int_equal(start_queue(d, 0, &e), -EWOULDBLOCK);
    close(other);
    check_ok(start_queue(d, 0, &e), &e);
    d->type->queue_stop(&d->queues[0]);
    device_close(d);
}

// In one daemon the second disk is refused at once, whoever holds the lock now.
static void one_daemon_opens_an_image_once(void **state)
{
    (void)state;
    struct error e;
    struct device *a, *b;
    static const char *const says[] = {"file=./image", "locked", "disk d uses it"};
    disk_make_file("image", 1 << 20);
    check_ok(disk_open_line(&a, &e, "file=image lock=start"), &e);
    assert_int_equal(disk_open_line(&b, &e, "file=./image lock=start"), -EBUSY);
    disk_check_says("the second", e.text, says, ARRAY_LEN(says));
    assert_int_equal(disk_open_line(&b, &e, "file=./image read-only lock=start"), -EBUSY);
    disk_make_file("image2", 1 << 20);
    check_ok(disk_open_line(&b, &e, "file=image2"), &e);
    device_close(b);
    device_close(a);
    check_ok(disk_open_line(&a, &e, "file=image"), &e);
    device_close(a);
}

static void a_tail_below_a_sector_is_not_shown(void **state)
{
    (void)state;
    struct error e;
    struct device *d;
    disk_make_file("tail", 1535);
    check_ok(disk_open_line(&d, &e, "file=tail"), &e);
    struct virtio_blk_config config;
    memcpy(&config, d->config, sizeof(config));
    assert_int_equal(config.capacity, 2);
    device_close(d);
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
    disk_make_file("growing", 1 << 20);
    assert_int_equal(disk_open_line(&d, &e, g->keys), 0);
    if (g->file_bytes)
        assert_int_equal(truncate("growing", (off_t)g->file_bytes), 0);
    uint64_t bytes = g->asked;
    int err = d->type->resize(d, &bytes, &e);
    assert_int_equal(err == 0, g->bytes != 0);
    if (err == 0)
        assert_int_equal(bytes, g->bytes);
    assert_int_equal(shown_bytes(d), err ? 1 << 20 : g->bytes);
    disk_check_says(g->keys, e.text, g->says, ARRAY_LEN(g->says));
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
        disk_make_file("growing", 1 << 20);
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
        cmocka_unit_test(the_lock_is_let_go_while_no_queue_runs),
        cmocka_unit_test(a_lock_can_wait_for_the_start),
        cmocka_unit_test(one_daemon_opens_an_image_once),
        cmocka_unit_test(a_tail_below_a_sector_is_not_shown),
        cmocka_unit_test(disks_only_grow),
        cmocka_unit_test(a_running_queue_sees_the_growth),
    };
    return cmocka_run_group_tests_name("disk_image", tests, disk_folder_enter, disk_folder_leave);
}
