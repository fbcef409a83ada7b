// SPDX-License-Identifier: Apache-2.0
#include "devices/dpdk_internal.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PLUGIN "sluice_dpdk.so"

// ---- the plug-in -------------------------------------------------------------------------

// In a build folder it lies beside the folder of the program; else where it was installed.
static void *open_plugin(void)
{
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - sizeof("/../devices/" PLUGIN));
    if (n > 0) {
        path[n] = '\0';
        char *slash = strrchr(path, '/');
        if (slash) {
            memcpy(slash, "/../devices/" PLUGIN, sizeof("/../devices/" PLUGIN));
            if (access(path, F_OK) == 0)
                return dlopen(path, RTLD_NOW | RTLD_LOCAL);
        }
    }
    return dlopen(DPDK_PLUGIN_FOLDER "/" PLUGIN, RTLD_NOW | RTLD_LOCAL);
}

// It stays loaded: DPDK has threads.
static const struct dpdk_driver *load_driver(const struct port *p, struct error *e)
{
    static const struct dpdk_driver *driver;
    if (driver)
        return driver;
    void *plugin = open_plugin();
    driver = plugin ? dlsym(plugin, DPDK_DRIVER_SYMBOL) : NULL;
    if (!driver)
        error_set(e, ENOENT,
                  "port %s: dpdk=: no DPDK here: %s (the plug-in is built where the package "
                  "dpdk-dev is installed, and needs librte-meta-net to run)",
                  p->name, dlerror());
    return driver;
}

// ---- open and close ----------------------------------------------------------------------

static int dpdk_open(struct port *p, struct device *d, const struct line *l, struct error *e)
{
    struct dpdk *dpdk = (struct dpdk *)p;
    struct error why = {0};
    const char *devargs = line_text(l, "dpdk", "");
    dpdk->driver = load_driver(p, e);
    if (!dpdk->driver)
        return -ENOENT;
    dpdk->n_pairs = (unsigned)line_number(l, "queues", 1);
    dpdk->frame_bytes = p->mtu ? p->mtu + FRAME_BYTES_MIN : 0;
    int err = dpdk->driver->open(&dpdk->nic, devargs, dpdk->n_pairs, &dpdk->frame_bytes, &why);
    if (err)
        return error_set(e, -err, "port %s: dpdk=%s: %s", p->name, devargs, why.text);
    p->n_receivers_max = dpdk->n_pairs;
    d->n_queues = (uint16_t)(2 * dpdk->n_pairs);
    return 0;
}

static void dpdk_close(struct port *p)
{
    struct dpdk *dpdk = (struct dpdk *)p;
    dpdk->driver->close(dpdk->nic);
}

// ---- a queue's life ----------------------------------------------------------------------

static bool is_reader(const struct queue *q)
{
    return q->index % 2;
}

static void set_started(struct queue *q, bool is_started)
{
    struct dpdk *dpdk = dpdk_of(q);
    unsigned n = 0;
    dpdk->port.receivers[q->index / 2] = q;
    dpdk->is_started[q->index / 2] = is_started;
    while (n < dpdk->n_pairs && dpdk->is_started[n])
        n++;
    atomic_store_explicit(&dpdk->port.n_receivers, n, memory_order_release);
}

static int dpdk_queue_start(struct queue *q, struct error *e)
{
    q->priv = is_reader(q) ? dpdk_reader_open(q) : dpdk_writer_open(q);
    if (!q->priv)
        return error_set(e, ENOMEM, "port %s: out of memory", port_of(q)->name);
    if (!is_reader(q))
        set_started(q, true);
    return 0;
}

static void dpdk_queue_stop(struct queue *q)
{
    if (!is_reader(q))
        set_started(q, false);
    free(q->priv);
    q->priv = NULL;
}

static int dpdk_lane_enter(struct queue *q)
{
    dpdk_of(q)->driver->enter();
    return 0;
}

static unsigned dpdk_poll(struct queue *q, unsigned budget)
{
    return is_reader(q) ? dpdk_reader_poll(q, budget) : 0;
}

static bool dpdk_settle(struct queue *q)
{
    return is_reader(q) ? dpdk_reader_settle(q) : true;
}

// Nothing tells that a frame arrived.
static enum queue_rest dpdk_rest(struct queue *q)
{
    return is_reader(q) ? QUEUE_STAYS : QUEUE_SLEEPS;
}

static void dpdk_tell(const struct port *p, struct describer *to)
{
    const struct dpdk *dpdk = (const struct dpdk *)p;
    to->number(to, "frame_bytes_max", dpdk->frame_bytes);
}

const struct port_type dpdk_port = {
    .key = "dpdk",
    .bytes = sizeof(struct dpdk),
    .open = dpdk_open,
    .close = dpdk_close,
    .poll = dpdk_poll,
    .deliver = dpdk_writer_deliver,
    .queue_start = dpdk_queue_start,
    .queue_stop = dpdk_queue_stop,
    .lane_enter = dpdk_lane_enter,
    .settle = dpdk_settle,
    .rest = dpdk_rest,
    .tell = dpdk_tell,
};
