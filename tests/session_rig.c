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

static void note(struct rig *r, const char *what, unsigned index)
{
    size_t n = strlen(r->events);
    snprintf(r->events + n, sizeof(r->events) - n, "%s%s %u", n ? ", " : "", what, index);
}

const char *rig_events(struct rig *r)
{
    static char copy[sizeof(r->events)];
    memcpy(copy, r->events, sizeof(copy));
    r->events[0] = '\0';
    return copy;
}

static struct rig *rig_of(const struct queue *q)
{
    return q->device->priv;
}

static int toy_start(struct queue *q, struct error *e)
{
    if (rig_of(q)->start_fails)
        return error_set(e, ENOMEM, "the toy is out of memory");
    note(rig_of(q), "start", q->index);
    return 0;
}

static void toy_stop(struct queue *q)
{
    note(rig_of(q), "stop", q->index);
}

static int toy_config_write(struct device *d, uint32_t offset, const void *data, uint32_t bytes)
{
    memcpy(d->config + offset, data, bytes);
    return 0;
}

static void ask(struct rig *r, const char *what, struct rig_request request)
{
    note(r, what, request.queue->index);
    assert_true(r->n_asked < RIG_EVENTS_MAX);
    r->asked[r->n_asked++] = request;
    if (!r->is_slow)
        rig_answer(r);
}

static void host_attach(void *context, struct queue *q)
{
    ask(context, "attach", (struct rig_request){.queue = q});
}

static void host_detach(void *context, struct queue *q)
{
    ask(context, "detach", (struct rig_request){.queue = q});
}

static void host_call(void *context, struct queue *q, void (*fn)(struct queue *q, void *argument),
                      void *argument)
{
    ask(context, "call", (struct rig_request){.queue = q, .fn = fn, .argument = argument});
}

static const struct session_host host = {host_attach, host_detach, host_call};

void rig_answer(struct rig *r)
{
    assert_true(r->n_asked > 0);
    struct rig_request first = r->asked[0];
    memmove(&r->asked[0], &r->asked[1], --r->n_asked * sizeof(r->asked[0]));
    if (first.fn)
        first.fn(first.queue, first.argument);
    session_acknowledge(r->session);
}

void rig_answer_all(struct rig *r)
{
    while (r->n_asked)
        rig_answer(r);
}

// ---- life --------------------------------------------------------------------------------

int rig_memfd(uint64_t bytes)
{
    int fd = memfd_create("rig", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    return fd;
}

void rig_reopen(struct rig *r)
{
    int pair[2];
    struct error e;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    check_ok(session_open(&r->session, pair[1], &r->device, &host, r, &e), &e);
    r->front = pair[0];
}

void rig_open(struct rig *r)
{
    log_set_level(
        LOG_LEVEL_ERROR); // what the session says of the peer is seen with rig_log_begin()
    *r = (struct rig){.type = {.line = {.type = "toy"},
                               .queue_start = toy_start,
                               .queue_stop = toy_stop,
                               .config_write = toy_config_write}};
    r->device = (struct device){.type = &r->type,
                                .name = "toy0",
                                .features = VIRTIO_BIT(VIRTIO_BLK_F_FLUSH),
                                .config_bytes = RIG_CONFIG_BYTES,
                                .n_queues = RIG_QUEUES,
                                .priv = r};
    for (unsigned i = 0; i < RIG_CONFIG_BYTES; i++)
        r->device.config[i] = (uint8_t)(i + 1);
    r->device.queues = calloc(RIG_QUEUES, sizeof(struct queue));
    assert_non_null(r->device.queues);
    for (unsigned i = 0; i < RIG_QUEUES; i++) {
        struct queue *q = &r->device.queues[i];
        q->device = &r->device;
        q->index = (uint16_t)i;
        q->kick_fd = q->call_fd = -1;
        r->kick[i] = eventfd(0, EFD_CLOEXEC);
        r->call[i] = eventfd(0, EFD_CLOEXEC);
        r->err[i] = eventfd(0, EFD_CLOEXEC);
    }
    r->memory_fd = rig_memfd(RIG_MEMORY_BYTES);
    rig_reopen(r);
}

void rig_close(struct rig *r)
{
    r->is_slow = false;
    rig_answer_all(r);
    session_close(r->session, NULL);
    assert_int_equal(session_state(r->session), SESSION_CLOSED);
    session_free(r->session);
    close(r->front);
    close(r->memory_fd);
    for (unsigned i = 0; i < RIG_QUEUES; i++) {
        assert_false(ring_is_started(&r->device.queues[i].ring));
        assert_int_equal(r->device.queues[i].kick_fd, -1);
        assert_int_equal(r->device.queues[i].call_fd, -1);
        close(r->kick[i]);
        close(r->call[i]);
        close(r->err[i]);
    }
    free(r->device.queues);
}

bool rig_is_open(const struct rig *r)
{
    return session_state(r->session) == SESSION_OPEN;
}

void rig_run(struct rig *r)
{
    session_run(r->session, UINT32_MAX);
}

// ---- messages ----------------------------------------------------------------------------

void rig_send(struct rig *r, uint32_t request, uint32_t flags, const void *payload, size_t bytes,
              const int fds[], unsigned n_fds)
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
    assert_int_equal(sendmsg(r->front, &h, MSG_NOSIGNAL), sizeof(header) + bytes);
}

void rig_do(struct rig *r, uint32_t request, const void *payload, size_t bytes, const int fds[],
            unsigned n_fds)
{
    rig_send(r, request, VHOST_USER_VERSION, payload, bytes, fds, n_fds);
    rig_run(r);
}

void rig_do_u64(struct rig *r, uint32_t request, uint64_t value)
{
    rig_do(r, request, &value, sizeof(value), NULL, 0);
}

void rig_do_state(struct rig *r, uint32_t request, uint32_t index, uint32_t num)
{
    struct vhost_user_vring_state state = {index, num};
    rig_do(r, request, &state, sizeof(state), NULL, 0);
}

bool rig_has_reply(const struct rig *r)
{
    char byte;
    return recv(r->front, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1;
}

// A front end may read with one recv() and no MSG_WAITALL, so that is what is done here.
void rig_reply(struct rig *r, uint32_t request, struct message *m)
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
    ssize_t n = recvmsg(r->front, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    assert_true(n >= (ssize_t)sizeof(wire.header));
    assert_int_equal(wire.header.request, request);
    assert_int_equal(wire.header.flags, 0x5);
    assert_int_equal(n, sizeof(wire.header) + wire.header.size);
    *m = (struct message){.header = wire.header};
    memcpy(&m->payload, &wire.payload, wire.header.size);
    struct cmsghdr *c = CMSG_FIRSTHDR(&h);
    if (c)
        memcpy(&m->fds[m->n_fds++], CMSG_DATA(c), sizeof(int));
}

static uint64_t reply_u64(struct rig *r, uint32_t request)
{
    struct message m;
    rig_reply(r, request, &m);
    assert_int_equal(m.header.size, 8);
    assert_int_equal(m.n_fds, 0);
    return m.payload.u64;
}

uint64_t rig_ack(struct rig *r, uint32_t request, const void *payload, size_t bytes,
                 const int fds[], unsigned n_fds)
{
    rig_send(r, request, VHOST_USER_VERSION | VHOST_USER_NEED_REPLY, payload, bytes, fds, n_fds);
    rig_run(r);
    return reply_u64(r, request);
}

uint64_t rig_get(struct rig *r, uint32_t request)
{
    rig_do(r, request, NULL, 0, NULL, 0);
    return reply_u64(r, request);
}

// ---- a front end's life ------------------------------------------------------------------

void rig_negotiate(struct rig *r, uint64_t features, uint64_t protocol_features)
{
    rig_do(r, VHOST_USER_SET_OWNER, NULL, 0, NULL, 0);
    rig_do_u64(r, VHOST_USER_SET_PROTOCOL_FEATURES, protocol_features);
    rig_do_u64(r, VHOST_USER_SET_FEATURES, features);
}

void rig_share_memory(struct rig *r)
{
    struct vhost_user_memory table = {
        .n_regions = 1,
        .regions = {
            {.guest_addr = RIG_GUEST_ADDR, .size = RIG_MEMORY_BYTES, .user_addr = RIG_USER_ADDR}}};
    rig_do(r, VHOST_USER_SET_MEM_TABLE, &table, 8 + 32, &r->memory_fd, 1);
}

struct vhost_user_vring_addr rig_vring_addr(unsigned index)
{
    uint64_t start = RIG_USER_ADDR + index * RIG_RING_BYTES;
    return (struct vhost_user_vring_addr){
        .index = index, .descriptor = start, .available = start + 0x2000, .used = start + 0x3000};
}

void rig_configure_queue(struct rig *r, unsigned index, uint32_t base)
{
    struct vhost_user_vring_addr addr = rig_vring_addr(index);
    rig_do_state(r, VHOST_USER_SET_VRING_NUM, index, 128);
    rig_do_state(r, VHOST_USER_SET_VRING_BASE, index, base);
    rig_do(r, VHOST_USER_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0);
}

void rig_set_fd(struct rig *r, uint32_t request, unsigned index, int fd)
{
    uint64_t value = fd < 0 ? index | VHOST_USER_VRING_NOFD : index;
    rig_do(r, request, &value, sizeof(value), &fd, fd < 0 ? 0 : 1);
}

void rig_start(struct rig *r, uint64_t features, unsigned n)
{
    uint32_t base = features & VIRTIO_BIT(VIRTIO_F_RING_PACKED) ? 0x80008000 : 0;
    rig_negotiate(r, features, RIG_PROTOCOL_FEATURES);
    rig_share_memory(r);
    for (unsigned i = 0; i < n; i++) {
        rig_configure_queue(r, i, base);
        rig_set_fd(r, VHOST_USER_SET_VRING_KICK, i, r->kick[i]);
        rig_set_fd(r, VHOST_USER_SET_VRING_CALL, i, r->call[i]);
        rig_set_fd(r, VHOST_USER_SET_VRING_ERR, i, r->err[i]);
        if (features & VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES))
            rig_do_state(r, VHOST_USER_SET_VRING_ENABLE, i, 1);
    }
    assert_true(rig_is_open(r));
    for (unsigned i = 0; i < n; i++)
        assert_true(ring_is_started(&r->device.queues[i].ring));
    rig_events(r);
}

// ---- what the process holds --------------------------------------------------------------

unsigned rig_count_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    assert_non_null(d);
    unsigned n = 0;
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

unsigned rig_count_maps(void)
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

void rig_log_begin(void)
{
    fflush(stderr);
    log_fd = rig_memfd(0);
    saved_stderr = dup(STDERR_FILENO);
    dup2(log_fd, STDERR_FILENO);
    log_set_level(LOG_LEVEL_INFO);
}

const char *rig_log_end(void)
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
