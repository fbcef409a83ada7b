// SPDX-License-Identifier: Apache-2.0
// One guest floods the switch of the running daemon beside 64 others: with frames for everybody,
// each from another address. Theirs still arrive.
#include "bench/net_load.h"
#include "dataplane/vhost_user.h"
#include "tests/check.h"
#include "tests/daemon.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OTHERS = 64, RING = 64, ARRIVALS = 20, PATIENCE_S = 100 };

static struct daemon sluiced;

// Two workers where there are two CPUs: half of the frames go from one to the other.
static const char *two_cpus(void)
{
    static char list[32];
    cpu_set_t set;
    unsigned n = 0;
    sched_getaffinity(0, sizeof(set), &set);
    for (int cpu = 0; cpu < CPU_SETSIZE && n < 2; cpu++) {
        if (CPU_ISSET(cpu, &set))
            snprintf(list + strlen(list), 16, n++ ? ",%d" : "%d", cpu);
    }
    return list;
}

static int start(void **state)
{
    (void)state;
    daemon_open(&sluiced);
    sluiced.workers = two_cpus();
    snprintf(sluiced.lines[sluiced.n_lines++], DAEMON_LINE_MAX, "switch s");
    for (unsigned i = 0; i <= OTHERS; i++) {
        char name[8], path[CHILD_PATH_MAX];
        snprintf(name, sizeof(name), "p%u", i);
        daemon_socket(&sluiced, path, name);
        snprintf(sluiced.lines[sluiced.n_lines++], DAEMON_LINE_MAX, "port %s switch=s socket=%s",
                 name, path);
    }
    daemon_start(&sluiced);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    daemon_stop(&sluiced);
    daemon_close(&sluiced);
    return 0;
}

static struct guest_nic *connect_nic(unsigned i)
{
    char name[8], path[CHILD_PATH_MAX];
    snprintf(name, sizeof(name), "p%u", i);
    daemon_socket(&sluiced, path, name);
    struct guest_nic_config c = {
        .path = path,
        .protocol = GUEST_NIC_PROTOCOL,
        .n_pairs = 1,
        .ring_size = RING,
        .receive_bytes = 2048,
        .send_bytes = 2048,
        .memory = {1, 4 << 20, 0, 0, false, false},
    };
    struct guest_nic *n;
    struct error e;
    check_ok(guest_nic_open(&n, &c, &e), &e);
    return n;
}

// ---- the flood ---------------------------------------------------------------------------

static atomic_bool floods;
static _Atomic uint64_t n_flooded;

static void *flood(void *argument)
{
    struct guest_nic *n = argument;
    struct nic_buffer *b;
    struct error e;
    while (floods) {
        while ((b = guest_nic_idle(n, 0))) {
            uint64_t number = n_flooded++;
            memset(b->data, 0, n->header_bytes + 60);
            memset(b->data + n->header_bytes, 0xff, 6);
            b->data[n->header_bytes + 6] = 2;
            memcpy(b->data + n->header_bytes + 8, &number, 4);
            guest_nic_send(n, 0, b, n->header_bytes + 60);
        }
        guest_nic_flush(n, 0);
        if (guest_nic_reap(n, 0, &e) < 0)
            break;
    }
    return NULL;
}

// ---- the others --------------------------------------------------------------------------

static uint64_t least_received(const struct net_load *l, const uint64_t before[OTHERS])
{
    uint64_t least = UINT64_MAX;
    for (unsigned i = 0; i < OTHERS; i++)
        least = MIN(least, net_load_stats(l, i)->n_received - before[i]);
    return least;
}

// Until each of them has got some more. What was lost (a flood fills their rings) is sent anew.
static void all_get_some(struct net_load *l)
{
    uint64_t before[OTHERS], n_left = UINT64_MAX;
    time_t began = time(NULL), gave_up = began;
    struct error e;
    for (unsigned i = 0; i < OTHERS; i++)
        before[i] = net_load_stats(l, i)->n_received;
    while (least_received(l, before) < ARRIVALS) {
        int n = net_load_turn(l, &n_left, &e);
        check_ok(MIN(n, 0), &e);
        time_t now = time(NULL);
        if (now != gave_up)
            net_load_give_up(l);
        gave_up = now;
        if (now - began > PATIENCE_S)
            fail_msg("a guest got %llu frames in %d s",
                     (unsigned long long)least_received(l, before), PATIENCE_S);
    }
}

static void others_go_on(void **state)
{
    (void)state;
    struct net_load_config config = {NET_LOAD_ECHO, NET_LOAD_FRAME_MIN, 4, true};
    struct guest_nic *nics[OTHERS], *flooder = connect_nic(OTHERS);
    struct net_load *l;
    struct error e;
    pthread_t thread;
    for (unsigned i = 0; i < OTHERS; i++)
        nics[i] = connect_nic(i);
    check_ok(net_load_open(&l, nics, OTHERS, &config, &e), &e);
    all_get_some(l);
    floods = true;
    assert_int_equal(pthread_create(&thread, NULL, flood, flooder), 0);
    while (n_flooded < 2 * RING)
        sched_yield();
    all_get_some(l);
    all_get_some(l);
    floods = false;
    pthread_join(thread, NULL);
    print_message("# %llu frames flooded\n", (unsigned long long)n_flooded);
    net_load_close(l);
    for (unsigned i = 0; i < OTHERS; i++)
        guest_nic_close(nics[i]);
    guest_nic_close(flooder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(others_go_on, start, stop)};
    return cmocka_run_group_tests_name("switch_flood", tests, NULL, NULL);
}
