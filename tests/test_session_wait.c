// SPDX-License-Identifier: Apache-2.0
// While the host has not answered, the session handles nothing else, frees nothing that a
// worker may hold, and answers in order. The host here answers when the test says so.
#include "tests/session_rig.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#define LOG_ALL VIRTIO_BIT(VHOST_F_LOG_ALL)

static int setup(void **state)
{
    front_setup(state);
    struct front *r = *state;
    front_start(r, FRONT_FEATURES, 2);
    r->is_slow = true;
    return 0;
}

// Nothing is handled: a request that was sent meanwhile has no answer.
static void check_waiting(struct front *r)
{
    struct session_info info;
    session_describe(r->session, &info);
    assert_true(info.is_waiting);
    assert_false(session_wants_input(r->session));
    assert_false(session_run(r->session, UINT32_MAX));
    assert_false(front_has_reply(r));
}

static void ask_features(struct front *r)
{
    front_send(r, VHOST_USER_GET_FEATURES, VHOST_USER_VERSION, NULL, 0, NULL, 0);
}

// hostile.md 26: GET_VRING_BASE while requests are in flight.
static void test_get_base_waits_for_the_drain(void **state)
{
    struct front *r = *state;
    struct message m;
    front_do_state(r, VHOST_USER_GET_VRING_BASE, 1, 0);
    ask_features(r);
    check_waiting(r);
    assert_string_equal(front_events(r), "detach 1");
    assert_true(ring_is_started(&r->device.queues[1].ring));
    r->device.queues[1].ring.next_avail = 9; // what the worker did before it gave it back
    r->device.queues[1].ring.next_used = 9;
    front_answer(r);
    assert_string_equal(front_events(r), "stop 1");
    front_reply(r, VHOST_USER_GET_VRING_BASE, &m);
    assert_int_equal(m.payload.state.num, 9);
    assert_false(front_has_reply(r)); // whoever runs the session goes on
    assert_true(session_wants_input(r->session));
    front_run(r);
    front_reply(r, VHOST_USER_GET_FEATURES, &m);
}

static void test_attach_is_acknowledged(void **state)
{
    struct front *r = *state;
    uint64_t index = 2;
    struct message m;
    front_configure_queue(r, 2, 0);
    front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 2, 1);
    front_send(r, VHOST_USER_SET_VRING_KICK, VHOST_USER_VERSION | VHOST_USER_NEED_REPLY, &index, 8,
               &r->kick[2], 1);
    front_run(r);
    check_waiting(r);
    assert_string_equal(front_events(r), "start 2, attach 2");
    front_answer(r);
    front_reply(r, VHOST_USER_SET_VRING_KICK, &m);
    assert_int_equal(m.payload.u64, 0);
}

// Every queue is told before the answer, and the old snapshot lives as long.
static void test_memory_is_published(void **state)
{
    struct front *r = *state;
    struct message m;
    const struct mem *old = r->device.queues[0].ring.mem;
    struct vhost_user_single_region g = {
        .region = {.guest_addr = 0, .size = FRONT_MEMORY_BYTES, .user_addr = 0x1000}};
    front_send(r, VHOST_USER_ADD_MEM_REG, VHOST_USER_VERSION | VHOST_USER_NEED_REPLY, &g, sizeof(g),
               &r->memory_fd, 1);
    front_run(r);
    check_waiting(r);
    front_answer(r);
    check_waiting(r);
    assert_ptr_equal(r->device.queues[1].ring.mem, old);
    assert_int_equal(old->n_regions, 1); // not freed: ASan would say so
    front_answer(r);
    assert_string_equal(front_events(r), "call 0, call 1");
    assert_ptr_equal(r->device.queues[0].ring.mem, r->device.queues[1].ring.mem);
    front_reply(r, VHOST_USER_ADD_MEM_REG, &m);
    assert_int_equal(m.payload.u64, 0);
}

// hostile.md 25: a region that goes stays mapped until every queue is back.
static void test_memory_goes_after_the_drain(void **state)
{
    struct front *r = *state;
    struct vhost_user_single_region g = {
        .region = {.guest_addr = 0, .size = FRONT_MEMORY_BYTES, .user_addr = 0x1000}};
    r->is_slow = false;
    front_do(r, VHOST_USER_ADD_MEM_REG, &g, sizeof(g), &r->memory_fd, 1);
    r->is_slow = true;
    unsigned n_maps = front_count_maps();
    front_events(r);
    front_do(r, VHOST_USER_REM_MEM_REG, &g, sizeof(g), NULL, 0);
    check_waiting(r);
    front_answer(r);
    check_waiting(r);
    assert_string_equal(front_events(r), "detach 0, detach 1");
    assert_int_equal(front_count_maps(), n_maps);
    front_answer(r);
    assert_int_equal(front_count_maps(), n_maps - 1);
    check_waiting(r);
    assert_string_equal(front_events(r), "stop 0, stop 1, start 0, attach 0, start 1, attach 1");
    front_answer_all(r);
    assert_true(session_wants_input(r->session));
}

// hostile.md 22: the log is replaced under I/O.
static void test_log_is_replaced(void **state)
{
    struct front *r = *state;
    struct vhost_user_log log = {.size = 0x1000};
    struct message m;
    int fd = front_memfd(0x1000);
    r->is_slow = false;
    front_do_u64(r, VHOST_USER_SET_FEATURES, FRONT_FEATURES | LOG_ALL);
    front_do(r, VHOST_USER_SET_LOG_BASE, &log, sizeof(log), &fd, 1);
    front_reply(r, VHOST_USER_SET_LOG_BASE, &m);
    r->is_slow = true;

    unsigned n_maps = front_count_maps();
    struct dirty *old = r->device.queues[1].ring.log;
    front_do(r, VHOST_USER_SET_LOG_BASE, &log, sizeof(log), &fd, 1);
    front_answer(r);
    check_waiting(r);
    assert_int_equal(front_count_maps(), n_maps + 1);
    dirty_mark(old, 0, 4096); // as queue 1 still does
    front_answer(r);
    front_reply(r, VHOST_USER_SET_LOG_BASE, &m);
    assert_int_equal(front_count_maps(), n_maps);
    assert_ptr_not_equal(r->device.queues[1].ring.log, old);
    close(fd);
}

static void test_call_is_swapped_by_the_worker(void **state)
{
    struct front *r = *state;
    struct queue *q = &r->device.queues[0];
    int old = q->call_fd;
    unsigned n_fds = front_count_fds();
    front_set_fd(r, VHOST_USER_SET_VRING_CALL, 0, r->err[0]);
    check_waiting(r);
    assert_int_equal(q->call_fd, old);
    assert_true(fcntl(old, F_GETFD) >= 0); // the worker may write to it now
    front_answer(r);
    assert_int_not_equal(q->call_fd, old);
    assert_int_equal(fcntl(old, F_GETFD), -1);
    assert_int_equal(front_count_fds(), n_fds);
}

// ---- the end -----------------------------------------------------------------------------

static void test_close_waits(void **state)
{
    struct front *r = *state;
    unsigned n_maps = front_count_maps();
    char byte;
    session_close(r->session, "the test says so");
    assert_int_equal(session_state(r->session), SESSION_CLOSING);
    assert_int_equal(recv(r->socket, &byte, 1, 0), 0); // the peer sees it at once
    front_answer(r);
    assert_int_equal(session_state(r->session), SESSION_CLOSING);
    assert_int_equal(front_count_maps(), n_maps);
    front_answer(r);
    assert_int_equal(session_state(r->session), SESSION_CLOSED);
    assert_string_equal(front_events(r), "detach 0, detach 1, stop 0, stop 1");
    assert_int_equal(front_count_maps(), n_maps - 1);
}

// Whatever it is waiting for: the change ends, nothing is answered, nothing starts.
static void test_close_while_waiting(void **state)
{
    static const uint32_t requests[] = {VHOST_USER_GET_VRING_BASE, VHOST_USER_SET_VRING_ENABLE};
    struct front *r = *state;
    for (unsigned i = 0; i < ARRAY_LEN(requests); i++) {
        for (unsigned n_answers = 0; n_answers < 2; n_answers++) {
            if (!r->session) {
                r->is_slow = false;
                front_reopen(r);
                front_start(r, FRONT_FEATURES, 2);
                r->is_slow = true;
            }
            front_do_state(r, requests[i], 0, 0);
            check_waiting(r);
            session_close(r->session, NULL);
            assert_int_equal(session_state(r->session), SESSION_CLOSING);
            front_answer_all(r);
            assert_int_equal(session_state(r->session), SESSION_CLOSED);
            assert_string_equal(front_events(r), "detach 0, stop 0, detach 1, stop 1");
            session_free(r->session);
            close(r->socket);
            r->session = NULL;
        }
    }
    r->is_slow = false;
    front_reopen(r);
}

// The peer leaves in the middle of a wait: seen when the session reads again.
static void test_peer_leaves_while_waiting(void **state)
{
    struct front *r = *state;
    front_do_state(r, VHOST_USER_GET_VRING_BASE, 0, 0);
    shutdown(r->socket, SHUT_RDWR);
    check_waiting(r);
    front_answer(r);
    assert_string_equal(front_events(r), "detach 0, stop 0, detach 1");
    assert_int_equal(session_state(r->session), SESSION_CLOSING); // the reply had no reader
    front_answer_all(r);
    assert_int_equal(session_state(r->session), SESSION_CLOSED);
}

// An attempt to start a ring that waits asks the host too, and the front end may leave meanwhile.
static void test_leaves_during_a_retry(void **state)
{
    struct front *r = *state;
    uint64_t index = 2;
    r->start_blocks = true;
    front_configure_queue(r, 2, 0);
    front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 2, 1);
    assert_int_equal(front_ack(r, VHOST_USER_SET_VRING_KICK, &index, 8, &r->kick[2], 1), 0);
    r->start_blocks = false;
    session_check(r->session, 1000);
    assert_string_equal(front_events(r), "start 2, attach 2");
    check_waiting(r);
    session_check(r->session, 1100); // one attempt at a time
    assert_string_equal(front_events(r), "");
    session_close(r->session, NULL);
    assert_string_equal(front_events(r), "");
    front_answer(r);
    assert_string_equal(front_events(r), "detach 0, detach 1, detach 2");
    front_answer_all(r);
    assert_int_equal(session_state(r->session), SESSION_CLOSED);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, front_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_get_base_waits_for_the_drain),
        TEST(test_attach_is_acknowledged),
        TEST(test_memory_is_published),
        TEST(test_memory_goes_after_the_drain),
        TEST(test_log_is_replaced),
        TEST(test_call_is_swapped_by_the_worker),
        TEST(test_close_waits),
        TEST(test_close_while_waiting),
        TEST(test_peer_leaves_while_waiting),
        TEST(test_leaves_during_a_retry),
    };
    return cmocka_run_group_tests_name("session_wait", tests, NULL, NULL);
}
