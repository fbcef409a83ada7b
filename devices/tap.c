// SPDX-License-Identifier: Apache-2.0
#include "devices/tap_internal.h"

#include "devices/offload.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define DEVICE "/dev/net/tun"

#ifndef TUN_F_USO4 // Linux 6.2
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

// ---- the interface -----------------------------------------------------------------------

static int refuse(const struct port *p, const char *interface, int code, const char *why,
                  struct error *e)
{
    return error_set(e, code, "port %s: tap=%s: %s", p->name, interface, why);
}

// Whether there is an interface of that name, and it is no TAP.
static bool is_something_else(int socket, const char *interface)
{
    struct ethtool_drvinfo info = {.cmd = ETHTOOL_GDRVINFO};
    struct ifreq request = {.ifr_data = (void *)&info};
    memcpy(request.ifr_name, interface, strlen(interface));
    if (ioctl(socket, SIOCETHTOOL, &request)) // some drivers say nothing of themselves
        return ioctl(socket, SIOCGIFINDEX, &request) == 0;
    return strcmp(info.driver, "tun") != 0 || strcmp(info.bus_info, "tap") != 0;
}

static int refuse_interface(const struct port *p, const char *interface, int code, struct error *e)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool is_other = fd >= 0 && is_something_else(fd, interface);
    if (fd >= 0)
        close(fd);
    if (is_other)
        return refuse(p, interface, code,
                      "an interface of another kind has this name: take a TAP's, or one that "
                      "does not exist and is created",
                      e);
    switch (code) {
    case EPERM:
        return refuse(p, interface, code,
                      "not permitted: run as root, with CAP_NET_ADMIN, or on an interface that "
                      "was made for this user (ip tuntap add dev NAME mode tap multi_queue "
                      "user USER)",
                      e);
    case EINVAL:
        return refuse(p, interface, code,
                      "it was made without multi_queue, so it has one queue: leave out queues=, "
                      "or make it with ip tuntap add dev NAME mode tap multi_queue",
                      e);
    case EBUSY:
        return refuse(p, interface, code, "its only queue is open elsewhere", e);
    case E2BIG:
        return refuse(p, interface, code, "it has no more queues than are open elsewhere", e);
    default:
        return refuse(p, interface, code, strerror(code), e);
    }
}

static int refuse_device(const struct port *p, const char *interface, int code, struct error *e)
{
    if (code == ENOENT || code == ENODEV || code == ENXIO)
        return refuse(p, interface, code, "there is no " DEVICE ": load the kernel module tun", e);
    return error_set(e, code, "port %s: tap=%s: " DEVICE ": %s", p->name, interface,
                     strerror(code));
}

static int check_name(const struct port *p, const char *interface, struct error *e)
{
    if (strlen(interface) >= IFNAMSIZ || strpbrk(interface, "/:% \t") || !strcmp(interface, ".") ||
        !strcmp(interface, ".."))
        return refuse(p, interface, EINVAL,
                      "an interface's name: 1 to 15 characters, none of them / : % or blank", e);
    return 0;
}

// TUNSETIFF creates what is missing, and it goes with its last queue.
static int attach(int fd, const char *interface, unsigned n_pairs)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE};
    memcpy(request.ifr_name, interface, strlen(interface));
    if (ioctl(fd, TUNSETIFF, &request) == 0)
        return 0;
    int code = errno;
    // Made without multi_queue, it does for one pair.
    request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    if (code == EINVAL && n_pairs == 1 && ioctl(fd, TUNSETIFF, &request) == 0)
        return 0;
    return code == EINVAL && n_pairs == 1 ? -errno : -code;
}

// The header's size, and what frames may ask of us and we of the kernel.
static int set_offloads(struct tap *tap, int fd)
{
    const unsigned basic = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    int bytes = VIRTIO_NET_HDR_BYTES;
    if (ioctl(fd, TUNSETVNETHDRSZ, &bytes))
        return -errno;
    tap->offloads = OFFLOAD_CSUM | OFFLOAD_TSO4 | OFFLOAD_TSO6 | OFFLOAD_ECN | OFFLOAD_UFO;
    if (ioctl(fd, TUNSETOFFLOAD, basic | TUN_F_USO4 | TUN_F_USO6) == 0) {
        tap->offloads |= OFFLOAD_USO4 | OFFLOAD_USO6;
        return 0;
    }
    return ioctl(fd, TUNSETOFFLOAD, basic) ? -errno : 0;
}

static int open_pair(struct tap *tap, const char *interface, struct error *e)
{
    // Non-blocking: io_uring then waits for a frame by polling, never in a helper thread.
    int fd = open(DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return refuse_device(&tap->port, interface, errno, e);
    int err = attach(fd, interface, tap->n_pairs);
    if (err) {
        err = refuse_interface(&tap->port, interface, -err, e);
    } else {
        err = set_offloads(tap, fd);
        if (err)
            refuse(&tap->port, interface, -err, "the kernel has no virtio-net headers for it", e);
    }
    if (err) {
        close(fd);
        return err;
    }
    return fd;
}

// ---- open and close ----------------------------------------------------------------------

static void close_pairs(struct tap *tap, unsigned n)
{
    while (n)
        close(tap->fds[--n]);
}

static int tap_open(struct port *p, struct device *d, const struct line *l, struct error *e)
{
    struct tap *tap = (struct tap *)p;
    const char *interface = line_text(l, "tap", "");
    int err = check_name(p, interface, e);
    if (err)
        return err;
    tap->n_pairs = (unsigned)line_number(l, "queues", 1);
    p->n_receivers_max = tap->n_pairs;
    d->n_queues = (uint16_t)(2 * tap->n_pairs);
    for (unsigned i = 0; i < tap->n_pairs; i++) {
        int fd = open_pair(tap, interface, e);
        if (fd < 0) {
            close_pairs(tap, i);
            return fd;
        }
        tap->fds[i] = fd;
    }
    return 0;
}

static void tap_close(struct port *p)
{
    struct tap *tap = (struct tap *)p;
    close_pairs(tap, tap->n_pairs);
}

// ---- a queue's life ----------------------------------------------------------------------

static bool is_reader(const struct queue *q)
{
    return q->index % 2;
}

// The link is up for as many queues, from the first on, as run.
static void update_receivers(struct tap *tap)
{
    unsigned n = 0;
    while (n < tap->n_pairs && tap->is_started[n])
        n++;
    atomic_store_explicit(&tap->port.n_receivers, n, memory_order_release);
}

static int tap_queue_start(struct queue *q, struct error *e)
{
    struct tap *tap = tap_of(q);
    q->priv = is_reader(q) ? tap_reader_open(q) : tap_writer_open(q);
    if (!q->priv)
        return error_set(e, ENOMEM, "port %s: out of memory", tap->port.name);
    if (!is_reader(q)) {
        tap->port.receivers[q->index / 2] = q;
        tap->is_started[q->index / 2] = true;
        update_receivers(tap);
    }
    return 0;
}

static void tap_queue_stop(struct queue *q)
{
    if (is_reader(q)) {
        tap_reader_close(q);
    } else {
        tap_of(q)->is_started[q->index / 2] = false;
        update_receivers(tap_of(q));
        tap_writer_close(q);
    }
    q->priv = NULL;
}

static int tap_lane_enter(struct queue *q)
{
    int slot = uring_add_file(&q->lane->uring, tap_of(q)->fds[q->index / 2]);
    if (slot < 0)
        return slot;
    if (is_reader(q))
        tap_reader_enter(q, slot);
    else
        tap_writer_enter(q, slot);
    return 0;
}

static void tap_lane_leave(struct queue *q)
{
    int slot = is_reader(q) ? tap_reader_leave(q) : tap_writer_leave(q);
    uring_remove_file(&q->lane->uring, slot);
}

static unsigned tap_poll(struct queue *q, unsigned budget)
{
    return is_reader(q) ? tap_reader_poll(q, budget) : 0;
}

static bool tap_settle(struct queue *q)
{
    return is_reader(q) ? tap_reader_settle(q) : tap_writer_settle(q);
}

static enum queue_rest tap_rest(struct queue *q)
{
    return is_reader(q) ? tap_reader_rest(q) : QUEUE_SLEEPS;
}

// It goes when somebody deletes it, and does not come back by itself.
static void tap_tell(const struct port *p, struct describer *to)
{
    const struct tap *tap = (const struct tap *)p;
    int code = atomic_load(&tap->error);
    if (code == EBADFD)
        to->text(to, "interface", "deleted: remove the port and add it again");
    else
        to->text(to, "interface", code ? strerror(code) : "open");
}

const struct port_type tap_port = {
    .key = "tap",
    .bytes = sizeof(struct tap),
    .open = tap_open,
    .close = tap_close,
    .poll = tap_poll,
    .deliver = tap_writer_deliver,
    .queue_start = tap_queue_start,
    .queue_stop = tap_queue_stop,
    .lane_enter = tap_lane_enter,
    .lane_leave = tap_lane_leave,
    .settle = tap_settle,
    .rest = tap_rest,
    .tell = tap_tell,
};
