// SPDX-License-Identifier: Apache-2.0
#include "bench/frontend.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

// An answer's flags are exactly these.
#define ANSWER_FLAGS (VHOST_USER_VERSION | VHOST_USER_REPLY)

#define CONFIG_HEADER_BYTES offsetof(struct vhost_user_config, bytes)

// ---- messages ----------------------------------------------------------------------------

static int receive_answer(struct frontend *f, uint32_t request, struct wire_message *m,
                          struct error *e)
{
    int rc = wire_receive(f->fd, m, e);
    if (rc == -ETIMEDOUT)
        return error_set(e, ETIMEDOUT, "the back end did not answer %s in time",
                         wire_name(request));
    if (rc < 0)
        return rc;
    if (m->request == request && m->flags == ANSWER_FLAGS)
        return 0;
    wire_close_fds(m);
    return error_set(e, EPROTO, "%s was answered by request %u, flags %#x", wire_name(request),
                     m->request, m->flags);
}

int frontend_request(struct frontend *f, struct wire_message *m, struct error *e)
{
    bool needs_ack = f->protocol_features & VIRTIO_BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK);
    uint32_t request = m->request;
    m->flags = VHOST_USER_VERSION | (needs_ack ? VHOST_USER_NEED_REPLY : 0);
    int rc = wire_send(f->fd, m, e);
    m->n_fds = 0;
    if (rc < 0 || !needs_ack)
        return rc;
    rc = receive_answer(f, request, m, e);
    if (rc < 0)
        return rc;
    if (m->bytes != sizeof m->payload.u64)
        return error_set(e, EPROTO, "%s was acknowledged with %u bytes", wire_name(request),
                         m->bytes);
    if (m->payload.u64)
        return error_set(e, EPROTO, "the back end refused %s", wire_name(request));
    return 0;
}

int frontend_query(struct frontend *f, struct wire_message *m, struct error *e)
{
    uint32_t request = m->request;
    m->flags = VHOST_USER_VERSION;
    int rc = wire_send(f->fd, m, e);
    m->n_fds = 0;
    return rc < 0 ? rc : receive_answer(f, request, m, e);
}

int frontend_set_u64(struct frontend *f, uint32_t request, uint64_t value, struct error *e)
{
    struct wire_message m = {.request = request, .bytes = sizeof value, .payload.u64 = value};
    return frontend_request(f, &m, e);
}

int frontend_get_u64(struct frontend *f, uint32_t request, uint64_t *value, struct error *e)
{
    struct wire_message m = {.request = request};
    int rc = frontend_query(f, &m, e);
    if (rc == 0 && m.bytes != sizeof *value)
        rc = error_set(e, EPROTO, "%s was answered with %u bytes", wire_name(request), m.bytes);
    if (rc == 0)
        *value = m.payload.u64;
    return rc;
}

// ---- connection --------------------------------------------------------------------------

static bool try_connect(int fd, const struct sockaddr_un *to, unsigned *left_ms)
{
    while (connect(fd, (const struct sockaddr *)to, sizeof *to) < 0) {
        bool is_early = errno == ENOENT || errno == ECONNREFUSED || errno == EAGAIN;
        if (!is_early || *left_ms < 10)
            return false;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        *left_ms -= 10;
    }
    return true;
}

int frontend_connect(const char *path, unsigned timeout_ms, struct error *e)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof to.sun_path)
        return error_set(e, ENAMETOOLONG, "%s: a socket path has at most %zu bytes", path,
                         sizeof to.sun_path - 1);
    memcpy(to.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && try_connect(fd, &to, &timeout_ms))
        return fd;
    int code = errno;
    if (fd >= 0)
        close(fd);
    return error_set(e, code, "cannot connect to %s: %s", path, strerror(code));
}

static void limit_waits(int fd)
{
    struct timeval t = {.tv_sec = FRONTEND_TIMEOUT_MS / 1000,
                        .tv_usec = FRONTEND_TIMEOUT_MS % 1000 * 1000L};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
}

int frontend_open(struct frontend **out, int fd, struct guest *g, struct error *e)
{
    struct frontend *f = calloc(1, sizeof *f);
    if (!f)
        return error_set(e, ENOMEM, "no memory for a front end");
    f->fd = fd;
    f->guest = g;
    f->channel_fd = f->inflight_fd = f->log_fd = -1;
    for (unsigned i = 0; i < FRONTEND_RINGS_MAX; i++)
        f->rings[i].kick_fd = f->rings[i].call_fd = -1;
    limit_waits(fd);
    *out = f;
    return 0;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void frontend_close(struct frontend *f)
{
    if (!f)
        return;
    for (unsigned i = 0; i < FRONTEND_RINGS_MAX; i++) {
        close_fd(&f->rings[i].kick_fd);
        close_fd(&f->rings[i].call_fd);
    }
    if (f->log)
        munmap(f->log, f->log_bytes);
    close_fd(&f->log_fd);
    close_fd(&f->inflight_fd);
    close_fd(&f->channel_fd);
    close_fd(&f->fd);
    free(f);
}

// ---- negotiation -------------------------------------------------------------------------

static int open_channel(struct frontend *f, struct error *e)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return error_set(e, errno, "cannot make the back end's channel: %s", strerror(errno));
    close_fd(&f->channel_fd);
    f->channel_fd = pair[0];
    limit_waits(f->channel_fd);
    struct wire_message m = {
        .request = VHOST_USER_SET_BACKEND_REQ_FD, .n_fds = 1, .fds = {pair[1]}};
    int rc = frontend_request(f, &m, e);
    close(pair[1]);
    return rc;
}

static int negotiate_protocol(struct frontend *f, uint64_t wanted, struct error *e)
{
    int rc = frontend_get_u64(f, VHOST_USER_GET_PROTOCOL_FEATURES, &f->protocol_offered, e);
    if (rc < 0)
        return rc;
    wanted &= f->protocol_offered;
    rc = frontend_set_u64(f, VHOST_USER_SET_PROTOCOL_FEATURES, wanted, e);
    if (rc < 0)
        return rc;
    f->protocol_features = wanted;
    uint64_t n = 0;
    if (wanted & VIRTIO_BIT(VHOST_USER_PROTOCOL_F_MQ)) {
        rc = frontend_get_u64(f, VHOST_USER_GET_QUEUE_NUM, &n, e);
        f->n_queues = (unsigned)MIN(n, (uint64_t)FRONTEND_RINGS_MAX);
    }
    if (rc == 0 && wanted & VIRTIO_BIT(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS)) {
        rc = frontend_get_u64(f, VHOST_USER_GET_MAX_MEM_SLOTS, &n, e);
        f->n_slots = (unsigned)MIN(n, (uint64_t)GUEST_REGIONS_MAX);
    }
    if (rc == 0 && wanted & VIRTIO_BIT(VHOST_USER_PROTOCOL_F_BACKEND_REQ))
        rc = open_channel(f, e);
    return rc;
}

int frontend_negotiate(struct frontend *f, uint64_t features, uint64_t protocol, struct error *e)
{
    f->protocol_features = 0;
    f->n_queues = 1;
    f->n_slots = VHOST_USER_TABLE_MAX;
    struct wire_message owner = {.request = VHOST_USER_SET_OWNER};
    int rc = frontend_request(f, &owner, e);
    if (rc == 0)
        rc = frontend_get_u64(f, VHOST_USER_GET_FEATURES, &f->offered, e);
    if (rc < 0)
        return rc;
    f->features = features & f->offered;
    if (f->offered & VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES) && protocol) {
        f->features |= VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES);
        rc = negotiate_protocol(f, protocol, e);
    }
    return rc < 0 ? rc : frontend_send_features(f, e);
}

int frontend_send_features(struct frontend *f, struct error *e)
{
    uint64_t log = f->is_logging ? VIRTIO_BIT(VHOST_F_LOG_ALL) : 0;
    return frontend_set_u64(f, VHOST_USER_SET_FEATURES, f->features | log, e);
}

int frontend_reconnect(struct frontend *f, int fd, struct error *e)
{
    uint64_t features = f->features, protocol = f->protocol_features;
    close_fd(&f->fd);
    f->fd = fd;
    limit_waits(fd);
    for (unsigned i = 0; i < FRONTEND_RINGS_MAX; i++)
        f->rings[i].driver = NULL;
    int rc = frontend_negotiate(f, features, protocol, e);
    if (rc < 0)
        return rc;
    if (f->features != features || f->protocol_features != protocol)
        return error_set(e, EPROTO, "the back end offers less than before: %#llx, %#llx",
                         (unsigned long long)f->offered, (unsigned long long)f->protocol_offered);
    if (f->inflight_fd >= 0)
        rc = frontend_send_inflight(f, e);
    if (rc == 0)
        rc = frontend_share_memory(f, e);
    if (rc == 0 && f->is_logging)
        rc = frontend_send_log(f, e);
    return rc;
}

int frontend_poll_channel(struct frontend *f, struct error *e)
{
    struct pollfd p = {.fd = f->channel_fd, .events = POLLIN};
    if (f->channel_fd < 0 || poll(&p, 1, 0) <= 0)
        return 0;
    struct wire_message m;
    int rc = wire_receive(f->channel_fd, &m, e);
    if (rc < 0)
        return rc;
    wire_close_fds(&m);
    if (!(m.flags & VHOST_USER_NEED_REPLY))
        return (int)m.request;
    struct wire_message answer = {
        .request = m.request, .flags = ANSWER_FLAGS, .bytes = sizeof answer.payload.u64};
    rc = wire_send(f->channel_fd, &answer, e);
    return rc < 0 ? rc : (int)m.request;
}

// ---- config space and status -------------------------------------------------------------

static int put_config(struct wire_message *m, uint32_t offset, uint32_t bytes, struct error *e)
{
    if (bytes > VHOST_USER_CONFIG_MAX)
        return error_set(e, EINVAL, "config space in pieces of at most %u bytes, not %u",
                         VHOST_USER_CONFIG_MAX, bytes);
    m->payload.config.offset = offset;
    m->payload.config.size = bytes;
    m->bytes = CONFIG_HEADER_BYTES + bytes;
    return 0;
}

int frontend_get_config(struct frontend *f, uint32_t offset, void *data, uint32_t bytes,
                        struct error *e)
{
    struct wire_message m = {.request = VHOST_USER_GET_CONFIG};
    int rc = put_config(&m, offset, bytes, e);
    if (rc == 0)
        rc = frontend_query(f, &m, e);
    if (rc < 0)
        return rc;
    if (m.bytes != CONFIG_HEADER_BYTES + bytes)
        return error_set(e, EPROTO, "GET_CONFIG of %u bytes was answered with %u bytes", bytes,
                         m.bytes);
    memcpy(data, m.payload.config.bytes, bytes);
    return 0;
}

int frontend_set_config(struct frontend *f, uint32_t offset, const void *data, uint32_t bytes,
                        struct error *e)
{
    struct wire_message m = {.request = VHOST_USER_SET_CONFIG};
    int rc = put_config(&m, offset, bytes, e);
    if (rc < 0)
        return rc;
    memcpy(m.payload.config.bytes, data, bytes);
    return frontend_request(f, &m, e);
}

int frontend_set_status(struct frontend *f, uint8_t status, struct error *e)
{
    return frontend_set_u64(f, VHOST_USER_SET_STATUS, status, e);
}

int frontend_get_status(struct frontend *f, uint8_t *status, struct error *e)
{
    uint64_t value = 0;
    int rc = frontend_get_u64(f, VHOST_USER_GET_STATUS, &value, e);
    *status = (uint8_t)value;
    return rc;
}

int frontend_reset(struct frontend *f, struct error *e)
{
    for (unsigned i = 0; i < FRONTEND_RINGS_MAX; i++)
        f->rings[i].driver = NULL;
    struct wire_message m = {.request = VHOST_USER_RESET_DEVICE};
    return frontend_request(f, &m, e);
}
