// SPDX-License-Identifier: Apache-2.0
// A driver that turned its disk's cache off has each write stable, also from a daemon that was
// started again and never heard of it. What is stable is seen by a disk behind the image, which
// logs each flush that reaches it.
#include "tests/check.h"
#include "tests/daemon.h"
#include "tests/disk_folder.h"
#include "tests/fuse_disk.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CACHE (VIRTIO_BIT(VIRTIO_BLK_F_FLUSH) | VIRTIO_BIT(VIRTIO_BLK_F_CONFIG_WCE))

struct stage {
    struct daemon daemon;
    pid_t server; // of the image
    struct guest_disk *disk;
    struct guest_request request;
};

// Flushes that have reached the disk behind.
static unsigned n_flushes(void)
{
    char line[512];
    unsigned n = 0;
    FILE *f = fopen("log", "re");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f))
        n += strstr(line, " Flush ") != NULL;
    fclose(f);
    return n;
}

static void open_stage(struct stage *s, uint64_t features)
{
    struct error e;
    char line[PATH_MAX + 16], folder[PATH_MAX];
    static const char *const filter[] = {"--filter=log", "logfile=log", NULL};
    unlink("log");
    s->server = fuse_disk_start("image", filter);
    assert_non_null(getcwd(folder, sizeof(folder)));
    snprintf(line, sizeof(line), "file=%s/image", folder);
    daemon_open(&s->daemon);
    daemon_add_disk(&s->daemon, "d", line);
    daemon_start(&s->daemon);
    s->disk = daemon_connect(&s->daemon, "d", features, 1, 1, 0);
    assert_int_equal(s->disk->frontend->features & CACHE, CACHE);
    check_ok(guest_request_open(&s->request, 1, s->disk->guest, 4096, &e), &e);
}

static void close_stage(struct stage *s)
{
    guest_request_close(&s->request, 1);
    guest_disk_close(s->disk);
    daemon_stop(&s->daemon);
    daemon_close(&s->daemon);
    fuse_disk_stop(s->server);
}

static void request(struct stage *s, uint32_t type, uint32_t bytes)
{
    struct error e;
    guest_request_prepare(&s->request, type, 8, bytes, GUEST_REQUEST_DIRECT);
    if (guest_disk_run(s->disk, 0, &s->request, &e) < 0)
        fail_msg("%s", e.text);
    assert_int_equal(*s->request.status, VIRTIO_BLK_S_OK);
}

static void set_cache(struct stage *s, uint8_t writeback)
{
    struct error e;
    uint32_t at = offsetof(struct virtio_blk_config, writeback);
    check_ok(frontend_set_config(s->disk->frontend, at, &writeback, 1, &e), &e);
}

// Whether each of some writes was stable when it came back.
static bool are_stable(struct stage *s)
{
    unsigned n_stable = 0, n = 8;
    for (unsigned i = 0; i < n; i++) {
        unsigned before = n_flushes();
        request(s, VIRTIO_BLK_T_OUT, 4096);
        n_stable += n_flushes() > before;
    }
    assert_true(n_stable == 0 || n_stable == n);
    return n_stable == n;
}

static void start_again(struct stage *s)
{
    struct error e;
    daemon_kill(&s->daemon);
    daemon_start_again(&s->daemon);
    check_ok(guest_disk_reconnect(s->disk, &e), &e);
}

static void a_cache_that_is_off_stays_off(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(rig_layouts); l++) {
        static struct stage s;
        open_stage(&s, rig_layouts[l] | CACHE);
        assert_int_equal(s.disk->space.writeback, 1);
        assert_false(are_stable(&s));
        set_cache(&s, 0);
        assert_true(are_stable(&s));
        start_again(&s);
        assert_true(are_stable(&s)); // nobody told it
        start_again(&s);
        assert_true(are_stable(&s));
        set_cache(&s, 1);
        assert_false(are_stable(&s));
        close_stage(&s);
    }
}

// A driver that flushes has its cache again, once it has shown that.
static void a_cache_that_is_on_comes_back(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(rig_layouts); l++) {
        static struct stage s;
        open_stage(&s, rig_layouts[l] | CACHE);
        assert_false(are_stable(&s));
        start_again(&s);
        assert_true(are_stable(&s));
        unsigned before = n_flushes();
        request(&s, VIRTIO_BLK_T_FLUSH, 0);
        assert_true(n_flushes() > before);
        assert_false(are_stable(&s));
        close_stage(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cache_that_is_off_stays_off),
        cmocka_unit_test(a_cache_that_is_on_comes_back),
    };
    return cmocka_run_group_tests_name("blk_cache", tests, disk_folder_enter, disk_folder_leave);
}
