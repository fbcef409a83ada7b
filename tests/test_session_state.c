// SPDX-License-Identifier: Apache-2.0
// Which in-flight record a ring gets that starts: the front end's, our own, or none; and when our
// own ends.
#include "tests/session_rig.h"

#include "dataplane/inflight.h"
#include "dataplane/state.h"

#include <string.h>
#include <unistd.h>

#define PACKED VIRTIO_BIT(VIRTIO_F_RING_PACKED)
#define MARK   48 // a byte of a record that nobody reads: padding of its first entry

static struct state *kept;

static int setup(void **state)
{
    static struct front r;
    struct error e;
    front_open(&r);
    check_ok(state_open(&kept, -1, NULL, &e), &e);
    r.device.state = state_hold(kept, "toy0", FRONT_QUEUES, &e);
    assert_non_null(r.device.state);
    *state = &r;
    return 0;
}

static int teardown(void **state)
{
    struct front *r = *state;
    front_close(r);
    state_release(r->device.state);
    state_close(kept);
    return 0;
}

static uint8_t *record_of(struct front *r, unsigned index)
{
    return r->device.queues[index].ring.record;
}

// A record that was begun is told from a new one by its version.
static void mark(struct front *r, unsigned index)
{
    assert_non_null(record_of(r, index));
    record_of(r, index)[MARK] = 77;
}

static bool is_marked(struct front *r, unsigned index)
{
    assert_non_null(record_of(r, index));
    return record_of(r, index)[MARK] == 77;
}

// The driver has seen used buffers: the ring is no new one.
static void use_ring(struct front *r, unsigned index)
{
    struct queue *q = &r->device.queues[index];
    ((struct split_used *)q->ring.device)->idx = 5;
    q->ring.next_used = q->ring.next_avail = 5;
    ((struct inflight_split *)q->ring.record)->used_idx = 5;
}

static void stop(struct front *r, unsigned index)
{
    struct message m;
    front_do_state(r, VHOST_USER_GET_VRING_BASE, index, 0);
    front_reply(r, VHOST_USER_GET_VRING_BASE, &m);
}

// The process dies or the front end leaves without a word; the next session has the record.
static void come_back(struct front *r)
{
    session_close(r->session, NULL);
    session_free(r->session);
    close(r->socket);
    front_reopen(r);
}

static void test_own_record_lasts(void **state)
{
    struct front *r = *state;
    front_start(r, FRONT_FEATURES, 2);
    use_ring(r, 0);
    mark(r, 0);
    assert_int_not_equal(record_of(r, 1) - record_of(r, 0), 0);
    front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 0, 0); // goes on in the same session
    front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 0, 1);
    assert_true(is_marked(r, 0));
    come_back(r);
    front_start(r, FRONT_FEATURES, 2);
    assert_true(is_marked(r, 0));
}

static void test_own_record_ends(void **state)
{
    struct front *r = *state;
    for (unsigned way = 0; way < 3; way++) {
        front_start(r, FRONT_FEATURES, 1);
        use_ring(r, 0);
        mark(r, 0);
        if (way == 0)
            stop(r, 0);
        else if (way == 1)
            assert_int_equal(front_ack(r, VHOST_USER_RESET_DEVICE, NULL, 0, NULL, 0), 0);
        come_back(r);
        if (way == 2) { // another guest, at the same addresses
            close(r->memory_fd);
            r->memory_fd = front_memfd(FRONT_MEMORY_BYTES);
        }
        front_start(r, FRONT_FEATURES, 1);
        assert_false(is_marked(r, 0));
        come_back(r);
    }
}

// The same memory, but a driver that chose other features.
static void test_own_record_of_other_features(void **state)
{
    struct front *r = *state;
    front_start(r, FRONT_FEATURES, 1);
    use_ring(r, 0);
    mark(r, 0);
    come_back(r);
    front_start(r, FRONT_FEATURES | VIRTIO_BIT(VIRTIO_F_EVENT_IDX), 1);
    assert_false(is_marked(r, 0));
}

// A record that contradicts its ring, whoever wrote into it, is left behind with a sentence.
static void test_own_record_is_damaged(void **state)
{
    struct front *r = *state;
    front_start(r, FRONT_FEATURES, 1);
    use_ring(r, 0);
    mark(r, 0);
    ((struct inflight_split *)(void *)record_of(r, 0))->desc_num = 4711;
    come_back(r);
    front_log_begin();
    front_start(r, FRONT_FEATURES, 1);
    assert_non_null(strstr(front_log_end(), "queue 0: the in-flight record contradicts the ring"));
    assert_false(is_marked(r, 0));
}

// The front end's region comes first, and is the only record then.
static void test_region_of_the_front_end(void **state)
{
    struct front *r = *state;
    front_start(r, FRONT_FEATURES, 1);
    use_ring(r, 0);
    mark(r, 0);
    come_back(r);
    int fd = front_memfd(0x10000);
    struct vhost_user_inflight region = {.mmap_size = 0x10000, .num_queues = 2, .queue_size = 128};
    front_negotiate(r, FRONT_FEATURES, FRONT_PROTOCOL_FEATURES);
    assert_int_equal(front_ack(r, VHOST_USER_SET_INFLIGHT_FD, &region, sizeof(region), &fd, 1), 0);
    front_start(r, FRONT_FEATURES, 1);
    assert_false(is_marked(r, 0));
    struct inflight_split rec;
    assert_int_equal(pread(fd, &rec, sizeof(rec), 0), sizeof(rec));
    assert_int_equal(rec.desc_num, 128);
    come_back(r);
    front_start(r, FRONT_FEATURES, 1); // no region this time: the old record is not taken up
    assert_false(is_marked(r, 0));
    close(fd);
}

// A type without that region may take pops back, which no record knows.
static void test_types_without_records(void **state)
{
    struct front *r = *state;
    r->type.protocol_features = 0;
    front_negotiate(r, FRONT_FEATURES | PACKED, FRONT_PROTOCOL_FEATURES & ~FRONT_TYPE_FEATURES);
    front_share_memory(r);
    front_configure_queue(r, 0, 0x80008000);
    front_set_fd(r, VHOST_USER_SET_VRING_KICK, 0, r->kick[0]);
    front_do_state(r, VHOST_USER_SET_VRING_ENABLE, 0, 1);
    assert_true(ring_is_started(&r->device.queues[0].ring));
    assert_null(record_of(r, 0));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_own_record_lasts),
        TEST(test_own_record_ends),
        TEST(test_own_record_of_other_features),
        TEST(test_own_record_is_damaged),
        TEST(test_region_of_the_front_end),
        TEST(test_types_without_records),
    };
    return cmocka_run_group_tests_name("session_state", tests, NULL, NULL);
}
