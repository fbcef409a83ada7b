// SPDX-License-Identifier: Apache-2.0
// session_rig.h - a session between two test doubles: a front end at the other end of a
// socketpair, and a host whose answers come at once or when the test says so.
//
// The device is a toy with a few queues and 40 bytes of config space; its rings are real.
#pragma once

#include "dataplane/message.h"
#include "dataplane/session.h"
#include "tests/check.h"

#include <stdio.h>

#define RIG_QUEUES       4
#define RIG_CONFIG_BYTES 40
#define RIG_EVENTS_MAX   64

// Guest memory: one region by default.
#define RIG_MEMORY_BYTES UINT64_C(0x100000)
#define RIG_GUEST_ADDR   UINT64_C(0x40000000)
#define RIG_USER_ADDR    UINT64_C(0x7f0000000000)
#define RIG_RING_BYTES   UINT64_C(0x4000) // of each queue's areas, from the region's start

struct rig_request { // what the host was asked and has not answered
    struct queue *queue;
    void (*fn)(struct queue *q, void *argument); // call
    void *argument;
};

struct rig {
    int front; // the front end's socket
    struct session *session;
    struct device device;
    struct device_type type;

    bool is_slow; // the host answers only when rig_answer() is called
    struct rig_request asked[RIG_EVENTS_MAX];
    unsigned n_asked;
    char events[1024]; // "attach 0, start 1, …" since rig_events() was called last

    int memory_fd;
    int kick[RIG_QUEUES], call[RIG_QUEUES], err[RIG_QUEUES];
    bool start_fails; // the toy's queue_start
};

void rig_open(struct rig *r);   // a connected session
void rig_reopen(struct rig *r); // after it closed: another session on the same device
void rig_close(struct rig *r);  // checks that everything went back

// Send one message. @fds are not closed.
void rig_send(struct rig *r, uint32_t request, uint32_t flags, const void *payload, size_t bytes,
              const int fds[], unsigned n_fds);
// The same, then let the session handle it.
void rig_do(struct rig *r, uint32_t request, const void *payload, size_t bytes, const int fds[],
            unsigned n_fds);
void rig_do_u64(struct rig *r, uint32_t request, uint64_t value);
void rig_do_state(struct rig *r, uint32_t request, uint32_t index, uint32_t num);
// With NEED_REPLY; returns the answer.
uint64_t rig_ack(struct rig *r, uint32_t request, const void *payload, size_t bytes,
                 const int fds[], unsigned n_fds);
// A request with a u64 as its reply.
uint64_t rig_get(struct rig *r, uint32_t request);
// The reply that must be there: of @request, with the right flags. Its descriptors are @m's.
void rig_reply(struct rig *r, uint32_t request, struct message *m);
bool rig_has_reply(const struct rig *r);

void rig_run(struct rig *r); // handle all that was sent
bool rig_is_open(const struct rig *r);

// The host answers the oldest thing that it was asked, or everything.
void rig_answer(struct rig *r);
void rig_answer_all(struct rig *r);
// What the host and the toy saw since the last call: "detach 0, stop 0".
const char *rig_events(struct rig *r);

// Pieces of a front end's life.
void rig_negotiate(struct rig *r, uint64_t features, uint64_t protocol_features);
void rig_share_memory(struct rig *r);
struct vhost_user_vring_addr rig_vring_addr(unsigned index);
void rig_configure_queue(struct rig *r, unsigned index, uint32_t base);   // NUM, BASE, ADDR
void rig_set_fd(struct rig *r, uint32_t request, unsigned index, int fd); // -1: NOFD
// All of that, and KICK and ENABLE: queue 0 to @n - 1 run.
void rig_start(struct rig *r, uint64_t features, unsigned n);

#define RIG_FEATURES (VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES))
#define RIG_PROTOCOL_FEATURES                                                                      \
    (VIRTIO_BIT(0) | VIRTIO_BIT(1) | VIRTIO_BIT(3) | VIRTIO_BIT(5) | VIRTIO_BIT(9) |               \
     VIRTIO_BIT(12) | VIRTIO_BIT(13) | VIRTIO_BIT(15) | VIRTIO_BIT(16))

// What this process holds.
unsigned rig_count_fds(void);
unsigned rig_count_maps(void); // of shared files
int rig_memfd(uint64_t bytes);

// Standard error goes to a file until rig_log_end(), which returns its text.
void rig_log_begin(void);
const char *rig_log_end(void);
