// SPDX-License-Identifier: Apache-2.0
// Guests exchange frames while their ports' queues move between two workers, and while the real
// daemon ends, dies and is started again.
#include "bench/net_load.h"
#include "tests/check.h"
#include "tests/daemon.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define PACKED VIRTIO_BIT(VIRTIO_F_RING_PACKED)

enum { RING = 64, MOVES = 60, PATIENCE_S = 60 };

static struct daemon sluiced;

// As many workers as there are CPUs, two at most.
static unsigned choose_workers(char list[32])
{
    cpu_set_t set;
    unsigned n = 0;
    sched_getaffinity(0, sizeof set, &set);
    for (int cpu = 0; cpu < CPU_SETSIZE && n < 2; cpu++) {
        if (CPU_ISSET(cpu, &set))
            snprintf(list + strlen(list), 16, n++ ? ",%d" : "%d", cpu);
    }
    return n;
}

static unsigned n_workers;

static int start(void **state)
{
    static char workers[32];
    (void)state;
    workers[0] = 0;
    daemon_open(&sluiced);
    n_workers = choose_workers(workers);
    sluiced.workers = workers;
    snprintf(sluiced.lines[sluiced.n_lines++], DAEMON_LINE_MAX, "switch s");
    for (unsigned i = 0; i < 2; i++) {
        char name[] = {'p', (char)('0' + i), 0}, path[CHILD_PATH_MAX];
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
    if (sluiced.pid)
        daemon_stop(&sluiced);
    daemon_close(&sluiced);
    return 0;
}

static void connect_both(struct guest_nic *nics[2], uint64_t features)
{
    for (unsigned i = 0; i < 2; i++) {
        char name[] = {'p', (char)('0' + i), 0}, path[CHILD_PATH_MAX];
        struct error e;
        daemon_socket(&sluiced, path, name);
        struct guest_nic_config c = {
            .path = path,
            .required = features,
            .protocol = GUEST_NIC_PROTOCOL,
            .n_pairs = 1,
            .ring_size = RING,
            .receive_bytes = 2048,
            .send_bytes = 2048,
            .memory = {1, 4 << 20, 0, 0, false, false},
        };
        check_ok(guest_nic_open(&nics[i], &c, &e), &e);
    }
}

static void close_both(struct guest_nic *nics[2])
{
    for (unsigned i = 0; i < 2; i++) {
        struct error e;
        check_ok(guest_nic_stop(nics[i], &e), &e); // whatever it had is back
        guest_nic_close(nics[i]);
    }
}

static void turn(struct net_load *l, uint64_t *n_left)
{
    struct error e;
    int n = net_load_turn(l, n_left, &e);
    check_ok(MIN(n, 0), &e);
}

// Until @n more arrived; what is late for long is given up.
static void exchange(struct net_load *l, uint64_t n)
{
    uint64_t n_left = UINT64_MAX, goal = net_load_n_done(l) + n;
    time_t began = time(NULL), gave_up = began;
    while (net_load_n_done(l) < goal) {
        turn(l, &n_left);
        time_t now = time(NULL);
        if (now - gave_up >= 2) {
            net_load_give_up(l);
            gave_up = now;
        }
        if (now - began > PATIENCE_S)
            fail_msg("%llu frames are missing", (unsigned long long)(goal - net_load_n_done(l)));
    }
}

// What is on its way arrives, or is given up.
static void drain(struct net_load *l)
{
    uint64_t none = 0;
    time_t began = time(NULL);
    while (net_load_n_in_flight(l) && time(NULL) - began < 2)
        turn(l, &none);
    net_load_give_up(l);
}

static struct net_load *open_load(struct guest_nic *nics[2])
{
    const struct net_load_config c = {NET_LOAD_ECHO, NET_LOAD_IMIX, RING / 2, true};
    struct net_load *l;
    struct error e;
    check_ok(net_load_open(&l, nics, 2, &c, &e), &e);
    return l;
}

static void queues_move(void **state)
{
    (void)state;
    if (n_workers < 2) {
        print_message("skipped: queues move between workers, and there is one CPU\n");
        skip();
    }
    for (unsigned k = 0; k < 2; k++) {
        struct guest_nic *nics[2];
        connect_both(nics, k ? PACKED : 0);
        struct net_load *l = open_load(nics);
        exchange(l, 100);
        for (unsigned i = 0; i < MOVES; i++) {
            char params[96];
            snprintf(params, sizeof params, "{\"name\":\"p%u\",\"queue\":%u,\"worker\":%u}", i % 2,
                     i / 2 % 2, i / 4 % 2);
            json_decref(daemon_call(&sluiced, "move", params));
            exchange(l, 100);
        }
        drain(l);
        net_load_close(l);
        close_both(nics);
    }
}

static void daemon_restarts(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 2; k++) {
        struct guest_nic *nics[2];
        connect_both(nics, k ? PACKED : 0);
        struct net_load *l = open_load(nics);
        for (unsigned i = 0; i < 6; i++) {
            exchange(l, 500 + 7 * i);
            // A kill amid a publication leaves a packed ring without a record in no known place.
            if (i % 2 && !k)
                daemon_kill(&sluiced);
            else
                daemon_stop(&sluiced);
            drain(l); // collect all that it used
            daemon_start_again(&sluiced);
            for (unsigned n = 0; n < 2; n++) {
                struct error e;
                check_ok(guest_nic_reconnect(nics[n], &e), &e);
            }
        }
        exchange(l, 500);
        drain(l);
        net_load_close(l);
        close_both(nics);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(queues_move, start, stop),
        cmocka_unit_test_setup_teardown(daemon_restarts, start, stop),
    };
    return cmocka_run_group_tests_name("net_move", tests, NULL, NULL);
}
