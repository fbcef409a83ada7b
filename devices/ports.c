// SPDX-License-Identifier: Apache-2.0
#include "devices/ports.h"

#include "dataplane/vhost_user.h"
#include "devices/dpdk.h"
#include "devices/net.h"
#include "devices/switch.h"
#include "devices/tap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PAIRS_MAX 127   // VIRTIO 5.1.2, in 8 bits with the control queue
#define MTU_MIN   68    // VIRTIO 5.1.4.1
#define MTU_MAX   65535 // likewise
#define VLAN_MAX  4094  // IEEE 802.1Q, 9.6

static const struct port_type *const port_types[] = {&net_port, &tap_port, &dpdk_port};

// The schema lets exactly one of the keys through.
static const struct port_type *type_of(const struct line *l)
{
    for (unsigned i = 0; i < ARRAY_LEN(port_types); i++) {
        if (line_has(l, port_types[i]->key))
            return port_types[i];
    }
    assert(false && "the schema requires one");
    return NULL;
}

// ---- open and close ----------------------------------------------------------------------

static int refuse_switch(const struct line *l, struct error *e)
{
    char names[ERROR_TEXT_MAX / 2];
    bool is_any = switch_list(names, sizeof(names));
    return error_set(e, ENOENT, "port %s: switch=%s: there is %s%s", l->name,
                     line_text(l, "switch", ""), is_any ? "only " : "no switch yet", names);
}

static void read_line(struct port *p, const struct line *l)
{
    p->name = l->name;
    p->vlan = (uint16_t)line_number(l, "vlan", 0);
    p->mtu = (uint16_t)line_number(l, "mtu", 0);
    p->has_mac = line_has(l, "mac");
    uint64_t mac = line_number(l, "mac", 0);
    memcpy(p->mac, &mac, sizeof(p->mac));
}

static void release(struct port *p)
{
    free(p->stats);
    free(p->receivers);
    free(p);
}

static int make_room(struct port *p, const struct device *d, struct error *e)
{
    size_t bytes = d->n_queues * sizeof(*p->stats);
    p->receivers = calloc(p->n_receivers_max, sizeof(*p->receivers));
    p->stats = aligned_alloc(CACHE_LINE, bytes);
    if (!p->receivers || !p->stats)
        return error_set(e, ENOMEM, "port %s: out of memory", p->name);
    memset(p->stats, 0, bytes);
    return 0;
}

static int port_open(struct device *d, const struct line *l, struct error *e)
{
    const struct port_type *type = type_of(l);
    struct vswitch *at = switch_find(line_text(l, "switch", ""));
    if (!at)
        return refuse_switch(l, e);
    struct port *p = calloc(1, type->bytes);
    if (!p)
        return error_set(e, ENOMEM, "port %s: out of memory", l->name);
    p->type = type;
    p->device = d;
    read_line(p, l);
    int err = type->open(p, d, l, e);
    if (err)
        goto err_free;
    err = make_room(p, d, e);
    if (!err)
        err = switch_attach(at, p, e);
    if (err)
        goto err_close;
    d->priv = p;
    return 0;

err_close:
    if (type->close)
        type->close(p);
err_free:
    release(p);
    return err;
}

static void port_leave(struct device *d)
{
    struct port *p = d->priv;
    if (p->at)
        switch_detach(p);
    p->at = NULL;
}

static void port_close(struct device *d)
{
    struct port *p = d->priv;
    port_leave(d); // where no worker has seen it
    if (p->type->close)
        p->type->close(p);
    release(p);
}

// ---- handed on ---------------------------------------------------------------------------

static const struct port_type *port_type_of(const struct queue *q)
{
    return port_of(q)->type;
}

static unsigned port_poll(struct queue *q, unsigned budget)
{
    return port_type_of(q)->poll(q, budget);
}

static int port_queue_start(struct queue *q, struct error *e)
{
    const struct port_type *type = port_type_of(q);
    return type->queue_start ? type->queue_start(q, e) : 0;
}

static void port_queue_stop(struct queue *q)
{
    const struct port_type *type = port_type_of(q);
    if (type->queue_stop)
        type->queue_stop(q);
}

static int port_lane_enter(struct queue *q)
{
    const struct port_type *type = port_type_of(q);
    return type->lane_enter ? type->lane_enter(q) : 0;
}

static void port_lane_leave(struct queue *q)
{
    const struct port_type *type = port_type_of(q);
    if (type->lane_leave)
        type->lane_leave(q);
}

static bool port_settle(struct queue *q)
{
    const struct port_type *type = port_type_of(q);
    return type->settle ? type->settle(q) : true;
}

static enum queue_rest port_rest(struct queue *q)
{
    const struct port_type *type = port_type_of(q);
    return type->rest ? type->rest(q) : QUEUE_PARKS;
}

static int port_notify(struct device *d, enum device_event event, uint64_t value, struct error *e)
{
    const struct port_type *type = ((struct port *)d->priv)->type;
    return type->notify ? type->notify(d, event, value, e) : 0;
}

static void port_queue_notify(struct queue *q, enum device_event event, uint64_t value)
{
    const struct port_type *type = port_type_of(q);
    if (type->queue_notify)
        type->queue_notify(q, event, value);
}

static void port_config_read(struct device *d)
{
    const struct port_type *type = ((struct port *)d->priv)->type;
    if (type->config_read)
        type->config_read(d);
}

// ---- figures -----------------------------------------------------------------------------

static void port_tell_queue(const struct queue *q, struct describer *to)
{
    const struct port_stats *stats = port_stats_of(q);
    to->number(to, "frames", counter_read(&stats->n_frames));
    to->number(to, "frame_bytes", counter_read(&stats->n_bytes));
    to->number(to, "segmented", counter_read(&stats->n_segmented));
    to->open_object(to, "drops");
    for (unsigned i = DROP_NONE + 1; i < DROPS; i++)
        to->number(to, drop_name((enum drop)i), counter_read(&stats->n_drops[i]));
    to->close(to);
}

static void port_tell(const struct device *d, struct describer *to)
{
    const struct port *p = d->priv;
    unsigned n = atomic_load_explicit(&p->n_receivers, memory_order_relaxed);
    to->text(to, "switch", line_text(d->line, "switch", ""));
    to->text(to, "link", n ? "up" : "down");
    to->number(to, "receivers", n);
    if (p->type->tell)
        p->type->tell(p, to);
}

// ---- the type ----------------------------------------------------------------------------

#define OTHER_END 1 // one_of: exactly one port type

static const struct line_key port_keys[] = {
    {.name = "switch",
     .kind = LINE_TEXT,
     .required = true,
     .max = LINE_NAME_MAX,
     .value = "NAME",
     .help = "the switch that it belongs to"},
    {.name = "socket",
     .kind = LINE_TEXT,
     .one_of = OTHER_END,
     .max = 107, // sun_path holds 108 with its end
     .value = "PATH",
     .help = "vhost-user socket: a guest"},
    {.name = "tap",
     .kind = LINE_TEXT,
     .one_of = OTHER_END,
     .value = "INTERFACE",
     .help = "TAP interface of this host; created if missing"},
    {.name = "dpdk",
     .kind = LINE_TEXT,
     .one_of = OTHER_END,
     .value = "DEVARGS",
     .help = "network device that DPDK drives: a PCI address, or net_af_packet0,iface=eth0"},
    {.name = "queues",
     .kind = LINE_NUMBER,
     .min = 1,
     .max = PAIRS_MAX,
     .value = "N",
     .help = "the most pairs that a front end may use (1)"},
    {.name = "mac",
     .kind = LINE_MAC,
     .value = "MAC",
     .help = "the guest's address; else it is learnt"},
    {.name = "mtu",
     .kind = LINE_NUMBER,
     .min = MTU_MIN,
     .max = MTU_MAX,
     .value = "BYTES",
     .help = "longer frames are dropped, in both directions"},
    {.name = "vlan",
     .kind = LINE_NUMBER,
     .min = 1,
     .max = VLAN_MAX,
     .value = "VID",
     .help = "belongs to this VLAN and sees no tags; else frames keep them"},
    {.name = NULL},
};

const struct device_type port_device = {
    .line = {.type = "port",
             .help = "a port of a switch",
             .keys = port_keys,
             .common = &device_socket_keys[1]}, // socket= is one of several here
    .virtio_id = VIRTIO_ID_NET,
    .queues_max = 2 * PAIRS_MAX + 1,
    .rings_per_queue = 2,
    .protocol_features = VIRTIO_BIT(VHOST_USER_PROTOCOL_F_RARP) |
                         VIRTIO_BIT(VHOST_USER_PROTOCOL_F_NET_MTU) |
                         VIRTIO_BIT(VHOST_USER_PROTOCOL_F_CONFIG),
    .open = port_open,
    .close = port_close,
    .leave = port_leave,
    .poll = port_poll,
    .queue_start = port_queue_start,
    .queue_stop = port_queue_stop,
    .lane_enter = port_lane_enter,
    .lane_leave = port_lane_leave,
    .settle = port_settle,
    .rest = port_rest,
    .notify = port_notify,
    .queue_notify = port_queue_notify,
    .config_read = port_config_read,
    .tell_queue = port_tell_queue,
    .tell = port_tell,
};
