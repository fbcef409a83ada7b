// SPDX-License-Identifier: Apache-2.0
#include "tests/session_rig.h"

#include "dataplane/log.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

// ---- the device and the host -------------------------------------------------------------

static void note(struct front *r, const char *what, unsigned index)
{
    size_t n = strlen(r->events);
    snprintf(r->events + n, sizeof(r->events) - n, "%s%s %u", n ? ", " : "", what, index);
}

const char *front_events(struct front *r)
{
    static char copy[sizeof(r->events)];
    memcpy(copy, r->events, sizeof(copy));
    r->events[0] = '\0';
    return copy;
}

static struct front *front_of(const struct queue *q)
{
    return q->device->priv;
}

static int toy_start(struct queue *q, struct error *e)
{
    if (front_of(q)->start_fails)
        return error_set(e, ENOMEM, "the toy is out of memory");
    if (front_of(q)->start_blocks)
        return error_set(e, EWOULDBLOCK, "the toy is locked");
    note(front_of(q), "start", q->index);
    return 0;
}

static void toy_stop(struct queue *q)
{
    note(front_of(q), "stop", q->index);
}

static int toy_config_write(struct device *d, uint32_t offset, const void *data, uint32_t bytes)
{
    memcpy(d->config + offset, data, bytes);
    return 0;
}

static int toy_notify(struct device *d, enum device_event event, uint64_t value, struct error *e)
{
    struct front *r = d->priv;
    if (event == DEVICE_MTU && value > FRONT_MTU_MAX)
        return error_set(e, EINVAL, "the toy takes at most %u bytes", FRONT_MTU_MAX);
    r->notified[event] = value;
    return 0;
}

static void toy_queue_notify(struct queue *q, enum device_event event, uint64_t value)
{
    assert_int_equal(value, front_of(q)->notified[event]);
    note(front_of(q), event == DEVICE_RARP ? "rarp" : "mtu", q->index);
}

static void toy_config_read(struct device *d)
{
    d->config[0]++;
}

static void ask(struct front *r, const char *what, struct front_asked request)
{
    note(r, what, request.queue->index);
    assert_true(r->n_asked < FRONT_EVENTS_MAX);
    r->asked[r->n_asked++] = request;
    if (!r->is_slow)
        front_answer(r);
}

static void host_attach(void *context, struct queue *q)
{
    ask(context, "attach", (struct front_asked){.queue = q});
}

static void host_detach(void *context, struct queue *q)
{
    ask(context, "detach", (struct front_asked){.queue = q});
}

static void host_call(void *context, struct queue *q, void (*fn)(struct queue *q, void *argument),
                      void *argument)
{
    ask(context, "call", (struct front_asked){.queue = q, .fn = fn, .argument = argument});
}

static const struct session_host host = {host_attach, host_detach, host_call};

const struct session_host *front_host(void)
{
    return &host;
}

void front_answer(struct front *r)
{
    assert_true(r->n_asked > 0);
    struct front_asked first = r->asked[0];
    memmove(&r->asked[0], &r->asked[1], --r->n_asked * sizeof(r->asked[0]));
    if (first.fn)
        first.fn(first.queue, first.argument);
    session_acknowledge(r->session);
}

void front_answer_all(struct front *r)
{
    while (r->n_asked)
        front_answer(r);
}

// ---- life --------------------------------------------------------------------------------

int front_memfd(uint64_t bytes)
{
    int fd = memfd_create("rig", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    return fd;
}

void front_reopen(struct front *r)
{
    int pair[2];
    struct error e;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    check_ok(session_open(&r->session, pair[1], &r->device, &host, r, &e), &e);
    r->socket = pair[0];
}

void front_open(struct front *r)
{
    log_set_level(
        LOG_LEVEL_ERROR); // what the session says of the peer is seen with front_log_begin()
    *r = (struct front){.type = {.line = {.type = "toy"},
                                 .protocol_features = FRONT_TYPE_FEATURES,
                                 .notify = toy_notify,
                                 .queue_notify = toy_queue_notify,
                                 .config_read = toy_config_read,
                                 .queue_start = toy_start,
                                 .queue_stop = toy_stop,
                                 .config_write = toy_config_write}};
    r->device = (struct device){.type = &r->type,
                                .name = "toy0",
                                .features = VIRTIO_BIT(VIRTIO_BLK_F_FLUSH),
                                .config_bytes = FRONT_CONFIG_BYTES,
                                .n_queues = FRONT_QUEUES,
                                .priv = r};
    for (unsigned i = 0; i < FRONT_CONFIG_BYTES; i++)
        r->device.config[i] = (uint8_t)(i + 1);
    r->device.queues = calloc(FRONT_QUEUES, sizeof(struct queue));
    assert_non_null(r->device.queues);
    for (unsigned i = 0; i < FRONT_QUEUES; i++) {
        struct queue *q = &r->device.queues[i];
        q->device = &r->device;
        q->index = (uint16_t)i;
        q->kick_fd = q->call_fd = -1;
        r->kick[i] = eventfd(0, EFD_CLOEXEC);
        r->call[i] = eventfd(0, EFD_CLOEXEC);
        r->err[i] = eventfd(0, EFD_CLOEXEC);
    }
    r->memory_fd = front_memfd(FRONT_MEMORY_BYTES);
    front_reopen(r);
}

void front_next(struct front *r)
{
    assert_int_equal(session_state(r->session), SESSION_CLOSED);
    session_free(r->session);
    close(r->socket);
    front_reopen(r);
    front_negotiate(r, FRONT_FEATURES, FRONT_PROTOCOL_FEATURES);
}

void front_close(struct front *r)
{
    r->is_slow = false;
    front_answer_all(r);
    session_close(r->session, NULL);
    assert_int_equal(session_state(r->session), SESSION_CLOSED);
    session_free(r->session);
    close(r->socket);
    close(r->memory_fd);
    for (unsigned i = 0; i < FRONT_QUEUES; i++) {
        assert_false(ring_is_started(&r->device.queues[i].ring));
        assert_int_equal(r->device.queues[i].kick_fd, -1);
        assert_int_equal(r->device.queues[i].call_fd, -1);
        close(r->kick[i]);
        close(r->call[i]);
        close(r->err[i]);
    }
    free(r->device.queues);
}

int front_setup(void **state)
{
    static struct front r;
    front_open(&r);
    *state = &r;
    return 0;
}

int front_teardown(void **state)
{
    front_close(*state);
    return 0;
}

bool front_is_open(const struct front *r)
{
    return session_state(r->session) == SESSION_OPEN;
}

void front_run(struct front *r)
{
    session_run(r->session, UINT32_MAX);
}

// ---- messages ----------------------------------------------------------------------------

void front_send(struct front *r, uint32_t request, uint32_t flags, const void *payload,
                size_t bytes, const int fds[], unsigned n_fds)
{
    struct vhost_user_header header = {.request = request, .flags = flags, .size = (uint32_t)bytes};
    struct iovec iov[2] = {{&header, sizeof(header)}, {(void *)(uintptr_t)payload, bytes}};
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(MESSAGE_FDS_MAX * sizeof(int))];
    struct msghdr h = {.msg_iov = iov, .msg_iovlen = 2};
    if (n_fds) {
        h.msg_control = control;
        h.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        memset(control, 0, sizeof(control));
        struct cmsghdr *c = CMSG_FIRSTHDR(&h);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
    }
    assert_int_equal(sendmsg(r->socket, &h, MSG_NOSIGNAL), sizeof(header) + bytes);
}

void front_do(struct front *r, uint32_t request, const void *payload, size_t bytes, const int fds[],
              unsigned n_fds)
{
    front_send(r, request, VHOST_USER_VERSION, payload, bytes, fds, n_fds);
    front_run(r);
}

void front_check_ends(struct front *r, uint32_t request, const void *payload, size_t bytes,
                      const int fds[], unsigned n_fds)
{
    front_do(r, request, payload, bytes, fds, n_fds);
    if (front_is_open(r))
        fail_msg("request %u with %zu bytes and %u descriptors was accepted", request, bytes,
                 n_fds);
    front_next(r);
}

void front_do_u64(struct front *r, uint32_t request, uint64_t value)
{
    front_do(r, request, &value, sizeof(value), NULL, 0);
}

void front_do_state(struct front *r, uint32_t request, uint32_t index, uint32_t num)
{
    struct vhost_user_vring_state state = {index, num};
    front_do(r, request, &state, sizeof(state), NULL, 0);
}

bool front_has_reply(const struct front *r)
{
    char byte;
    return recv(r->socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1;
}

// A front end may read a reply with one recv() and no MSG_WAITALL, so that is what is done here.
void front_reply(struct front *r, uint32_t request, struct message *m)
{
    struct {
        struct vhost_user_header header;
        union vhost_user_payload payload;
    } __attribute__((packed)) wire;
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    struct iovec iov = {&wire, sizeof(wire)};
    struct msghdr h = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control,
                       .msg_controllen = sizeof(control)};
    ssize_t n = recv(r->socket, &wire, sizeof(wire.header), MSG_PEEK | MSG_DONTWAIT);
    assert_int_equal(n, sizeof(wire.header));
    assert_true(wire.header.size <= sizeof(wire.payload));
    iov.iov_len = sizeof(wire.header) + wire.header.size;
    n = recvmsg(r->socket, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    assert_int_equal(n, iov.iov_len);
    assert_int_equal(wire.header.request, request);
    assert_int_equal(wire.header.flags, 0x5);
    *m = (struct message){.header = wire.header};
    memcpy(&m->payload, &wire.payload, wire.header.size);
    struct cmsghdr *c = CMSG_FIRSTHDR(&h);
    if (c)
        memcpy(&m->fds[m->n_fds++], CMSG_DATA(c), sizeof(int));
}

static uint64_t reply_u64(struct front *r, uint32_t request)
{
    struct message m;
    front_reply(r, request, &m);
    assert_int_equal(m.header.size, 8);
    assert_int_equal(m.n_fds, 0);
    return m.payload.u64;
}

uint64_t front_ack(struct front *r, uint32_t request, const void *payload, size_t bytes,
                   const int fds[], unsigned n_fds)
{
    front_send(r, request, VHOST_USER_VERSION | VHOST_USER_NEED_REPLY, payload, bytes, fds, n_fds);
    front_run(r);
    return reply_u64(r, request);
}

uint64_t front_get(struct front *r, uint32_t request)
{
    front_do(r, request, NULL, 0, NULL, 0);
    return reply_u64(r, request);
}

// ---- a front end's life ------------------------------------------------------------------

void front_negotiate(struct front *r, uint64_t features, uint64_t protocol_features)
{
    front_do(r, VHOST_USER_SET_OWNER, NULL, 0, NULL, 0);
    front_do_u64(r, VHOST_USER_SET_PROTOCOL_FEATURES, protocol_features);
    front_do_u64(r, VHOST_USER_SET_FEATURES, features);
}

void front_share_memory(struct front *r)
{
    struct vhost_user_memory table = {.n_regions = 1,
                                      .regions = {{.guest_addr = FRONT_GUEST_ADDR,
                                                   .size = FRONT_MEMORY_BYTES,
                                                   .user_addr = FRONT_USER_ADDR}}};
    front_do(r, VHOST_USER_SET_MEM_TABLE, &table, 8 + 32, &r->memory_fd, 1);
}

struct vhost_user_vring_addr front_vring_addr(unsigned index)
{
    uint64_t start = FRONT_USER_ADDR + index * FRONT_RING_BYTES;
    return (struct vhost_user_vring_addr){
        .index = index, .descriptor = start, .available = start + 0x2000, .used = start + 0x3000};
}

void front_configure_queue(struct front *r, unsigned index, uint32_t base)
{
    struct vhost_user_vring_addr addr = front_vring_addr(index);
    front_do_state(r, VHOST_USER_SET_VRING_NUM, index, 128);
    front_do_state(r, VHOST_USER_SET_VRING_BASE, index, base);
    front_do(r, VHOST_USER_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0);
}

void front_set_fd(struct front *r, uint32_t request, unsigned index, int fd)
{
    uint64_t value = fd < 0 ? index | VHOST_USER_VRING_NOFD : index;
    front_do(r, request, &value, sizeof(value), &fd, fd < 0 ? 0 : 1);
}

void front_start(struct front *r, uint64_t features, unsigned n)
{
    uint32_t base = features & VIRTIO_BIT(VIRTIO_F_RING_PACKED) ? 0x80008000 : 0;
    front_negotiate(r, features, FRONT_PROTOCOL_FEATURES);
    front_share_memory(r);
    for (unsigned i = 0; i < n; i++) {
        front_configure_queue(r, i, base);
        front_set_fd(r, VHOST_USER_SET_VRING_KICK, i, r->kick[i]);
        front_set_fd(r, VHOST_USER_SET_VRING_CALL, i, r->call[i]);
        front_set_fd(r, VHOST_USER_SET_VRING_ERR, i, r->err[i]);
        if (features & VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES))
            front_do_state(r, VHOST_USER_SET_VRING_ENABLE, i, 1);
    }
    assert_true(front_is_open(r));
    for (unsigned i = 0; i < n; i++)
        assert_true(ring_is_started(&r->device.queues[i].ring));
    front_events(r);
}

struct ring *front_ring(struct front *r, unsigned index)
{
    return &r->device.queues[index].ring;
}

uint32_t front_get_base(struct front *r, unsigned index)
{
    struct message m;
    front_do_state(r, VHOST_USER_GET_VRING_BASE, index, 0);
    front_reply(r, VHOST_USER_GET_VRING_BASE, &m);
    assert_int_equal(m.header.size, 8);
    assert_int_equal(m.payload.state.index, index);
    return m.payload.state.num;
}

// ---- what the process holds --------------------------------------------------------------

unsigned front_count_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    assert_non_null(d);
    unsigned n = 0;
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

unsigned front_count_maps(void)
{
    FILE *f = fopen("/proc/self/maps", "re");
    char line[512];
    unsigned n = 0;
    assert_non_null(f);
    while (fgets(line, sizeof(line), f))
        n += strstr(line, "/memfd:") != NULL;
    fclose(f);
    return n;
}

static int saved_stderr = -1, log_fd = -1;

void front_log_begin(void)
{
    fflush(stderr);
    log_fd = front_memfd(0);
    saved_stderr = dup(STDERR_FILENO);
    dup2(log_fd, STDERR_FILENO);
    log_set_level(LOG_LEVEL_INFO);
}

const char *front_log_end(void)
{
    static char text[8192];
    fflush(stderr);
    log_set_level(LOG_LEVEL_ERROR);
    dup2(saved_stderr, STDERR_FILENO);
    ssize_t n = pread(log_fd, text, sizeof(text) - 1, 0);
    assert_true(n >= 0);
    text[n] = '\0';
    close(saved_stderr);
    close(log_fd);
    return text;
}
