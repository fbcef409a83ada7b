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

#define FRONT_QUEUES       4
#define FRONT_CONFIG_BYTES 40
#define FRONT_EVENTS_MAX   64
#define FRONT_MTU_MAX      9000

// Guest memory: one region by default.
#define FRONT_MEMORY_BYTES UINT64_C(0x100000)
#define FRONT_GUEST_ADDR   UINT64_C(0x40000000)
#define FRONT_USER_ADDR    UINT64_C(0x7f0000000000)
#define FRONT_RING_BYTES   UINT64_C(0x4000) // of each queue's areas, from the region's start

struct front_asked { // what the host was asked and has not answered
    struct queue *queue;
    void (*fn)(struct queue *q, void *argument); // call
    void *argument;
};

struct front {
    int socket; // the front end's end
    struct session *session;
    struct device device;
    struct device_type type;

    bool is_slow; // the host answers only when front_answer() is called
    struct front_asked asked[FRONT_EVENTS_MAX];
    unsigned n_asked;
    char events[1024]; // "attach 0, start 1, …" since front_events() was called last

    int memory_fd;
    int kick[FRONT_QUEUES], call[FRONT_QUEUES], err[FRONT_QUEUES];
    bool start_fails;                   // the toy's queue_start
    bool start_blocks;                  // likewise
    uint64_t notified[DEVICE_RARP + 1]; // by event
};

void front_open(struct front *r);   // a connected session
void front_reopen(struct front *r); // after it closed: another session on the same device
// Its session ended: another front end comes, and negotiates.
void front_next(struct front *r);
void front_close(struct front *r); // checks that everything went back

// Set-up and tear-down of a test whose *state is a front end.
int front_setup(void **state);
int front_teardown(void **state);

// Send one message. @fds are not closed.
void front_send(struct front *r, uint32_t request, uint32_t flags, const void *payload,
                size_t bytes, const int fds[], unsigned n_fds);
// The same, then let the session handle it.
void front_do(struct front *r, uint32_t request, const void *payload, size_t bytes, const int fds[],
              unsigned n_fds);
// The session ends at it, and another front end comes.
void front_check_ends(struct front *r, uint32_t request, const void *payload, size_t bytes,
                      const int fds[], unsigned n_fds);
void front_do_u64(struct front *r, uint32_t request, uint64_t value);
void front_do_state(struct front *r, uint32_t request, uint32_t index, uint32_t num);
// With NEED_REPLY; returns the answer.
uint64_t front_ack(struct front *r, uint32_t request, const void *payload, size_t bytes,
                   const int fds[], unsigned n_fds);
// A request with a u64 as its reply.
uint64_t front_get(struct front *r, uint32_t request);
// The reply that must be there: of @request, with the right flags. Its descriptors are @m's.
void front_reply(struct front *r, uint32_t request, struct message *m);
bool front_has_reply(const struct front *r);

// For a session that the test opens itself; its context is the rig.
const struct session_host *front_host(void);

void front_run(struct front *r); // handle all that was sent
bool front_is_open(const struct front *r);

// The host answers the oldest thing that it was asked, or everything.
void front_answer(struct front *r);
void front_answer_all(struct front *r);
// What the host and the toy saw since the last call: "detach 0, stop 0".
const char *front_events(struct front *r);

// Pieces of a front end's life.
void front_negotiate(struct front *r, uint64_t features, uint64_t protocol_features);
void front_share_memory(struct front *r);
struct vhost_user_vring_addr front_vring_addr(unsigned index);
void front_configure_queue(struct front *r, unsigned index, uint32_t base);   // NUM, BASE, ADDR
void front_set_fd(struct front *r, uint32_t request, unsigned index, int fd); // -1: NOFD
// All of that, and KICK and ENABLE: queue 0 to @n - 1 run.
void front_start(struct front *r, uint64_t features, unsigned n);

#define FRONT_FEATURES      (VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES))
#define FRONT_TYPE_FEATURES (VIRTIO_BIT(2) | VIRTIO_BIT(4) | VIRTIO_BIT(9) | VIRTIO_BIT(12))
#define FRONT_PROTOCOL_FEATURES                                                                    \
    (VIRTIO_BIT(0) | VIRTIO_BIT(1) | VIRTIO_BIT(3) | VIRTIO_BIT(5) | VIRTIO_BIT(13) |              \
     VIRTIO_BIT(15) | VIRTIO_BIT(16) | FRONT_TYPE_FEATURES)

struct ring *front_ring(struct front *r, unsigned index);
// GET_VRING_BASE, and its answer.
uint32_t front_get_base(struct front *r, unsigned index);

// What this process holds.
unsigned front_count_fds(void);
unsigned front_count_maps(void); // of shared files
int front_memfd(uint64_t bytes);

// Standard error goes to a file until front_log_end(), which returns its text.
void front_log_begin(void);
const char *front_log_end(void);
