// SPDX-License-Identifier: Apache-2.0
#include "tests/control_rig.h"

#include "dataplane/socket.h"
#include "pollers/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define HELD_MAX 64

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
atomic_uint rig_n_open;

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
    h->op = (struct uring_op){.done = gate_opened, .home = &q->uring};
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
    struct virtio_blk_config space = {.num_queues = RIG_QUEUES, .seg_max = 1};
    d->features = VIRTIO_BIT(VIRTIO_BLK_F_MQ);
    d->n_queues = RIG_QUEUES;
    memcpy(d->config, &space, sizeof(space));
    d->config_bytes = sizeof(space);
    rig_n_open++;
    return 0;
}

static void slow_close(struct device *d)
{
    (void)d;
    rig_n_open--;
}

static const struct line_key no_keys[] = {{.name = NULL}};

static const struct device_type slow_type = {
    .line = {.type = "slow", .keys = no_keys, .common = device_socket_keys},
    .virtio_id = VIRTIO_ID_BLOCK,
    .queues_max = RIG_QUEUES,
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
unsigned rig_n_workers;
unsigned rig_drain_ms;

const char *rig_path_of(const char *name)
{
    static __thread char paths[4][64];
    static __thread unsigned next;
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

void rig_open_gate(void)
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
    rig_n_workers = two_cpus(cpus);
    struct control_config config = {
        .types = types,
        .n_types = 1,
        .topo = topo,
        .cpus = cpus,
        .n_cpus = rig_n_workers,
        .poll = WORKER_ADAPTIVE,
        .drain_ms = rig_drain_ms,
    };
    must(control_open(&c, &config, &e), &e);
    must(rpc_open(&rpc, control_loop(c), rig_path_of("control"), 0600, command_methods, c, &e), &e);
    sem_post(&is_ready);
    result = control_run(c);
    if (result) // given up; let it drain now, to close what is open
        rig_open_gate();
    while (control_next(c, NULL))
        loop_turn(control_loop(c), -1);
    rpc_close(rpc);
    control_close(c);
    topo_close(topo);
    return NULL;
}

void rig_run(void)
{
    assert_int_equal(pthread_create(&thread, NULL, run, NULL), 0);
    while (sem_wait(&is_ready)) // EINTR
        ;
    is_running = true;
}

int rig_join(void)
{
    pthread_join(thread, NULL);
    is_running = false;
    return result;
}

int rig_setup(void **state)
{
    (void)state;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, NULL); // control reads it
    strcpy(folder, "/tmp/sluice-control-XXXXXX");
    rig_drain_ms = RIG_DEADLINE_MS;
    gate_fd = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
    sem_init(&is_ready, 0, 0);
    return mkdtemp(folder) && gate_fd >= 0 ? 0 : -1;
}

int rig_teardown(void **state)
{
    (void)state;
    if (is_running) {
        kill(getpid(), SIGTERM);
        rig_join();
    }
    close(gate_fd);
    return rig_n_open == 0 && rmdir(folder) == 0 ? 0 : -1; // no socket is left
}

// ---- the client --------------------------------------------------------------------------

int rig_ask(const char *method, const char *params)
{
    struct error e;
    char line[1024];
    int fd = unix_connect(rig_path_of("control"), &e);
    assert_true(fd >= 0);
    fcntl(fd, F_SETFL, 0);
    int n = snprintf(line, sizeof(line),
                     "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\",\"params\":%s}\n", method,
                     params);
    assert_int_equal(send(fd, line, (size_t)n, 0), n);
    return fd;
}

bool rig_is_answered(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

json_t *rig_answer(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, RIG_DEADLINE_MS) != 1)
        fail_msg("no answer");
    FILE *f = fdopen(fd, "r");
    json_t *object = json_loadf(f, JSON_DISABLE_EOF_CHECK, NULL);
    fclose(f);
    return object;
}

json_t *rig_call(const char *method, const char *params)
{
    json_t *object = rig_answer(rig_ask(method, params));
    json_t *value = json_incref(json_object_get(object, "result"));
    if (!value)
        fail_msg("%s %s: %s", method, params, json_dumps(object, 0));
    json_decref(object);
    return value;
}

void rig_add(const char *name)
{
    char params[256];
    snprintf(params, sizeof(params), "{\"line\":\"slow %s socket=%s/%s\"}", name, folder, name);
    json_decref(rig_call("add", params));
}

// The member @what of device @name in `show`, as text; "gone" without the device.
const char *rig_show(const char *name, const char *what)
{
    static char text[64];
    char params[128];
    snprintf(params, sizeof(params), "{\"name\":\"%s\"}", name);
    json_t *object = rig_answer(rig_ask("show", params));
    const json_t *shown = json_object_get(object, "result");
    const char *value = json_string_value(json_object_get(shown, what));
    snprintf(text, sizeof(text), "%s", shown ? value : "gone");
    json_decref(object);
    return text;
}

// The member @what of queue @index, NULL without one. Belongs to *@shown.
static const json_t *member(const char *name, unsigned index, const char *what, json_t **shown)
{
    char params[128];
    snprintf(params, sizeof(params), "{\"name\":\"%s\"}", name);
    *shown = rig_call("show", params);
    return json_object_get(json_array_get(json_object_get(*shown, "queues"), index), what);
}

long long rig_of_queue(const char *name, unsigned index, const char *what)
{
    json_t *shown;
    const json_t *value = member(name, index, what, &shown);
    long long n = json_is_integer(value) ? json_integer_value(value) : -1;
    json_decref(shown);
    return n;
}

const char *rig_queue_state(const char *name, unsigned index)
{
    static char text[32];
    json_t *shown;
    const char *state = json_string_value(member(name, index, "state", &shown));
    snprintf(text, sizeof(text), "%s", state ? state : "none");
    json_decref(shown);
    return text;
}

// ---- the front end -----------------------------------------------------------------------

struct guest_disk *rig_connect_queues(const char *name, unsigned n_queues)
{
    struct guest_disk_config config = {
        .path = rig_path_of(name),
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

struct guest_disk *rig_connect_disk(const char *name)
{
    return rig_connect_queues(name, RIG_QUEUES);
}

void rig_submit(struct guest_disk *d, struct guest_request *r)
{
    struct error e;
    check_ok(guest_request_open(r, 1, d->guest, 4096, &e), &e);
    guest_request_prepare(r, VIRTIO_BLK_T_OUT, 0, 4096, GUEST_REQUEST_DIRECT);
    assert_true(guest_disk_submit(d, 0, r));
}

// A device with one request that the device keeps.
struct guest_disk *rig_connect_busy(const char *name, struct guest_request *r)
{
    struct guest_disk *d = rig_connect_disk(name);
    rig_submit(d, r);
    rig_until(rig_of_queue(name, 0, "in_flight") == 1);
    return d;
}

void rig_leave(struct guest_disk *d, struct guest_request *r)
{
    guest_request_close(r, 1);
    guest_disk_close(d);
}
