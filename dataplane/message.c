// SPDX-License-Identifier: Apache-2.0
#include "dataplane/message.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEADER_BYTES sizeof(struct vhost_user_header)

static int header_check(const struct vhost_user_header *h, struct error *e)
{
    // "Header": two bits of version; bit 2 only on replies; bit 3 asks for one.
    uint32_t flags = h->flags & ~VHOST_USER_NEED_REPLY;
    if (flags != VHOST_USER_VERSION)
        return error_set(e, EPROTO, "request %u has flags 0x%x: not version 1 of a request",
                         h->request, h->flags);
    if (h->size > sizeof(union vhost_user_payload))
        return error_set(e, EPROTO, "request %u has a payload of %u bytes, the most is %zu",
                         h->request, h->size, sizeof(union vhost_user_payload));
    return 0;
}

// Takes over the descriptors in @control. False if the message has more than it may hold.
static bool collect_fds(struct message *m, struct msghdr *control)
{
    bool fits = true;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(control); c; c = CMSG_NXTHDR(control, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (m->n_fds < MESSAGE_FDS_MAX) {
                m->fds[m->n_fds++] = fd;
            } else {
                close(fd);
                fits = false;
            }
        }
    }
    return fits;
}

// Read up to @want bytes to @to. The number read, 0 at the end of the stream, or -errno.
static ssize_t receive_some(struct message *m, int fd, void *to, size_t want, struct error *e)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(MESSAGE_FDS_MAX * sizeof(int))];
    struct iovec iov = {.iov_base = to, .iov_len = want};
    struct msghdr h = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control,
                       .msg_controllen = sizeof(control)};
    ssize_t n;
    do {
        n = recvmsg(fd, &h, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? -EAGAIN
                               : error_set(e, errno, "reading the socket: %s", strerror(errno));
    if (!collect_fds(m, &h))
        return error_set(e, EPROTO, "more than %d descriptors with one message", MESSAGE_FDS_MAX);
    if (h.msg_flags & MSG_CTRUNC)
        return error_set(e, EMFILE, "descriptors were lost: this process may have no more open");
    return n;
}

static size_t bytes_wanted(const struct message_reader *r)
{
    if (r->n_bytes < HEADER_BYTES)
        return HEADER_BYTES - r->n_bytes;
    return HEADER_BYTES + r->message.header.size - r->n_bytes;
}

static void *next_byte(struct message_reader *r)
{
    if (r->n_bytes < HEADER_BYTES)
        return (char *)&r->message.header + r->n_bytes;
    return (char *)&r->message.payload + (r->n_bytes - HEADER_BYTES);
}

static enum message_result end_of_stream(const struct message_reader *r, struct error *e)
{
    if (!r->n_bytes && !r->message.n_fds)
        return MESSAGE_ENDED;
    error_set(e, EPROTO, "the peer left in the middle of a message");
    return MESSAGE_BROKEN;
}

enum message_result message_receive(struct message_reader *r, int fd, struct error *e)
{
    do {
        ssize_t n = receive_some(&r->message, fd, next_byte(r), bytes_wanted(r), e);
        if (n == -EAGAIN)
            return MESSAGE_NONE;
        if (n < 0)
            return MESSAGE_BROKEN;
        if (n == 0)
            return end_of_stream(r, e);
        if (!r->n_bytes)
            r->n_begun++;
        r->n_bytes += (size_t)n;
        if (r->n_bytes == HEADER_BYTES && header_check(&r->message.header, e))
            return MESSAGE_BROKEN;
    } while (bytes_wanted(r));
    return MESSAGE_READY;
}

void message_reader_reset(struct message_reader *r)
{
    message_drop_fds(&r->message);
    r->n_bytes = 0;
}

bool message_is_partial(const struct message_reader *r)
{
    return r->n_bytes && bytes_wanted(r);
}

int message_take_fd(struct message *m, unsigned i)
{
    assert(i < m->n_fds && m->fds[i] >= 0);
    int fd = m->fds[i];
    m->fds[i] = -1;
    return fd;
}

void message_drop_fds(struct message *m)
{
    for (unsigned i = 0; i < m->n_fds; i++)
        if (m->fds[i] >= 0)
            close(m->fds[i]);
    m->n_fds = 0;
}

static void attach_fd(struct msghdr *h, void *control, size_t control_bytes, int passed_fd)
{
    memset(control, 0, control_bytes);
    h->msg_control = control;
    h->msg_controllen = control_bytes;
    struct cmsghdr *c = CMSG_FIRSTHDR(h);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &passed_fd, sizeof(int));
}

int message_send(int fd, const struct vhost_user_header *header, const void *payload, int passed_fd,
                 struct error *e)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    struct iovec iov[2] = {{(void *)(uintptr_t)header, HEADER_BYTES},
                           {(void *)(uintptr_t)payload, header->size}};
    struct msghdr h = {.msg_iov = iov, .msg_iovlen = 2};
    if (passed_fd >= 0)
        attach_fd(&h, control, sizeof(control), passed_fd);
    ssize_t n;
    do {
        n = sendmsg(fd, &h, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? error_set(e, EAGAIN, "the peer does not read its replies")
                               : error_set(e, errno, "writing the socket: %s", strerror(errno));
    if ((size_t)n != HEADER_BYTES + header->size) // a stream that lost its framing
        return error_set(e, EAGAIN, "the peer does not read its replies");
    return 0;
}
