// SPDX-License-Identifier: Apache-2.0
// What a front end shares: memory, the log of a migration, the in-flight region.
#include "tests/session_rig.h"

#include "dataplane/inflight.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOG_ALL VIRTIO_BIT(VHOST_F_LOG_ALL)
#define PACKED  VIRTIO_BIT(VIRTIO_F_RING_PACKED)

// ---- memory ------------------------------------------------------------------------------

static struct vhost_user_single_region region(uint64_t n, uint64_t mmap_offset)
{
    return (struct vhost_user_single_region){
        .region = {.guest_addr = FRONT_GUEST_ADDR + n * FRONT_MEMORY_BYTES,
                   .size = FRONT_MEMORY_BYTES,
                   .user_addr = FRONT_USER_ADDR + n * FRONT_MEMORY_BYTES,
                   .mmap_offset = mmap_offset}};
}

static uint64_t add(struct front *r, uint64_t n, int fd)
{
    struct vhost_user_single_region g = region(n, 0);
    return front_ack(r, VHOST_USER_ADD_MEM_REG, &g, sizeof(g), &fd, 1);
}

static uint64_t rem(struct front *r, uint64_t n, int fd)
{
    struct vhost_user_single_region g = region(n, 0x123000); // "The mmap offset is ignored"
    return front_ack(r, VHOST_USER_REM_MEM_REG, &g, sizeof(g), &fd, fd < 0 ? 0 : 1);
}

static unsigned n_regions(struct front *r)
{
    struct session_info info;
    session_describe(r->session, &info);
    assert_int_equal(info.memory_bytes, info.n_regions * FRONT_MEMORY_BYTES);
    return info.n_regions;
}

static void test_memory_slots(void **state)
{
    struct front *r = *state;
    unsigned n_fds = front_count_fds();
    front_start(r, FRONT_FEATURES, 2);
    unsigned n_fds_started = front_count_fds(), n_maps = front_count_maps();

    front_share_memory(r); // the same table: nothing happens
    assert_string_equal(front_events(r), "");
    assert_int_equal(add(r, 0, r->memory_fd), 0); // and the same region
    assert_string_equal(front_events(r), "");

    assert_int_equal(add(r, 1, r->memory_fd), 0);
    assert_string_equal(front_events(r), "call 0, call 1"); // published, nothing stops
    assert_int_equal(n_regions(r), 2);
    assert_int_equal(front_count_maps(), n_maps + 1);
    assert_int_equal(add(r, 1, r->memory_fd), 0); // QEMU's net says it for each pair
    assert_string_equal(front_events(r), "");

    assert_int_equal(rem(r, 1, -1), 0);
    assert_string_equal(front_events(r), "detach 0, detach 1, stop 0, stop 1, "
                                         "start 0, attach 0, start 1, attach 1");
    assert_int_equal(rem(r, 1, r->memory_fd), 0); // absent; a descriptor "without using it"
    assert_string_equal(front_events(r), "");
    assert_int_equal(n_regions(r), 1);
    assert_int_equal(front_count_maps(), n_maps);
    assert_int_equal(front_count_fds(), n_fds_started);
    assert_true(n_fds < n_fds_started);
}

// Rings whose memory goes cannot go on; the others do.
static void test_memory_of_a_ring_goes(void **state)
{
    struct front *r = *state;
    front_start(r, FRONT_FEATURES, 1);
    struct vhost_user_memory table = {.n_regions = 1, .regions = {region(5, 0).region}};
    assert_int_equal(front_ack(r, VHOST_USER_SET_MEM_TABLE, &table, 8 + 32, &r->memory_fd, 1), 1);
    assert_string_equal(front_events(r), "detach 0, stop 0");
    assert_false(ring_is_started(front_ring(r, 0)));
    assert_true(front_is_open(r));
}

// ---- migration ---------------------------------------------------------------------------

static void set_log(struct front *r, int fd, uint64_t bytes)
{
    struct vhost_user_log log = {.size = bytes};
    struct message m;
    front_do(r, VHOST_USER_SET_LOG_BASE, &log, sizeof(log), &fd, 1);
    front_reply(r, VHOST_USER_SET_LOG_BASE, &m); // without NEED_REPLY too
    assert_int_equal(m.header.size, 8);
    assert_int_equal(m.payload.u64, 0);
}

static void test_migration(void **state)
{
    struct front *r = *state;
    int fd = front_memfd(0x10000);
    front_start(r, FRONT_FEATURES, 2);
    unsigned n_maps = front_count_maps();
    set_log(r, fd, 0x8000);
    assert_null(front_ring(r, 0)->log);
    front_events(r);
    front_do_u64(r, VHOST_USER_SET_FEATURES, FRONT_FEATURES | LOG_ALL);
    assert_string_equal(front_events(r), "call 0, call 1"); // nothing stops
    assert_non_null(front_ring(r, 0)->log);
    struct vhost_user_vring_addr addr = front_vring_addr(0);
    addr.flags = 1;
    front_do(r, VHOST_USER_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0);
    assert_string_equal(front_events(r), "");
    struct session_info info;
    session_describe(r->session, &info);
    assert_true(info.is_logging);

    set_log(r, fd, 0x10000); // a larger one
    assert_int_equal(front_ring(r, 1)->log->n_bytes, 0x10000);
    assert_int_equal(front_count_maps(), n_maps + 1);
    front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 0, 0);
    front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 0, 1);
    assert_non_null(front_ring(r, 0)->log); // a ring that starts meanwhile logs too
    assert_int_equal(front_ack(r, VHOST_USER_SET_LOG_FD, NULL, 0, &r->err[3], 1), 0);

    front_do_u64(r, VHOST_USER_SET_FEATURES, FRONT_FEATURES);
    assert_null(front_ring(r, 0)->log);
    assert_null(front_ring(r, 1)->log);
    close(fd);
}

// ---- in-flight region --------------------------------------------------------------------

static void test_inflight(void **state)
{
    struct front *r = *state;
    for (unsigned layout = 0; layout < 2; layout++) {
        uint64_t features = FRONT_FEATURES | (layout ? PACKED : 0);
        uint64_t bytes = inflight_queue_bytes(features, 128) * 2;
        struct vhost_user_inflight i = {.num_queues = 2, .queue_size = 128};
        struct message m;
        front_negotiate(r, features, FRONT_PROTOCOL_FEATURES);
        unsigned n_fds = front_count_fds();
        front_do(r, VHOST_USER_GET_INFLIGHT_FD, &i, sizeof(i), NULL, 0);
        front_reply(r, VHOST_USER_GET_INFLIGHT_FD, &m);
        assert_int_equal(front_count_fds(), n_fds + 1); // ours, as the front end
        assert_int_equal(m.header.size, sizeof(i));     // QEMU compares with its structure's
        assert_int_equal(m.payload.inflight.mmap_size, bytes);
        assert_int_equal(m.payload.inflight.mmap_offset, 0);
        assert_int_equal(m.n_fds, 1);
        struct stat st;
        assert_int_equal(fstat(m.fds[0], &st), 0);
        assert_int_equal(st.st_size, bytes);
        assert_int_equal(ftruncate(m.fds[0], 0), -1); // sealed

        // It comes before ring sizes and memory.
        assert_int_equal(front_ack(r, VHOST_USER_SET_INFLIGHT_FD, &m.payload, 20, &m.fds[0], 1), 0);
        front_start(r, features, 2);
        const uint8_t *first = front_ring(r, 0)->record;
        const uint8_t *second = front_ring(r, 1)->record;
        assert_non_null(first);
        assert_int_equal(second - first, bytes / 2);
        struct session_info info;
        session_describe(r->session, &info);
        assert_true(info.has_inflight);

        // While rings run it stays.
        assert_int_equal(front_ack(r, VHOST_USER_SET_INFLIGHT_FD, &m.payload, 24, &m.fds[0], 1), 1);
        assert_int_equal(front_ack(r, VHOST_USER_RESET_DEVICE, NULL, 0, NULL, 0), 0);
        session_describe(r->session, &info);
        assert_false(info.has_inflight);
        close(m.fds[0]);
    }
}

static uint64_t kick(struct front *r, uint64_t index)
{
    return front_ack(r, VHOST_USER_SET_VRING_KICK, &index, 8, &r->kick[index], 1);
}

// A region for fewer queues, for smaller rings, or smaller than it says.
static void test_inflight_too_small(void **state)
{
    static const struct {
        bool is_cut; // the last byte is missing
        uint16_t n_queues;
        uint32_t size;
        uint64_t results[3];
    } cases[] = {
        {false, 3, 16, {0, 0, 0}},
        {false, 2, 16, {0, 0, 1}},
        {true, 3, 16, {0, 0, 1}},
        {false, 3, 32, {1, 1, 1}}, // larger rings than the region is for
    };
    struct front *r = *state;
    int fd = front_memfd(0x1000);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t bytes = inflight_queue_bytes(FRONT_FEATURES, 16) * 3 - cases[i].is_cut;
        struct vhost_user_inflight inflight = {
            .mmap_size = bytes, .num_queues = cases[i].n_queues, .queue_size = 16};
        front_negotiate(r, FRONT_FEATURES, FRONT_PROTOCOL_FEATURES);
        front_share_memory(r);
        assert_int_equal(
            front_ack(r, VHOST_USER_SET_INFLIGHT_FD, &inflight, sizeof(inflight), &fd, 1), 0);
        for (unsigned q = 0; q < 3; q++) {
            front_configure_queue(r, q, 0);
            front_do_state(r, VHOST_USER_SET_VRING_NUM, q, cases[i].size);
            front_do_state(r, VHOST_USER_SET_VRING_ENABLE, q, 1);
            assert_int_equal(kick(r, q), cases[i].results[q]);
        }
        assert_int_equal(front_ack(r, VHOST_USER_RESET_DEVICE, NULL, 0, NULL, 0), 0);
    }
    close(fd);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, front_setup, front_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_memory_slots), TEST(test_memory_of_a_ring_goes), TEST(test_migration),
        TEST(test_inflight),     TEST(test_inflight_too_small),
    };
    return cmocka_run_group_tests_name("session_memory", tests, NULL, NULL);
}
