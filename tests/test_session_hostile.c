// SPDX-License-Identifier: Apache-2.0
// A front end that means harm. What it breaks is its own session; nothing leaks.
#include "tests/session_rig.h"

#include "dataplane/guard.h"
#include "dataplane/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/vfs.h>
#include <unistd.h>

#define LOG_ALL VIRTIO_BIT(VHOST_F_LOG_ALL)

static int setup(void **state)
{
    static struct front r;
    front_open(&r);
    front_negotiate(&r, FRONT_FEATURES, FRONT_PROTOCOL_FEATURES);
    *state = &r;
    return 0;
}

static int teardown(void **state)
{
    front_close(*state);
    return 0;
}

// The session ended: another front end comes.
static void next_front(struct front *r)
{
    assert_int_equal(session_state(r->session), SESSION_CLOSED);
    session_free(r->session);
    close(r->socket);
    front_reopen(r);
    front_negotiate(r, FRONT_FEATURES, FRONT_PROTOCOL_FEATURES);
}

static void check_ends(struct front *r, uint32_t request, const void *payload, size_t bytes,
                       const int fds[], unsigned n_fds)
{
    front_do(r, request, payload, bytes, fds, n_fds);
    if (front_is_open(r))
        fail_msg("request %u with %zu bytes and %u descriptors was accepted", request, bytes,
                 n_fds);
    next_front(r);
}

// ---- row 32: sizes, numbers, flags -------------------------------------------------------

// What each request looks like: payload from min to max bytes, descriptors likewise.
static const struct shape {
    uint32_t request;
    unsigned min, max, fds_min, fds_max;
} shapes[] = {
    {VHOST_USER_GET_FEATURES, 0, 0, 0, 0},
    {VHOST_USER_SET_FEATURES, 8, 8, 0, 0},
    {VHOST_USER_SET_OWNER, 0, 0, 0, 0},
    {VHOST_USER_RESET_OWNER, 0, 0, 0, 0},
    {VHOST_USER_SET_MEM_TABLE, 8, 264, 0, 8},
    {VHOST_USER_SET_LOG_BASE, 16, 16, 1, 1},
    {VHOST_USER_SET_LOG_FD, 0, 8, 1, 1},
    {VHOST_USER_SET_VRING_NUM, 8, 8, 0, 0},
    {VHOST_USER_SET_VRING_ADDR, 40, 40, 0, 0},
    {VHOST_USER_SET_VRING_BASE, 8, 8, 0, 0},
    {VHOST_USER_GET_VRING_BASE, 8, 8, 0, 0},
    {VHOST_USER_SET_VRING_KICK, 8, 8, 0, 1},
    {VHOST_USER_SET_VRING_CALL, 8, 8, 0, 1},
    {VHOST_USER_SET_VRING_ERR, 8, 8, 0, 1},
    {VHOST_USER_GET_PROTOCOL_FEATURES, 0, 0, 0, 0},
    {VHOST_USER_SET_PROTOCOL_FEATURES, 8, 8, 0, 0},
    {VHOST_USER_GET_QUEUE_NUM, 0, 0, 0, 0},
    {VHOST_USER_SET_VRING_ENABLE, 8, 8, 0, 0},
    {VHOST_USER_SEND_RARP, 8, 8, 0, 0},
    {VHOST_USER_NET_SET_MTU, 8, 8, 0, 0},
    {VHOST_USER_SET_BACKEND_REQ_FD, 0, 0, 1, 1},
    {VHOST_USER_GET_CONFIG, 12, 268, 0, 0},
    {VHOST_USER_SET_CONFIG, 12, 268, 0, 0},
    {VHOST_USER_GET_INFLIGHT_FD, 20, 24, 0, 0},
    {VHOST_USER_SET_INFLIGHT_FD, 20, 24, 1, 1},
    {VHOST_USER_RESET_DEVICE, 0, 0, 0, 0},
    {VHOST_USER_GET_MAX_MEM_SLOTS, 0, 0, 0, 0},
    {VHOST_USER_ADD_MEM_REG, 40, 40, 1, 1},
    {VHOST_USER_REM_MEM_REG, 40, 40, 0, 1},
    {VHOST_USER_SET_STATUS, 8, 8, 0, 0},
    {VHOST_USER_GET_STATUS, 0, 0, 0, 0},
};

static void test_sizes(void **state)
{
    static const uint8_t zeros[sizeof(union vhost_user_payload) + 8];
    struct front *r = *state;
    int fds[16];
    for (unsigned i = 0; i < ARRAY_LEN(fds); i++)
        fds[i] = r->memory_fd;
    for (unsigned i = 0; i < ARRAY_LEN(shapes); i++) {
        const struct shape *s = &shapes[i];
        if (s->min)
            check_ends(r, s->request, zeros, s->min - 1, fds, s->fds_min);
        check_ends(r, s->request, zeros, s->max + 1, fds, s->fds_min);
        if (s->fds_min)
            check_ends(r, s->request, zeros, s->min, fds, s->fds_min - 1);
        check_ends(r, s->request, zeros, s->min, fds, s->fds_max + 1);
    }
}

static bool is_known(uint32_t request)
{
    for (unsigned i = 0; i < ARRAY_LEN(shapes); i++)
        if (shapes[i].request == request)
            return true;
    return false;
}

// Somebody who asked for an answer is refused; somebody who did not may wait for one for ever.
static void test_unknown_requests(void **state)
{
    struct front *r = *state;
    static const uint32_t far[] = {100, 0x10001, 0x7fffffff, 0x80000001, UINT32_MAX};
    for (unsigned i = 0; i < 60 + ARRAY_LEN(far); i++) {
        uint32_t request = i < 60 ? i : far[i - 60];
        if (is_known(request))
            continue;
        assert_int_equal(front_ack(r, request, "12345678", 8, &r->memory_fd, 1), 1);
        assert_true(front_is_open(r));
        check_ends(r, request, "12345678", 8, &r->memory_fd, 1);
    }
}

static void test_header(void **state)
{
    struct front *r = *state;
    static const uint32_t flags[] = {0, 2, 3, 5, 0x11, 0x80000001};
    for (unsigned i = 0; i < ARRAY_LEN(flags); i++) {
        front_send(r, VHOST_USER_GET_FEATURES, flags[i], NULL, 0, NULL, 0);
        front_run(r);
        assert_false(front_is_open(r));
        next_front(r);
    }
}

// What a protocol feature brings is not there without it.
static void test_needs_protocol_features(void **state)
{
    static const uint32_t requests[] = {
        VHOST_USER_SET_LOG_BASE, VHOST_USER_SET_BACKEND_REQ_FD, VHOST_USER_GET_CONFIG,
        VHOST_USER_SET_CONFIG,   VHOST_USER_GET_INFLIGHT_FD,    VHOST_USER_SET_INFLIGHT_FD,
        VHOST_USER_RESET_DEVICE, VHOST_USER_GET_MAX_MEM_SLOTS,  VHOST_USER_ADD_MEM_REG,
        VHOST_USER_REM_MEM_REG,  VHOST_USER_SET_STATUS,         VHOST_USER_GET_STATUS,
        VHOST_USER_SEND_RARP,    VHOST_USER_NET_SET_MTU,
    };
    struct front *r = *state;
    for (unsigned i = 0; i < ARRAY_LEN(requests); i++) {
        const struct shape *s = shapes;
        while (s->request != requests[i])
            s++;
        uint8_t zeros[64] = {0};
        front_do_u64(r, VHOST_USER_SET_PROTOCOL_FEATURES, VIRTIO_BIT(0));
        front_log_begin();
        front_do(r, s->request, zeros, s->min, &r->memory_fd, s->fds_min);
        assert_non_null(strstr(front_log_end(), "was not negotiated"));
        assert_false(front_is_open(r));
        next_front(r);
    }
}

// A message must be whole in time, however slowly its bytes drip in.
static void test_partial_message(void **state)
{
    struct front *r = *state;
    static const struct vhost_user_header h = {VHOST_USER_SET_FEATURES, VHOST_USER_VERSION, 8};
    for (unsigned n = 1; n < 12; n += 5) {
        session_check(r->session, 10000);
        assert_int_equal(send(r->socket, &h, n, 0), n);
        front_run(r);
        session_check(r->session, 20000); // seen for the first time
        session_check(r->session, 20000 + SESSION_PARTIAL_MS - 1);
        assert_true(front_is_open(r));
        assert_int_equal(send(r->socket, (const char *)&h + n, 1, 0), 1);
        front_run(r);
        session_check(r->session, 20000 + SESSION_PARTIAL_MS);
        assert_false(front_is_open(r));
        next_front(r);
    }
    // One after the other, each in time.
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(send(r->socket, &h, 12, 0), 12);
        front_run(r);
        session_check(r->session, 30000 + i * (SESSION_PARTIAL_MS - 1));
        uint64_t features = FRONT_FEATURES;
        assert_int_equal(send(r->socket, &features, 8, 0), 8);
        front_run(r);
    }
    assert_true(front_is_open(r));
}

static void test_leaves_in_a_message(void **state)
{
    struct front *r = *state;
    unsigned n_fds = front_count_fds();
    front_send(r, VHOST_USER_SET_FEATURES, VHOST_USER_VERSION, "1234", 4, &r->memory_fd, 1);
    shutdown(r->socket, SHUT_WR);
    front_run(r); // too short a payload
    assert_false(front_is_open(r));
    assert_int_equal(front_count_fds(), n_fds);
    next_front(r);
}

// ---- rows 18 and 21: queue sizes and indices ---------------------------------------------

static void test_queue_sizes(void **state)
{
    static const uint32_t bad[] = {0, RING_SIZE_MAX + 1, 0x10000, 0x80000000, UINT32_MAX};
    struct front *r = *state;
    struct vhost_user_vring_state s = {0, 0};
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        s.num = bad[i];
        assert_int_equal(front_ack(r, VHOST_USER_SET_VRING_NUM, &s, sizeof(s), NULL, 0), 1);
    }
    s.num = RING_SIZE_MAX;
    assert_int_equal(front_ack(r, VHOST_USER_SET_VRING_NUM, &s, sizeof(s), NULL, 0), 0);
    front_start(r, FRONT_FEATURES, 1);
    s.num = 64;
    assert_int_equal(front_ack(r, VHOST_USER_SET_VRING_NUM, &s, sizeof(s), NULL, 0), 1);
    assert_int_equal(front_ack(r, VHOST_USER_SET_VRING_BASE, &s, sizeof(s), NULL, 0), 1);
    assert_int_equal(r->device.queues[0].ring.size, 128);
    assert_string_equal(front_events(r), "");
    // Not a power of two: the ring says so when it starts.
    s = (struct vhost_user_vring_state){1, 100};
    uint64_t index = 1;
    front_configure_queue(r, 1, 0);
    front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 1, 1);
    assert_int_equal(front_ack(r, VHOST_USER_SET_VRING_NUM, &s, sizeof(s), NULL, 0), 0);
    assert_int_equal(front_ack(r, VHOST_USER_SET_VRING_KICK, &index, 8, &r->kick[1], 1), 1);
    assert_true(ring_is_started(&r->device.queues[0].ring));
}

static void test_indices(void **state)
{
    static const uint32_t bad[] = {FRONT_QUEUES, 0xff,    0x100,      0x101,
                                   0x10000,      0x10001, 0x80000000, UINT32_MAX};
    static const uint32_t requests[] = {VHOST_USER_SET_VRING_NUM, VHOST_USER_SET_VRING_BASE,
                                        VHOST_USER_GET_VRING_BASE, VHOST_USER_SET_VRING_ENABLE,
                                        VHOST_USER_SET_VRING_ADDR};
    struct front *r = *state;
    for (unsigned k = 0; k < ARRAY_LEN(requests); k++) {
        for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
            struct vhost_user_vring_addr payload = {.index = bad[i], .flags = 1};
            size_t bytes = requests[k] == VHOST_USER_SET_VRING_ADDR ? sizeof(payload) : 8;
            check_ends(r, requests[k], &payload, bytes, NULL, 0);
        }
    }
    front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 0, 2);
    assert_false(front_is_open(r));
    next_front(r);
    front_do_u64(r, VHOST_USER_SET_STATUS, 0x100); // a byte
    assert_false(front_is_open(r));
    next_front(r);
}

static void test_indices_of_descriptors(void **state)
{
    static const struct {
        uint64_t value;
        unsigned n_fds;
        bool is_good;
    } cases[] = {
        {FRONT_QUEUES - 1, 1, true},
        {FRONT_QUEUES - 1 + 0x100, 0, true},
        {0, 0, false},
        {0x100, 1, false},
        {FRONT_QUEUES, 1, false},
        {0xff, 1, false},
        {0x1ff, 0, false},
        {0x200, 1, false},
        {0x300, 0, false},
        {0x10000, 1, false},
        {UINT64_C(1) << 32, 1, false},
        {UINT64_C(1) << 63, 1, false},
    };
    static const uint32_t requests[] = {VHOST_USER_SET_VRING_KICK, VHOST_USER_SET_VRING_CALL,
                                        VHOST_USER_SET_VRING_ERR};
    struct front *r = *state;
    for (unsigned k = 0; k < ARRAY_LEN(requests); k++) {
        for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
            front_do(r, requests[k], &cases[i].value, 8, r->kick, cases[i].n_fds);
            assert_int_equal(front_is_open(r), cases[i].is_good);
            if (!cases[i].is_good)
                next_front(r);
        }
    }
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
        check_ends(r, VHOST_USER_SET_LOG_BASE, &bad[i], 16, &fd, 1);
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
            check_ends(r, VHOST_USER_GET_INFLIGHT_FD, &bad[i], sizeof(bad[i]), NULL, 0);
        check_ends(r, VHOST_USER_SET_INFLIGHT_FD, &bad[i], sizeof(bad[i]), &fd, 1);
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
        check_ends(r, VHOST_USER_SET_MEM_TABLE, &table, 8 + 32 * bad[i].n_described, fds,
                   bad[i].n_fds);
        table.n_regions = 8;
        assert_int_equal(front_ack(r, VHOST_USER_SET_MEM_TABLE, &table, sizeof(table), fds, 8), 0);
    }
}

// ---- row 31: config space ----------------------------------------------------------------

static void check_get_config(struct front *r, uint32_t offset, uint32_t size, uint32_t sent)
{
    struct vhost_user_config c = {.offset = offset, .size = size};
    struct message m;
    front_do(r, VHOST_USER_GET_CONFIG, &c, 12 + sent, NULL, 0);
    front_reply(r, VHOST_USER_GET_CONFIG, &m);
    bool is_good = size == sent && size && (uint64_t)offset + size <= 256;
    assert_int_equal(m.header.size, is_good ? 12 + size : 0); // "zero length … an error"
    if (is_good)
        assert_memory_equal(m.payload.config.bytes, r->device.config + offset, size);
}

static void check_set_config(struct front *r, uint32_t offset, uint32_t size, uint32_t sent)
{
    struct vhost_user_config c = {.offset = offset, .size = size};
    bool is_good = size == sent && size && (uint64_t)offset + size <= FRONT_CONFIG_BYTES;
    assert_int_equal(front_ack(r, VHOST_USER_SET_CONFIG, &c, 12 + sent, NULL, 0), !is_good);
}

static void test_config_sweep(void **state)
{
    static const uint32_t far[] = {0x7fffffff, 0x80000000, UINT32_MAX - 1, UINT32_MAX};
    struct front *r = *state;
    for (uint32_t offset = 0; offset <= 257; offset++)
        for (uint32_t size = 0; size <= 256; size += size < 44 || size > 250 ? 1 : 23)
            check_get_config(r, offset, size, size);
    for (uint32_t offset = 0; offset <= FRONT_CONFIG_BYTES + 1; offset++)
        for (uint32_t size = 0; size <= FRONT_CONFIG_BYTES + 1; size++)
            check_set_config(r, offset, size, size);
    for (unsigned i = 0; i < ARRAY_LEN(far); i++) {
        check_get_config(r, far[i], 8, 8);
        check_set_config(r, far[i], 8, 8);
        check_get_config(r, 8, far[i], 8);
        check_set_config(r, 8, far[i], 8);
        check_get_config(r, far[i], 0u - far[i], 8);
    }
    check_get_config(r, 0, 8, 9); // says one thing, sends another
    check_get_config(r, 0, 9, 8);
    check_set_config(r, 0, 9, 8);
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
            next_front(r);
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
    next_front(r);
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
        next_front(r);
        for (unsigned i = 0; i < 3; i++)
            close(fds[i]);
    }
}

// ---- rows 24 and 39: floods --------------------------------------------------------------

static void test_budget(void **state)
{
    struct front *r = *state;
    struct message m;
    for (unsigned i = 0; i < 20; i++)
        front_send(r, VHOST_USER_GET_FEATURES, VHOST_USER_VERSION, NULL, 0, NULL, 0);
    for (unsigned turn = 0; turn < 4; turn++) {
        assert_true(session_run(r->session, 5));
        for (unsigned i = 0; i < 5; i++)
            front_reply(r, VHOST_USER_GET_FEATURES, &m);
        assert_false(front_has_reply(r));
    }
    assert_false(session_run(r->session, 5));
}

// Who never reads does not make us wait.
static void test_replies_are_not_read(void **state)
{
    struct front *r = *state;
    unsigned n = 0;
    while (front_is_open(r) && n++ < 100000) {
        front_send(r, VHOST_USER_GET_FEATURES, VHOST_USER_VERSION, NULL, 0, NULL, 0);
        front_run(r);
    }
    assert_false(front_is_open(r));
    next_front(r);
}

// A line each would fill the journal.
static void test_lines_are_limited(void **state)
{
    struct front *r = *state;
    struct vhost_user_vring_state s = {0, 0};
    unsigned n_lines = 0;
    front_log_begin();
    for (unsigned i = 0; i < 60; i++)
        front_ack(r, VHOST_USER_SET_VRING_NUM, &s, sizeof(s), NULL, 0);
    for (const char *c = front_log_end(); *c; c++)
        n_lines += *c == '\n';
    assert_int_equal(n_lines, LOG_BURST);
}

// A cheap generator: the same messages in each run.
static uint32_t next_random(uint64_t *x)
{
    *x = *x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*x >> 33);
}

static void fill_payload(union vhost_user_payload *p, uint64_t *x)
{
    uint32_t words[sizeof(*p) / 4] = {0};
    for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
        uint32_t v = next_random(x);
        words[i] = v % 8 ? v % 5 : v; // mostly indices that exist
    }
    memcpy(p, words, sizeof(words));
}

#define FLOOD_MESSAGES 100000

static void send_random(struct front *r, const int fds[], uint64_t *x)
{
    union vhost_user_payload payload;
    const struct shape *s = &shapes[next_random(x) % ARRAY_LEN(shapes)];
    uint32_t request = next_random(x) % 32 ? s->request : next_random(x) % 64;
    unsigned n_fds = s->fds_max;
    size_t bytes = s->max;
    uint32_t flags = VHOST_USER_VERSION | (next_random(x) % 8 ? VHOST_USER_NEED_REPLY : 0);
    if (next_random(x) % 16 == 0)
        n_fds = next_random(x) % (MESSAGE_FDS_MAX + 1);
    if (next_random(x) % 16 == 0)
        bytes = next_random(x) % sizeof(payload);
    fill_payload(&payload, x);
    if (request == VHOST_USER_SET_FEATURES)
        payload.u64 = FRONT_FEATURES | (payload.u64 & 1 ? LOG_ALL : 0);
    if (request == VHOST_USER_SET_MEM_TABLE && n_fds <= 8)
        bytes = 8 + 32 * (payload.memory.n_regions = n_fds);
    if (request == VHOST_USER_GET_INFLIGHT_FD || request == VHOST_USER_SET_INFLIGHT_FD)
        payload.inflight = (struct vhost_user_inflight){0x1000, 0, 2, 16};
    if (s->max == 8 && s->fds_max == 1)
        payload.u64 &= 3;
    if (request == VHOST_USER_ADD_MEM_REG || request == VHOST_USER_SET_MEM_TABLE)
        payload.region.region = payload.memory.regions[0] =
            (struct vhost_user_region){next_random(x) % 8 * 0x10000, 0x10000,
                                       next_random(x) % 8 * 0x10000, next_random(x) % 8 * 0x1000};
    front_send(r, request, flags, &payload, bytes, &fds[next_random(x) % 4], n_fds);
}

static void test_flood(void **state)
{
    struct front *r = *state;
    int fds[MESSAGE_FDS_MAX + 4];
    for (unsigned i = 0; i < ARRAY_LEN(fds); i++)
        fds[i] = i % 2 ? r->kick[i % 4] : r->memory_fd;
    unsigned n_fds = front_count_fds(), n_maps = front_count_maps();
    unsigned n_sessions = 0, n_starts = 0;
    uint64_t x = 1;
    char drain[4096];
    for (unsigned i = 0; i < FLOOD_MESSAGES; i++) {
        if (i % 64 == 0)
            front_start(r, FRONT_FEATURES, 1 + i / 64 % FRONT_QUEUES), n_starts++;
        send_random(r, fds, &x);
        r->is_slow = next_random(&x) % 2;
        front_run(r);
        front_answer_all(r);
        front_run(r);
        r->is_slow = false;
        r->events[0] = '\0';
        while (recv(r->socket, drain, sizeof(drain), MSG_DONTWAIT) > 0)
            continue;
        if (!front_is_open(r)) {
            next_front(r);
            n_sessions++;
        } else if (i % 64 == 63) {
            session_close(r->session, NULL);
            next_front(r);
        }
    }
    session_close(r->session, NULL);
    next_front(r);
    assert_true(n_sessions > 1000 && n_starts > 1000);
    assert_int_equal(front_count_fds(), n_fds);
    assert_int_equal(front_count_maps(), n_maps);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_sizes),
        TEST(test_unknown_requests),
        TEST(test_header),
        TEST(test_needs_protocol_features),
        TEST(test_partial_message),
        TEST(test_leaves_in_a_message),
        TEST(test_queue_sizes),
        TEST(test_indices),
        TEST(test_indices_of_descriptors),
        TEST(test_log_ranges),
        TEST(test_inflight_sizes),
        TEST(test_memory_tables),
        TEST(test_config_sweep),
        TEST(test_not_an_eventfd),
        TEST(test_memory_on_a_file_system),
        TEST(test_truncation),
        TEST(test_budget),
        TEST(test_replies_are_not_read),
        TEST(test_lines_are_limited),
        TEST(test_flood),
    };
    return cmocka_run_group_tests_name("session_hostile", tests, NULL, NULL);
}
