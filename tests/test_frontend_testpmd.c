// SPDX-License-Identifier: Apache-2.0
// Our network front end against a back end that is not ours: two vhost ports of dpdk-testpmd, which
// forwards between them. Every frame that is sent arrives, in order, with each byte right.
#include "bench/net_load.h"
#include "tests/check.h"
#include "tests/child.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define N_FRAMES     20000
#define RING_SIZE    256
#define WAIT_SECONDS 60 // without a frame

static struct {
    struct child_folder folder;
    char sockets[2][CHILD_PATH_MAX];
    pid_t pid;
} testpmd;

// Without huge pages, telemetry or a console: it forwards until it is ended. It reads its standard
// input all the same, so that is a FIFO in which nobody writes.
static int start_testpmd(void **state)
{
    (void)state;
    char vdevs[2][CHILD_PATH_MAX + 64], prefix[96], fifo[CHILD_PATH_MAX];
    child_folder_open(&testpmd.folder);
    child_path(&testpmd.folder, fifo, "input");
    for (unsigned i = 0; i < 2; i++) {
        child_path(&testpmd.folder, testpmd.sockets[i], i ? "1" : "0");
        snprintf(vdevs[i], sizeof vdevs[i], "net_vhost%u,iface=%s,queues=2", i, testpmd.sockets[i]);
    }
    snprintf(prefix, sizeof prefix, "--file-prefix=%s", strrchr(testpmd.folder.path, '/') + 1);
    char *argv[] = {"sh",
                    "-c",
                    "mkfifo \"$0\" && exec \"$@\" <> \"$0\" >/dev/null",
                    fifo,
                    "dpdk-testpmd",
                    "--no-huge",
                    "-m",
                    "256",
                    "--no-pci",
                    "--no-telemetry",
                    prefix,
                    "--lcores=0@0,1@0",
                    "--log-level=error",
                    "--vdev",
                    vdevs[0],
                    "--vdev",
                    vdevs[1],
                    "--",
                    "--forward-mode=io",
                    "--rxq=2",
                    "--txq=2",
                    "--port-topology=paired",
                    "--total-num-mbufs=16384",
                    NULL};
    testpmd.pid = child_start(argv);
    for (unsigned i = 0; i < 2; i++)
        child_wait_for_socket(testpmd.pid, testpmd.sockets[i], 60);
    return 0;
}

static int stop_testpmd(void **state)
{
    (void)state;
    child_stop(testpmd.pid, 30);
    child_folder_close(&testpmd.folder);
    return 0;
}

// ---- ways --------------------------------------------------------------------------------

static const uint64_t packed = VIRTIO_BIT(VIRTIO_F_RING_PACKED);
static const uint64_t in_order = VIRTIO_BIT(VIRTIO_F_IN_ORDER);
static const uint64_t merge = VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF);
static const uint64_t indirect = VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC);

struct way {
    const char *name;
    uint64_t features;
    enum net_load_mode mode;
    uint32_t frame_bytes;
    uint32_t receive_bytes;
    unsigned n_pairs;
    bool is_header_apart;
};

static const struct way ways[] = {
    {"split", 0, NET_LOAD_FORWARD, 60, 2048, 1, false},
    {"split, header apart", 0, NET_LOAD_BOTH, 1514, 2048, 1, true},
    {"split, indirect", indirect, NET_LOAD_ECHO, NET_LOAD_IMIX, 2048, 1, true},
    {"split, mergeable", merge, NET_LOAD_BOTH, 1514, 256, 1, false},
    {"packed", packed, NET_LOAD_FORWARD, 60, 2048, 1, false},
    {"packed, mergeable", packed | merge, NET_LOAD_BOTH, 1514, 256, 1, true},
    {"packed, in order", packed | in_order, NET_LOAD_ECHO, NET_LOAD_IMIX, 2048, 1, false},
    {"split, in order, two pairs", in_order, NET_LOAD_BOTH, NET_LOAD_IMIX, 2048, 2, false},
};

static struct guest_nic *open_nic(const struct way *way, unsigned i)
{
    struct guest_nic_config c = {
        .path = testpmd.sockets[i],
        .required = way->features | (way->n_pairs > 1 ? VIRTIO_BIT(VIRTIO_NET_F_MQ) : 0),
        .protocol = GUEST_NIC_PROTOCOL,
        .n_pairs = way->n_pairs,
        .ring_size = RING_SIZE,
        .table_entries = way->features & indirect ? 4 : 0,
        .receive_bytes = way->receive_bytes,
        .send_bytes = 2048,
        .is_header_apart = way->is_header_apart,
        .memory = {2, 4 << 20, 1 << 20, 1 << 30, false, false},
    };
    struct guest_nic *n;
    struct error e;
    check_ok(guest_nic_open(&n, &c, &e), &e);
    return n;
}

static uint64_t count(const struct net_load *l, uint64_t *n_lost)
{
    uint64_t n = 0;
    *n_lost = 0;
    for (unsigned i = 0; i < 2; i++) {
        n += net_load_stats(l, i)->latency.n;
        *n_lost += net_load_stats(l, i)->n_lost;
    }
    return n;
}

static int turn(struct net_load *l, uint64_t *n_left)
{
    struct error e;
    int n = net_load_turn(l, n_left, &e);
    check_ok(MIN(n, 0), &e);
    return n;
}

// Until @n_left frames were sent and all are back.
static void run_load(struct net_load *l, uint64_t n_left)
{
    time_t last = time(NULL);
    while (n_left || net_load_n_in_flight(l)) {
        if (turn(l, &n_left))
            last = time(NULL);
        if (time(NULL) - last > WAIT_SECONDS)
            fail_msg("%llu frames did not arrive", (unsigned long long)net_load_n_in_flight(l));
    }
}

// A link that comes up may drop what was on its way: wait until a frame gets through, then lose
// none.
static void wait_for_link(struct guest_nic *const nics[2])
{
    const struct net_load_config c = {NET_LOAD_ECHO, 60, 1, false};
    struct net_load *l;
    struct error e;
    check_ok(net_load_open(&l, nics, 2, &c, &e), &e);
    time_t deadline = time(NULL) + WAIT_SECONDS;
    while (net_load_stats(l, 0)->n_received == 0) {
        uint64_t n_left = 1;
        for (unsigned i = 0; i < 10000 && net_load_stats(l, 0)->n_received == 0; i++)
            turn(l, &n_left);
        net_load_give_up(l);
        assert_true(time(NULL) < deadline);
    }
    net_load_close(l);
}

static void run_way(const struct way *way)
{
    struct guest_nic *nics[2] = {open_nic(way, 0), open_nic(way, 1)};
    const struct net_load_config c = {way->mode, way->frame_bytes, 32, true};
    struct net_load *l;
    struct error e;
    wait_for_link(nics);
    check_ok(net_load_open(&l, nics, 2, &c, &e), &e);
    run_load(l, N_FRAMES);
    uint64_t n_lost;
    if (count(l, &n_lost) != N_FRAMES || n_lost)
        fail_msg("%s: %llu of %u frames, %llu lost", way->name,
                 (unsigned long long)count(l, &n_lost), N_FRAMES, (unsigned long long)n_lost);
    net_load_close(l);
    for (unsigned i = 0; i < 2; i++) {
        check_ok(guest_nic_stop(nics[i], &e), &e);
        guest_nic_close(nics[i]);
    }
}

static void test_ways(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(ways); i++) {
        print_message("    %s\n", ways[i].name);
        run_way(&ways[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ways, start_testpmd, stop_testpmd),
    };
    return cmocka_run_group_tests_name("frontend_testpmd", tests, NULL, NULL);
}
