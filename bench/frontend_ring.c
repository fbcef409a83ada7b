// SPDX-License-Identifier: Apache-2.0
// Rings of a front end: start, stop, kick and interrupt.
#include "bench/frontend.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

int frontend_set_ring(struct frontend *f, uint32_t request, uint32_t index, uint32_t value,
                      struct error *e)
{
    struct wire_message m = {
        .request = request, .bytes = sizeof m.payload.state, .payload.state = {index, value}};
    return frontend_request(f, &m, e);
}

int frontend_set_ring_fd(struct frontend *f, uint32_t request, unsigned index, int fd,
                         struct error *e)
{
    struct wire_message m = {.request = request,
                             .bytes = sizeof m.payload.u64,
                             .payload.u64 = index | (fd < 0 ? VHOST_USER_VRING_NOFD : 0),
                             .n_fds = fd >= 0,
                             .fds = {fd}};
    return frontend_request(f, &m, e);
}

// Descriptor, driver and device areas go by their names from split rings, also with packed
// ones ("A vring address description").
int frontend_set_ring_addr(struct frontend *f, unsigned index, const struct driver *d,
                           struct error *e)
{
    struct driver_areas a;
    driver_describe(d, &a);
    struct wire_message m = {.request = VHOST_USER_SET_VRING_ADDR, .bytes = sizeof m.payload.addr};
    m.payload.addr = (struct vhost_user_vring_addr){
        .index = index,
        .flags = f->is_logging,
        .descriptor = guest_user_addr(f->guest, a.desc),
        .used = guest_user_addr(f->guest, a.device),
        .available = guest_user_addr(f->guest, a.driver),
        .log = a.device,
    };
    return frontend_request(f, &m, e);
}

int frontend_enable_ring(struct frontend *f, unsigned index, bool enable, struct error *e)
{
    if (!(f->features & VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES)))
        return 0; // rings start enabled then
    return frontend_set_ring(f, VHOST_USER_SET_VRING_ENABLE, index, enable, e);
}

static int open_eventfd(int *fd, struct error *e)
{
    if (*fd < 0)
        *fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return *fd < 0 ? error_set(e, errno, "cannot make an eventfd: %s", strerror(errno)) : 0;
}

int frontend_start_ring(struct frontend *f, unsigned index, const struct driver *d, uint32_t base,
                        struct error *e)
{
    struct frontend_ring *r = &f->rings[index];
    int rc = open_eventfd(&r->kick_fd, e);
    if (rc == 0)
        rc = open_eventfd(&r->call_fd, e);
    if (rc == 0)
        rc = frontend_set_ring_fd(f, VHOST_USER_SET_VRING_CALL, index, r->call_fd, e);
    if (rc == 0)
        rc = frontend_set_ring(f, VHOST_USER_SET_VRING_NUM, index, driver_size(d), e);
    if (rc == 0)
        rc = frontend_set_ring(f, VHOST_USER_SET_VRING_BASE, index, base, e);
    if (rc == 0)
        rc = frontend_set_ring_addr(f, index, d, e);
    if (rc == 0)
        rc = frontend_set_ring_fd(f, VHOST_USER_SET_VRING_KICK, index, r->kick_fd, e);
    if (rc == 0)
        rc = frontend_enable_ring(f, index, true, e);
    if (rc == 0)
        r->driver = d;
    return rc;
}

int frontend_stop_ring(struct frontend *f, unsigned index, uint32_t *base, struct error *e)
{
    f->rings[index].driver = NULL;
    int rc = frontend_enable_ring(f, index, false, e);
    if (rc < 0)
        return rc;
    struct wire_message m = {.request = VHOST_USER_GET_VRING_BASE,
                             .bytes = sizeof m.payload.state,
                             .payload.state = {index, 0}};
    rc = frontend_query(f, &m, e);
    if (rc < 0)
        return rc;
    if (m.bytes != sizeof m.payload.state || m.payload.state.index != index)
        return error_set(e, EPROTO, "GET_VRING_BASE of ring %u was answered for ring %u", index,
                         m.payload.state.index);
    if (base)
        *base = m.payload.state.num;
    return 0;
}

void frontend_kick(struct frontend *f, unsigned index)
{
    // EAGAIN: the eventfd is saturated with kicks that nobody has read, which is as good.
    (void)!write(f->rings[index].kick_fd, &(uint64_t){1}, sizeof(uint64_t));
}

bool frontend_wait_call(struct frontend *f, unsigned index, int timeout_ms)
{
    uint64_t n;
    struct pollfd p = {.fd = f->rings[index].call_fd, .events = POLLIN};
    return poll(&p, 1, timeout_ms) > 0 && read(p.fd, &n, sizeof n) == sizeof n;
}
