// SPDX-License-Identifier: Apache-2.0
#include "tests/switch_rig.h"

#include "dataplane/virtio.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Atomic unsigned rig_n_frames;

// ---- the switch --------------------------------------------------------------------------

void rig_open(struct switch_rig *r, unsigned n_lanes)
{
    static const struct line_schema *const schemas[] = {&switch_device.line};
    struct line *l;
    struct error e;
    *r = (struct switch_rig){.now_ms = 1000000};
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

void rig_close(struct switch_rig *r)
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
    assert_int_equal(rig_n_frames, 0);
}

void rig_turn(struct switch_rig *r, uint64_t ms)
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

static void note(struct rig_port *p, const struct queue *q, const struct frame *f)
{
    struct rig_note *n = &p->notes[p->n_notes++ % p->n_notes_max];
    *n = (struct rig_note){.queue = q->index, .vlan = f->vlan, .bytes = f->bytes};
    frame_copy(f, 0, n->head, sizeof(n->head));
}

static void rig_deliver(struct queue *to, struct frame *const frames[], unsigned n)
{
    struct rig_port *p = (struct rig_port *)port_of(to);
    p->n_deliveries++;
    for (unsigned i = 0; i < n; i++) {
        note(p, to, frames[i]);
        if (p->holds) {
            assert_true(p->n_held < RIG_HELD_MAX);
            p->held_on[p->n_held] = lane_of(to);
            p->held[p->n_held++] = frames[i];
        } else {
            frame_return(lane_of(to), frames[i]);
        }
    }
}

static const struct port_type rig_type = {.key = "rig", .deliver = rig_deliver};

void rig_place(struct rig_port *p, unsigned i, struct lane *lane)
{
    p->queues[i].lane = lane;
    atomic_store(&p->queues[i].uring, lane ? &lane->uring : NULL);
}

struct rig_port *rig_new_port(struct switch_rig *r, const char *name, unsigned n, uint16_t vlan,
                              const char *mac)
{
    struct rig_port *p = aligned_alloc(CACHE_LINE, (sizeof(*p) + 63) / 64 * 64);
    memset(p, 0, sizeof(*p));
    snprintf(p->name, sizeof(p->name), "%s", name);
    p->device = (struct device){.name = p->name, .queues = p->queues, .n_queues = (uint16_t)n};
    p->device.priv = &p->port;
    p->port = (struct port){
        .type = &rig_type,
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
        rig_place(p, i, r->lanes->lanes[0]);
    }
    return p;
}

struct rig_port *rig_add_port(struct switch_rig *r, const char *name, unsigned n, uint16_t vlan,
                              const char *mac)
{
    struct error e;
    struct rig_port *p = rig_new_port(r, name, n, vlan, mac);
    check_ok(switch_attach(r->at, &p->port, &e), &e);
    return p;
}

void rig_free_port(struct rig_port *p)
{
    assert_int_equal(p->n_held, 0);
    free(p->notes);
    free(p);
}

void rig_remove_port(struct rig_port *p)
{
    switch_detach(&p->port);
    rig_free_port(p);
}

void rig_release(struct rig_port *p)
{
    while (p->n_held) {
        p->n_held--;
        frame_return(p->held_on[p->n_held], p->held[p->n_held]);
    }
}

// ---- frames ------------------------------------------------------------------------------

void rig_put_mac(uint8_t out[6], unsigned mac)
{
    memset(out, mac == RIG_ALL ? 0xff : 0, 6);
    if (mac == RIG_ALL)
        return;
    out[0] = 2;
    out[4] = (uint8_t)(mac >> 8);
    out[5] = (uint8_t)mac;
}

static void free_frame(struct frame *f)
{
    struct rig_frame *r = container_of(f, struct rig_frame, frame);
    assert_int_equal(r->n_freed++, 0);
    rig_n_frames--;
    free(r);
}

struct rig_frame *rig_frame(struct rig_port *p, unsigned to, unsigned from, uint16_t tag)
{
    struct rig_frame *r = calloc(1, sizeof(*r));
    rig_put_mac(r->bytes, to);
    rig_put_mac(r->bytes + 6, from);
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
    rig_n_frames++;
    return r;
}

void rig_send(struct rig_port *p, struct rig_frame *f)
{
    struct frame *frame = &f->frame;
    switch_forward(&p->port, p->queues[0].lane, &frame, 1, &p->stats[0]);
}

void rig_send_new(struct rig_port *p, unsigned to, unsigned from, uint16_t tag)
{
    rig_send(p, rig_frame(p, to, from, tag));
}

uint64_t rig_drops(const struct rig_port *p, enum drop reason)
{
    return counter_read(&p->stats[0].n_drops[reason]);
}

uint64_t rig_all_drops(const struct rig_port *p)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < DROPS; i++)
        n += rig_drops(p, (enum drop)i);
    return n;
}
