// SPDX-License-Identifier: Apache-2.0
#include "tests/device_rig.h"

#include "devices/table.h"

#include <string.h>
#include <time.h>

#define RING_SIZE  2048
#define DEADLINE_S 60
#define MEMORY     (8u << 20)

const uint64_t rig_layouts[2] = {
    VIRTIO_BIT(VIRTIO_F_VERSION_1),
    VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_F_RING_PACKED),
};

static const struct lane_set no_lanes;

int device_from_line(struct device **out, const char *text, struct error *e)
{
    const struct line_schema *schemas[8];
    assert_in_range(device_table_n, 1, ARRAY_LEN(schemas));
    for (unsigned i = 0; i < device_table_n; i++)
        schemas[i] = &device_table[i]->line;
    struct line *l;
    int err = line_parse(&l, text, schemas, device_table_n, e);
    if (err)
        return err;
    for (unsigned i = 0; i < device_table_n; i++) {
        if (l->schema == schemas[i])
            err = device_open(out, device_table[i], l, &no_lanes, e);
    }
    if (err)
        line_free(l);
    return err;
}

static void share_memory(struct device_rig *rig)
{
    struct error e;
    struct guest_region *region = &rig->guest->regions[0];
    struct mem_desc desc = {.guest_addr = region->guest_addr,
                            .size = region->bytes,
                            .user_addr = region->user_addr,
                            .mmap_offset = region->file_offset};
    check_ok(mem_set(&rig->mem, NULL, &desc, &region->fd, 1, &e), &e);
}

static void open_driver(struct device_rig *rig, uint64_t features)
{
    struct error e;
    struct driver_config setup = {.features = features, .size = RING_SIZE};
    rig->features = features;
    check_ok(driver_open(&rig->driver, rig->guest, &setup, &e), &e);
}

static void start_ring(struct device_rig *rig)
{
    struct error e;
    struct queue *q = rig->queue;
    struct driver_areas areas;
    driver_describe(rig->driver, &areas);
    struct ring_config config = {
        .features = rig->features,
        .size = RING_SIZE,
        .base = driver_base(rig->driver),
        .desc_addr = guest_user_addr(rig->guest, areas.desc),
        .driver_addr = guest_user_addr(rig->guest, areas.driver),
        .device_addr = guest_user_addr(rig->guest, areas.device),
    };
    check_ok(ring_start(&q->ring, &config, rig->mem, NULL, &q->stats, &e), &e);
    if (q->device->type->queue_start)
        check_ok(q->device->type->queue_start(q, &e), &e);
    q->lane = &rig->lane;
    q->uring = &rig->lane.uring;
    if (q->device->type->lane_enter)
        assert_int_equal(q->device->type->lane_enter(q), 0);
}

static void stop_ring(struct device_rig *rig)
{
    struct queue *q = rig->queue;
    assert_int_equal(q->ring.n_in_flight, 0);
    assert_int_equal(rig->lane.uring.n_in_flight, 0);
    if (q->device->type->lane_leave)
        q->device->type->lane_leave(q);
    q->lane = NULL;
    q->uring = NULL;
    if (q->device->type->queue_stop)
        q->device->type->queue_stop(q);
    ring_stop(&q->ring);
}

// All but the device.
static void open_parts(struct device_rig *rig)
{
    struct error e;
    *rig = (struct device_rig){0};
    struct guest_layout layout = {.n_regions = 1, .region_bytes = MEMORY, .first_addr = 1 << 20};
    check_ok(guest_open(&rig->guest, &layout, &e), &e);
    share_memory(rig);
    check_ok(uring_open(&rig->lane.uring, &e), &e);
    assert_int_equal(uring_enable(&rig->lane.uring, NULL, 0), 0);
}

void device_rig_open(struct device_rig *rig, const char *line, uint64_t features)
{
    struct error e;
    open_parts(rig);
    check_ok(device_from_line(&rig->device, line, &e), &e);
    rig->queue = &rig->device->queues[0];
    open_driver(rig, features);
    start_ring(rig);
}

void device_rig_join(struct device_rig *rig, struct device *device, unsigned queue,
                     uint64_t features)
{
    open_parts(rig);
    rig->device = device;
    rig->queue = &device->queues[queue];
    rig->has_joined = true;
    open_driver(rig, features);
    start_ring(rig);
}

void device_rig_close(struct device_rig *rig)
{
    stop_ring(rig);
    driver_close(rig->driver);
    if (!rig->has_joined)
        device_close(rig->device);
    uring_close(&rig->lane.uring);
    mem_free(rig->mem);
    guest_close(rig->guest);
}

void device_rig_restart(struct device_rig *rig, uint64_t features)
{
    stop_ring(rig);
    driver_close(rig->driver);
    open_driver(rig, features);
    start_ring(rig);
}

void device_rig_resume(struct device_rig *rig)
{
    stop_ring(rig);
    start_ring(rig);
}

static void publish(struct device_rig *rig)
{
    struct queue *q = rig->queue;
    rig->lane.touched = NULL;
    if (q->is_touched) {
        q->is_touched = false;
        ring_publish(&q->ring);
    }
}

static unsigned collect(struct device_rig *rig, struct driver_chain *const chains[],
                        uint32_t lengths[], unsigned n)
{
    struct error e;
    struct driver_used used[RING_BATCH_MAX];
    int n_used = driver_poll(rig->driver, used, ARRAY_LEN(used), &e);
    if (n_used < 0)
        fail_msg("driver: %s", e.text);
    for (int i = 0; i < n_used; i++) {
        unsigned at = 0;
        while (at < n && chains[at] != used[i].chain)
            at++;
        assert_in_range(at, 0, n - 1);
        lengths[at] = used[i].len;
    }
    return (unsigned)n_used;
}

unsigned device_rig_run(struct device_rig *rig, struct driver_chain *const chains[],
                        uint32_t lengths[], unsigned n)
{
    assert_int_equal(driver_add(rig->driver, chains, n), n);
    driver_publish(rig->driver);
    time_t deadline = time(NULL) + DEADLINE_S;
    struct queue *q = rig->queue;
    unsigned n_back = 0;
    for (;;) {
        q->device->type->poll(q, RING_BATCH_MAX);
        uring_reap(&rig->lane.uring, RING_BATCH_MAX);
        publish(rig);
        n_back += collect(rig, chains, lengths, n);
        bool is_over = n_back == n || q->ring.fault;
        if (is_over && rig->lane.uring.n_in_flight == 0)
            return n_back;
        if (rig->lane.uring.n_in_flight)
            uring_sleep(&rig->lane.uring, 10000);
        if (time(NULL) > deadline)
            fail_msg("%u of %u chains came back", n_back, n);
    }
}
