// SPDX-License-Identifier: Apache-2.0
// frontend.h - the front end of one vhost-user connection: what a VMM does.
//
// It negotiates, shares a guest's memory, starts and stops rings. It knows no device types;
// config space is bytes. Requests that have no answer of their own ask for one when REPLY_ACK
// was negotiated, so a refusal is an error here.
//
// Threads  one thread a front end.
// Memory   guests and drivers are borrowed and outlive the front end's use of them. Eventfds,
//          the in-flight region and the log belong to the front end and survive a reconnect.
// Trust    the back end may be anyone's: its messages are checked.
#pragma once

#include "bench/driver.h"
#include "bench/guest.h"
#include "bench/wire.h"

#define FRONTEND_RINGS_MAX  256 // rings are numbered in 8 bits
#define FRONTEND_TIMEOUT_MS 20000

struct frontend_ring {
    int kick_fd, call_fd;        // -1: not made yet
    const struct driver *driver; // NULL: stopped
};

struct frontend {
    int fd;
    int channel_fd; // where the back end sends requests, -1: not negotiated
    struct guest *guest;
    uint64_t offered, features;
    uint64_t protocol_offered, protocol_features;
    unsigned n_queues; // the back end's most, 1 without MQ
    unsigned n_slots;  // memory regions it takes
    bool is_logging;   // addresses are sent with the LOG flag
    int inflight_fd;   // -1: none
    struct vhost_user_inflight inflight;
    int log_fd; // -1: none
    uint8_t *log;
    uint64_t log_bytes;
    struct frontend_ring rings[FRONTEND_RINGS_MAX];
};

// All calls return 0, or -errno with the sentence in @e.

// Connect to a back end that listens on @path, trying for @timeout_ms. Returns the socket.
int frontend_connect(const char *path, unsigned timeout_ms, struct error *e);

// Take the socket over. Nothing is sent yet.
int frontend_open(struct frontend **out, int fd, struct guest *g, struct error *e);
void frontend_close(struct frontend *f); // NULL is fine

// SET_OWNER to SET_FEATURES; what was not offered is left out of @features and @protocol.
int frontend_negotiate(struct frontend *f, uint64_t features, uint64_t protocol, struct error *e);

// Share all regions, as one table or (CONFIGURE_MEM_SLOTS) one by one.
int frontend_share_memory(struct frontend *f, struct error *e);
int frontend_add_region(struct frontend *f, unsigned region, struct error *e);
int frontend_remove_region(struct frontend *f, unsigned region, struct error *e);

// Obtain an in-flight region for rings of @size and give it back, as QEMU does at start.
int frontend_open_inflight(struct frontend *f, unsigned n_queues, unsigned size, struct error *e);

// Start ring @index, which goes on at @base, and enable it; make its eventfds.
int frontend_start_ring(struct frontend *f, unsigned index, const struct driver *d, uint32_t base,
                        struct error *e);
int frontend_enable_ring(struct frontend *f, unsigned index, bool enable, struct error *e);
// Returns when the back end has finished every request; @base (may be NULL) is where it stopped.
int frontend_stop_ring(struct frontend *f, unsigned index, uint32_t *base, struct error *e);

void frontend_kick(struct frontend *f, unsigned index);
// True if there was an interrupt within @timeout_ms; it is taken.
bool frontend_wait_call(struct frontend *f, unsigned index, int timeout_ms);

int frontend_get_config(struct frontend *f, uint32_t offset, void *data, uint32_t bytes,
                        struct error *e);
int frontend_set_config(struct frontend *f, uint32_t offset, const void *data, uint32_t bytes,
                        struct error *e);
int frontend_set_status(struct frontend *f, uint8_t status, struct error *e);
int frontend_get_status(struct frontend *f, uint8_t *status, struct error *e);
// RESET_DEVICE; rings are stopped then.
int frontend_reset(struct frontend *f, struct error *e);

// Log writes to guest memory, one bit a page, from now on; until frontend_stop_log().
int frontend_start_log(struct frontend *f, struct error *e);
int frontend_stop_log(struct frontend *f, struct error *e);
bool frontend_is_logged(const struct frontend *f, uint64_t addr);

// Go on over a new socket after the old back end left: same features, memory, in-flight region
// and log. Rings are to be started again.
int frontend_reconnect(struct frontend *f, int fd, struct error *e);

// A message from the back end's channel, answered if it asks for it: its request number, 0 if
// there was none.
int frontend_poll_channel(struct frontend *f, struct error *e);

// ---- single messages, for tests ----------------------------------------------------------

// Send @m and, if REPLY_ACK was negotiated, wait for its acknowledgement; a refusal is -EPROTO.
int frontend_request(struct frontend *f, struct wire_message *m, struct error *e);
// Send @m and receive its answer in place of it.
int frontend_query(struct frontend *f, struct wire_message *m, struct error *e);

int frontend_set_u64(struct frontend *f, uint32_t request, uint64_t value, struct error *e);
int frontend_get_u64(struct frontend *f, uint32_t request, uint64_t *value, struct error *e);
int frontend_set_ring(struct frontend *f, uint32_t request, uint32_t index, uint32_t value,
                      struct error *e);
// @fd -1: says that there is none.
int frontend_set_ring_fd(struct frontend *f, uint32_t request, unsigned index, int fd,
                         struct error *e);
int frontend_set_ring_addr(struct frontend *f, unsigned index, const struct driver *d,
                           struct error *e);
int frontend_send_features(struct frontend *f, struct error *e);
int frontend_send_inflight(struct frontend *f, struct error *e);
int frontend_send_log(struct frontend *f, struct error *e);
