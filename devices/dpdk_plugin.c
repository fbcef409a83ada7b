// SPDX-License-Identifier: Apache-2.0
//
// The plug-in: DPDK's side of a port. It knows ethdevs and mbufs, and no frames or switches.
//
// DPDK's environment (EAL) is started with the first device: once in a process, as it wants it. It
// is kept from what is not its business: CPU affinity (put back), other devices than those that
// lines name, telemetry, files that outlive it. Memory is huge pages if there are some, else
// ordinary pages.
//
// To send is to copy into an mbuf, but for drivers that copy the bytes themselves before they
// return: these get the sender's own bytes, attached as external buffers.
#include "devices/dpdk_driver.h"

#include "dataplane/base.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rte_bus.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>

#define BATCH_MAX      64
#define DESCRIPTORS    1024
#define CACHED_MBUFS   256
#define MEMORY_MB      "512" // without huge pages: address space, not memory
#define FRAME_BYTES    1518  // unless the line says mtu=
#define TAG_BYTES      8     // that MTUs do not count: two tags
#define EXTERNAL_PARTS 64    // of a frame sent from where it lies; one with more is copied
#define HUGE_PAGE_2M   "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"
#define HUGE_PAGE_1G   "/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages"
#define HUGE_PAGES_2M  128 // that are enough to start with

struct dpdk_nic {
    uint16_t port;
    bool is_copying_driver; // takes external buffers, and is done with them when it returns
    struct rte_mempool *pool;
    struct rte_device *device;
    struct rte_mbuf_ext_shared_info external[DPDK_PAIRS_MAX];
};

// ---- what DPDK says ----------------------------------------------------------------------

static char first_words[256]; // its first line since it was asked to do something: why it failed

static ssize_t hear(void *cookie, const char *text, size_t bytes)
{
    (void)cookie;
    if (first_words[0])
        return (ssize_t)bytes;
    size_t n = MIN(bytes, sizeof(first_words) - 1);
    memcpy(first_words, text, n);
    first_words[n] = '\0';
    first_words[strcspn(first_words, "\n")] = '\0';
    return (ssize_t)bytes;
}

static int refuse(struct error *why, int code, const char *what)
{
    if (first_words[0])
        return error_set(why, code, "%s: %s (DPDK: %s)", what, strerror(code), first_words);
    return error_set(why, code, "%s: %s", what, strerror(code));
}

// ---- the environment ---------------------------------------------------------------------

static unsigned long read_number(const char *path)
{
    char text[32] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    return n > 0 ? strtoul(text, NULL, 10) : 0;
}

static bool has_huge_pages(void)
{
    return read_number(HUGE_PAGE_2M) >= HUGE_PAGES_2M || read_number(HUGE_PAGE_1G) > 0;
}

static int first_cpu(const cpu_set_t *cpus)
{
    int cpu = 0;
    while (cpu < CPU_SETSIZE - 1 && !CPU_ISSET(cpu, cpus))
        cpu++;
    return cpu;
}

static int init_eal(const cpu_set_t *cpus)
{
    char cpu[16], prefix[64];
    snprintf(cpu, sizeof(cpu), "%d", first_cpu(cpus));
    snprintf(prefix, sizeof(prefix), "--file-prefix=sluice-%d", (int)getpid());
    // An allowed device that does not exist: none is taken but those that are asked for.
    char *arguments[16] = {"sluiced", "-l", cpu, "-a", "0:0.0", prefix, "--no-telemetry"};
    int n = 7;
    if (has_huge_pages()) {
        arguments[n++] = "--in-memory";
    } else { // which 22.11 takes for contradicting --in-memory
        arguments[n++] = "--no-huge";
        arguments[n++] = "--no-shconf";
        arguments[n++] = "-m";
        arguments[n++] = MEMORY_MB;
    }
    return rte_eal_init(n, arguments) < 0 ? -rte_errno : 0;
}

// 0, or -errno, for ever: EAL starts once.
static int start_eal(struct error *why)
{
    static bool was_tried;
    static int result;
    if (!was_tried) {
        was_tried = true;
        cookie_io_functions_t functions = {.write = hear};
        FILE *stream = fopencookie(NULL, "w", functions);
        if (stream) {
            setvbuf(stream, NULL, _IOLBF, 0);
            rte_openlog_stream(stream);
        }
        cpu_set_t cpus;
        sched_getaffinity(0, sizeof(cpus), &cpus);
        result = init_eal(&cpus);
        sched_setaffinity(0, sizeof(cpus), &cpus);
        if (result == 0)
            rmdir(rte_eal_get_runtime_dir()); // empty
    }
    return result ? refuse(why, -result, "DPDK does not start") : 0;
}

// ---- open and close ----------------------------------------------------------------------

static int find_port(const char *devargs, uint16_t *port)
{
    struct rte_dev_iterator iterator;
    uint16_t id;
    RTE_ETH_FOREACH_MATCHING_DEV(id, devargs, &iterator)
    {
        *port = id;
        rte_eth_iterator_cleanup(&iterator);
        return 0;
    }
    return -ENODEV;
}

// Drivers that are known to be done with a frame's bytes when they return.
static bool is_copying(const struct rte_eth_dev_info *info)
{
    static const char *const names[] = {"net_af_packet", "net_pcap", "net_null"};
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(info->driver_name, names[i]) == 0)
            return info->tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
    }
    return false;
}

static int start_queues(struct dpdk_nic *nic, unsigned n_pairs, const struct rte_eth_dev_info *info)
{
    struct rte_eth_conf conf = {0};
    if (nic->is_copying_driver)
        conf.txmode.offloads = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
    uint16_t n_rx = MIN(DESCRIPTORS, info->rx_desc_lim.nb_max ? info->rx_desc_lim.nb_max : 65535);
    uint16_t n_tx = MIN(DESCRIPTORS, info->tx_desc_lim.nb_max ? info->tx_desc_lim.nb_max : 65535);
    int socket = rte_eth_dev_socket_id(nic->port);
    int err = rte_eth_dev_configure(nic->port, (uint16_t)n_pairs, (uint16_t)n_pairs, &conf);
    for (uint16_t i = 0; !err && i < n_pairs; i++) {
        err = rte_eth_rx_queue_setup(nic->port, i, n_rx, (unsigned)socket, NULL, nic->pool);
        if (!err)
            err = rte_eth_tx_queue_setup(nic->port, i, n_tx, (unsigned)socket, NULL);
    }
    return err ? err : rte_eth_dev_start(nic->port);
}

// Frames of this size are received in one mbuf each.
static struct rte_mempool *make_pool(uint16_t port, unsigned n_pairs, uint32_t frame_bytes)
{
    char name[32];
    snprintf(name, sizeof(name), "port-%u", port);
    unsigned n = n_pairs * (3 * DESCRIPTORS) + CACHED_MBUFS;
    uint32_t room = MAX(RTE_MBUF_DEFAULT_DATAROOM, frame_bytes + TAG_BYTES) + RTE_PKTMBUF_HEADROOM;
    return rte_pktmbuf_pool_create(name, n, CACHED_MBUFS, 0, (uint16_t)MIN(room, UINT16_MAX),
                                   rte_eth_dev_socket_id(port));
}

static int set_size(const struct dpdk_nic *nic, uint32_t *frame_bytes, struct error *why)
{
    uint16_t mtu = 0;
    int err = 0;
    if (*frame_bytes)
        err = rte_eth_dev_set_mtu(nic->port, (uint16_t)(*frame_bytes - RTE_ETHER_HDR_LEN));
    if (err == -ENOTSUP) // then it has the one that it has
        err = 0;
    if (!err)
        err = rte_eth_dev_get_mtu(nic->port, &mtu);
    if (err)
        return refuse(why, -err, "the device does not take this mtu=");
    if (*frame_bytes > (uint32_t)mtu + RTE_ETHER_HDR_LEN)
        return error_set(why, ERANGE, "the device's MTU is %u, less than mtu=", mtu);
    *frame_bytes = (uint32_t)mtu + RTE_ETHER_HDR_LEN;
    return 0;
}

static int set_up(struct dpdk_nic *nic, unsigned n_pairs, uint32_t *frame_bytes, struct error *why)
{
    struct rte_eth_dev_info info;
    int err = rte_eth_dev_info_get(nic->port, &info);
    if (err)
        return refuse(why, -err, "the device says nothing of itself");
    nic->device = info.device;
    nic->is_copying_driver = is_copying(&info);
    unsigned n_max = MIN(info.max_rx_queues, info.max_tx_queues);
    if (n_pairs > n_max)
        return error_set(why, EINVAL, "queues=%u: the device has %u", n_pairs, n_max);
    err = set_size(nic, frame_bytes, why);
    if (err)
        return err;
    nic->pool = make_pool(nic->port, n_pairs, *frame_bytes);
    if (!nic->pool)
        return refuse(why, rte_errno, "no memory for its buffers");
    err = start_queues(nic, n_pairs, &info);
    if (err)
        return refuse(why, -err, "the device does not start");
    rte_eth_promiscuous_enable(nic->port); // where it can: a switch's port has many addresses
    rte_eth_allmulticast_enable(nic->port);
    return 0;
}

static void nic_close(struct dpdk_nic *nic)
{
    rte_eth_dev_stop(nic->port);
    rte_eth_dev_close(nic->port);
    if (nic->device)
        rte_dev_remove(nic->device);
    rte_mempool_free(nic->pool);
    free(nic);
}

// Each device is one port's: DPDK would find it a second time.
static int probe(struct dpdk_nic *nic, const char *devargs, struct error *why)
{
    if (find_port(devargs, &nic->port) == 0)
        return error_set(why, EBUSY, "another port has this device");
    first_words[0] = '\0';
    int err = rte_dev_probe(devargs);
    if (!err)
        err = find_port(devargs, &nic->port);
    return err ? refuse(why, -err, "no such device for DPDK") : 0;
}

static int nic_open(struct dpdk_nic **out, const char *devargs, unsigned n_pairs,
                    uint32_t *frame_bytes, struct error *why)
{
    int err = start_eal(why);
    if (err)
        return err;
    struct dpdk_nic *nic = calloc(1, sizeof(*nic));
    if (!nic)
        return error_set(why, ENOMEM, "out of memory");
    err = probe(nic, devargs, why);
    if (err) {
        free(nic);
        return err;
    }
    err = set_up(nic, n_pairs, frame_bytes, why);
    if (err) {
        nic_close(nic);
        return err;
    }
    *out = nic;
    return 0;
}

// A thread that DPDK knows has a cache of mbufs of its own.
static void nic_enter(void)
{
    if (rte_lcore_id() == LCORE_ID_ANY)
        rte_thread_register(); // without, it is slower
}

// ---- receiving ---------------------------------------------------------------------------

static unsigned nic_receive(struct dpdk_nic *nic, unsigned queue, struct dpdk_received out[],
                            unsigned n)
{
    struct rte_mbuf *mbufs[BATCH_MAX];
    unsigned n_good = 0;
    uint16_t got = rte_eth_rx_burst(nic->port, (uint16_t)queue, mbufs, (uint16_t)MIN(n, BATCH_MAX));
    for (unsigned i = 0; i < got; i++) {
        if (mbufs[i]->nb_segs > DPDK_SEGS_MAX) {
            rte_pktmbuf_free(mbufs[i]);
            continue;
        }
        struct dpdk_received *r = &out[n_good++];
        r->handle = mbufs[i];
        r->n_iov = 0;
        for (struct rte_mbuf *m = mbufs[i]; m; m = m->next)
            r->iov[r->n_iov++] = (struct iovec){rte_pktmbuf_mtod(m, void *), m->data_len};
    }
    return n_good;
}

static void nic_release(void *const handles[], unsigned n)
{
    rte_pktmbuf_free_bulk((struct rte_mbuf **)(uintptr_t)handles, n);
}

// ---- sending -----------------------------------------------------------------------------

static void external_is_back(void *address, void *context)
{
    (void)address, (void)context; // send() counts
}

// Append the sender's bytes to @m, copied. False: they do not fit.
static bool append_copy(struct rte_mbuf *m, const struct dpdk_sent *s)
{
    size_t skip = s->skip;
    uint32_t left = s->bytes;
    for (const struct iovec *iov = s->iov; left;) {
        if (skip >= iov->iov_len) {
            skip -= iov++->iov_len;
            continue;
        }
        uint32_t part = (uint32_t)MIN(left, iov->iov_len - skip);
        if (part > rte_pktmbuf_tailroom(m))
            return false;
        memcpy(rte_pktmbuf_append(m, (uint16_t)part), (uint8_t *)iov->iov_base + skip, part);
        skip += part;
        left -= part;
    }
    return true;
}

// The same without a copy: an mbuf for each segment. False: there are none.
static bool append_external(struct dpdk_nic *nic, unsigned queue, struct rte_mbuf *first,
                            const struct dpdk_sent *s)
{
    struct rte_mbuf_ext_shared_info *info = &nic->external[queue];
    size_t skip = s->skip;
    uint32_t left = s->bytes;
    struct rte_mbuf *last = first;
    for (const struct iovec *iov = s->iov; left;) {
        if (skip >= iov->iov_len) {
            skip -= iov++->iov_len;
            continue;
        }
        uint32_t part = (uint32_t)MIN(left, iov->iov_len - skip);
        struct rte_mbuf *m = rte_pktmbuf_alloc(nic->pool);
        if (!m)
            return false;
        rte_mbuf_ext_refcnt_update(info, 1);
        rte_pktmbuf_attach_extbuf(m, (uint8_t *)iov->iov_base + skip, RTE_BAD_IOVA, (uint16_t)part,
                                  info);
        m->data_len = (uint16_t)part;
        last->next = m;
        last = m;
        first->nb_segs++;
        first->pkt_len += part;
        skip += part;
        left -= part;
    }
    return true;
}

static unsigned count_parts(const struct dpdk_sent *s)
{
    unsigned n = 0;
    size_t bytes = 0;
    for (; bytes < s->skip + s->bytes && n <= EXTERNAL_PARTS; n++)
        bytes += s->iov[n].iov_len;
    return n;
}

static struct rte_mbuf *make_mbuf(struct dpdk_nic *nic, unsigned queue, const struct dpdk_sent *s)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(nic->pool);
    if (!m)
        return NULL;
    memcpy(rte_pktmbuf_append(m, (uint16_t)s->n_head), s->head, s->n_head);
    bool is_external = nic->is_copying_driver && s->bytes && count_parts(s) <= EXTERNAL_PARTS;
    if (is_external ? append_external(nic, queue, m, s) : append_copy(m, s))
        return m;
    rte_pktmbuf_free(m);
    return NULL;
}

static unsigned nic_send(struct dpdk_nic *nic, unsigned queue, const struct dpdk_sent frames[],
                         unsigned n)
{
    struct rte_mbuf *mbufs[BATCH_MAX];
    struct rte_mbuf_ext_shared_info *info = &nic->external[queue];
    unsigned n_made = 0;
    info->free_cb = external_is_back;
    rte_mbuf_ext_refcnt_set(info, 1); // ours: the others are mbufs
    while (n_made < MIN(n, BATCH_MAX) && (mbufs[n_made] = make_mbuf(nic, queue, &frames[n_made])))
        n_made++;
    uint16_t n_sent = rte_eth_tx_burst(nic->port, (uint16_t)queue, mbufs, (uint16_t)n_made);
    rte_pktmbuf_free_bulk(mbufs + n_sent, n_made - n_sent);
    assert(rte_mbuf_ext_refcnt_read(info) == 1 && "the driver has copied");
    return n_sent;
}

extern const struct dpdk_driver dpdk_driver;
const struct dpdk_driver dpdk_driver = {
    .open = nic_open,
    .close = nic_close,
    .enter = nic_enter,
    .receive = nic_receive,
    .release = nic_release,
    .send = nic_send,
};
