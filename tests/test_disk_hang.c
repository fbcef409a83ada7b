// SPDX-License-Identifier: Apache-2.0
// A disk that does not answer: its own front end waits, with its age shown, and nobody else does;
// and sluiced ends all the same.
#include "bench/guest_request.h"
#include "tests/check.h"
#include "tests/daemon.h"
#include "tests/disk_folder.h"
#include "tests/fuse_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DEADLINE_S 60

static struct daemon sluiced;
static pid_t fuse;
static int said = -1; // a file with what sluiced says

#define until(condition)                                                                           \
    do {                                                                                           \
        time_t start_ = time(NULL);                                                                \
        while (!(condition)) {                                                                     \
            if (time(NULL) - start_ > DEADLINE_S)                                                  \
                fail_msg("never: %s", #condition);                                                 \
            usleep(2000);                                                                          \
        }                                                                                          \
    } while (0)

static int setup(void **state)
{
    static const char *const no_filter[] = {NULL};
    char path[512], line[600];
    (void)state;
    fuse = fuse_disk_start("hung", no_filter);
    daemon_open(&sluiced);
    assert_non_null(getcwd(path, sizeof path));
    snprintf(line, sizeof line, "file=%s/hung", path);
    daemon_add_disk(&sluiced, "hung", line);
    daemon_add_disk(&sluiced, "good", "ram=4M");
    said = open("said", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int before = dup(STDERR_FILENO);
    dup2(said, STDERR_FILENO);
    daemon_start(&sluiced);
    dup2(before, STDERR_FILENO);
    close(before);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fuse_disk_resume(fuse);
    daemon_close(&sluiced);
    fuse_disk_stop(fuse);
    close(said);
    return 0;
}

// A number of device @name.
static long long shown(const char *name, const char *what)
{
    char params[64];
    snprintf(params, sizeof params, "{\"name\":\"%s\"}", name);
    json_t *device = daemon_call(&sluiced, "show", params);
    long long n = json_integer_value(json_object_get(device, what));
    json_decref(device);
    return n;
}

// A number of its first queue.
static long long of_queue(const char *name, const char *what)
{
    char params[64];
    snprintf(params, sizeof params, "{\"name\":\"%s\"}", name);
    json_t *device = daemon_call(&sluiced, "show", params);
    const json_t *q = json_array_get(json_object_get(device, "queues"), 0);
    long long n = json_integer_value(json_object_get(q, what));
    json_decref(device);
    return n;
}

struct one {
    struct guest_disk *disk;
    struct guest_request request;
    atomic_bool has_stopped;
};

static void open_one(struct one *one, const char *name)
{
    struct error e;
    *one = (struct one){.disk = daemon_connect(&sluiced, name, 0, 1, 1, 0)};
    check_ok(guest_request_open(&one->request, 1, one->disk->guest, 4096, &e), &e);
    guest_request_prepare(&one->request, VIRTIO_BLK_T_IN, 0, 4096, GUEST_REQUEST_DIRECT);
}

static void close_one(struct one *one)
{
    guest_request_close(&one->request, 1);
    guest_disk_close(one->disk);
}

// The hung disk, with one request that hangs.
static void open_hung(struct one *one)
{
    open_one(one, "hung");
    fuse_disk_hang(fuse);
    assert_true(guest_disk_submit(one->disk, 0, &one->request));
    until(of_queue("hung", "in_flight") == 1);
}

static void use_good_disk(void)
{
    struct one good;
    struct error e;
    open_one(&good, "good");
    for (unsigned i = 0; i < 100; i++) {
        guest_request_prepare(&good.request, i & 1 ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, 0, 4096,
                              GUEST_REQUEST_DIRECT);
        memset(good.request.data, i & 1 ? 0 : (int)i, 4096);
        assert_true(guest_disk_run(good.disk, 0, &good.request, &e) > 0);
        if (i & 1)
            assert_int_equal(good.request.data[4095], i - 1);
    }
    check_ok(guest_disk_stop(good.disk, &e), &e);
    close_one(&good);
}

static void *stop(void *argument)
{
    struct one *one = argument;
    struct error e;
    uint32_t base;
    check_ok(frontend_stop_ring(one->disk->frontend, 0, &base, &e), &e);
    assert_int_equal(base, 1); // behind the request
    one->has_stopped = true;
    return NULL;
}

// GET_VRING_BASE waits for the last request, and its age is shown; others come and go.
static void test_only_its_own_front_end_waits(void **state)
{
    (void)state;
    struct one hung;
    pthread_t stopper;
    open_hung(&hung);
    use_good_disk();
    assert_int_equal(pthread_create(&stopper, NULL, stop, &hung), 0);
    until(shown("hung", "waiting_ms") > 300);
    use_good_disk();
    assert_true(of_queue("hung", "oldest_ms") > 300);
    assert_int_equal(shown("good", "waiting_ms"), 0);
    assert_false(hung.has_stopped);
    fuse_disk_resume(fuse);
    pthread_join(stopper, NULL);
    assert_int_equal(*hung.request.status, VIRTIO_BLK_S_OK);
    assert_int_equal(shown("hung", "waiting_ms"), 0);
    close_one(&hung);
    daemon_stop(&sluiced);
}

static bool has_said(const char *text)
{
    static char all[16384];
    ssize_t n = pread(said, all, sizeof all - 1, 0);
    all[n > 0 ? n : 0] = '\0';
    return strstr(all, text) != NULL;
}

// The front end is cut off at once. After its deadline sluiced says who did not answer, gives its
// control socket free and ends; the kernel lets go of the process when the disk answers, or what
// serves it is ended.
static void test_sluiced_ends_all_the_same(void **state)
{
    (void)state;
    struct one hung;
    char control[CHILD_PATH_MAX];
    child_path(&sluiced.folder, control, "control");
    open_hung(&hung);
    time_t asked = time(NULL);
    assert_int_equal(kill(sluiced.pid, SIGTERM), 0);
    struct pollfd socket = {.fd = hung.disk->frontend->fd, .events = POLLIN};
    assert_int_equal(poll(&socket, 1, DEADLINE_S * 1000), 1);
    until(access(control, F_OK) != 0);
    assert_in_range(time(NULL) - asked, 9, DEADLINE_S);
    assert_true(has_said("error: sluiced: not drained in 10000 ms, not waiting any longer"));
    assert_true(has_said("error: disk hung: queue 0 is given up with 1 requests in flight, the "
                         "oldest for 1"));
    assert_false(has_said("good: queue"));
    fuse_disk_resume(fuse);
    pid_t pid = sluiced.pid;
    sluiced.pid = 0;
    assert_int_equal(child_wait(pid, DEADLINE_S), EXIT_FAILURE);
    close(sluiced.out);
    close_one(&hung);
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(test_only_its_own_front_end_waits),
        EACH(test_sluiced_ends_all_the_same),
    };
    return cmocka_run_group_tests_name("disk_hang", tests, disk_folder_enter, disk_folder_leave);
}
