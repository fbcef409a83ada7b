// SPDX-License-Identifier: Apache-2.0
// What a well-behaved front end sees: QEMU's and testpmd's orders of messages, and the answers.
#include "tests/session_rig.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

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
    assert_true(ring_is_started(front_ring(r, 0)));
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

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, front_setup, front_teardown)
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
    };
    return cmocka_run_group_tests_name("session", tests, NULL, NULL);
}
