// SPDX-License-Identifier: Apache-2.0
#include "tests/port_rig.h"

#include "devices/dpdk.h"
#include "devices/switch.h"
#include "devices/tap.h"

#include "tests/check.h"
#include "tests/space.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DEADLINE_S 60
#define BUDGET     32

struct port_rig port_rig;

static const struct line_key keys[] = {
    {.name = "tap", .kind = LINE_TEXT},
    {.name = "dpdk", .kind = LINE_TEXT},
    {.name = "queues", .kind = LINE_NUMBER},
    {.name = "mtu", .kind = LINE_NUMBER},
    {.name = NULL},
};
static const struct line_schema schema = {.type = "port", .help = "", .keys = keys};

// ---- the switch --------------------------------------------------------------------------

static unsigned port_number(const struct port *p)
{
    return p->device == &port_rig.ports[1].device;
}

static void to_the_other(struct port_rig *rig, unsigned from, struct frame *f)
{
    (void)rig;
    port_rig_deliver(1 - from, f);
}

void switch_forward(struct port *from, struct lane *lane, struct frame *const frames[], unsigned n,
                    struct port_stats *stats)
{
    (void)lane, (void)stats;
    port_rig.n_forwarded += n;
    for (unsigned i = 0; i < n; i++)
        port_rig.forward(&port_rig, port_number(from), frames[i]);
}

void frame_return(struct lane *lane, struct frame *f)
{
    assert_ptr_equal(lane, &port_rig.lane);
    assert_true(f->n_holders > 0);
    if (--f->n_holders == 0)
        f->free(f);
}

void port_rig_return(struct frame *f)
{
    frame_return(&port_rig.lane, f);
}

void port_rig_deliver(unsigned to, struct frame *f)
{
    struct port_rig_port *p = &port_rig.ports[to];
    struct queue *q = p->port ? port_receiver(p->port, f) : NULL;
    f->n_holders = 1;
    if (q && q->lane)
        p->port->type->deliver(q, &f, 1);
    else
        frame_return(&port_rig.lane, f);
}

// A frame of the test's, not of a queue.
struct sent_frame {
    struct frame frame;
    bool is_back;
};

static void sent_is_back(struct frame *f)
{
    container_of(f, struct sent_frame, frame)->is_back = true;
}

static bool is_back(void *context)
{
    return ((struct sent_frame *)context)->is_back;
}

void port_rig_send(unsigned to, const struct packet *p, const uint32_t *cuts, unsigned n_cuts)
{
    struct iovec iov[PORT_RIG_CUTS_MAX + 1];
    struct sent_frame s = {.frame.free = sent_is_back};
    assert_true(n_cuts <= PORT_RIG_CUTS_MAX);
    unsigned n = packet_cut(iov, p->bytes, p->n_bytes, cuts, n_cuts);
    assert_int_equal(frame_parse(&s.frame, iov, n, 0, &p->hdr), DROP_NONE);
    port_rig_deliver(to, &s.frame);
    port_rig_until(is_back, &s);
    packet_uncut(iov, n);
}

// ---- ports -------------------------------------------------------------------------------

static void open_queues(struct device *d)
{
    d->queues = calloc(d->n_queues, sizeof(*d->queues));
    assert_non_null(d->queues);
    for (uint16_t i = 0; i < d->n_queues; i++) {
        d->queues[i].device = d;
        d->queues[i].index = i;
    }
}

int port_rig_open_port(unsigned i, const char *line_keys, struct error *e)
{
    struct port_rig_port *p = &port_rig.ports[i];
    const struct line_schema *schemas[] = {&schema};
    char text[256];
    snprintf(text, sizeof(text), "port p%u %s", i, line_keys);
    check_ok(line_parse(&p->line, text, schemas, 1, e), e);
    const struct port_type *type = line_has(p->line, "dpdk") ? &dpdk_port : &tap_port;
    struct port *port = calloc(1, type->bytes);
    assert_non_null(port);
    port->type = type;
    port->device = &p->device;
    port->name = p->line->name;
    port->mtu = (uint16_t)line_number(p->line, "mtu", 0);
    p->device = (struct device){.name = p->line->name, .priv = port};
    int err = type->open(port, &p->device, p->line, e);
    if (err) {
        line_free(p->line);
        free(port);
        return err;
    }
    p->port = port;
    open_queues(&p->device);
    port->receivers = calloc(port->n_receivers_max, sizeof(*port->receivers));
    port->stats = calloc(p->device.n_queues, sizeof(*port->stats));
    assert_true(port->receivers && port->stats);
    for (unsigned j = 0; j < p->device.n_queues; j++)
        check_ok(type->queue_start(&p->device.queues[j], e), e);
    return 0;
}

void port_rig_close_port(unsigned i)
{
    struct port_rig_port *p = &port_rig.ports[i];
    for (unsigned j = 0; j < p->device.n_queues; j++)
        p->port->type->queue_stop(&p->device.queues[j]);
    assert_int_equal(atomic_load(&p->port->n_receivers), 0);
    p->port->type->close(p->port);
    free(p->port->receivers);
    free(p->port->stats);
    free(p->device.queues);
    free(p->port);
    line_free(p->line);
    p->port = NULL;
}

void port_rig_attach(unsigned i)
{
    struct port_rig_port *p = &port_rig.ports[i];
    for (unsigned j = 0; j < p->device.n_queues; j++) {
        struct queue *q = &p->device.queues[j];
        q->lane = &port_rig.lane;
        atomic_store(&q->uring, &port_rig.lane.uring);
        assert_int_equal(p->port->type->lane_enter(q), 0);
        p->is_asleep[j] = false;
    }
    p->is_attached = true;
}

static bool is_settled(void *context)
{
    struct port_rig_port *p = context;
    bool all = true;
    for (unsigned j = 0; j < p->device.n_queues; j++)
        all &= p->port->type->settle(&p->device.queues[j]);
    return all;
}

void port_rig_detach(unsigned i)
{
    struct port_rig_port *p = &port_rig.ports[i];
    p->is_attached = false; // not polled any more
    port_rig_until(is_settled, p);
    for (unsigned j = 0; j < p->device.n_queues; j++) {
        if (p->port->type->lane_leave)
            p->port->type->lane_leave(&p->device.queues[j]);
        p->device.queues[j].lane = NULL;
    }
}

void port_rig_add(unsigned i, const char *line_keys)
{
    struct error e;
    port_rig.ports[i].space = space_open();
    check_ok(port_rig_open_port(i, line_keys, &e), &e);
    port_rig_attach(i);
}

void port_rig_remove(unsigned i)
{
    port_rig_detach(i);
    port_rig_close_port(i);
    close(port_rig.ports[i].space);
}

// ---- the lane ----------------------------------------------------------------------------

void port_rig_open(void)
{
    struct error e;
    port_rig = (struct port_rig){.forward = to_the_other};
    check_ok(uring_open(&port_rig.lane.uring, &e), &e);
    assert_int_equal(uring_enable(&port_rig.lane.uring, NULL, 0), 0);
}

void port_rig_close(void)
{
    assert_int_equal(port_rig.lane.uring.n_in_flight, 0);
    uring_close(&port_rig.lane.uring);
}

int port_rig_setup(void **state)
{
    (void)state;
    port_rig_open();
    return 0;
}

int port_rig_teardown(void **state)
{
    (void)state;
    port_rig_close();
    return 0;
}

static bool *asleep_of(const struct queue *q)
{
    for (unsigned i = 0; i < PORT_RIG_PORTS; i++) {
        if (q->device == &port_rig.ports[i].device)
            return &port_rig.ports[i].is_asleep[q->index];
    }
    fail_msg("a queue of nobody");
    return NULL;
}

static void wake_roused(void)
{
    while (port_rig.lane.roused) {
        struct queue *q = port_rig.lane.roused;
        port_rig.lane.roused = q->roused_next;
        q->is_roused = false;
        *asleep_of(q) = false;
    }
}

static void poll_port(struct port_rig_port *p)
{
    for (unsigned j = 0; p->is_attached && j < p->device.n_queues; j++) {
        struct queue *q = &p->device.queues[j];
        if (!p->is_asleep[j] && !p->port->type->poll(q, BUDGET))
            p->is_asleep[j] = p->port->type->rest(q) == QUEUE_SLEEPS;
    }
}

void port_rig_turn(void)
{
    port_rig.n_turns++;
    uring_enter(&port_rig.lane.uring);
    uring_reap(&port_rig.lane.uring, UINT32_MAX);
    wake_roused();
    for (unsigned i = 0; i < PORT_RIG_PORTS; i++)
        poll_port(&port_rig.ports[i]);
}

bool port_rig_is_asleep(void)
{
    bool all = !port_rig.lane.uring.n_staged;
    for (unsigned i = 0; i < PORT_RIG_PORTS; i++) {
        const struct port_rig_port *p = &port_rig.ports[i];
        for (unsigned j = 0; p->is_attached && j < p->device.n_queues; j++)
            all &= p->is_asleep[j];
    }
    return all;
}

void port_rig_until(bool (*is_done)(void *context), void *context)
{
    time_t deadline = time(NULL) + DEADLINE_S;
    while (!is_done(context)) {
        port_rig_turn();
        if (time(NULL) > deadline)
            fail_msg("nothing comes of it in %u seconds", DEADLINE_S);
    }
}

static bool is_asleep(void *context)
{
    (void)context;
    return port_rig_is_asleep();
}

void port_rig_until_asleep(void)
{
    port_rig_until(is_asleep, NULL);
}

uint64_t port_rig_drops(unsigned i, enum drop reason)
{
    uint64_t n = 0;
    for (unsigned j = 0; j < port_rig.ports[i].device.n_queues; j++)
        n += counter_read(&port_rig.ports[i].port->stats[j].n_drops[reason]);
    return n;
}
