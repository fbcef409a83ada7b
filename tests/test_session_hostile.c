// SPDX-License-Identifier: Apache-2.0
// A front end that means harm. What it breaks is its own session; nothing leaks.
#include "tests/session_rig.h"

#include "dataplane/log.h"

#include <string.h>
#include <sys/socket.h>

#define LOG_ALL VIRTIO_BIT(VHOST_F_LOG_ALL)

static int setup(void **state)
{
    front_setup(state);
    front_negotiate(*state, FRONT_FEATURES, FRONT_PROTOCOL_FEATURES);
    return 0;
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
            front_check_ends(r, s->request, zeros, s->min - 1, fds, s->fds_min);
        front_check_ends(r, s->request, zeros, s->max + 1, fds, s->fds_min);
        if (s->fds_min)
            front_check_ends(r, s->request, zeros, s->min, fds, s->fds_min - 1);
        front_check_ends(r, s->request, zeros, s->min, fds, s->fds_max + 1);
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
        front_check_ends(r, request, "12345678", 8, &r->memory_fd, 1);
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
        front_next(r);
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
        front_next(r);
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
        front_next(r);
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
    front_next(r);
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
            front_check_ends(r, requests[k], &payload, bytes, NULL, 0);
        }
    }
    front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 0, 2);
    assert_false(front_is_open(r));
    front_next(r);
    front_do_u64(r, VHOST_USER_SET_STATUS, 0x100); // a byte
    assert_false(front_is_open(r));
    front_next(r);
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
                front_next(r);
        }
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
    front_next(r);
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
            front_next(r);
            n_sessions++;
        } else if (i % 64 == 63) {
            session_close(r->session, NULL);
            front_next(r);
        }
    }
    session_close(r->session, NULL);
    front_next(r);
    assert_true(n_sessions > 1000 && n_starts > 1000);
    assert_int_equal(front_count_fds(), n_fds);
    assert_int_equal(front_count_maps(), n_maps);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, front_teardown)
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
        TEST(test_config_sweep),
        TEST(test_budget),
        TEST(test_replies_are_not_read),
        TEST(test_lines_are_limited),
        TEST(test_flood),
    };
    return cmocka_run_group_tests_name("session_hostile", tests, NULL, NULL);
}
