// SPDX-License-Identifier: Apache-2.0
// What a well-behaved front end sees: QEMU's and testpmd's orders of messages, and the answers.
#include "tests/session_rig.h"

#include "dataplane/inflight.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOG_ALL VIRTIO_BIT(VHOST_F_LOG_ALL)
#define PACKED  VIRTIO_BIT(VIRTIO_F_RING_PACKED)

static int setup(void **state)
{
    static struct front r;
    front_open(&r);
    *state = &r;
    return 0;
}

static int teardown(void **state)
{
    front_close(*state);
    return 0;
}

static struct ring *ring_of(struct front *r, unsigned index)
{
    return &r->device.queues[index].ring;
}

static uint32_t get_base(struct front *r, unsigned index)
{
    struct message m;
    front_do_state(r, VHOST_USER_GET_VRING_BASE, index, 0);
    front_reply(r, VHOST_USER_GET_VRING_BASE, &m);
    assert_int_equal(m.header.size, 8);
    assert_int_equal(m.payload.state.index, index);
    return m.payload.state.num;
}

// ---- negotiation -------------------------------------------------------------------------

static void test_features(void **state)
{
    struct front *r = *state;
    uint64_t features = front_get(r, VHOST_USER_GET_FEATURES);
    assert_int_equal(features, VIRTIO_BIT(9) | RING_FEATURES | VIRTIO_BIT(26) | VIRTIO_BIT(30));
    assert_int_equal(front_get(r, VHOST_USER_GET_PROTOCOL_FEATURES), FRONT_PROTOCOL_FEATURES);
    assert_int_equal(front_get(r, VHOST_USER_GET_QUEUE_NUM), FRONT_QUEUES);
    front_negotiate(r, features, FRONT_PROTOCOL_FEATURES);
    front_negotiate(r, features, FRONT_PROTOCOL_FEATURES); // net says it for each pair
    assert_true(front_is_open(r));
    struct session_info info;
    session_describe(r->session, &info);
    assert_int_equal(info.features, features);
    assert_int_equal(info.protocol_features, FRONT_PROTOCOL_FEATURES);
    assert_int_equal(front_get(r, VHOST_USER_GET_MAX_MEM_SLOTS), MEM_REGIONS_MAX);
}

// A type without additions offers what every session has; queues may be pairs of rings, and one
// ring more.
static void test_what_a_type_adds(void **state)
{
    static const struct {
        uint16_t n_rings, rings_per_queue, n_queues;
    } cases[] = {{4, 0, 4}, {4, 1, 4}, {4, 2, 2}, {3, 2, 1}};
    struct front *r = *state;
    r->type.protocol_features = 0;
    assert_int_equal(front_get(r, VHOST_USER_GET_PROTOCOL_FEATURES),
                     FRONT_PROTOCOL_FEATURES & ~FRONT_TYPE_FEATURES);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        r->device.n_queues = cases[i].n_rings;
        r->type.rings_per_queue = cases[i].rings_per_queue;
        assert_int_equal(front_get(r, VHOST_USER_GET_QUEUE_NUM), cases[i].n_queues);
    }
    r->device.n_queues = FRONT_QUEUES;
}

static void test_notices_to_the_device(void **state)
{
    static const struct {
        uint32_t request;
        enum device_event event;
        uint64_t value, result;
        bool is_open;
    } cases[] = {
        {VHOST_USER_NET_SET_MTU, DEVICE_MTU, 67, 1, true},
        {VHOST_USER_NET_SET_MTU, DEVICE_MTU, 68, 0, true},
        {VHOST_USER_NET_SET_MTU, DEVICE_MTU, FRONT_MTU_MAX, 0, true},
        {VHOST_USER_NET_SET_MTU, DEVICE_MTU, FRONT_MTU_MAX + 1, 1, true}, // the device's own limit
        {VHOST_USER_NET_SET_MTU, DEVICE_MTU, 65536, 1, true},
        {VHOST_USER_SEND_RARP, DEVICE_RARP, 0x563412005452, 0, true},
        {VHOST_USER_SEND_RARP, DEVICE_RARP, UINT64_C(1) << 48, 1, false},
    };
    struct front *r = *state;
    front_negotiate(r, FRONT_FEATURES, FRONT_PROTOCOL_FEATURES);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t value = cases[i].value;
        assert_int_equal(front_ack(r, cases[i].request, &value, 8, NULL, 0), cases[i].result);
        assert_int_equal(r->notified[cases[i].event] == value, cases[i].result == 0);
        assert_int_equal(front_is_open(r), cases[i].is_open);
    }
}

static void test_notices_to_running_queues(void **state)
{
    struct front *r = *state;
    uint64_t mac = 0x563412005452, mtu = 1500, too_large = FRONT_MTU_MAX + 1;
    front_start(r, FRONT_FEATURES, 2);
    front_events(r);
    assert_int_equal(front_ack(r, VHOST_USER_SEND_RARP, &mac, 8, NULL, 0), 0);
    assert_string_equal(front_events(r), "call 0, rarp 0, call 1, rarp 1");
    assert_int_equal(front_ack(r, VHOST_USER_NET_SET_MTU, &mtu, 8, NULL, 0), 0);
    assert_string_equal(front_events(r), "call 0, mtu 0, call 1, mtu 1");
    assert_int_equal(front_ack(r, VHOST_USER_NET_SET_MTU, &too_large, 8, NULL, 0), 1);
    assert_string_equal(front_events(r), "");
}

// Each bit alone, in features and in protocol features.
static void test_only_offered_features(void **state)
{
    struct front *r = *state;
    static const uint32_t get[] = {VHOST_USER_GET_FEATURES, VHOST_USER_GET_PROTOCOL_FEATURES};
    static const uint32_t set[] = {VHOST_USER_SET_FEATURES, VHOST_USER_SET_PROTOCOL_FEATURES};
    for (unsigned kind = 0; kind < 2; kind++) {
        uint64_t offered = front_get(r, get[kind]);
        for (unsigned bit = 0; bit < 64; bit++) {
            front_do_u64(r, set[kind], VIRTIO_BIT(bit));
            assert_int_equal(front_is_open(r), (offered >> bit) & 1);
            if (front_is_open(r))
                continue;
            session_free(r->session);
            close(r->socket);
            front_reopen(r);
        }
    }
}

static void test_reply_ack(void **state)
{
    struct front *r = *state;
    uint64_t protocol = FRONT_PROTOCOL_FEATURES;
    // Not negotiated yet: the flag means nothing.
    front_send(r, VHOST_USER_SET_PROTOCOL_FEATURES, VHOST_USER_VERSION | VHOST_USER_NEED_REPLY,
               &protocol, 8, NULL, 0);
    front_run(r);
    assert_false(front_has_reply(r));

    assert_int_equal(front_ack(r, VHOST_USER_SET_OWNER, NULL, 0, NULL, 0), 0);
    front_do(r, VHOST_USER_SET_OWNER, NULL, 0, NULL, 0);
    assert_false(front_has_reply(r)); // not asked for

    // A reply of its own is the only one.
    front_send(r, VHOST_USER_GET_FEATURES, VHOST_USER_VERSION | VHOST_USER_NEED_REPLY, NULL, 0,
               NULL, 0);
    front_run(r);
    struct message m;
    front_reply(r, VHOST_USER_GET_FEATURES, &m);
    assert_false(front_has_reply(r));

    // Refused, and the session goes on; but not when nobody would hear of it.
    struct vhost_user_vring_state num = {0, 0};
    assert_int_not_equal(front_ack(r, VHOST_USER_SET_VRING_NUM, &num, sizeof(num), NULL, 0), 0);
    assert_true(front_is_open(r));
    front_do(r, VHOST_USER_SET_VRING_NUM, &num, sizeof(num), NULL, 0);
    assert_false(front_is_open(r));
}

// What breaks the protocol is answered, and is the end all the same.
static void test_broken_protocol(void **state)
{
    struct front *r = *state;
    uint64_t features = UINT64_MAX;
    front_negotiate(r, FRONT_FEATURES, FRONT_PROTOCOL_FEATURES);
    front_log_begin();
    assert_int_equal(front_ack(r, VHOST_USER_SET_FEATURES, &features, 8, NULL, 0), 1);
    assert_non_null(strstr(front_log_end(), "toy toy0: SET_FEATURES: 0xffffffffffffffff "
                                            "acknowledges 0x"));
    assert_false(front_is_open(r));
}

static void test_status(void **state)
{
    struct front *r = *state;
    front_start(r, FRONT_FEATURES, 1);
    front_do_u64(r, VHOST_USER_SET_STATUS, 15);
    assert_int_equal(front_get(r, VHOST_USER_GET_STATUS), 15);
    front_do_u64(r, VHOST_USER_SET_STATUS, 0); // before GET_VRING_BASE at every stop
    assert_int_equal(front_get(r, VHOST_USER_GET_STATUS), 0);
    assert_true(ring_is_started(ring_of(r, 0)));
    assert_string_equal(front_events(r), "");
}

// ---- config space ------------------------------------------------------------------------

static void test_config(void **state)
{
    struct front *r = *state;
    struct message m;
    struct vhost_user_config c = {.offset = 4, .size = 8};
    front_negotiate(r, FRONT_FEATURES, FRONT_PROTOCOL_FEATURES);
    front_do(r, VHOST_USER_GET_CONFIG, &c, 12 + 8, NULL, 0);
    front_reply(r, VHOST_USER_GET_CONFIG, &m);
    assert_int_equal(m.header.size, 12 + 8);
    assert_memory_equal(m.payload.config.bytes, r->device.config + 4, 8);

    c = (struct vhost_user_config){.offset = 0, .size = 256}; // what there is, then zeros
    uint8_t first = r->device.config[0];
    front_do(r, VHOST_USER_GET_CONFIG, &c, 12 + 256, NULL, 0);
    front_reply(r, VHOST_USER_GET_CONFIG, &m);
    assert_int_equal(m.header.size, 12 + 256);
    assert_memory_equal(m.payload.config.bytes, r->device.config, 256);
    assert_int_equal(m.payload.config.bytes[0], first + 1); // as the device renews it

    c = (struct vhost_user_config){.offset = 38, .size = 2, .bytes = {7, 8}};
    assert_int_equal(front_ack(r, VHOST_USER_SET_CONFIG, &c, 12 + 2, NULL, 0), 0);
    assert_int_equal(r->device.config[39], 8);
    c.flags = 2;
    assert_int_equal(front_ack(r, VHOST_USER_SET_CONFIG, &c, 12 + 2, NULL, 0), 1);
}

static void test_config_changed(void **state)
{
    struct front *r = *state;
    int pair[2];
    char bytes[64];
    static const struct vhost_user_header expected = {2, VHOST_USER_VERSION, 0};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    session_config_changed(r->session); // nobody listens
    front_negotiate(r, FRONT_FEATURES, FRONT_PROTOCOL_FEATURES);
    assert_int_equal(front_ack(r, VHOST_USER_SET_BACKEND_REQ_FD, NULL, 0, &pair[1], 1), 0);
    session_config_changed(r->session);
    assert_int_equal(recv(pair[0], bytes, sizeof(bytes), MSG_DONTWAIT), 12);
    assert_memory_equal(bytes, &expected, 12);
    struct vhost_user_config c = {.offset = 38, .size = 2, .bytes = {7, 8}}; // the driver did
    assert_int_equal(front_ack(r, VHOST_USER_SET_CONFIG, &c, 12 + 2, NULL, 0), 0);
    assert_int_equal(recv(pair[0], bytes, sizeof(bytes), MSG_DONTWAIT), 12);
    assert_memory_equal(bytes, &expected, 12);
    c.offset = UINT32_MAX;
    assert_int_equal(front_ack(r, VHOST_USER_SET_CONFIG, &c, 12 + 2, NULL, 0), 1);
    assert_int_equal(recv(pair[0], bytes, sizeof(bytes), MSG_DONTWAIT), -1);
    r->device.has_new_config = true; // the device found out on a worker
    session_check(r->session, 0);
    session_check(r->session, 0);
    assert_int_equal(recv(pair[0], bytes, sizeof(bytes), MSG_DONTWAIT), 12);
    for (unsigned i = 0; i < 2000; i++) // it is never read, and never waits
        session_config_changed(r->session);
    assert_true(front_is_open(r));
    close(pair[0]);
    close(pair[1]);
}

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
        front_configure_queue(r, 0, cases[i].base);
        assert_int_equal(get_base(r, 0), cases[i].base); // never started
        front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 0, 1);
        front_set_fd(r, VHOST_USER_SET_VRING_KICK, 0, -1);
        assert_true(ring_is_started(ring_of(r, 0)));
        assert_int_equal(r->device.queues[0].kick_fd, -1);
        front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 0, 0);
        front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 0, 1);
        assert_int_equal(get_base(r, 0), cases[i].base);
        assert_false(ring_is_started(ring_of(r, 0)));
        assert_int_equal(get_base(r, 0), cases[i].base); // stopped already
        // It stays stopped until it is kicked again.
        front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 0, 1);
        assert_false(ring_is_started(ring_of(r, 0)));
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
    get_base(r, 0);
    front_events(r);
    r->start_fails = true;
    assert_int_equal(front_ack(r, VHOST_USER_SET_VRING_KICK, &index, 8, &r->kick[0], 1), 1);
    assert_false(ring_is_started(ring_of(r, 0)));
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
    get_base(r, 0);
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
    get_base(r, 0);
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
    ring_fault(ring_of(r, 0), RING_BAD_INDEX, 0x1234);

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
    get_base(r, 0);
    front_set_fd(r, VHOST_USER_SET_VRING_KICK, 0, r->kick[0]);
    ring_fault(ring_of(r, 0), RING_BAD_HEAD, 3);
    front_log_begin();
    get_base(r, 0);
    assert_non_null(strstr(front_log_end(), "queue 0 stopped: bad-head (0x3)"));
}

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
    assert_false(ring_is_started(ring_of(r, 0)));
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
    assert_null(ring_of(r, 0)->log);
    front_events(r);
    front_do_u64(r, VHOST_USER_SET_FEATURES, FRONT_FEATURES | LOG_ALL);
    assert_string_equal(front_events(r), "call 0, call 1"); // nothing stops
    assert_non_null(ring_of(r, 0)->log);
    struct vhost_user_vring_addr addr = front_vring_addr(0);
    addr.flags = 1;
    front_do(r, VHOST_USER_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0);
    assert_string_equal(front_events(r), "");
    struct session_info info;
    session_describe(r->session, &info);
    assert_true(info.is_logging);

    set_log(r, fd, 0x10000); // a larger one
    assert_int_equal(ring_of(r, 1)->log->n_bytes, 0x10000);
    assert_int_equal(front_count_maps(), n_maps + 1);
    front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 0, 0);
    front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 0, 1);
    assert_non_null(ring_of(r, 0)->log); // a ring that starts meanwhile logs too
    assert_int_equal(front_ack(r, VHOST_USER_SET_LOG_FD, NULL, 0, &r->err[3], 1), 0);

    front_do_u64(r, VHOST_USER_SET_FEATURES, FRONT_FEATURES);
    assert_null(ring_of(r, 0)->log);
    assert_null(ring_of(r, 1)->log);
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
        const uint8_t *first = ring_of(r, 0)->record;
        const uint8_t *second = ring_of(r, 1)->record;
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
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_features),
        TEST(test_what_a_type_adds),
        TEST(test_notices_to_the_device),
        TEST(test_notices_to_running_queues),
        TEST(test_only_offered_features),
        TEST(test_reply_ack),
        TEST(test_broken_protocol),
        TEST(test_status),
        TEST(test_config),
        TEST(test_config_changed),
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
        TEST(test_memory_slots),
        TEST(test_memory_of_a_ring_goes),
        TEST(test_migration),
        TEST(test_inflight),
        TEST(test_inflight_too_small),
    };
    return cmocka_run_group_tests_name("session", tests, NULL, NULL);
}
