// SPDX-License-Identifier: Apache-2.0
// Control with real sessions and workers, and a device that keeps its requests until the test
// lets them go: what waits for whom when devices are removed and front ends come and go.
//
// Control runs on a thread of its own; the test is the front end and the client of its socket.
#include "bench/guest_disk.h"
#include "dataplane/socket.h"
#include "pollers/commands.h"
#include "pollers/control.h"
#include "tests/check.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define DEADLINE_MS 60000
#define QUEUES      2
#define HELD_MAX    64

// ---- the device --------------------------------------------------------------------------

struct held {
    struct queue *queue;
    struct uring_op op;
    uint64_t value;
    bool is_out;
    unsigned n;
    struct chain *chains[HELD_MAX];
};

static int gate_fd; // readable: requests may go
static atomic_uint n_open;

static void gate_opened(struct uring_op *op, int result)
{
    (void)result;
    struct held *h = container_of(op, struct held, op);
    h->is_out = false;
    while (h->n)
        queue_push(h->queue, h->chains[--h->n], 1);
}

static unsigned slow_poll(struct queue *q, unsigned budget)
{
    struct held *h = q->priv;
    struct chain *chains[RING_BATCH_MAX];
    unsigned n = ring_pop(&q->ring, chains, MIN(budget, HELD_MAX - h->n));
    for (unsigned i = 0; i < n; i++)
        h->chains[h->n++] = chains[i];
    if (h->n && !h->is_out) {
        h->is_out = true;
        io_uring_prep_read(uring_entry(&q->lane->uring, &h->op), gate_fd, &h->value,
                           sizeof(h->value), 0);
    }
    return n;
}

static int slow_queue_start(struct queue *q, struct error *e)
{
    struct held *h = calloc(1, sizeof(*h));
    if (!h)
        return error_set(e, ENOMEM, "no memory");
    h->queue = q;
    h->op.done = gate_opened;
    q->priv = h;
    return 0;
}

static void slow_queue_stop(struct queue *q)
{
    free(q->priv);
}

static int slow_open(struct device *d, const struct line *l, struct error *e)
{
    (void)l, (void)e;
    struct virtio_blk_config space = {.num_queues = QUEUES, .seg_max = 1};
    d->features = VIRTIO_BIT(VIRTIO_BLK_F_MQ);
    d->n_queues = QUEUES;
    memcpy(d->config, &space, sizeof(space));
    d->config_bytes = sizeof(space);
    n_open++;
    return 0;
}

static void slow_close(struct device *d)
{
    (void)d;
    n_open--;
}

static const struct line_key no_keys[] = {{.name = NULL}};

static const struct device_type slow_type = {
    .line = {.type = "slow", .keys = no_keys, .common = device_socket_keys},
    .virtio_id = VIRTIO_ID_BLOCK,
    .queues_max = QUEUES,
    .open = slow_open,
    .close = slow_close,
    .poll = slow_poll,
    .queue_start = slow_queue_start,
    .queue_stop = slow_queue_stop,
};

// ---- control -----------------------------------------------------------------------------

static char folder[32];
static pthread_t thread;
static sem_t is_ready;
static bool is_running;
static int result; // of control_run()
static unsigned drain_ms;

static const char *path_of(const char *name)
{
    static char paths[4][64];
    static unsigned next;
    char *path = paths[next++ % ARRAY_LEN(paths)];
    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

static void must(int err, const struct error *e)
{
    if (err) {
        fprintf(stderr, "control: %s\n", e->text);
        abort();
    }
}

static void open_gate(void)
{
    assert_int_equal(write(gate_fd, &(uint64_t){1}, 8), 8);
}

// Two, so that there is something to place; one where there is no other.
static unsigned two_cpus(int cpus[2])
{
    cpu_set_t set;
    unsigned n = 0;
    sched_getaffinity(0, sizeof(set), &set);
    for (int cpu = 0; cpu < CPU_SETSIZE && n < 2; cpu++) {
        if (CPU_ISSET(cpu, &set))
            cpus[n++] = cpu;
    }
    return n;
}

static void *run(void *argument)
{
    (void)argument;
    static const struct device_type *const types[] = {&slow_type};
    struct topo *topo;
    struct control *c;
    struct rpc *rpc;
    struct error e;
    int cpus[2];
    must(topo_open(&topo, NULL, &e), &e);
    unsigned n_cpus = two_cpus(cpus);
    struct control_config config = {
        .types = types,
        .n_types = 1,
        .topo = topo,
        .cpus = cpus,
        .n_cpus = n_cpus,
        .poll = WORKER_ADAPTIVE,
        .drain_ms = drain_ms,
    };
    must(control_open(&c, &config, &e), &e);
    must(rpc_open(&rpc, control_loop(c), path_of("control"), 0600, command_methods, c, &e), &e);
    sem_post(&is_ready);
    result = control_run(c);
    if (result) // given up; let it drain now, to close what is open
        open_gate();
    while (control_next(c, NULL))
        loop_turn(control_loop(c), -1);
    rpc_close(rpc);
    control_close(c);
    topo_close(topo);
    return NULL;
}

static void start_control(void)
{
    assert_int_equal(pthread_create(&thread, NULL, run, NULL), 0);
    while (sem_wait(&is_ready)) // EINTR
        ;
    is_running = true;
}

static int join_control(void)
{
    pthread_join(thread, NULL);
    is_running = false;
    return result;
}

static int setup(void **state)
{
    (void)state;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, NULL); // control reads it
    strcpy(folder, "/tmp/sluice-control-XXXXXX");
    drain_ms = DEADLINE_MS;
    gate_fd = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
    sem_init(&is_ready, 0, 0);
    return mkdtemp(folder) && gate_fd >= 0 ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    if (is_running) {
        kill(getpid(), SIGTERM);
        join_control();
    }
    close(gate_fd);
    return n_open == 0 && rmdir(folder) == 0 ? 0 : -1; // no socket is left
}

// ---- the client --------------------------------------------------------------------------

static int ask(const char *method, const char *params)
{
    struct error e;
    char line[1024];
    int fd = unix_connect(path_of("control"), &e);
    assert_true(fd >= 0);
    fcntl(fd, F_SETFL, 0);
    int n = snprintf(line, sizeof(line),
                     "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\",\"params\":%s}\n", method,
                     params);
    assert_int_equal(send(fd, line, (size_t)n, 0), n);
    return fd;
}

static bool is_answered(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static json_t *answer(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, DEADLINE_MS) != 1)
        fail_msg("no answer");
    FILE *f = fdopen(fd, "r");
    json_t *object = json_loadf(f, JSON_DISABLE_EOF_CHECK, NULL);
    fclose(f);
    return object;
}

static json_t *call(const char *method, const char *params)
{
    json_t *object = answer(ask(method, params));
    json_t *value = json_incref(json_object_get(object, "result"));
    if (!value)
        fail_msg("%s %s: %s", method, params, json_dumps(object, 0));
    json_decref(object);
    return value;
}

static void add(const char *name)
{
    char params[256];
    snprintf(params, sizeof(params), "{\"line\":\"slow %s socket=%s/%s\"}", name, folder, name);
    json_decref(call("add", params));
}

// The member @what of device @name in `show`, as text; "gone" without the device.
static const char *show(const char *name, const char *what)
{
    static char text[64];
    char params[128];
    snprintf(params, sizeof(params), "{\"name\":\"%s\"}", name);
    json_t *object = answer(ask("show", params));
    const json_t *shown = json_object_get(object, "result");
    const char *value = json_string_value(json_object_get(shown, what));
    snprintf(text, sizeof(text), "%s", shown ? value : "gone");
    json_decref(object);
    return text;
}

// A number of the first queue.
static long long of_queue(const char *name, const char *what)
{
    char params[128];
    snprintf(params, sizeof(params), "{\"name\":\"%s\"}", name);
    json_t *shown = call("show", params);
    long long n = json_integer_value(
        json_object_get(json_array_get(json_object_get(shown, "queues"), 0), what));
    json_decref(shown);
    return n;
}

static long long in_flight(const char *name)
{
    return of_queue(name, "in_flight");
}

#define until(condition)                                                                           \
    do {                                                                                           \
        uint64_t start_ = loop_now_ms();                                                           \
        while (!(condition)) {                                                                     \
            if (loop_now_ms() - start_ > DEADLINE_MS)                                              \
                fail_msg("never: %s", #condition);                                                 \
            sched_yield();                                                                         \
        }                                                                                          \
    } while (0)

// ---- the front end -----------------------------------------------------------------------

static struct guest_disk *connect_queues(const char *name, unsigned n_queues)
{
    struct guest_disk_config config = {
        .path = path_of(name),
        .features = 0,
        .protocol = GUEST_DISK_PROTOCOL,
        .n_queues = n_queues,
        .ring_size = 64,
        .memory = {.n_regions = 1, .region_bytes = 4 << 20},
    };
    struct guest_disk *d;
    struct error e;
    check_ok(guest_disk_open(&d, &config, &e), &e);
    return d;
}

static struct guest_disk *connect_disk(const char *name)
{
    return connect_queues(name, QUEUES);
}

static void submit(struct guest_disk *d, struct guest_request *r)
{
    struct error e;
    check_ok(guest_request_open(r, 1, d->guest, 4096, &e), &e);
    guest_request_prepare(r, VIRTIO_BLK_T_OUT, 0, 4096, GUEST_REQUEST_DIRECT);
    assert_true(guest_disk_submit(d, 0, r));
}

// A device with one request that the device keeps.
static struct guest_disk *connect_busy(const char *name, struct guest_request *r)
{
    struct guest_disk *d = connect_disk(name);
    submit(d, r);
    until(in_flight(name) == 1);
    return d;
}

static void leave(struct guest_disk *d, struct guest_request *r)
{
    guest_request_close(r, 1);
    guest_disk_close(d);
}

// ---- tests -------------------------------------------------------------------------------

static void test_remove_waits_for_requests_and_nobody_else(void **state)
{
    (void)state;
    struct guest_request r;
    start_control();
    add("a");
    struct guest_disk *d = connect_busy("a", &r);
    int fd = ask("remove", "{\"name\":\"a\"}");
    until(strcmp(show("a", "state"), "draining") == 0);
    add("b"); // control goes on
    assert_int_not_equal(access(path_of("a"), F_OK), 0);
    json_t *again = answer(ask("remove", "{\"name\":\"a\"}"));
    assert_non_null(json_object_get(again, "error"));
    json_decref(again);
    assert_false(is_answered(fd));
    assert_int_equal(n_open, 2);
    open_gate();
    json_decref(answer(fd));
    assert_int_equal(n_open, 1);
    assert_string_equal(show("a", "state"), "gone");
    leave(d, &r);
}

static void test_remover_may_leave(void **state)
{
    (void)state;
    struct guest_request r;
    start_control();
    add("a");
    struct guest_disk *d = connect_busy("a", &r);
    int fd = ask("remove", "{\"name\":\"a\"}");
    until(strcmp(show("a", "state"), "draining") == 0);
    close(fd);
    open_gate();
    until(strcmp(show("a", "state"), "gone") == 0);
    leave(d, &r);
}

// The next front end waits until the first one's requests are back, and is then served.
static void test_next_front_end_waits_for_the_last(void **state)
{
    (void)state;
    struct guest_request r;
    struct error e;
    start_control();
    add("a");
    leave(connect_busy("a", &r), &r);
    until(strcmp(show("a", "state"), "draining") == 0);
    int next = unix_connect(path_of("a"), &e);
    assert_true(next >= 0);
    for (unsigned i = 0; i < 20; i++) // it is neither served nor refused
        assert_string_equal(show("a", "state"), "draining");
    assert_false(is_answered(next));
    open_gate();
    until(strcmp(show("a", "state"), "connected") == 0);
    assert_false(is_answered(next));
    close(next);
    until(strcmp(show("a", "state"), "waiting") == 0);
    struct guest_disk *d = connect_disk("a");
    guest_disk_close(d);
}

// Queues come back from their workers and go out again, many times.
static void test_many_lives(void **state)
{
    (void)state;
    start_control();
    add("a");
    for (unsigned i = 0; i < 50; i++) {
        struct guest_disk *d = connect_disk("a");
        struct error e;
        check_ok(guest_disk_stop(d, &e), &e);
        check_ok(guest_disk_start(d, &e), &e);
        guest_disk_close(d);
    }
    until(strcmp(show("a", "state"), "waiting") == 0);
    json_t *stats = call("stats", "{}");
    const json_t *w = json_array_get(json_object_get(stats, "workers"), 0);
    assert_int_equal(json_integer_value(json_object_get(w, "queues")), 0);
    json_decref(stats);
}

// What a worker did stays counted when its queue is gone.
static void test_requests_stay_counted(void **state)
{
    (void)state;
    struct guest_request r;
    start_control();
    add("a");
    for (unsigned i = 0; i < 3; i++) {
        struct guest_disk *d = connect_busy("a", &r);
        open_gate();
        leave(d, &r);
        until(strcmp(show("a", "state"), "waiting") == 0);
    }
    json_t *stats = call("stats", "{}");
    long long n = 0;
    size_t i;
    json_t *w;
    json_array_foreach(json_object_get(stats, "workers"), i, w) n +=
        json_integer_value(json_object_get(w, "requests"));
    assert_int_equal(n, 3);
    json_decref(stats);
}

// The worker of queue @index, -1 for none.
static long long worker_of(const char *name, unsigned index)
{
    char params[128];
    snprintf(params, sizeof(params), "{\"name\":\"%s\"}", name);
    json_t *shown = call("show", params);
    const json_t *q = json_array_get(json_object_get(shown, "queues"), index);
    const json_t *worker = json_object_get(q, "worker");
    long long n = json_is_integer(worker) ? json_integer_value(worker) : -1;
    json_decref(shown);
    return n;
}

// A queue that came back weighs nothing any more.
static void test_placing(void **state)
{
    (void)state;
    int cpus[2];
    start_control();
    add("a");
    add("b");
    for (unsigned i = 0; i < 3; i++) {
        struct guest_disk *d = connect_queues("a", 1);
        until(worker_of("a", 0) == 0);
        guest_disk_close(d);
        until(strcmp(show("a", "state"), "waiting") == 0);
    }
    struct guest_disk *a = connect_disk("a"), *b = connect_queues("b", 1);
    until(worker_of("b", 0) == 0);
    assert_int_equal(worker_of("a", 0), 0);
    assert_int_equal(worker_of("a", 1), two_cpus(cpus) - 1);
    guest_disk_close(a);
    guest_disk_close(b);
}

static const char *state_of(const char *name)
{
    static char text[32];
    char params[128];
    snprintf(params, sizeof(params), "{\"name\":\"%s\"}", name);
    json_t *shown = call("show", params);
    const json_t *q = json_array_get(json_object_get(shown, "queues"), 0);
    const char *state = json_string_value(json_object_get(q, "state"));
    snprintf(text, sizeof(text), "%s", state ? state : "none");
    json_decref(shown);
    return text;
}

static void test_states_of_a_queue(void **state)
{
    (void)state;
    struct guest_request r;
    start_control();
    add("a");
    struct guest_disk *d = connect_disk("a");
    until(strcmp(state_of("a"), "parked") == 0); // nothing to do
    submit(d, &r);
    until(in_flight("a") == 1);
    int fd = ask("remove", "{\"name\":\"a\"}");
    until(strcmp(state_of("a"), "draining") == 0);
    open_gate();
    json_decref(answer(fd));
    leave(d, &r);
    add("a");
    d = connect_queues("a", 1);
    guest_disk_close(d);
    until(strcmp(state_of("a"), "none") == 0); // never used
}

// A number of the first device.
static long long listed(const char *what)
{
    json_t *list = call("list", "{}");
    const json_t *device = json_array_get(json_object_get(list, "devices"), 0);
    long long n = json_integer_value(json_object_get(device, what));
    json_decref(list);
    return n;
}

// How long something waits is told: a request, then the front end that left.
static void test_ages(void **state)
{
    (void)state;
    struct guest_request r;
    start_control();
    add("a");
    struct guest_disk *d = connect_busy("a", &r);
    until(of_queue("a", "oldest_ms") >= 2);
    assert_true(of_queue("a", "oldest_ms") < DEADLINE_MS);
    assert_int_equal(listed("waiting_ms"), 0);
    leave(d, &r);
    until(listed("waiting_ms") >= 2);
    assert_true(listed("waiting_ms") < DEADLINE_MS);
    open_gate();
    until(strcmp(show("a", "state"), "waiting") == 0);
    assert_int_equal(listed("waiting_ms"), 0);
    assert_int_equal(of_queue("a", "oldest_ms"), 0);
}

static void test_signal_drains(void **state)
{
    (void)state;
    struct guest_request r;
    start_control();
    add("a");
    add("b");
    struct guest_disk *d = connect_busy("a", &r);
    kill(getpid(), SIGTERM);
    until(strcmp(show("a", "state"), "draining") == 0); // control still answers
    until(strcmp(show("b", "state"), "gone") == 0);
    json_t *refused = answer(ask("add", "{\"line\":\"slow c socket=/nowhere\"}"));
    assert_non_null(json_object_get(refused, "error"));
    json_decref(refused);
    open_gate();
    assert_int_equal(join_control(), 0);
    leave(d, &r);
}

static void test_deadline(void **state)
{
    (void)state;
    struct guest_request r;
    drain_ms = 100;
    start_control();
    add("a");
    struct guest_disk *d = connect_busy("a", &r);
    kill(getpid(), SIGTERM);
    assert_int_equal(join_control(), -ETIMEDOUT);
    leave(d, &r);
}

static void test_second_signal(void **state)
{
    (void)state;
    struct guest_request r;
    start_control();
    add("a");
    struct guest_disk *d = connect_busy("a", &r);
    kill(getpid(), SIGTERM);
    until(strcmp(show("a", "state"), "draining") == 0);
    kill(getpid(), SIGTERM);
    assert_int_equal(join_control(), -EINTR);
    leave(d, &r);
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(test_remove_waits_for_requests_and_nobody_else),
        EACH(test_remover_may_leave),
        EACH(test_next_front_end_waits_for_the_last),
        EACH(test_many_lives),
        EACH(test_requests_stay_counted),
        EACH(test_placing),
        EACH(test_states_of_a_queue),
        EACH(test_ages),
        EACH(test_signal_drains),
        EACH(test_deadline),
        EACH(test_second_signal),
    };
    return cmocka_run_group_tests_name("control", tests, NULL, NULL);
}
