// SPDX-License-Identifier: Apache-2.0
// A guest's disk while its queues move from worker to worker: the real daemon, our front end. A
// ledger knows what was written where, so that a request that got lost, came twice or hit another
// block is seen.
#include "bench/disk_load.h"
#include "tests/check.h"
#include "tests/daemon.h"
#include "tests/disk_folder.h"
#include "tests/fuse_disk.h"

#include <jansson.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PACKED VIRTIO_BIT(VIRTIO_F_RING_PACKED)
#define EVENT  VIRTIO_BIT(VIRTIO_F_EVENT_IDX)
#define ORDER  VIRTIO_BIT(VIRTIO_F_IN_ORDER)

#define QUEUES 4
#define BYTES  (UINT64_C(4) << 20)

static struct daemon sluiced;

// Two workers, or none of this can be tried.
static void need_two_cpus(char list[16])
{
    cpu_set_t set;
    int cpus[2];
    unsigned n = 0;
    sched_getaffinity(0, sizeof set, &set);
    for (int i = 0; i < CPU_SETSIZE && n < 2; i++) {
        if (CPU_ISSET(i, &set))
            cpus[n++] = i;
    }
    if (n < 2) {
        print_message("skipped: queues move between workers, and there is one CPU\n");
        skip();
    }
    snprintf(list, 16, "%d,%d", cpus[0], cpus[1]);
}

static void start_daemon(void)
{
    static char workers[16];
    need_two_cpus(workers);
    sluiced.workers = workers;
    daemon_start(&sluiced);
}

static int open_folder(void **state)
{
    (void)state;
    daemon_open(&sluiced);
    return 0;
}

static int stop_daemon(void **state)
{
    (void)state;
    if (sluiced.pid)
        daemon_stop(&sluiced);
    daemon_close(&sluiced);
    return 0;
}

static void move(const char *name, unsigned queue, unsigned worker)
{
    char params[96];
    snprintf(params, sizeof params, "{\"name\":\"%s\",\"queue\":%u,\"worker\":%u}", name, queue,
             worker);
    json_decref(daemon_call(&sluiced, "move", params));
}

// Member @what of each worker.
static void of_workers(const char *what, long long out[2])
{
    json_t *stats = daemon_call(&sluiced, "stats", "{}");
    for (size_t i = 0; i < 2; i++) {
        const json_t *w = json_array_get(json_object_get(stats, "workers"), i);
        out[i] = json_integer_value(json_object_get(w, what));
    }
    json_decref(stats);
}

static void turn(struct disk_load *l, uint64_t *n_left)
{
    struct error e;
    if (disk_load_turn(l, n_left, &e) < 0)
        fail_msg("%s", e.text);
}

// So many moves under load, each seen by requests at every stage of it.
static void move_under_load(const char *name, uint64_t features, unsigned n_moves)
{
    struct guest_disk *d = daemon_connect(&sluiced, name, features, QUEUES, 1, 0);
    struct disk_load_config config = {
        .pattern = DISK_LOAD_RANDRW,
        .block_bytes = 4096,
        .depth = 8,
        .form = GUEST_REQUEST_DIRECT,
        .verify = true,
        .seed = features + n_moves,
    };
    struct disk_load *l;
    struct error e;
    long long queues[2], before[2], after[2];
    check_ok(disk_load_open(&l, &d, 1, &config, &e), &e);
    of_workers("queues", queues);
    assert_true(queues[0] == QUEUES / 2 && queues[1] == QUEUES / 2); // they are spread
    of_workers("requests", before);

    uint64_t n_left = UINT64_MAX, seed = features;
    for (unsigned i = 0; i < n_moves; i++) {
        uint64_t done = disk_load_n_done(l) + random_below(&seed, 4);
        do
            turn(l, &n_left);
        while (disk_load_n_done(l) < done);
        move(name, (unsigned)random_below(&seed, QUEUES), (unsigned)random_below(&seed, 2));
    }
    n_left = 0;
    while (disk_load_n_in_flight(l))
        turn(l, &n_left);

    const struct disk_load_stats *stats = disk_load_stats(l, 0);
    of_workers("requests", after);
    assert_int_equal(stats->n_errors, 0);
    assert_true(stats->n_verified > 0);
    assert_true(after[0] > before[0] && after[1] > before[1]);
    assert_int_equal(after[0] - before[0] + after[1] - before[1], disk_load_n_done(l));
    check_ok(guest_disk_stop(d, &e), &e); // the ring is where the driver is
    check_ok(guest_disk_start(d, &e), &e);
    for (unsigned i = 0; i < QUEUES; i++)
        move(name, i, i & 1); // the next one begins so too
    disk_load_close(l);
    guest_disk_close(d);
}

static void test_thousand_moves(void **state)
{
    (void)state;
    static const uint64_t features[] = {EVENT, PACKED | ORDER};
    daemon_add_file_disk(&sluiced, "file", BYTES, "queues=4");
    start_daemon();
    for (unsigned i = 0; i < ARRAY_LEN(features); i++)
        move_under_load("file", features[i], 1000);
}

// Requests that are slower than any move: each comes back to a worker that did not send it.
static void test_slow_disk_moves(void **state)
{
    static const char *const slow[] = {"--filter=delay", "rdelay=20ms", "wdelay=20ms", NULL};
    char path[512], line[600];
    assert_int_equal(disk_folder_enter(state), 0);
    pid_t pid = fuse_disk_start("slow", slow);
    assert_non_null(getcwd(path, sizeof path));
    snprintf(line, sizeof line, "file=%s/slow queues=4", path);
    daemon_add_disk(&sluiced, "slow", line);
    start_daemon();
    move_under_load("slow", 0, 100);
    move_under_load("slow", PACKED, 100);
    stop_daemon(state);
    fuse_disk_stop(pid);
    assert_int_equal(disk_folder_leave(state), 0);
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, open_folder, stop_daemon)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(test_thousand_moves),
        EACH(test_slow_disk_moves),
    };
    return cmocka_run_group_tests_name("disk_move", tests, NULL, NULL);
}
