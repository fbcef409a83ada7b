// SPDX-License-Identifier: Apache-2.0
// endpoint.h - one device at its socket: waits for a front end, serves it, waits for the next.
//
// It opens the device and its socket, runs one session at a time, lends the session's queues
// to workers, and takes everything down again, in that order:
//
//     waiting ─▶ connected ─▶ draining ─▶ waiting …      leave: draining ─▶ gone
//
// A device whose line has no socket runs from the start: its queues, if it has any, are lent at
// once and taken back when it leaves.
//
// Threads  [C] only. Nothing waits for a worker, a disk or a peer.
// Memory   control owns endpoints; an endpoint owns its device, socket, session and leases.
// Trust    who may connect is the socket's permissions; what it then says is session.h's.
#pragma once

#include "dataplane/log.h"
#include "dataplane/session.h"
#include "pollers/acceptor.h"
#include "pollers/pool.h"

#define ENDPOINT_BUDGET       8    // messages of one session in one turn of the loop
#define ENDPOINT_RETRY_MS     100  // mode=client: first pause before it connects again,
#define ENDPOINT_RETRY_MAX_MS 1000 // doubled up to this

enum endpoint_state {
    ENDPOINT_WAITING,   // for a front end
    ENDPOINT_CONNECTED, // one is served
    ENDPOINT_DRAINING,  // its queues come back
    ENDPOINT_RUNNING,   // it needs no front end
};

enum endpoint_exit { // how far a device is that leaves
    EXIT_NOT_YET,
    EXIT_HIDDEN, // workers find it no more; they have to pass a turn
    EXIT_PASSED,
};

struct endpoint {
    struct device *device;
    struct loop *loop;
    struct pool_worker *home;
    struct lease *leases; // one a queue
    const char *path;     // in the device's line; NULL: it has no socket
    bool is_client;
    struct acceptor acceptor;  // mode=server
    struct session *session;   // NULL: none
    struct loop_source source; // the session's socket
    struct loop_timer retry;   // mode=client: connect again
    struct loop_timer tick;    // device_type.tick
    unsigned retry_ms;
    int peer_pid;
    struct log_limit refusals;

    bool is_leaving;
    enum endpoint_exit exit;
    void (*gone)(void *context, struct endpoint *e);
    void *gone_context;

    // Control's own.
    TAILQ_ENTRY(endpoint) link;
    void (*done)(void *context); // who removed it
    void *done_context;
};

// [C] Open the device that @l (of @type) describes, and its socket. Takes @l over, also when it
// fails. 0 or -errno with the sentence.
int endpoint_open(struct endpoint **out, struct loop *loop, struct pool *pool,
                  const struct device_type *type, struct line *l, struct error *e);

// [C] Go on with the session that the device had when the last process died, if it was kept. The
// endpoint stays, whatever comes of it.
void endpoint_resume(struct endpoint *p);

// [C] Stop serving: nobody connects from now on, the session drains and ends, then the device is
// closed and gone() called (also from inside), after which endpoint_free() is due.
void endpoint_leave(struct endpoint *p, const char *reason,
                    void (*gone)(void *context, struct endpoint *p), void *context);
void endpoint_free(struct endpoint *p);

// [C] What pool_config asks for.
struct lease *endpoint_lease_of(struct queue *q);
void endpoint_answered(struct queue *q);

// [C] device_type.busy: 0, or -EBUSY with the sentence.
int endpoint_busy(const struct endpoint *p, struct error *e);

// [C] To be called now and then: session_check(), and what a leaving device waits for.
void endpoint_check(struct endpoint *p, uint64_t now_ms);

// [C] device_type.resize, and tell the front end. 0 or -errno with the sentence.
int endpoint_resize(struct endpoint *p, uint64_t *bytes, struct error *e);

enum endpoint_state endpoint_state(const struct endpoint *p);

// [C] Requests of @q that a worker has and has not given back, as far as counters tell.
uint64_t endpoint_in_flight(const struct queue *q);
// [C] How long the oldest of them is there; 0: there is none.
uint64_t endpoint_oldest_ms(const struct queue *q);
