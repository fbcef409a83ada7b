// SPDX-License-Identifier: Apache-2.0
#include "bench/wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define NAME(n) [VHOST_USER_##n] = #n

static const char *const names[] = {
    NAME(GET_FEATURES),
    NAME(SET_FEATURES),
    NAME(SET_OWNER),
    NAME(RESET_OWNER),
    NAME(SET_MEM_TABLE),
    NAME(SET_LOG_BASE),
    NAME(SET_LOG_FD),
    NAME(SET_VRING_NUM),
    NAME(SET_VRING_ADDR),
    NAME(SET_VRING_BASE),
    NAME(GET_VRING_BASE),
    NAME(SET_VRING_KICK),
    NAME(SET_VRING_CALL),
    NAME(SET_VRING_ERR),
    NAME(GET_PROTOCOL_FEATURES),
    NAME(SET_PROTOCOL_FEATURES),
    NAME(GET_QUEUE_NUM),
    NAME(SET_VRING_ENABLE),
    NAME(SET_BACKEND_REQ_FD),
    NAME(GET_CONFIG),
    NAME(SET_CONFIG),
    NAME(GET_INFLIGHT_FD),
    NAME(SET_INFLIGHT_FD),
    NAME(RESET_DEVICE),
    NAME(GET_MAX_MEM_SLOTS),
    NAME(ADD_MEM_REG),
    NAME(REM_MEM_REG),
    NAME(SET_STATUS),
    NAME(GET_STATUS),
};

const char *wire_name(uint32_t request)
{
    const char *name = request < ARRAY_LEN(names) ? names[request] : NULL;
    return name ? name : "an unnamed request";
}

int wire_send(int fd, const struct wire_message *m, struct error *e)
{
    struct vhost_user_header header = {m->request, m->flags, m->bytes};
    struct iovec iov[2] = {{&header, sizeof header}, {(void *)&m->payload, m->bytes}};
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof m->fds)];
    } control = {0};
    struct msghdr h = {.msg_iov = iov, .msg_iovlen = 2};
    if (m->n_fds) {
        h.msg_control = control.space;
        h.msg_controllen = CMSG_SPACE(m->n_fds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&h);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(m->n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), m->fds, m->n_fds * sizeof(int));
    }
    ssize_t n = sendmsg(fd, &h, MSG_NOSIGNAL);
    if (n == (ssize_t)(sizeof header + m->bytes))
        return 0;
    int code = n < 0 ? errno : EPIPE;
    return error_set(e, code, "cannot send %s: %s", wire_name(m->request), strerror(code));
}

static void take_fds(struct wire_message *m, struct msghdr *h)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        m->n_fds = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(m->fds, CMSG_DATA(c), m->n_fds * sizeof(int));
    }
}

static int read_all(int fd, void *to, size_t bytes, struct wire_message *m, struct error *e)
{
    for (size_t done = 0; done < bytes;) {
        _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof m->fds)];
        struct iovec iov = {(char *)to + done, bytes - done};
        struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
        if (!m->n_fds) {
            h.msg_control = control;
            h.msg_controllen = sizeof control;
        }
        ssize_t n = recvmsg(fd, &h, MSG_CMSG_CLOEXEC);
        if (n == 0)
            return error_set(e, ECONNRESET, "the back end closed the connection");
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return error_set(e, ETIMEDOUT, "the back end did not answer in time");
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(e, errno, "cannot receive: %s", strerror(errno));
        take_fds(m, &h);
        done += (size_t)n;
    }
    return 0;
}

int wire_receive(int fd, struct wire_message *m, struct error *e)
{
    struct vhost_user_header header;
    m->n_fds = 0;
    int rc = read_all(fd, &header, sizeof header, m, e);
    if (rc == 0 && header.size > sizeof m->payload)
        rc = error_set(e, EPROTO, "the back end sent a payload of %u bytes", header.size);
    if (rc == 0)
        rc = read_all(fd, &m->payload, header.size, m, e);
    if (rc < 0) {
        wire_close_fds(m);
        return rc;
    }
    m->request = header.request;
    m->flags = header.flags;
    m->bytes = header.size;
    return 0;
}

void wire_close_fds(struct wire_message *m)
{
    for (unsigned i = 0; i < m->n_fds; i++)
        close(m->fds[i]);
    m->n_fds = 0;
}
