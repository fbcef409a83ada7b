// SPDX-License-Identifier: Apache-2.0
// session_internal.h - what the files of the session share; nobody else includes it.
//
// Theory: a request is handled in one go, or it starts a change: the queues that cannot stay
// stop, then new things are put in place, the queues that stayed are told, what nobody uses
// any more is freed, and every queue that should run and does not is started. Between these
// steps the session waits for its host, handles nothing else, and answers at the end.
//
//     request ─▶ detach ··▶ apply ─▶ live ··▶ after ─▶ attach ··▶ reply      ··▶ a wait
//
// session.c has the connection, session_requests.c the table of requests, session_change.c the
// above; the others have the handlers: session_device.c, session_rings.c, session_memory.c,
// session_log.c, session_inflight.c.
//
// Threads  [C] all, but the functions marked [W], which the host runs on the queue's worker.
#pragma once

#include "dataplane/mapping.h"
#include "dataplane/message.h"
#include "dataplane/log.h"
#include "dataplane/session.h"
#include "dataplane/state.h"

#define REQUEST_PENDING 1 // a handler's answer: session_change() completes the request

// One queue as the front end configured it. The descriptors kick_fd and call_fd are in struct
// queue, where workers see them; the session closes them.
struct session_queue {
    struct queue *queue;
    uint32_t size; // 0: not told yet
    uint32_t base; // where the ring goes on; current only while it is not attached
    uint64_t desc_addr, driver_addr, device_addr;
    int err_fd;
    struct keeper_id kick_id, call_id, err_id; // of what the descriptors refer to
    bool has_addr;
    bool is_kicked;     // SET_VRING_KICK came, GET_VRING_BASE did not
    bool is_enabled;    // SET_VRING_ENABLE's last word
    bool is_attached;   // the ring is started and lent to the host
    bool must_stop;     // in the change that begins
    bool is_resumed;    // it ran when the last process died, and has not been started since
    uint8_t fault_seen; // enum ring_fault that was reported
};

struct session_change {
    // Put the new things in place. Only queues without must_stop are attached. 0 or -errno: then
    // nothing was put in place.
    int (*apply)(struct session *s, struct error *e);
    // [W] Tell @only, or each queue that stayed attached.
    void (*live)(struct queue *q, void *argument);
    void *argument;
    struct session_queue *only;
    // Free what was replaced. It runs after apply succeeded.
    void (*after)(struct session *s);
};

// The in-flight region, as SET_INFLIGHT_FD gave it.
struct session_inflight {
    struct mapping mapping; // .at is NULL: none
    atomic_bool failed;
    uint64_t n_bytes;
    uint16_t n_queues;
    uint16_t queue_size;
};

#define STATE_OFFERS_MAX VHOST_USER_TABLE_MAX // descriptors of one message that may be kept

// What is kept of the session for the next life.
struct session_keep {
    bool is_listed;                            // the list says all that there is
    struct state_message last;                 // the message that is being handled, request 0: none
    struct state_message log, backend, region; // the last that succeeded; likewise
    struct keeper_id offered[STATE_OFFERS_MAX]; // what came with the message
    unsigned n_offered;
    struct keeper_id socket;
    struct state_message *held; // the list as it is kept; its descriptors are held
    unsigned n_held;

    // Taking up what was kept: the list says itself again.
    int *fds; // of the list, from next_again on; NULL: it is not, or no longer, taken up
    unsigned next_again;
    bool is_saying;
};

struct session {
    struct device *device;
    const struct session_host *host;
    void *context;
    int fd;
    int backend_fd; // for our requests; -1: none
    enum session_state state;

    // The message that is coming in or being handled.
    struct message_reader reader;
    bool is_busy;        // it is being handled
    bool wants_ack;      // it asked for an answer, and has none of its own
    int reply_fd;        // goes out with the reply; -1: none
    uint64_t partial_id; // reader.n_begun when session_check() first saw it partial
    uint64_t partial_ms; // and the time

    // The change under way.
    struct session_change change;
    unsigned n_pending;              // answers that the host owes, and one while asking
    uint64_t asked_ms;               // when the change began
    void (*then)(struct session *s); // when there are none
    int result;                      // of the request
    struct error error;

    bool is_blocked;      // a wanted queue could not start yet
    struct error blocked; // and why

    uint64_t features;          // as SET_FEATURES said, 0 before
    uint64_t protocol_features; // likewise
    bool has_features;
    uint8_t status; // virtio device status, as the front end told

    struct mem *mem, *next_mem, *old_mem;
    struct dirty *log, *next_log, *old_log;
    struct session_inflight inflight;

    struct session_keep keep;
    struct log_limit log_limit;
    struct session_queue queues[]; // device->n_queues
};

typedef int session_handler(struct session *s, struct message *m, struct error *e);

// ---- session.c ---------------------------------------------------------------------------

// A line about this session, unless there were too many.
void session_warn(struct session *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
uint64_t session_now_ms(void);
// The session is closing and not busy: take every queue back, then free what it holds.
void session_shut(struct session *s);

// ---- session_requests.c ------------------------------------------------------------------

// Handle the message that the reader has.
void session_handle(struct session *s);
// It is done, with s->result: answer it.
void session_complete(struct session *s);
bool session_has_protocol(const struct session *s, unsigned bit);

// ---- session_change.c --------------------------------------------------------------------

// This queue, or every queue, cannot stay attached through the next change.
void session_stop_queue(struct session_queue *sq);
void session_stop_all(struct session *s);
// Begin; session_complete() follows, maybe before this returns. Always REQUEST_PENDING.
int session_change(struct session *s, const struct session_change *change);
bool session_is_attached(const struct session *s); // any queue
// Start what could not start when it was asked for. The session is open and not busy.
void session_retry(struct session *s);

// ---- session_rings.c ---------------------------------------------------------------------

// Whether the front end wants this ring to run.
bool session_queue_is_wanted(const struct session *s, const struct session_queue *sq);
int session_queue_start(struct session *s, struct session_queue *sq, struct error *e);
void session_queue_stop(struct session *s, struct session_queue *sq);
// As before the first message, but for the call and error descriptors.
void session_queue_reset(struct session_queue *sq);
void session_queue_close_fds(struct session_queue *sq);
// Report a fault of its ring, once.
void session_queue_check(struct session *s, struct session_queue *sq);

session_handler session_set_vring_num, session_set_vring_addr, session_set_vring_base,
    session_get_vring_base, session_set_vring_kick, session_set_vring_call, session_set_vring_err,
    session_set_vring_enable;

// ---- session_device.c --------------------------------------------------------------------

session_handler session_get_features, session_set_features, session_get_protocol_features,
    session_set_protocol_features, session_set_owner, session_get_queue_num,
    session_set_backend_req_fd, session_get_config, session_set_config, session_set_status,
    session_get_status, session_reset_device, session_send_rarp, session_net_set_mtu;

// ---- session_memory.c --------------------------------------------------------------------

session_handler session_set_mem_table, session_get_max_mem_slots, session_add_mem_reg,
    session_rem_mem_reg;

// ---- session_log.c -----------------------------------------------------------------------

// What rings log to under @features: NULL unless they have LOG_ALL.
struct dirty *session_log_of(const struct session *s, uint64_t features);
void session_tell_memory(struct session *s, const struct mem *m);
void session_tell_log(struct queue *q, void *log); // [W]

session_handler session_set_log_base, session_set_log_fd;

// ---- session_inflight.c ------------------------------------------------------------------

// The record of @sq, for ring_start(): the front end's, else our own, else none.
int session_inflight_part(const struct session *s, const struct session_queue *sq,
                          struct ring_config *config, struct error *e);
// Our own record of queue @index ends: the front end knows where the ring goes on.
void session_inflight_forget(const struct session *s, unsigned index);
void session_inflight_drop(struct session *s);

session_handler session_get_inflight_fd, session_set_inflight_fd;

// ---- session_keep.c ----------------------------------------------------------------------

void session_keep_open(struct session *s);
// Bytes are about to be read: nobody could go on from here if we died.
void session_keep_begin(struct session *s);
// A whole message is there; its descriptors too.
void session_keep_message(struct session *s);
// It is done, or there was none: keep where the session stands.
void session_keep_end(struct session *s);
// The session is over.
void session_keep_drop(struct session *s);
// Say the next of the messages again that are to be said.
void session_say_again(struct session *s);
static inline bool session_is_resuming(const struct session *s)
{
    return s->keep.fds;
}

// ---- session_fd.c ------------------------------------------------------------------------

// Close what is in *@slot unless it is -1, and put @fd there.
void session_replace_fd(int *slot, int fd);

// Whether @fd is an eventfd; makes it non-blocking, so that a worker never waits on it. 0, or
// -EINVAL with the sentence.
int session_check_eventfd(int fd, struct error *e);
