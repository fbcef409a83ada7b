// SPDX-License-Identifier: Apache-2.0
#include "tests/switch_rig.h"

#include "dataplane/virtio.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Atomic unsigned hub_n_frames;

// ---- the switch --------------------------------------------------------------------------

void hub_open(struct hub *r, unsigned n_lanes)
{
    static const struct line_schema *const schemas[] = {&switch_device.line};
    struct line *l;
    struct error e;
    *r = (struct hub){.now_ms = 1000000};
    r->lanes = calloc(1, sizeof(*r->lanes) + n_lanes * sizeof(r->lanes->lanes[0]));
    r->lanes->n = n_lanes;
    for (unsigned i = 0; i < n_lanes; i++) {
        struct lane *lane = aligned_alloc(_Alignof(struct lane), sizeof(*lane));
        memset(lane, 0, sizeof(*lane));
        lane->index = i;
        lane->now = 1;
        r->lanes->lanes[i] = lane;
    }
    check_ok(line_parse(&l, "switch s", schemas, 1, &e), &e);
    check_ok(device_open(&r->device, &switch_device, l, r->lanes, &e), &e);
    r->at = switch_find("s");
    assert_non_null(r->at);
    for (unsigned i = 0; i < n_lanes; i++)
        switch_device.lane_join(r->device, r->lanes->lanes[i]);
    switch_device.tick(r->device, r->now_ms);
}

void hub_close(struct hub *r)
{
    struct error e;
    check_ok(switch_device.busy(r->device, &e), &e);
    switch_device.leave(r->device);
    assert_null(switch_find("s"));
    for (unsigned i = 0; i < r->lanes->n; i++) {
        switch_device.lane_part(r->device, r->lanes->lanes[i]);
        assert_null(r->lanes->lanes[i]->polls);
    }
    device_close(r->device);
    for (unsigned i = 0; i < r->lanes->n; i++)
        free(r->lanes->lanes[i]);
    free(r->lanes);
    assert_int_equal(hub_n_frames, 0);
}

void hub_turn(struct hub *r, uint64_t ms)
{
    for (unsigned i = 0; i < r->lanes->n; i++) {
        r->lanes->lanes[i]->now++;
        lane_poll_all(r->lanes->lanes[i]);
    }
    r->now_ms += ms;
    switch_device.tick(r->device, r->now_ms);
}

// ---- ports -------------------------------------------------------------------------------

static struct lane *lane_of(const struct queue *q)
{
    struct uring *u = atomic_load(&q->uring);
    return u ? container_of(u, struct lane, uring) : NULL;
}

static void note(struct hub_port *p, const struct queue *q, const struct frame *f)
{
    struct hub_note *n = &p->notes[p->n_notes++ % p->n_notes_max];
    *n = (struct hub_note){.queue = q->index, .vlan = f->vlan, .bytes = f->bytes};
    frame_copy(f, 0, n->head, sizeof(n->head));
}

static void hub_deliver(struct queue *to, struct frame *const frames[], unsigned n)
{
    struct hub_port *p = (struct hub_port *)port_of(to);
    p->n_deliveries++;
    for (unsigned i = 0; i < n; i++) {
        note(p, to, frames[i]);
        if (p->holds) {
            assert_true(p->n_held < HUB_HELD_MAX);
            p->held_on[p->n_held] = lane_of(to);
            p->held[p->n_held++] = frames[i];
        } else {
            frame_return(lane_of(to), frames[i]);
        }
    }
}

static const struct port_type hub_type = {.key = "hub", .deliver = hub_deliver};

void hub_place(struct hub_port *p, unsigned i, struct lane *lane)
{
    p->queues[i].lane = lane;
    atomic_store(&p->queues[i].uring, lane ? &lane->uring : NULL);
}

struct hub_port *hub_new_port(struct hub *r, const char *name, unsigned n, uint16_t vlan,
                              const char *mac)
{
    struct hub_port *p = aligned_alloc(CACHE_LINE, (sizeof(*p) + 63) / 64 * 64);
    memset(p, 0, sizeof(*p));
    snprintf(p->name, sizeof(p->name), "%s", name);
    p->device = (struct device){.name = p->name, .queues = p->queues, .n_queues = (uint16_t)n};
    p->device.priv = &p->port;
    p->port = (struct port){
        .type = &hub_type,
        .device = &p->device,
        .name = p->name,
        .vlan = vlan,
        .receivers = p->receivers,
        .n_receivers_max = n,
        .n_receivers = n,
        .stats = p->stats,
        .has_mac = mac,
    };
    if (mac)
        memcpy(p->port.mac, mac, 6);
    p->n_notes_max = 256;
    p->notes = calloc(p->n_notes_max, sizeof(p->notes[0]));
    for (unsigned i = 0; i < n; i++) {
        p->queues[i].device = &p->device;
        p->queues[i].index = (uint16_t)i;
        p->receivers[i] = &p->queues[i];
        hub_place(p, i, r->lanes->lanes[0]);
    }
    return p;
}

struct hub_port *hub_add_port(struct hub *r, const char *name, unsigned n, uint16_t vlan,
                              const char *mac)
{
    struct error e;
    struct hub_port *p = hub_new_port(r, name, n, vlan, mac);
    check_ok(switch_attach(r->at, &p->port, &e), &e);
    return p;
}

void hub_free_port(struct hub_port *p)
{
    assert_int_equal(p->n_held, 0);
    free(p->notes);
    free(p);
}

void hub_remove_port(struct hub_port *p)
{
    switch_detach(&p->port);
    hub_free_port(p);
}

void hub_release(struct hub_port *p)
{
    while (p->n_held) {
        p->n_held--;
        frame_return(p->held_on[p->n_held], p->held[p->n_held]);
    }
}

// ---- frames ------------------------------------------------------------------------------

void hub_put_mac(uint8_t out[6], unsigned mac)
{
    memset(out, mac == HUB_ALL ? 0xff : 0, 6);
    if (mac == HUB_ALL)
        return;
    out[0] = 2;
    out[4] = (uint8_t)(mac >> 8);
    out[5] = (uint8_t)mac;
}

static void free_frame(struct frame *f)
{
    struct hub_frame *r = container_of(f, struct hub_frame, frame);
    assert_int_equal(r->n_freed++, 0);
    hub_n_frames--;
    free(r);
}

struct hub_frame *hub_frame(struct hub_port *p, unsigned to, unsigned from, uint16_t tag)
{
    struct hub_frame *r = calloc(1, sizeof(*r));
    hub_put_mac(r->bytes, to);
    hub_put_mac(r->bytes + 6, from);
    uint8_t *at = r->bytes + 12;
    if (tag) {
        memcpy(at, (uint8_t[]){0x81, 0, (uint8_t)(tag >> 8), (uint8_t)tag}, 4);
        at += 4;
    }
    memcpy(at, (uint8_t[]){0x88, 0xb5}, 2);
    r->iov = (struct iovec){r->bytes, 60};
    assert_int_equal(frame_parse(&r->frame, &r->iov, 1, 0, NULL), DROP_NONE);
    r->frame.home = &p->queues[0];
    r->frame.free = free_frame;
    hub_n_frames++;
    return r;
}

void hub_send(struct hub_port *p, struct hub_frame *f)
{
    struct frame *frame = &f->frame;
    switch_forward(&p->port, p->queues[0].lane, &frame, 1, &p->stats[0]);
}

void hub_send_new(struct hub_port *p, unsigned to, unsigned from, uint16_t tag)
{
    hub_send(p, hub_frame(p, to, from, tag));
}

uint64_t hub_drops(const struct hub_port *p, enum drop reason)
{
    return counter_read(&p->stats[0].n_drops[reason]);
}

uint64_t hub_all_drops(const struct hub_port *p)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < DROPS; i++)
        n += hub_drops(p, (enum drop)i);
    return n;
}

// ---- ports with numbers ------------------------------------------------------------------

struct hub_port *hub_plug(struct hub *r, uint16_t vlan, const char *mac)
{
    char name[16];
    snprintf(name, sizeof(name), "p%u", r->n_ports);
    return r->ports[r->n_ports++] = hub_add_port(r, name, 1, vlan, mac);
}

void hub_plug_many(struct hub *r, unsigned n)
{
    while (n--)
        hub_plug(r, 0, NULL);
}

void hub_unplug_last(struct hub *r)
{
    struct hub_port *p = r->ports[--r->n_ports];
    hub_release(p);
    hub_remove_port(p);
}

void hub_unplug_all(struct hub *r)
{
    while (r->n_ports)
        hub_unplug_last(r);
}

struct hub hub;

int hub_setup(void **state)
{
    (void)state;
    hub_open(&hub, 1);
    return 0;
}

int hub_teardown(void **state)
{
    (void)state;
    hub_unplug_all(&hub);
    hub_close(&hub);
    return 0;
}

uint64_t hub_receivers(struct hub *r)
{
    uint64_t bits = 0;
    for (unsigned i = 0; i < r->n_ports; i++) {
        bits |= (uint64_t)(r->ports[i]->n_notes > 0) << i;
        r->ports[i]->n_notes = 0;
    }
    return bits;
}

void hub_introduce(struct hub *r, unsigned i, unsigned mac, uint16_t tag)
{
    hub_send_new(r->ports[i], HUB_ALL, mac, tag);
    hub_turn(r, 10);
    hub_receivers(r);
}
