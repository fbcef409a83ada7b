// SPDX-License-Identifier: Apache-2.0
#include "tests/net_rig.h"

#include "devices/switch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY    (UINT64_C(8) << 20)
#define RING_SIZE 64
#define ANSWER    16 // bytes

#define SLOT_BYTES 2048 // of the send area: frames up to that have one each
static_assert(NET_BUFFERS * SLOT_BYTES >= NET_FRAME_MAX, "a large one has them all");

// ---- the switch --------------------------------------------------------------------------

int net_device(struct net_rig *rig, struct device **out, const char *line, struct error *e)
{
    static const struct device_type *const types[] = {&switch_device, &port_device};
    const struct line_schema *schemas[] = {&switch_device.line, &port_device.line};
    struct line *l;
    int err = line_parse(&l, line, schemas, ARRAY_LEN(schemas), e);
    if (err)
        return err;
    err = device_open(out, types[l->schema == schemas[1]], l, rig->set, e);
    if (err)
        line_free(l);
    return err;
}

void net_rig_open(struct net_rig *rig)
{
    struct error e;
    *rig = (struct net_rig){0};
    rig->set = calloc(1, sizeof(*rig->set) + NET_LANES * sizeof(rig->set->lanes[0]));
    assert_non_null(rig->set);
    rig->set->n = NET_LANES;
    for (unsigned i = 0; i < NET_LANES; i++) {
        rig->lanes[i].index = i;
        rig->lanes[i].now = cycles_now();
        rig->set->lanes[i] = &rig->lanes[i];
    }
    check_ok(net_device(rig, &rig->vswitch, "switch s", &e), &e);
    for (unsigned i = 0; i < NET_LANES; i++)
        switch_device.lane_join(rig->vswitch, &rig->lanes[i]);
}

void net_rig_close(struct net_rig *rig)
{
    assert_null(rig->ends);
    switch_device.leave(rig->vswitch);
    for (unsigned i = 0; i < NET_LANES; i++)
        switch_device.lane_part(rig->vswitch, &rig->lanes[i]);
    device_close(rig->vswitch);
    free(rig->set);
}

struct net_rig net_rig;

int net_rig_setup(void **state)
{
    (void)state;
    net_rig_open(&net_rig);
    return 0;
}

int net_rig_teardown(void **state)
{
    (void)state;
    while (net_rig.ends)
        net_end_close(net_rig.ends);
    net_rig_close(&net_rig);
    return 0;
}

static void publish(struct lane *lane)
{
    while (lane->touched) {
        struct queue *q = lane->touched;
        lane->touched = q->touched_next;
        q->is_touched = false;
        ring_publish(&q->ring);
    }
}

void net_rig_run(struct net_rig *rig)
{
    unsigned n;
    do {
        n = 0;
        for (unsigned i = 0; i < NET_LANES; i++)
            rig->lanes[i].now = cycles_now();
        for (struct net_end *end = rig->ends; end; end = end->next) {
            for (unsigned i = 0; i < NET_RINGS_MAX; i++) {
                if (end->rings[i].is_started)
                    n += port_device.poll(end->rings[i].queue, 32);
            }
        }
        for (unsigned i = 0; i < NET_LANES; i++) {
            n += lane_poll_all(&rig->lanes[i]);
            publish(&rig->lanes[i]);
        }
    } while (n);
}

// ---- an end ------------------------------------------------------------------------------

static void open_guest(struct net_end *end, uint64_t bytes)
{
    struct error e;
    struct guest_layout layout = {
        .n_regions = 1, .region_bytes = bytes ? bytes : MEMORY, .first_addr = 1 << 20};
    check_ok(guest_open(&end->guest, &layout, &e), &e);
    struct guest_region *region = &end->guest->regions[0];
    struct mem_desc desc = {.guest_addr = region->guest_addr,
                            .size = region->bytes,
                            .user_addr = region->user_addr,
                            .mmap_offset = region->file_offset};
    check_ok(mem_set(&end->mem, NULL, &desc, &region->fd, 1, &e), &e);
    end->send_area = guest_alloc(end->guest, NET_BUFFERS * SLOT_BYTES, 64);
    end->answer = guest_alloc(end->guest, ANSWER, 64);
    assert_non_null(end->send_area);
    assert_non_null(end->answer);
}

static uint32_t header_bytes_of(uint64_t features)
{
    if (features & VIRTIO_BIT(VIRTIO_NET_F_HASH_REPORT))
        return 20;
    return features & (VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF)) ? 12
                                                                                            : 10;
}

static void open_driver(struct net_end *end, struct net_ring *r, const struct net_end_config *c)
{
    struct error e;
    struct driver_config setup = {
        .features = c->features,
        .size = c->ring_size ? c->ring_size : RING_SIZE,
        .table_entries = c->is_indirect ? NET_SEGMENTS_MAX : 0,
    };
    check_ok(driver_open(&r->driver, end->guest, &setup, &e), &e);
}

void net_end_open(struct net_rig *rig, struct net_end *end, const struct net_end_config *c)
{
    struct error e;
    char line[256];
    *end = (struct net_end){.rig = rig,
                            .features = c->features,
                            .is_indirect = c->is_indirect,
                            .header_bytes = header_bytes_of(c->features)};
    const char *name = c->name ? c->name : "a";
    snprintf(line, sizeof(line), "port %s switch=s socket=/nowhere mac=02:00:00:00:00:%c%c %s",
             name, name[0], name[0], c->line ? c->line : "");
    check_ok(net_device(rig, &end->device, line, &e), &e);
    open_guest(end, c->memory);
    unsigned n_rings = c->n_rings ? c->n_rings : 2;
    assert_in_range(n_rings, 1, MIN(NET_RINGS_MAX, end->device->n_queues));
    for (unsigned i = 0; i < n_rings; i++) {
        end->rings[i].queue = &end->device->queues[i];
        open_driver(end, &end->rings[i], c);
        if (!c->is_late)
            net_end_start(end, i, c->lane);
    }
    end->next = rig->ends;
    rig->ends = end;
}

void net_end_start(struct net_end *end, unsigned ring, unsigned lane)
{
    struct error e;
    struct net_ring *r = &end->rings[ring];
    struct queue *q = r->queue;
    struct driver_areas areas;
    driver_describe(r->driver, &areas);
    struct ring_config config = {
        .features = end->features,
        .size = driver_size(r->driver),
        .base = driver_base(r->driver),
        .desc_addr = guest_user_addr(end->guest, areas.desc),
        .driver_addr = guest_user_addr(end->guest, areas.driver),
        .device_addr = guest_user_addr(end->guest, areas.device),
    };
    check_ok(ring_start(&q->ring, &config, end->mem, NULL, &q->stats, &e), &e);
    check_ok(port_device.queue_start(q, &e), &e);
    q->lane = &end->rig->lanes[lane];
    q->uring = &q->lane->uring;
    assert_int_equal(port_device.lane_enter(q), 0);
    r->is_started = true;
}

void net_end_stop(struct net_end *end, unsigned ring)
{
    struct net_ring *r = &end->rings[ring];
    struct queue *q = r->queue;
    net_rig_run(end->rig);
    assert_true(port_device.settle(q));
    assert_int_equal(q->ring.n_in_flight, 0);
    port_device.lane_leave(q);
    q->lane = NULL;
    q->uring = NULL;
    port_device.queue_stop(q);
    ring_stop(&q->ring);
    r->is_started = false;
}

void net_end_close(struct net_end *end)
{
    for (unsigned i = 0; i < NET_RINGS_MAX; i++) {
        if (end->rings[i].is_started)
            net_end_stop(end, i);
        driver_close(end->rings[i].driver);
    }
    struct net_end **at = &end->rig->ends;
    while (*at != end)
        at = &(*at)->next;
    *at = end->next;
    port_device.leave(end->device);
    device_close(end->device);
    mem_free(end->mem);
    guest_close(end->guest);
}

// ---- buffers -----------------------------------------------------------------------------

static void offer(struct net_end *end, struct net_ring *r, struct net_buffer *b)
{
    struct driver_chain *chain = &b->chain;
    chain->n_direct = end->is_indirect ? 0 : (uint16_t)(chain->n_out + chain->n_in);
    assert_int_equal(driver_add(r->driver, &chain, 1), 1);
    driver_publish(r->driver);
}

// Cut @bytes from @data on into segments of @sizes, the last one the rest.
static uint16_t cut(struct net_end *end, struct net_buffer *b, uint8_t *data, uint32_t bytes,
                    const uint32_t sizes[], unsigned n_sizes)
{
    uint16_t n = 0;
    for (unsigned i = 0; i < n_sizes && bytes; i++) {
        uint32_t part = MIN(sizes[i], bytes);
        assert_true(n + 1 < NET_SEGMENTS_MAX);
        b->segments[n++] = (struct driver_segment){guest_addr(end->guest, data), part};
        data += part;
        bytes -= part;
    }
    if (bytes)
        b->segments[n++] = (struct driver_segment){guest_addr(end->guest, data), bytes};
    b->chain.segments = b->segments;
    return n;
}

void net_end_post(struct net_end *end, unsigned ring, unsigned n, const uint32_t sizes[],
                  unsigned n_sizes)
{
    struct net_ring *r = &end->rings[ring];
    uint32_t bytes = 0;
    for (unsigned i = 0; i < n_sizes; i++)
        bytes += sizes[i];
    for (unsigned i = 0; i < n; i++) {
        assert_true(r->n_buffers < NET_BUFFERS);
        struct net_buffer *b = &r->buffers[r->n_buffers++];
        uint8_t *data = guest_alloc(end->guest, bytes, 1);
        assert_non_null(data);
        b->chain = (struct driver_chain){.n_in = cut(end, b, data, bytes, sizes, n_sizes),
                                         .in_bytes = bytes};
        b->chain.segments = b->segments;
        offer(end, r, b);
    }
}

// Add the first @used bytes of @b to @stream, which holds @n.
static uint32_t append(const struct net_end *end, const struct net_buffer *b, uint32_t used,
                       uint8_t *stream, uint32_t n)
{
    for (unsigned i = 0; used; i++) {
        uint32_t part = MIN(used, b->segments[i].bytes);
        assert_true(n + part <= NET_FRAME_MAX + 20);
        memcpy(stream + n, guest_host(end->guest, b->segments[i].addr), part);
        n += part;
        used -= part;
    }
    return n;
}

bool net_end_take(struct net_end *end, unsigned ring, struct net_taken *taken)
{
    static uint8_t stream[NET_FRAME_MAX + 20];
    struct net_ring *r = &end->rings[ring];
    struct driver_used used;
    struct error e;
    uint32_t bytes = 0;
    memset(&taken->header, 0, sizeof(taken->header));
    taken->n_buffers = 0;
    unsigned n_wanted = 1;
    while (taken->n_buffers < n_wanted) {
        int n = driver_poll(r->driver, &used, 1, &e);
        if (n < 0)
            fail_msg("driver: %s", e.text);
        if (n == 0 && taken->n_buffers == 0)
            return false;
        assert_int_equal(n, 1);
        struct net_buffer *b = (struct net_buffer *)used.chain;
        bytes = append(end, b, used.len, stream, bytes);
        taken->used[taken->n_buffers++] = used.len;
        if (bytes >= 12 && end->header_bytes >= 12) {
            memcpy(&taken->header, stream, 12);
            n_wanted = taken->header.num_buffers;
            assert_in_range(n_wanted, 1, NET_BUFFERS);
        }
        offer(end, r, b);
    }
    assert_true(bytes >= end->header_bytes);
    memcpy(&taken->header, stream, end->header_bytes);
    taken->bytes = bytes - end->header_bytes;
    memcpy(taken->frame, stream + end->header_bytes, taken->bytes);
    return true;
}

void net_end_send(struct net_end *end, unsigned ring, const void *data, uint32_t bytes,
                  const uint32_t sizes[], unsigned n_sizes)
{
    struct net_ring *r = &end->rings[ring];
    unsigned slot = r->n_buffers++ % NET_BUFFERS;
    uint8_t *area = end->send_area + (bytes <= SLOT_BYTES ? slot * SLOT_BYTES : 0);
    assert_true(bytes <= NET_FRAME_MAX);
    memcpy(area, data, bytes);
    struct net_buffer *b = &r->buffers[slot];
    b->chain = (struct driver_chain){.n_out = cut(end, b, area, bytes, sizes, n_sizes)};
    b->chain.segments = b->segments;
    offer(end, r, b);
}

unsigned net_end_reap(struct net_end *end, unsigned ring)
{
    struct driver_used used[NET_BUFFERS];
    struct error e;
    int n = driver_poll(end->rings[ring].driver, used, NET_BUFFERS, &e);
    if (n < 0)
        fail_msg("driver: %s", e.text);
    for (int i = 0; i < n; i++)
        assert_int_equal(used[i].len, 0);
    return (unsigned)n;
}

uint8_t net_end_command(struct net_end *end, unsigned ring, const void *data, uint32_t bytes,
                        uint32_t run)
{
    struct net_ring *r = &end->rings[ring];
    struct net_buffer *b = &r->buffers[0];
    struct driver_used used;
    struct error e;
    uint32_t sizes[NET_SEGMENTS_MAX - 3];
    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++)
        sizes[i] = run;
    memcpy(end->send_area, data, bytes);
    memset(end->answer, 0xee, ANSWER);
    uint16_t n_out = cut(end, b, end->send_area, bytes, sizes, ARRAY_LEN(sizes));
    b->segments[n_out] = (struct driver_segment){guest_addr(end->guest, end->answer), ANSWER};
    b->chain = (struct driver_chain){
        .segments = b->segments, .n_out = n_out, .n_in = 1, .in_bytes = ANSWER};
    offer(end, r, b);
    net_rig_run(end->rig);
    int n = driver_poll(r->driver, &used, 1, &e);
    if (n < 0)
        fail_msg("driver: %s", e.text);
    assert_int_equal(n, 1);
    assert_int_equal(used.len, 1);
    assert_int_equal(end->answer[1], 0xee);
    return end->answer[0];
}

const struct port_stats *net_stats(const struct net_end *end, unsigned ring)
{
    return port_stats_of(end->rings[ring].queue);
}

uint64_t net_drops(const struct net_end *end, unsigned ring, enum drop reason)
{
    return counter_read(&net_stats(end, ring)->n_drops[reason]);
}
