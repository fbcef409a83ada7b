// SPDX-License-Identifier: Apache-2.0
// A session that goes on in another process, on the same socket. The old process is still there in
// these tests, but nobody asks it any more.
#include "tests/keep_rig.h"
#include "tests/session_rig.h"

#include "dataplane/inflight.h"
#include "dataplane/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PACKED  VIRTIO_BIT(VIRTIO_F_RING_PACKED)
#define LOG_ALL VIRTIO_BIT(VHOST_F_LOG_ALL)
#define LIVES   4

// One process.
struct life {
    struct keeper *keeper;
    struct state *state;
    struct device device;
    struct session *session;
};

static struct front front;
static struct life lives[LIVES];
static unsigned n_lives;

static void begin(struct life *l, int fd)
{
    struct error e;
    l->keeper = keeper_open(&keep_rig_host);
    keep_rig_hand_over(l->keeper);
    check_ok(state_open(&l->state, fd, l->keeper, &e), &e);
    front.device.state = state_hold(l->state, "toy0", FRONT_QUEUES, &e);
    assert_non_null(front.device.state);
}

static int setup(void **state)
{
    keep_rig_clear();
    n_lives = 0;
    front_open(&front);
    session_close(front.session, NULL); // before anything was kept
    session_free(front.session);
    close(front.socket);
    begin(&lives[0], -1);
    front_reopen(&front);
    *state = &front;
    return 0;
}

static void end(struct life *l)
{
    state_release(l->device.state);
    state_close(l->state);
    keeper_close(l->keeper);
}

static int teardown(void **state)
{
    struct front *r = *state;
    lives[n_lives].device = r->device;
    front_close(r); // the last one
    end(&lives[n_lives]);
    while (n_lives--) {
        struct life *l = &lives[n_lives];
        r->session = l->session;
        r->device = l->device;
        session_close(l->session, NULL);
        while (session_state(l->session) != SESSION_CLOSED)
            session_acknowledge(l->session);
        session_free(l->session);
        free(l->device.queues);
        end(l);
    }
    keep_rig_clear();
    return 0;
}

// The process dies here, and another one has the device.
static void die(struct front *r)
{
    struct life *old = &lives[n_lives++];
    old->session = r->session;
    old->device = r->device;
    assert_true(n_lives < LIVES);
    r->session = NULL;
    r->device.queues = calloc(FRONT_QUEUES, sizeof(struct queue));
    for (unsigned i = 0; i < FRONT_QUEUES; i++) {
        r->device.queues[i] = (struct queue){.device = &r->device, .index = (uint16_t)i};
        r->device.queues[i].kick_fd = r->device.queues[i].call_fd = -1;
    }
    r->n_asked = 0;
    front_events(r);
    begin(&lives[n_lives], state_fd(old->state));
}

static int resume(struct front *r, struct error *e)
{
    assert_true(session_is_kept(&r->device));
    int err = session_resume(&r->session, &r->device, front_host(), r, e);
    state_forget_others(lives[n_lives].state);
    return err;
}

static void go_on(struct front *r)
{
    struct error e;
    check_ok(resume(r, &e), &e);
    assert_true(front_is_open(r));
}

// Everything that a front end can have said.
static void say_all(struct front *r)
{
    int log_fd = front_memfd(0x10000), pair[2];
    struct vhost_user_log log = {.size = 0x10000};
    struct vhost_user_single_region more = {
        .region = {.guest_addr = FRONT_GUEST_ADDR + FRONT_MEMORY_BYTES,
                   .size = FRONT_MEMORY_BYTES,
                   .user_addr = FRONT_USER_ADDR + FRONT_MEMORY_BYTES}};
    struct message m;
    front_start(r, FRONT_FEATURES | LOG_ALL, 2);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(front_ack(r, VHOST_USER_SET_BACKEND_REQ_FD, NULL, 0, &pair[1], 1), 0);
    assert_int_equal(front_ack(r, VHOST_USER_ADD_MEM_REG, &more, sizeof(more), &r->memory_fd, 1),
                     0);
    front_do(r, VHOST_USER_SET_LOG_BASE, &log, sizeof(log), &log_fd, 1);
    front_reply(r, VHOST_USER_SET_LOG_BASE, &m);
    front_do_u64(r, VHOST_USER_SET_STATUS, 15);
    front_set_fd(r, VHOST_USER_SET_VRING_CALL, 3, r->call[3]); // a queue that does not run
    front_events(r);
    close(log_fd);
    close(pair[0]);
    close(pair[1]);
}

static void check_same(struct front *r, const struct session *before)
{
    struct session_info a, b;
    session_describe(before, &a);
    session_describe(r->session, &b);
    assert_int_equal(a.features, b.features);
    assert_int_equal(a.protocol_features, b.protocol_features);
    assert_int_equal(a.n_regions, b.n_regions);
    assert_int_equal(a.memory_bytes, b.memory_bytes);
    assert_int_equal(a.is_logging, b.is_logging);
    for (unsigned i = 0; i < FRONT_QUEUES; i++) {
        struct session_queue_info qa, qb;
        session_describe_queue(before, i, &qa);
        session_describe_queue(r->session, i, &qb);
        assert_int_equal(qa.is_started, qb.is_started);
        assert_int_equal(qa.is_enabled, qb.is_enabled);
        assert_int_equal(qa.size, qb.size);
        assert_int_equal(r->device.queues[i].call_fd >= 0, i != 2);
        assert_int_equal(r->device.queues[i].kick_fd >= 0, i < 2);
    }
}

static void test_goes_on(void **state)
{
    struct front *r = *state;
    uint64_t count;
    say_all(r);
    for (unsigned n = 0; n < LIVES - 1; n++) {
        die(r);
        go_on(r);
        assert_string_equal(front_events(r), "start 0, attach 0, start 1, attach 1");
        check_same(r, lives[n].session);
        // Used buffers that nobody told the driver of: it is told once more.
        assert_int_equal(read(r->call[0], &count, sizeof(count)), sizeof(count));
        assert_int_equal(front_get(r, VHOST_USER_GET_STATUS), 15);
    }
    struct message m;
    front_do_state(r, VHOST_USER_GET_VRING_BASE, 1, 0);
    front_reply(r, VHOST_USER_GET_VRING_BASE, &m);
    assert_string_equal(front_events(r), "detach 1, stop 1");
}

// What it says between the two lives waits in the socket.
static void test_messages_meanwhile(void **state)
{
    struct front *r = *state;
    struct message m;
    front_start(r, FRONT_FEATURES, 1);
    die(r);
    front_send(r, VHOST_USER_GET_FEATURES, VHOST_USER_VERSION, NULL, 0, NULL, 0);
    r->is_slow = true;
    go_on(r);
    assert_string_equal(front_events(r), "start 0, attach 0");
    assert_false(session_wants_input(r->session)); // its queue is on its way to the worker
    assert_false(front_has_reply(r));
    front_answer_all(r);
    assert_true(session_wants_input(r->session));
    front_run(r);
    front_reply(r, VHOST_USER_GET_FEATURES, &m);
}

// Killed again while it takes the session up.
static void test_dies_while_resuming(void **state)
{
    struct front *r = *state;
    say_all(r);
    die(r);
    r->is_slow = true;
    go_on(r);
    die(r);
    r->is_slow = false;
    go_on(r);
    assert_string_equal(front_events(r), "start 0, attach 0, start 1, attach 1");
    check_same(r, lives[0].session);
}

// A queue whose image is still locked by the dying process starts later, as one that ran.
static void test_queue_waits(void **state)
{
    struct front *r = *state;
    uint64_t count;
    front_start(r, FRONT_FEATURES, 1);
    die(r);
    r->start_blocks = true;
    go_on(r);
    assert_string_equal(front_events(r), "");
    assert_int_equal(read(r->call[0], &count, sizeof(count)), -1);
    session_check(r->session, 900);
    die(r); // it still has not been started
    go_on(r);
    r->start_blocks = false;
    session_check(r->session, 1000);
    assert_string_equal(front_events(r), "start 0, attach 0");
    assert_int_equal(read(r->call[0], &count, sizeof(count)), sizeof(count));
}

// ---- when nobody knows where it stands ---------------------------------------------------

static void test_within_a_message(void **state)
{
    struct front *r = *state;
    front_start(r, FRONT_FEATURES, 1);
    assert_int_equal(send(r->socket, "\1", 1, 0), 1);
    front_run(r);
    assert_false(session_is_kept(&r->device));
    session_check(r->session, 1000);
    assert_false(session_is_kept(&r->device));
    assert_int_equal(send(r->socket, "\0\0\0\1\0\0\0\0\0\0\0", 11, 0), 11);
    front_run(r);
    assert_true(session_is_kept(&r->device));
    front_reply(r, VHOST_USER_GET_FEATURES, &(struct message){0});
}

static void test_within_a_change(void **state)
{
    struct front *r = *state;
    front_start(r, FRONT_FEATURES, 1);
    r->is_slow = true;
    front_do_state(r, VHOST_USER_GET_VRING_BASE, 0, 0);
    assert_false(session_is_kept(&r->device));
    session_check(r->session, 1000);
    assert_false(session_is_kept(&r->device));
    front_answer_all(r);
    assert_true(session_is_kept(&r->device));
}

static void test_not_all_is_kept(void **state)
{
    struct front *r = *state;
    keep_rig.result = -EAGAIN;
    front_start(r, FRONT_FEATURES, 1);
    assert_false(session_is_kept(&r->device));
    session_check(r->session, 1000);
    assert_false(session_is_kept(&r->device));
    keep_rig.result = 0;
    session_check(r->session, 1100);
    assert_true(session_is_kept(&r->device));
}

// Guest memory does not tell where such a ring stands.
static void test_ring_without_a_record(void **state)
{
    struct front *r = *state;
    r->type.protocol_features &= ~VIRTIO_BIT(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD);
    for (unsigned layout = 0; layout < 2; layout++) {
        front_negotiate(r, FRONT_FEATURES | (layout ? PACKED : 0), VIRTIO_BIT(0));
        front_share_memory(r);
        front_configure_queue(r, 0, layout ? 0x80008000 : 0);
        front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 0, 1);
        r->start_blocks = true;
        front_set_fd(r, VHOST_USER_SET_VRING_KICK, 0, r->kick[0]);
        assert_true(session_is_kept(&r->device));
        r->start_blocks = false;
        session_check(r->session, 1000);
        assert_true(ring_is_started(&r->device.queues[0].ring));
        assert_int_equal(session_is_kept(&r->device), layout == 0);
        front_do_state(r, VHOST_USER_GET_VRING_BASE, 0, 0);
        front_reply(r, VHOST_USER_GET_VRING_BASE, &(struct message){0});
        assert_true(session_is_kept(&r->device));
    }
}

// Without a record, in ring order: what guest memory shows as used is done, the rest is not.
static void test_position_of_an_ordered_ring(void **state)
{
    struct front *r = *state;
    r->type.protocol_features &= ~VIRTIO_BIT(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD);
    front_negotiate(r, FRONT_FEATURES, VIRTIO_BIT(0));
    front_share_memory(r);
    front_configure_queue(r, 0, 3);
    front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 0, 1);
    front_set_fd(r, VHOST_USER_SET_VRING_KICK, 0, r->kick[0]);
    ((struct split_used *)r->device.queues[0].ring.device)->idx = 77;
    die(r);
    go_on(r);
    assert_int_equal(ring_base(&r->device.queues[0].ring), 77);
}

static void test_ends_with_the_session(void **state)
{
    struct front *r = *state;
    say_all(r);
    assert_true(keep_rig.n > 5);
    session_close(r->session, NULL);
    assert_false(session_is_kept(&r->device));
    assert_int_equal(keep_rig.n, 0);
    session_free(r->session);
    close(r->socket);
    front_reopen(r);
    front_start(r, FRONT_FEATURES, 1);
}

// What is not needed any more is not kept.
static void test_keeps_no_more_than_needed(void **state)
{
    struct front *r = *state;
    front_start(r, FRONT_FEATURES, 2);
    unsigned n = keep_rig.n;
    for (unsigned i = 0; i < 50; i++) {
        front_set_fd(r, VHOST_USER_SET_VRING_CALL, 0, r->call[2 + i % 2]);
        assert_int_equal(front_ack(r, VHOST_USER_SET_LOG_FD, NULL, 0, &r->err[3], 1), 0);
        assert_int_equal(keep_rig.n, n);
    }
    front_set_fd(r, VHOST_USER_SET_VRING_CALL, 0, -1);
    assert_int_equal(keep_rig.n, n - 1);
}

// ---- what is damaged ---------------------------------------------------------------------

static void test_descriptor_is_missing(void **state)
{
    struct front *r = *state;
    struct error e;
    front_start(r, FRONT_FEATURES, 1);
    keep_rig_host.forget(keep_rig.names[keep_rig.n - 1]);
    die(r);
    front_log_begin();
    assert_int_equal(resume(r, &e), 0);
    assert_non_null(strstr(front_log_end(), "a descriptor was not kept"));
    assert_false(front_is_open(r));
    assert_false(session_is_kept(&r->device));
}

// This life was never there.
static void undo(struct front *r)
{
    struct life *l = &lives[n_lives--];
    session_close(r->session, NULL);
    session_free(r->session);
    l->device = r->device;
    free(r->device.queues);
    end(l);
    keep_rig.result = 0;
    r->session = lives[n_lives].session;
    r->device = lives[n_lives].device;
}

// It says what a front end could say, and is checked as that.
static void test_any_list(void **state)
{
    struct front *r = *state;
    unsigned seed = 23, n_open = 0;
    static struct state_session whole;
    say_all(r);
    memcpy(&whole, state_session(r->device.state), sizeof(whole));
    for (unsigned round = 0; round < 300; round++) {
        struct error e;
        die(r);
        keep_rig.result = -EPERM; // nothing is forgotten
        struct state_session *kept = state_session(r->device.state);
        memcpy(kept, &whole, sizeof(whole));
        for (unsigned n = 1 + (unsigned)rand_r(&seed) % 8; n; n--) {
            struct state_message *m = &kept->messages[(unsigned)rand_r(&seed) % whole.n_messages];
            uint8_t *at = rand_r(&seed) % 2 ? (uint8_t *)m : m->payload;
            at[(unsigned)rand_r(&seed) % 16] = (uint8_t)rand_r(&seed);
        }
        if (round % 10 == 0)
            kept->n_messages = (uint32_t)rand_r(&seed);
        assert_int_equal(session_resume(&r->session, &r->device, front_host(), r, &e), 0);
        n_open += front_is_open(r);
        undo(r);
    }
    assert_in_range(n_open, 10, 290);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_goes_on),
        TEST(test_messages_meanwhile),
        TEST(test_dies_while_resuming),
        TEST(test_queue_waits),
        TEST(test_within_a_message),
        TEST(test_within_a_change),
        TEST(test_not_all_is_kept),
        TEST(test_ring_without_a_record),
        TEST(test_position_of_an_ordered_ring),
        TEST(test_ends_with_the_session),
        TEST(test_keeps_no_more_than_needed),
        TEST(test_descriptor_is_missing),
        TEST(test_any_list),
    };
    return cmocka_run_group_tests_name("session_keep", tests, NULL, NULL);
}
