// SPDX-License-Identifier: Apache-2.0
#include "tests/tap_rig.h"

#include "devices/switch.h"

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

struct tap_rig tap_rig;

static const struct line_key keys[] = {
    {.name = "tap", .kind = LINE_TEXT},
    {.name = "queues", .kind = LINE_NUMBER},
    {.name = "mtu", .kind = LINE_NUMBER},
    {.name = NULL},
};
static const struct line_schema schema = {.type = "port", .help = "", .keys = keys};

// ---- the switch --------------------------------------------------------------------------

static unsigned port_number(const struct port *p)
{
    return p->device == &tap_rig.ports[1].device;
}

static void to_the_other(struct tap_rig *rig, unsigned from, struct frame *f)
{
    (void)rig;
    tap_rig_deliver(1 - from, f);
}

void switch_forward(struct port *from, struct lane *lane, struct frame *const frames[], unsigned n,
                    struct port_stats *stats)
{
    (void)lane, (void)stats;
    tap_rig.n_forwarded += n;
    for (unsigned i = 0; i < n; i++)
        tap_rig.forward(&tap_rig, port_number(from), frames[i]);
}

void frame_return(struct lane *lane, struct frame *f)
{
    assert_ptr_equal(lane, &tap_rig.lane);
    assert_true(f->n_holders > 0);
    if (--f->n_holders == 0)
        f->free(f);
}

void tap_rig_deliver(unsigned to, struct frame *f)
{
    struct tap_rig_port *p = &tap_rig.ports[to];
    struct queue *q = p->tap ? port_receiver(&p->tap->port, f) : NULL;
    f->n_holders = 1;
    if (q && q->lane)
        tap_port.deliver(q, &f, 1);
    else
        frame_return(&tap_rig.lane, f);
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

int tap_rig_open_port(unsigned i, const char *line_keys, struct error *e)
{
    struct tap_rig_port *p = &tap_rig.ports[i];
    const struct line_schema *schemas[] = {&schema};
    char text[256];
    snprintf(text, sizeof(text), "port p%u %s", i, line_keys);
    check_ok(line_parse(&p->line, text, schemas, 1, e), e);
    p->tap = calloc(1, tap_port.bytes);
    assert_non_null(p->tap);
    p->tap->port.type = &tap_port;
    p->tap->port.device = &p->device;
    p->tap->port.name = p->line->name;
    p->tap->port.mtu = (uint16_t)line_number(p->line, "mtu", 0);
    p->device = (struct device){.name = p->line->name, .priv = p->tap};
    int err = tap_port.open(&p->tap->port, &p->device, p->line, e);
    if (err) {
        line_free(p->line);
        free(p->tap);
        p->tap = NULL;
        return err;
    }
    open_queues(&p->device);
    struct port *port = &p->tap->port;
    port->receivers = calloc(port->n_receivers_max, sizeof(*port->receivers));
    port->stats = calloc(p->device.n_queues, sizeof(*port->stats));
    assert_true(port->receivers && port->stats);
    for (unsigned j = 0; j < p->device.n_queues; j++)
        check_ok(tap_port.queue_start(&p->device.queues[j], e), e);
    return 0;
}

void tap_rig_close_port(unsigned i)
{
    struct tap_rig_port *p = &tap_rig.ports[i];
    for (unsigned j = 0; j < p->device.n_queues; j++)
        tap_port.queue_stop(&p->device.queues[j]);
    assert_int_equal(atomic_load(&p->tap->port.n_receivers), 0);
    tap_port.close(&p->tap->port);
    free(p->tap->port.receivers);
    free(p->tap->port.stats);
    free(p->device.queues);
    free(p->tap);
    line_free(p->line);
    p->tap = NULL;
}

void tap_rig_attach(unsigned i)
{
    struct tap_rig_port *p = &tap_rig.ports[i];
    for (unsigned j = 0; j < p->device.n_queues; j++) {
        struct queue *q = &p->device.queues[j];
        q->lane = &tap_rig.lane;
        atomic_store(&q->uring, &tap_rig.lane.uring);
        assert_int_equal(tap_port.lane_enter(q), 0);
        p->is_asleep[j] = false;
    }
    p->is_attached = true;
}

static bool is_settled(void *context)
{
    struct tap_rig_port *p = context;
    bool all = true;
    for (unsigned j = 0; j < p->device.n_queues; j++)
        all &= tap_port.settle(&p->device.queues[j]);
    return all;
}

void tap_rig_detach(unsigned i)
{
    struct tap_rig_port *p = &tap_rig.ports[i];
    p->is_attached = false; // not polled any more
    tap_rig_until(is_settled, p);
    for (unsigned j = 0; j < p->device.n_queues; j++) {
        tap_port.lane_leave(&p->device.queues[j]);
        p->device.queues[j].lane = NULL;
    }
}

void tap_rig_add(unsigned i, const char *line_keys)
{
    struct error e;
    tap_rig.ports[i].space = space_open();
    check_ok(tap_rig_open_port(i, line_keys, &e), &e);
    tap_rig_attach(i);
}

void tap_rig_remove(unsigned i)
{
    tap_rig_detach(i);
    tap_rig_close_port(i);
    close(tap_rig.ports[i].space);
}

// ---- the lane ----------------------------------------------------------------------------

void tap_rig_open(void)
{
    struct error e;
    tap_rig = (struct tap_rig){.forward = to_the_other};
    check_ok(uring_open(&tap_rig.lane.uring, &e), &e);
    assert_int_equal(uring_enable(&tap_rig.lane.uring, NULL, 0), 0);
}

void tap_rig_close(void)
{
    assert_int_equal(tap_rig.lane.uring.n_in_flight, 0);
    uring_close(&tap_rig.lane.uring);
}

static bool *asleep_of(const struct queue *q)
{
    for (unsigned i = 0; i < TAP_RIG_PORTS; i++) {
        if (q->device == &tap_rig.ports[i].device)
            return &tap_rig.ports[i].is_asleep[q->index];
    }
    fail_msg("a queue of nobody");
    return NULL;
}

static void wake_roused(void)
{
    while (tap_rig.lane.roused) {
        struct queue *q = tap_rig.lane.roused;
        tap_rig.lane.roused = q->roused_next;
        q->is_roused = false;
        *asleep_of(q) = false;
    }
}

static void poll_port(struct tap_rig_port *p)
{
    for (unsigned j = 0; p->is_attached && j < p->device.n_queues; j++) {
        struct queue *q = &p->device.queues[j];
        if (!p->is_asleep[j] && !tap_port.poll(q, BUDGET))
            p->is_asleep[j] = tap_port.rest(q) == QUEUE_SLEEPS;
    }
}

void tap_rig_turn(void)
{
    tap_rig.n_turns++;
    uring_enter(&tap_rig.lane.uring);
    uring_reap(&tap_rig.lane.uring, UINT32_MAX);
    wake_roused();
    for (unsigned i = 0; i < TAP_RIG_PORTS; i++)
        poll_port(&tap_rig.ports[i]);
}

bool tap_rig_is_asleep(void)
{
    bool all = !tap_rig.lane.uring.n_staged;
    for (unsigned i = 0; i < TAP_RIG_PORTS; i++) {
        const struct tap_rig_port *p = &tap_rig.ports[i];
        for (unsigned j = 0; p->is_attached && j < p->device.n_queues; j++)
            all &= p->is_asleep[j];
    }
    return all;
}

void tap_rig_until(bool (*is_done)(void *context), void *context)
{
    time_t deadline = time(NULL) + DEADLINE_S;
    while (!is_done(context)) {
        tap_rig_turn();
        if (time(NULL) > deadline)
            fail_msg("nothing comes of it in %u seconds", DEADLINE_S);
    }
}

uint64_t tap_rig_drops(unsigned i, enum drop reason)
{
    uint64_t n = 0;
    for (unsigned j = 0; j < tap_rig.ports[i].device.n_queues; j++)
        n += counter_read(&tap_rig.ports[i].tap->port.stats[j].n_drops[reason]);
    return n;
}
