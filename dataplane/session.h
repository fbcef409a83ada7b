// SPDX-License-Identifier: Apache-2.0
// session.h - one vhost-user connection: the state machine between a front end and a device.
//
// A table maps each request to its handler, payload size and number of descriptors. A session
// owns no thread and no loop: whoever runs it says when the socket is readable, and carries out
// attach, detach and call on the workers. While one of those is under way the session handles
// no message (its reply is pending), and nobody else waits.
//
// Threads  [C] all calls.
// Memory   the session owns its socket, the descriptors it received, the memory snapshots, logs
//          and in-flight maps; the device is borrowed and serves one session at a time.
// Trust    the peer is hostile: sizes, types, flags, ring numbers and descriptors are checked;
//          what is wrong ends this session with a sentence in the log, nothing else.
#pragma once

#include "dataplane/device.h"

#define SESSION_PARTIAL_MS 2000 // a message that began must be complete after this

struct session;

// What a session asks of the one who runs it. Each is answered, now or later (also from inside
// the call), by session_acknowledge(), once.
struct session_host {
    // The ring is started: let a worker poll @q.
    void (*attach)(void *context, struct queue *q);
    // Take @q back when its last chain is published.
    void (*detach)(void *context, struct queue *q);
    // Run @fn(@q, @argument) on the worker that owns @q.
    void (*call)(void *context, struct queue *q, void (*fn)(struct queue *q, void *argument),
                 void *argument);
};

enum session_state {
    SESSION_OPEN,
    SESSION_CLOSING, // waits for its queues to come back
    SESSION_CLOSED,  // session_free() may be called
};

// [C] Serve @d on @fd, a connected Unix stream socket: made non-blocking, and taken over unless
// this fails.
int session_open(struct session **out, int fd, struct device *d, const struct session_host *host,
                 void *context, struct error *e);
void session_free(struct session *s); // must be SESSION_CLOSED

// [C] Whether the session that @d had when the last process died can go on, on the same socket.
bool session_is_kept(const struct device *d);
// [C] Then: likewise, with what the front end said before. Its queues start as if it said so now;
// if something is refused the session ends. 0 or -errno with the sentence.
int session_resume(struct session **out, struct device *d, const struct session_host *host,
                   void *context, struct error *e);

// [C] The socket is readable, or its messages are to go on: handle up to @budget messages.
// True if more may be waiting.
bool session_run(struct session *s, unsigned budget);

// [C] Something asked of the host is done.
void session_acknowledge(struct session *s);

// [C] False while a reply is pending: do not watch the socket for input.
bool session_wants_input(const struct session *s);

// [C] Begin to end the session; @reason (may be NULL: the peer left) goes to the log.
void session_close(struct session *s, const char *reason);

enum session_state session_state(const struct session *s);
int session_fd(const struct session *s);

// [C] To be called now and then (100 ms): ends sessions whose partial message is too old or
// whose memory was truncated; reports ring faults, once each; starts rings that could not start
// when they were asked for.
void session_check(struct session *s, uint64_t now_ms);

// [C] Config space changed: tell the front end (BACKEND_CONFIG_CHANGE_MSG) if it listens. Never
// waits for its answer.
void session_config_changed(struct session *s);

// What `show` prints. Features are 0 before they are negotiated.
struct session_info {
    uint64_t features;
    uint64_t protocol_features;
    unsigned n_regions;
    uint64_t memory_bytes;
    bool is_logging; // a migration is under way
    bool has_inflight;
    bool is_waiting; // a reply is pending, or the end
    uint64_t waiting_ms;
};
void session_describe(const struct session *s, struct session_info *info);

struct session_queue_info {
    bool is_started, is_enabled;
    uint32_t size;
    const char *layout; // from the ring's features
    const char *fault;  // NULL: none
    uint64_t fault_detail;
    const char *waits_for; // why a ring that should run does not yet; NULL: it runs or need not
};
void session_describe_queue(const struct session *s, unsigned index,
                            struct session_queue_info *info);
