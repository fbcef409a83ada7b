// SPDX-License-Identifier: Apache-2.0
// What a guest, a front end or a client can have of the running daemon is limited, and others
// are served meanwhile: descriptors, turns of the control thread, memory.
#include "bench/disk_load.h"
#include "bench/wire.h"
#include "dataplane/ring.h"
#include "dataplane/socket.h"
#include "tests/check.h"
#include "tests/daemon.h"

#include <dirent.h>
#include <linux/sockios.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define INDIRECT   VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC)
#define PACKED     VIRTIO_BIT(VIRTIO_F_RING_PACKED)
#define PATIENCE_S 60

static struct daemon sluiced;

static int start(void **state)
{
    (void)state;
    daemon_open(&sluiced);
    daemon_add_file_disk(&sluiced, "good", 4 << 20, "");
    daemon_add_file_disk(&sluiced, "bad", 4 << 20, "");
    daemon_start(&sluiced);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    daemon_stop(&sluiced); // asserts that it lives and ends well
    daemon_close(&sluiced);
    return 0;
}

static void pause_1ms(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static void read_once(struct guest_disk *d, struct guest_request *r)
{
    struct error e;
    guest_request_prepare(r, VIRTIO_BLK_T_IN, 0, 4096, GUEST_REQUEST_INDIRECT);
    if (guest_disk_run(d, 0, r, &e) != 4097)
        fail_msg("a request of the neighbour: %s", e.text);
}

static int control_connect(void)
{
    struct error e;
    char path[CHILD_PATH_MAX];
    child_path(&sluiced.folder, path, "control");
    return unix_connect(path, &e);
}

static bool control_ask(int fd)
{
    static const char question[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list\"}\n";
    return send(fd, question, sizeof question - 1, MSG_NOSIGNAL) > 0;
}

static bool control_is_answered(int fd)
{
    char answer[4096];
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    if (poll(&pfd, 1, PATIENCE_S * 1000) != 1)
        return false;
    ssize_t n = recv(fd, answer, sizeof answer - 1, 0);
    answer[MAX(n, 0)] = '\0';
    return strstr(answer, "result") != NULL;
}

// The control socket answers. False: not now.
static bool control_answers(void)
{
    int fd = control_connect();
    bool is_answered = fd >= 0 && control_ask(fd) && control_is_answered(fd);
    if (fd >= 0)
        close(fd);
    return is_answered;
}

// ---- descriptors -------------------------------------------------------------------------

static unsigned n_descriptors(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)sluiced.pid);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    unsigned n = 0;
    for (struct dirent *entry; (entry = readdir(dir));)
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

// Connect again and again until the daemon has no descriptor left, then let go.
static void flood(const char *name, unsigned n_max, struct guest_disk *good,
                  struct guest_request *r)
{
    enum { N = 400 };
    int fds[N];
    unsigned n = 0;
    struct error e;
    char path[CHILD_PATH_MAX];
    child_path(&sluiced.folder, path, name);
    time_t deadline = time(NULL) + PATIENCE_S;
    while (n_descriptors() < n_max) {
        if (n < N && (fds[n] = unix_connect(path, &e)) >= 0)
            n++;
        else
            pause_1ms(); // its backlog is full
        if (time(NULL) > deadline)
            fail_msg("%u connections: the daemon has %u of %u descriptors", n, n_descriptors(),
                     n_max);
    }
    for (unsigned i = 0; i < 50; i++)
        read_once(good, r);
    while (n)
        close(fds[--n]);
}

static void test_connections_reach_the_limit(void **state)
{
    (void)state;
    struct error e;
    struct guest_request r, again;
    struct guest_disk *good = daemon_connect(&sluiced, "good", INDIRECT, 1, 1, 0);
    check_ok(guest_request_open(&r, 1, good->guest, 4096, &e), &e);
    read_once(good, &r);
    unsigned n_before = n_descriptors();
    struct rlimit limit, old;
    assert_int_equal(prlimit(sluiced.pid, RLIMIT_NOFILE, NULL, &old), 0);
    limit = (struct rlimit){n_before + 20, old.rlim_max};
    assert_int_equal(prlimit(sluiced.pid, RLIMIT_NOFILE, &limit, NULL), 0);
    flood("control", n_before + 20, good, &r);

    // All of it comes back, and with it whoever could not connect.
    time_t deadline = time(NULL) + PATIENCE_S;
    while (!control_answers() || n_descriptors() > n_before + 1) {
        if (time(NULL) > deadline)
            fail_msg("%u descriptors, %u before the flood", n_descriptors(), n_before);
        pause_1ms();
    }
    struct guest_disk *bad = daemon_connect(&sluiced, "bad", INDIRECT, 1, 1, 0);
    check_ok(guest_request_open(&again, 1, bad->guest, 4096, &e), &e);
    read_once(bad, &again);
    read_once(good, &r);
    guest_request_close(&again, 1);
    guest_disk_close(bad);
    guest_request_close(&r, 1);
    guest_disk_close(good);
    assert_int_equal(prlimit(sluiced.pid, RLIMIT_NOFILE, &old, NULL), 0);
}

// A device serves one front end: others that come by the hundred take nothing.
static void test_second_front_ends_are_sent_away(void **state)
{
    (void)state;
    struct error e;
    struct guest_request r;
    char path[CHILD_PATH_MAX];
    struct guest_disk *good = daemon_connect(&sluiced, "good", INDIRECT, 1, 1, 0);
    check_ok(guest_request_open(&r, 1, good->guest, 4096, &e), &e);
    read_once(good, &r);
    unsigned n_before = n_descriptors();
    daemon_socket(&sluiced, path, "good");
    for (unsigned i = 0; i < 500; i++) {
        int fd = frontend_connect(path, FRONTEND_TIMEOUT_MS, &e);
        assert_true(fd >= 0);
        char byte;
        assert_int_equal(recv(fd, &byte, 1, 0), 0); // waits for its end
        close(fd);
    }
    read_once(good, &r);
    assert_true(n_descriptors() <= n_before + 1);
    guest_request_close(&r, 1);
    guest_disk_close(good);
}

// ---- turns of the control thread ---------------------------------------------------------

struct flooder {
    struct frontend *frontend;
    atomic_bool stop;
    _Atomic uint64_t n_sent;
};

// Adds and removes of the same region, as fast as the socket takes them; no answer is wanted.
static void *send_on(void *argument)
{
    struct flooder *f = argument;
    const struct guest_region *r = &f->frontend->guest->regions[0];
    for (uint64_t i = 0; !f->stop; i++) {
        struct error e;
        bool is_add = i % 2;
        struct wire_message m = {
            .request = is_add ? VHOST_USER_ADD_MEM_REG : VHOST_USER_REM_MEM_REG,
            .flags = VHOST_USER_VERSION,
            .bytes = sizeof m.payload.region,
            .payload.region.region = {r->guest_addr, r->bytes, r->user_addr, r->file_offset},
            .n_fds = is_add,
            .fds = {r->fd}};
        if (wire_send(f->frontend->fd, &m, &e) < 0)
            break;
        f->n_sent++;
    }
    return NULL;
}

static void freeze_daemon(void)
{
    int status;
    assert_int_equal(kill(sluiced.pid, SIGSTOP), 0);
    assert_int_equal(waitpid(sluiced.pid, &status, WUNTRACED), sluiced.pid);
    assert_true(WIFSTOPPED(status));
}

// Fill the socket with messages that ask for no answer and wait for nobody.
static void fill_socket(const struct frontend *f)
{
    struct iovec iov = {.iov_len = sizeof(struct vhost_user_header)};
    struct vhost_user_header m = {VHOST_USER_SET_OWNER, VHOST_USER_VERSION, 0};
    const struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    iov.iov_base = &m;
    unsigned n = 0;
    while (sendmsg(f->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        n++;
    assert_true(n > 100);
}

static bool is_drained(const struct frontend *f)
{
    int n_bytes;
    assert_int_equal(ioctl(f->fd, SIOCOUTQ, &n_bytes), 0);
    return n_bytes == 0;
}

// Hundreds of messages wait when a question of somebody else comes in: it is answered before the
// daemon is through with them.
static void test_message_flood_waits_its_turn(void **state)
{
    (void)state;
    bool is_through = true;
    struct error e;
    struct guest_disk *bad = daemon_connect(&sluiced, "bad", INDIRECT, 1, 1, 0);
    int fd = control_connect();
    // We may be late to look, but not every time.
    for (unsigned i = 0; is_through && i < 200; i++) {
        freeze_daemon();
        fill_socket(bad->frontend);
        control_ask(fd);
        assert_int_equal(kill(sluiced.pid, SIGCONT), 0);
        assert_true(control_is_answered(fd));
        is_through = is_drained(bad->frontend);
    }
    assert_false(is_through);
    close(fd);
    check_ok(guest_disk_stop(bad, &e), &e); // its turn comes
    guest_disk_close(bad);
}

static void test_message_flood_delays_nobody(void **state)
{
    (void)state;
    struct error e;
    struct guest_request r;
    struct guest_disk *good = daemon_connect(&sluiced, "good", INDIRECT, 1, 1, 0);
    struct guest_disk *bad = daemon_connect(&sluiced, "bad", INDIRECT, 1, 1, 0);
    check_ok(guest_request_open(&r, 1, good->guest, 4096, &e), &e);
    check_ok(guest_disk_stop(bad, &e), &e);
    struct flooder f = {.frontend = bad->frontend};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, send_on, &f), 0);
    time_t deadline = time(NULL) + PATIENCE_S;
    while (f.n_sent < 100 && time(NULL) <= deadline)
        pause_1ms();
    // A thousand turns of others, while thousands of messages come in.
    uint64_t n_before = f.n_sent;
    for (unsigned i = 0; i < 200; i++) {
        uint8_t capacity[8];
        assert_true(control_answers());
        check_ok(frontend_get_config(good->frontend, 0, capacity, sizeof capacity, &e), &e);
        read_once(good, &r);
        if (time(NULL) > deadline)
            fail_msg("others wait while one floods");
    }
    while (f.n_sent < n_before + 1000 && time(NULL) <= deadline)
        pause_1ms();
    assert_true(f.n_sent >= n_before + 1000); // it did flood, and was served
    f.stop = true;
    shutdown(bad->frontend->fd, SHUT_RDWR);
    pthread_join(thread, NULL);
    guest_disk_close(bad);
    guest_request_close(&r, 1);
    guest_disk_close(good);
}

// ---- memory ------------------------------------------------------------------------------

#define LONG_SEGMENTS RING_SEGS_MAX
#define LONG_CHAINS   (RING_LARGE_MAX + 40)

static uint64_t resident_bytes(void)
{
    char path[64], text[128] = "";
    snprintf(path, sizeof path, "/proc/%d/statm", (int)sluiced.pid);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    unsigned long pages = 0, ignored;
    assert_non_null(fgets(text, sizeof text, f));
    assert_int_equal(sscanf(text, "%lu %lu", &ignored, &pages), 2);
    fclose(f);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

// Reads of the longest chains, more at once than there are large slots.
static void run_long_chains(struct guest_disk *d, struct driver_chain chains[])
{
    struct error e;
    struct driver_chain *all[LONG_CHAINS];
    struct driver_used used[LONG_CHAINS];
    for (unsigned i = 0; i < LONG_CHAINS; i++)
        all[i] = &chains[i];
    assert_int_equal(driver_add(d->drivers[0], all, LONG_CHAINS), LONG_CHAINS);
    if (driver_publish(d->drivers[0]))
        frontend_kick(d->frontend, 0);
    time_t deadline = time(NULL) + PATIENCE_S;
    for (unsigned n = 0; n < LONG_CHAINS;) {
        int came = driver_poll(d->drivers[0], used, LONG_CHAINS, &e);
        if (came < 0 || time(NULL) > deadline)
            fail_msg("the longest chains: %s", came < 0 ? e.text : "they do not come back");
        n += (unsigned)came;
    }
}

static void test_longest_chains_take_bounded_memory(void **state)
{
    (void)state;
    const uint64_t layouts[] = {INDIRECT, INDIRECT | PACKED};
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++) {
        struct error e;
        char path[CHILD_PATH_MAX];
        daemon_socket(&sluiced, path, "bad");
        struct guest_disk_config config = {
            .path = path,
            .features = layouts[l],
            .protocol = GUEST_DISK_PROTOCOL,
            .n_queues = 1,
            .ring_size = 128,
            .table_entries = LONG_SEGMENTS,
            .memory = {.n_regions = 1, .region_bytes = 8 << 20, .first_addr = 1 << 20},
        };
        struct guest_disk *d;
        struct guest_request r;
        check_ok(guest_disk_open(&d, &config, &e), &e);
        check_ok(guest_request_open(&r, 1, d->guest, 512, &e), &e);
        guest_request_prepare(&r, VIRTIO_BLK_T_IN, 0, 512, GUEST_REQUEST_INDIRECT);
        static struct driver_segment segments[LONG_SEGMENTS];
        static struct driver_chain chains[LONG_CHAINS];
        segments[0] = r.plain[0];
        for (unsigned i = 1; i < LONG_SEGMENTS - 1; i++)
            segments[i] = r.plain[1];
        segments[LONG_SEGMENTS - 1] = r.plain[2];
        for (unsigned i = 0; i < LONG_CHAINS; i++)
            chains[i] = (struct driver_chain){.segments = segments,
                                              .n_out = 1,
                                              .n_in = LONG_SEGMENTS - 1,
                                              .in_bytes = (LONG_SEGMENTS - 2) * 512 + 1};
        uint64_t before = resident_bytes();
        run_long_chains(d, chains);
        uint64_t after_one = resident_bytes();
        for (unsigned i = 0; i < 20; i++)
            run_long_chains(d, chains);
        assert_int_equal(*r.status, VIRTIO_BLK_S_OK);
        // The large slots, the guest's own memory, and room for the libraries.
        uint64_t limit = sizeof(struct iovec) * RING_LARGE_MAX * RING_SEGS_MAX + (16 << 20);
        assert_true(after_one <= before + limit);
        assert_true(resident_bytes() <= after_one + (2 << 20)); // and flat from then on
        guest_request_close(&r, 1);
        guest_disk_close(d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_connections_reach_the_limit),
        cmocka_unit_test(test_second_front_ends_are_sent_away),
        cmocka_unit_test(test_message_flood_waits_its_turn),
        cmocka_unit_test(test_message_flood_delays_nobody),
        cmocka_unit_test(test_longest_chains_take_bounded_memory),
    };
    return cmocka_run_group_tests_name("limits", tests, start, stop);
}
