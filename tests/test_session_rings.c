// SPDX-License-Identifier: Apache-2.0
// Rings as a well-behaved front end starts, stops and changes them.
#include "tests/session_rig.h"

#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define PACKED VIRTIO_BIT(VIRTIO_F_RING_PACKED)

// ---- rings -------------------------------------------------------------------------------

// A ring runs when all is there, whatever came last.
static void test_starts_when_complete(void **state)
{
    struct front *r = *state;
    struct vhost_user_vring_addr addr = front_vring_addr(0);
    for (unsigned last = 0; last < 6; last++) {
        for (unsigned i = 0; i < 6; i++) {
            unsigned step = (last + 1 + i) % 6;
            assert_string_equal(front_events(r), "");
            if (step == 0)
                front_negotiate(r, FRONT_FEATURES, FRONT_PROTOCOL_FEATURES);
            else if (step == 1)
                front_share_memory(r);
            else if (step == 2)
                front_do_state(r, VHOST_USER_SET_VRING_NUM, 0, 128);
            else if (step == 3)
                front_do(r, VHOST_USER_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0);
            else if (step == 4)
                front_set_fd(r, VHOST_USER_SET_VRING_KICK, 0, r->kick[0]);
            else
                front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 0, 1);
        }
        assert_string_equal(front_events(r), "start 0, attach 0");
        assert_true(r->device.queues[0].kick_fd >= 0);
        session_close(r->session, NULL);
        assert_string_equal(front_events(r), "detach 0, stop 0");
        session_free(r->session);
        close(r->socket);
        front_reopen(r);
    }
}

// Without protocol features nothing is ever enabled: rings start so.
static void test_without_protocol_features(void **state)
{
    struct front *r = *state;
    front_do_u64(r, VHOST_USER_SET_FEATURES, VIRTIO_BIT(VIRTIO_F_VERSION_1));
    front_share_memory(r);
    front_configure_queue(r, 0, 0);
    assert_string_equal(front_events(r), "");
    front_set_fd(r, VHOST_USER_SET_VRING_KICK, 0, r->kick[0]);
    assert_string_equal(front_events(r), "start 0, attach 0");
    struct session_queue_info info;
    session_describe_queue(r->session, 0, &info);
    assert_true(info.is_started && info.is_enabled);
}

static void test_enable(void **state)
{
    struct front *r = *state;
    front_start(r, FRONT_FEATURES, 1);
    front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 0, 1);
    assert_string_equal(front_events(r), "");
    front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 0, 0);
    assert_string_equal(front_events(r), "detach 0, stop 0");
    front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 3, 0); // blk: also rings it never configured
    front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 0, 1);
    assert_string_equal(front_events(r), "start 0, attach 0");
    front_do_u64(r, VHOST_USER_SET_FEATURES, FRONT_FEATURES | VIRTIO_BIT(9)); // net: enabled before
    assert_string_equal(front_events(r), "detach 0, stop 0, start 0, attach 0");
}

// A split ring of which all that was offered was used.
static void set_indices(struct front *r, uint16_t index)
{
    assert_int_equal(pwrite(r->memory_fd, &index, 2, 0x2002), 2);
    assert_int_equal(pwrite(r->memory_fd, &index, 2, 0x3002), 2);
}

static void test_base_survives(void **state)
{
    static const struct {
        uint64_t features;
        uint32_t base;
    } cases[] = {{FRONT_FEATURES, 0},
                 {FRONT_FEATURES, 77},
                 {FRONT_FEATURES | PACKED, 0x80008000},
                 {FRONT_FEATURES | PACKED, 0x00058005}};
    struct front *r = *state;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        front_negotiate(r, cases[i].features, FRONT_PROTOCOL_FEATURES);
        front_share_memory(r);
        if (!(cases[i].features & PACKED))
            set_indices(r, (uint16_t)cases[i].base);
        front_configure_queue(r, 0, cases[i].base);
        assert_int_equal(front_get_base(r, 0), cases[i].base); // never started
        front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 0, 1);
        front_set_fd(r, VHOST_USER_SET_VRING_KICK, 0, -1);
        assert_true(ring_is_started(front_ring(r, 0)));
        assert_int_equal(r->device.queues[0].kick_fd, -1);
        front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 0, 0);
        front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 0, 1);
        assert_int_equal(front_get_base(r, 0), cases[i].base);
        assert_false(ring_is_started(front_ring(r, 0)));
        assert_int_equal(front_get_base(r, 0), cases[i].base); // stopped already
        // It stays stopped until it is kicked again.
        front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 0, 1);
        assert_false(ring_is_started(front_ring(r, 0)));
        front_events(r);
    }
}

static void test_eventfds(void **state)
{
    struct front *r = *state;
    int saturated = eventfd(UINT32_MAX, EFD_CLOEXEC); // blocking, as a peer may pass it
    front_start(r, FRONT_FEATURES, 2);
    struct queue *q = &r->device.queues[0];
    int old = q->call_fd;
    front_set_fd(r, VHOST_USER_SET_VRING_CALL, 0, saturated);
    assert_string_equal(front_events(r), "call 0"); // the ring runs on
    assert_true(q->call_changed);
    assert_int_not_equal(q->call_fd, old);
    assert_true(fcntl(q->call_fd, F_GETFL) & O_NONBLOCK);
    assert_int_equal(fcntl(old, F_GETFD), -1);
    front_set_fd(r, VHOST_USER_SET_VRING_CALL, 0, -1); // the guest masks its vector
    assert_string_equal(front_events(r), "call 0");
    assert_int_equal(q->call_fd, -1);

    front_set_fd(r, VHOST_USER_SET_VRING_CALL, 3, r->call[3]); // before anything, as QEMU does
    assert_string_equal(front_events(r), "");
    assert_true(r->device.queues[3].call_fd >= 0);
    assert_true(fcntl(r->kick[1], F_GETFL) & O_NONBLOCK);

    front_set_fd(r, VHOST_USER_SET_VRING_KICK, 1, saturated); // another one, while it runs
    assert_string_equal(front_events(r), "detach 1, stop 1, start 1, attach 1");
    close(saturated);
}

static void test_start_that_fails(void **state)
{
    struct front *r = *state;
    uint64_t index = 0;
    front_start(r, FRONT_FEATURES, 1);
    front_get_base(r, 0);
    front_events(r);
    r->start_fails = true;
    assert_int_equal(front_ack(r, VHOST_USER_SET_VRING_KICK, &index, 8, &r->kick[0], 1), 1);
    assert_false(ring_is_started(front_ring(r, 0)));
    r->start_fails = false;
    // Not tried again by what comes next, but by the next kick.
    front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 0, 1);
    assert_string_equal(front_events(r), "");
    assert_int_equal(front_ack(r, VHOST_USER_SET_VRING_KICK, &index, 8, &r->kick[0], 1), 0);
    assert_string_equal(front_events(r), "start 0, attach 0");
}

// What passes by itself is waited for: nothing is refused, it is said once, and tried again.
static void test_start_that_waits(void **state)
{
    struct front *r = *state;
    uint64_t index = 0;
    struct session_queue_info info;
    front_start(r, FRONT_FEATURES, 2);
    front_get_base(r, 0);
    front_events(r);
    r->start_blocks = true;
    front_log_begin();
    assert_int_equal(front_ack(r, VHOST_USER_SET_VRING_KICK, &index, 8, &r->kick[0], 1), 0);
    for (unsigned i = 0; i < 3; i++)
        session_check(r->session, 1000 + i * 100);
    const char *text = front_log_end();
    assert_non_null(strstr(text, "toy toy0: queues wait: the toy is locked"));
    assert_null(strstr(strstr(text, "wait") + 1, "wait"));
    assert_string_equal(front_events(r), "");
    session_describe_queue(r->session, 0, &info);
    assert_false(info.is_started);
    assert_string_equal(info.waits_for, "the toy is locked");
    session_describe_queue(r->session, 1, &info); // runs
    assert_null(info.waits_for);

    // A message of which a part has come is not lost by the attempt.
    struct vhost_user_header header = {VHOST_USER_GET_FEATURES, VHOST_USER_VERSION, 0};
    assert_int_equal(send(r->socket, &header, 5, 0), 5);
    front_run(r);
    r->start_blocks = false;
    session_check(r->session, 2000);
    assert_string_equal(front_events(r), "start 0, attach 0");
    session_describe_queue(r->session, 0, &info);
    assert_true(info.is_started);
    assert_null(info.waits_for);
    assert_int_equal(send(r->socket, (char *)&header + 5, sizeof(header) - 5, 0), 7);
    front_run(r);
    struct message m;
    front_reply(r, VHOST_USER_GET_FEATURES, &m);

    session_check(r->session, 2100); // nothing more to do
    assert_string_equal(front_events(r), "");
}

// It is not tried again when the front end stopped it, and not for ever when it cannot.
static void test_start_that_waited_in_vain(void **state)
{
    struct front *r = *state;
    struct session_queue_info info;
    front_start(r, FRONT_FEATURES, 1);
    r->start_blocks = true;
    front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 0, 0);
    front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 0, 1);
    session_describe_queue(r->session, 0, &info);
    assert_non_null(info.waits_for);
    front_get_base(r, 0);
    session_describe_queue(r->session, 0, &info);
    assert_null(info.waits_for);
    r->start_blocks = false;
    front_events(r);
    session_check(r->session, 1000);
    assert_string_equal(front_events(r), "");

    r->start_blocks = true;
    front_set_fd(r, VHOST_USER_SET_VRING_KICK, 0, r->kick[0]);
    r->start_blocks = false;
    r->start_fails = true;
    front_log_begin();
    for (unsigned i = 0; i < 3; i++)
        session_check(r->session, 1000 + i * 100);
    const char *text = front_log_end();
    assert_non_null(strstr(text, "a queue that waited cannot start: the toy is out of memory"));
    assert_null(strstr(strstr(text, "memory") + 1, "memory"));
    assert_true(front_is_open(r));
    r->start_fails = false;
}

static void test_reset_device(void **state)
{
    struct front *r = *state;
    front_start(r, FRONT_FEATURES, 2);
    front_do(r, VHOST_USER_RESET_OWNER, NULL, 0, NULL, 0); // "ignore this message"
    assert_string_equal(front_events(r), "");
    front_do_u64(r, VHOST_USER_SET_STATUS, 7);
    assert_int_equal(front_ack(r, VHOST_USER_RESET_DEVICE, NULL, 0, NULL, 0), 0);
    assert_string_equal(front_events(r), "detach 0, detach 1, stop 0, stop 1");
    struct session_info info;
    session_describe(r->session, &info);
    assert_int_equal(info.features, 0);
    assert_int_equal(front_get(r, VHOST_USER_GET_STATUS), 0);
    front_start(r, FRONT_FEATURES | PACKED, 2); // ready to be set up anew
}

static void test_fault_is_reported_once(void **state)
{
    struct front *r = *state;
    uint64_t count;
    front_start(r, FRONT_FEATURES, 1);
    session_check(r->session, 1000);
    assert_int_equal(read(r->err[0], &count, 8), -1); // non-blocking now
    ring_fault(front_ring(r, 0), RING_BAD_INDEX, 0x1234);

    struct session_queue_info info;
    session_describe_queue(r->session, 0, &info);
    assert_string_equal(info.fault, "bad-index");
    assert_int_equal(info.fault_detail, 0x1234);
    assert_true(info.is_started && info.is_enabled);
    assert_int_equal(info.size, 128);

    front_log_begin();
    for (unsigned i = 0; i < 3; i++)
        session_check(r->session, 1100 + i);
    const char *text = front_log_end();
    assert_non_null(strstr(text, "toy toy0: queue 0 stopped: bad-index (0x1234)"));
    assert_null(strstr(strstr(text, "stopped") + 1, "stopped"));
    assert_int_equal(read(r->err[0], &count, 8), 8);
    assert_int_equal(count, 1);

    // A ring that starts anew can fault anew, also right before it stops.
    front_get_base(r, 0);
    front_set_fd(r, VHOST_USER_SET_VRING_KICK, 0, r->kick[0]);
    ring_fault(front_ring(r, 0), RING_BAD_HEAD, 3);
    front_log_begin();
    front_get_base(r, 0);
    assert_non_null(strstr(front_log_end(), "queue 0 stopped: bad-head (0x3)"));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, front_setup, front_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_starts_when_complete),
        TEST(test_without_protocol_features),
        TEST(test_enable),
        TEST(test_base_survives),
        TEST(test_eventfds),
        TEST(test_start_that_fails),
        TEST(test_start_that_waits),
        TEST(test_start_that_waited_in_vain),
        TEST(test_reset_device),
        TEST(test_fault_is_reported_once),
    };
    return cmocka_run_group_tests_name("session_rings", tests, NULL, NULL);
}
