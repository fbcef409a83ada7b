// SPDX-License-Identifier: Apache-2.0
// net_rig.h - guests on a switch, in one thread: real rings, real drivers, no sessions.
//
// A rig is a switch and its lanes; an end is one guest with its port. A turn polls every queue and
// publishes, as a worker does.
//
// Threads  one thread a rig.
// Memory   an end owns its guest, whose buffers are used again and again.
#pragma once

#include "bench/driver.h"
#include "devices/ports.h"
#include "tests/check.h"

#define NET_LANES        2
#define NET_RINGS_MAX    9     // four pairs and a control queue
#define NET_BUFFERS      64    // receive buffers of a ring
#define NET_SEGMENTS_MAX 40    // of a buffer
#define NET_FRAME_MAX    66000 // bytes with a header

struct net_rig {
    struct lane lanes[NET_LANES];
    struct lane_set *set;
    struct device *vswitch;
    struct net_end *ends; // open
};

struct net_buffer {
    struct driver_chain chain; // first
    struct driver_segment segments[NET_SEGMENTS_MAX];
};

struct net_ring {
    struct driver *driver;
    struct queue *queue;
    bool is_started;
    struct net_buffer buffers[NET_BUFFERS]; // receive: posted; else what is sent next
    unsigned n_buffers;
};

struct net_end {
    struct net_rig *rig;
    struct net_end *next;
    struct guest *guest;
    struct mem *mem;
    struct device *device;
    uint64_t features;
    bool is_indirect;
    uint32_t header_bytes;
    uint8_t *send_area; // what is sent first after an open lies there
    uint8_t *answer;    // likewise, some
    struct net_ring rings[NET_RINGS_MAX];
};

struct net_end_config {
    const char *line; // behind "port NAME switch=s socket=/nowhere"
    uint64_t features;
    uint32_t ring_size; // 0: 64
    bool is_indirect;
    unsigned n_rings; // 0: 2
    const char *name; // "a" (NULL) to "f", which gives the address
    unsigned lane;    // of its queues
    bool is_late;     // the test starts the rings
    uint64_t memory;  // bytes; 0: 8 MiB
};

// What came, put together.
struct net_taken {
    struct virtio_net_hdr header;
    uint32_t bytes; // of the frame, without the header
    unsigned n_buffers;
    uint32_t used[NET_BUFFERS]; // lengths as the device told them
    uint8_t frame[NET_FRAME_MAX];
};

// A line of a device that is no end; fails with the sentence in @e.
int net_device(struct net_rig *rig, struct device **out, const char *line, struct error *e);

void net_rig_open(struct net_rig *rig);
void net_rig_close(struct net_rig *rig);
// Set-up and tear-down of a test on this rig; the ends that are still open are closed.
extern struct net_rig net_rig;
int net_rig_setup(void **state);
int net_rig_teardown(void **state);
// Until nothing happens any more.
void net_rig_run(struct net_rig *rig);

void net_end_open(struct net_rig *rig, struct net_end *end, const struct net_end_config *config);
void net_end_close(struct net_end *end);
void net_end_start(struct net_end *end, unsigned ring, unsigned lane);
void net_end_stop(struct net_end *end, unsigned ring);

// Post @n receive buffers, each of segments of these @sizes.
void net_end_post(struct net_end *end, unsigned ring, unsigned n, const uint32_t sizes[],
                  unsigned n_sizes);
// The next frame; false: none came. Its buffers are posted again.
bool net_end_take(struct net_end *end, unsigned ring, struct net_taken *taken);

// Offer @bytes (header and frame) at @data as segments of @sizes, the last one the rest.
void net_end_send(struct net_end *end, unsigned ring, const void *data, uint32_t bytes,
                  const uint32_t sizes[], unsigned n_sizes);
// Chains that came back since it was asked last; each with used length 0.
unsigned net_end_reap(struct net_end *end, unsigned ring);

// One command on the control queue, in segments of at most @run bytes: its answer.
uint8_t net_end_command(struct net_end *end, unsigned ring, const void *data, uint32_t bytes,
                        uint32_t run);

// Counters of one queue.
const struct port_stats *net_stats(const struct net_end *end, unsigned ring);
uint64_t net_drops(const struct net_end *end, unsigned ring, enum drop reason);
