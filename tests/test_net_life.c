// SPDX-License-Identifier: Apache-2.0
// A port while its rings start and stop, and while its guest migrates.
#include "tests/net_rig.h"

#include "dataplane/dirty.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define V1        VIRTIO_BIT(VIRTIO_F_VERSION_1)
#define PACKED    VIRTIO_BIT(VIRTIO_F_RING_PACKED)
#define MERGEABLE VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF)

static struct net_end a, b;
static struct net_taken taken;

static void open_pair(uint64_t features)
{
    net_end_open(&net_rig, &a, &(struct net_end_config){.features = features});
    net_end_open(&net_rig, &b, &(struct net_end_config){.features = features, .name = "b"});
}

// From a to b.
static void send_frame(uint32_t bytes)
{
    static uint8_t data[4096] = {[12] = 2, [17] = 0xbb, [18] = 2, [23] = 0xaa};
    net_end_send(&a, 1, data, 12 + bytes, NULL, 0);
    net_rig_run(&net_rig);
}

// Frames to a port whose rings do not run yet, or not any more.
static void link_follows_the_rings(void **state)
{
    (void)state;
    net_end_open(&net_rig, &a, &(struct net_end_config){.features = V1});
    net_end_open(&net_rig, &b,
                 &(struct net_end_config){.features = V1, .name = "b", .is_late = true});
    send_frame(60);
    assert_int_equal(net_drops(&a, 1, DROP_LINK_DOWN), 1);
    for (unsigned i = 0; i < 2; i++) {
        net_end_start(&b, 0, 0);
        if (i == 0)
            net_end_post(&b, 0, 4, (uint32_t[]){2048}, 1);
        send_frame(60);
        assert_true(net_end_take(&b, 0, &taken));
        net_end_stop(&b, 0);
        send_frame(60);
        assert_int_equal(net_drops(&a, 1, DROP_LINK_DOWN), 2 + i);
    }
    assert_int_equal(net_end_reap(&a, 1), 5);
}

static void a_migrated_guest_is_announced(void **state)
{
    (void)state;
    static const uint8_t expected[] = {
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 1, 2, 3, 4, 5, 0x80, 0x35, // to all
        0,    1,    8,    0,    6,    4,    0, 3,                         // reverse request
        2,    1,    2,    3,    4,    5,    0, 0, 0, 0,                   // who asks
        2,    1,    2,    3,    4,    5,    0, 0, 0, 0,                   // for itself
    };
    struct error e;
    uint64_t mac = 0x050403020102;
    open_pair(V1);
    net_end_post(&b, 0, 4, (uint32_t[]){2048}, 1);
    for (unsigned i = 0; i < 2; i++) {
        if (i == 1)
            net_end_stop(&a, 1); // told while nothing runs: when it starts
        check_ok(port_device.notify(a.device, DEVICE_RARP, mac, &e), &e);
        if (i == 1)
            net_end_start(&a, 1, 0);
        else
            for (unsigned q = 0; q < 2; q++)
                port_device.queue_notify(a.rings[q].queue, DEVICE_RARP, mac);
        net_rig_run(&net_rig);
        assert_true(net_end_take(&b, 0, &taken));
        assert_int_equal(taken.bytes, 60);
        assert_memory_equal(taken.frame, expected, sizeof(expected));
        assert_false(net_end_take(&b, 0, &taken));
    }
}

// Whether the page of the byte at @addr is in the log.
static bool is_logged(const struct dirty *log, uint64_t addr)
{
    uint64_t page = addr / DIRTY_PAGE_BYTES;
    return log->bits[page / 8] >> page % 8 & 1;
}

// The pages of buffers that got a frame, and of no others.
static void received_bytes_are_logged(void **state)
{
    (void)state;
    for (unsigned packed = 0; packed < 2; packed++) {
        struct dirty *log;
        struct error e;
        int fd = memfd_create("log", MFD_CLOEXEC);
        assert_int_equal(ftruncate(fd, 4096), 0);
        check_ok(dirty_open(&log, fd, 4096, 0, &e), &e);
        close(fd);
        open_pair(V1 | MERGEABLE | (packed ? PACKED : 0));
        net_end_post(&b, 0, 8, (uint32_t[]){2 * DIRTY_PAGE_BYTES}, 1);
        memset(log->bits, 0, 4096);
        struct ring *ring = &b.rings[0].queue->ring;
        ring_set_dirty(ring, log);
        for (unsigned frames = 0; frames < 4; frames++) {
            for (unsigned i = 0; i < 8; i++) {
                uint64_t first = b.rings[0].buffers[i].segments[0].addr;
                assert_int_equal(is_logged(log, first + DIRTY_PAGE_BYTES), i < frames);
            }
            send_frame(3000);
        }
        ring_set_dirty(ring, NULL);
        net_end_close(&a);
        net_end_close(&b);
        dirty_close(log);
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, net_rig_setup, net_rig_teardown)
    const struct CMUnitTest tests[] = {
        TEST(link_follows_the_rings),
        TEST(a_migrated_guest_is_announced),
        TEST(received_bytes_are_logged),
    };
    return cmocka_run_group_tests_name("net_life", tests, NULL, NULL);
}
