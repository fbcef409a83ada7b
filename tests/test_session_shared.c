// SPDX-License-Identifier: Apache-2.0
// A front end that shares what it should not: memory, logs, regions and eventfds of the wrong kind,
// size or place, or that it takes away again. It breaks its own session and nothing else.
#include "tests/session_rig.h"

#include "dataplane/guard.h"
#include "dataplane/log.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/vfs.h>
#include <unistd.h>

#define LOG_ALL VIRTIO_BIT(VHOST_F_LOG_ALL)

static int setup(void **state)
{
    front_setup(state);
    front_negotiate(*state, FRONT_FEATURES, FRONT_PROTOCOL_FEATURES);
    return 0;
}

// ---- row 22: the log ---------------------------------------------------------------------

static void test_log_ranges(void **state)
{
    static const struct {
        uint64_t size, offset;
    } bad[] = {{0, 0},
               {0x1001, 0},
               {0x1000, 1},
               {0x800, 0x801},
               {UINT64_MAX, 0},
               {0x1000, UINT64_MAX},
               {0x1000, UINT64_MAX - 0xfff},
               {UINT64_MAX, 2},
               {UINT64_C(1) << 63, UINT64_C(1) << 63}};
    struct front *r = *state;
    int fd = front_memfd(0x1000);
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
        front_check_ends(r, VHOST_USER_SET_LOG_BASE, &bad[i], 16, &fd, 1);
    close(fd);
}

// ---- row 23: the sizes of the in-flight region -------------------------------------------

static void test_inflight_sizes(void **state)
{
    static const struct vhost_user_inflight bad[] = {
        {0x1000, 0, 0, 16},
        {0x1000, 0, FRONT_QUEUES + 1, 16},
        {0x1000, 0, UINT16_MAX, 16},
        {0x1000, 0, 1, 0},
        {0x1000, 0, 1, RING_SIZE_MAX + 1},
        {0x1000, 0, 1, UINT16_MAX},
        // From here on for SET_INFLIGHT_FD alone.
        {0, 0, 1, 16},
        {0x1001, 0, 1, 16},
        {0x800, 1, 1, 16},
        {0x800, 32, 1, 16},
        {0x1000, UINT64_MAX - 0xfff, 1, 16},
        {UINT64_MAX, 64, 1, 16},
    };
    struct front *r = *state;
    int fd = front_memfd(0x1000);
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        if (i < 6)
            front_check_ends(r, VHOST_USER_GET_INFLIGHT_FD, &bad[i], sizeof(bad[i]), NULL, 0);
        front_check_ends(r, VHOST_USER_SET_INFLIGHT_FD, &bad[i], sizeof(bad[i]), &fd, 1);
    }
    close(fd);
}

// ---- row 25: the memory table ------------------------------------------------------------

static void test_memory_tables(void **state)
{
    static const struct {
        uint32_t n_regions;
        unsigned n_described, n_fds;
    } bad[] = {{1, 1, 0}, {1, 1, 2}, {2, 2, 1}, {2, 1, 2},          {1, 2, 1},
               {8, 8, 7}, {9, 8, 8}, {0, 1, 0}, {0x08000001, 1, 1}, {UINT32_MAX, 8, 8}};
    struct front *r = *state;
    int fds[8];
    for (unsigned i = 0; i < ARRAY_LEN(fds); i++)
        fds[i] = r->memory_fd;
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        struct vhost_user_memory table = {.n_regions = bad[i].n_regions};
        for (unsigned k = 0; k < ARRAY_LEN(table.regions); k++)
            table.regions[k] = (struct vhost_user_region){
                .guest_addr = k * 0x1000, .size = 0x1000, .user_addr = k * 0x1000};
        front_check_ends(r, VHOST_USER_SET_MEM_TABLE, &table, 8 + 32 * bad[i].n_described, fds,
                         bad[i].n_fds);
        table.n_regions = 8;
        assert_int_equal(front_ack(r, VHOST_USER_SET_MEM_TABLE, &table, sizeof(table), fds, 8), 0);
    }
}

// ---- rows 34 and 35: the wrong kind of descriptor ----------------------------------------

static void test_not_an_eventfd(void **state)
{
    struct front *r = *state;
    static const uint32_t requests[] = {VHOST_USER_SET_VRING_KICK, VHOST_USER_SET_VRING_CALL,
                                        VHOST_USER_SET_VRING_ERR};
    int pipe_fds[2], sockets[2];
    assert_int_equal(pipe(pipe_fds), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
    const int bad[] = {pipe_fds[0], pipe_fds[1], sockets[0], r->memory_fd};
    const char *const names[] = {"pipe:", "pipe:", "socket:", "memfd:"};
    for (unsigned k = 0; k < ARRAY_LEN(requests); k++) {
        for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
            uint64_t index = 0;
            front_log_begin();
            assert_int_equal(front_ack(r, requests[k], &index, 8, &bad[i], 1), 1);
            const char *text = front_log_end();
            assert_non_null(strstr(text, names[i]));
            assert_non_null(strstr(text, "not an eventfd"));
            front_log_begin(); // the limit on lines is a session's
            front_do(r, requests[k], &index, 8, &bad[i], 1);
            front_log_end();
            assert_false(front_is_open(r));
            front_next(r);
        }
    }
    assert_int_equal(front_ack(r, VHOST_USER_SET_LOG_FD, NULL, 0, &pipe_fds[0], 1), 1);
    assert_int_equal(front_ack(r, VHOST_USER_SET_BACKEND_REQ_FD, NULL, 0, &pipe_fds[0], 1), 1);
    for (unsigned i = 0; i < 2; i++) {
        close(pipe_fds[i]);
        close(sockets[i]);
    }
}

// Refused in each way that memory can come, and the sentence names the file system.
static void check_memory_refused(struct front *r, int fd, const char *name)
{
    struct vhost_user_memory table = {.n_regions = 1,
                                      .regions = {{.size = 4096, .user_addr = 4096}}};
    struct vhost_user_single_region one = {.region = table.regions[0]};
    struct vhost_user_inflight inflight = {.mmap_size = 4096, .num_queues = 1, .queue_size = 16};
    const struct {
        uint32_t request;
        const void *payload;
        size_t bytes;
    } cases[] = {{VHOST_USER_SET_MEM_TABLE, &table, 40},
                 {VHOST_USER_ADD_MEM_REG, &one, sizeof(one)},
                 {VHOST_USER_SET_INFLIGHT_FD, &inflight, sizeof(inflight)}};
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        front_log_begin();
        uint64_t ack = front_ack(r, cases[i].request, cases[i].payload, cases[i].bytes, &fd, 1);
        const char *text = front_log_end();
        assert_int_equal(ack, 1);
        if (!strstr(text, name) || !strstr(text, "only tmpfs"))
            fail_msg("\"%s\" is not in: %s", name, text);
    }
    struct session_info info;
    session_describe(r->session, &info);
    assert_int_equal(info.n_regions, 0);
    assert_false(info.has_inflight);

    struct vhost_user_log log = {.size = 4096};
    front_log_begin();
    front_do(r, VHOST_USER_SET_LOG_BASE, &log, sizeof(log), &fd, 1);
    assert_non_null(strstr(front_log_end(), name));
    front_next(r);
}

static void test_memory_on_a_file_system(void **state)
{
    struct front *r = *state;
    int fd = open("/proc/self/comm", O_RDWR | O_CLOEXEC); // a regular file, everywhere
    assert_true(fd >= 0);
    check_memory_refused(r, fd, "procfs");
    close(fd);

    struct statfs fs;
    const char *build = getenv("SLUICE_BUILD");
    fd = open(build ? build : ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 1 << 16), 0);
    assert_int_equal(fstatfs(fd, &fs), 0);
    if (fs.f_type == TMPFS_MAGIC)
        print_message("the build folder is on tmpfs: procfs had to do\n");
    else
        check_memory_refused(r, fd, "the descriptor is of ");
    close(fd);
}

// ---- rows 27 and 40: memory, log or in-flight region is truncated ------------------------

static void touch(volatile uint8_t *at)
{
    *at = 1;
}

static void test_truncation(void **state)
{
    struct front *r = *state;
    assert_int_equal(guard_install(), 0); // here: cmocka takes SIGBUS at each test's start
    for (unsigned which = 0; which < 3; which++) {
        int fds[3] = {front_memfd(FRONT_MEMORY_BYTES), front_memfd(0x1000), front_memfd(0x10000)};
        struct vhost_user_log log = {.size = 0x1000};
        struct vhost_user_inflight inflight = {
            .mmap_size = 0x10000, .num_queues = 1, .queue_size = 128};
        struct message m;
        int own = r->memory_fd;
        r->memory_fd = fds[0];
        front_do(r, VHOST_USER_SET_INFLIGHT_FD, &inflight, sizeof(inflight), &fds[2], 1);
        front_do(r, VHOST_USER_SET_LOG_BASE, &log, sizeof(log), &fds[1], 1);
        front_reply(r, VHOST_USER_SET_LOG_BASE, &m);
        front_start(r, FRONT_FEATURES | LOG_ALL, 1);
        r->memory_fd = own;

        struct ring *ring = &r->device.queues[0].ring;
        session_check(r->session, 0);
        assert_true(front_is_open(r));
        assert_int_equal(ftruncate(fds[which], 0), 0);
        touch(which == 0 ? ring->desc : which == 1 ? (void *)ring->log->bits : ring->record);
        session_check(r->session, 100);
        assert_false(front_is_open(r));
        front_next(r);
        for (unsigned i = 0; i < 3; i++)
            close(fds[i]);
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, front_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_log_ranges),     TEST(test_inflight_sizes),          TEST(test_memory_tables),
        TEST(test_not_an_eventfd), TEST(test_memory_on_a_file_system), TEST(test_truncation),
    };
    return cmocka_run_group_tests_name("session_shared", tests, NULL, NULL);
}
