// SPDX-License-Identifier: Apache-2.0
#include "dataplane/session_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

// ---- start and stop ----------------------------------------------------------------------

// "Ring states": without protocol features a ring starts enabled, else SET_VRING_ENABLE says so.
static bool is_enabled(const struct session *s, const struct session_queue *sq)
{
    return sq->is_enabled || !(s->features & VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES));
}

// A ring starts with its kick. A disabled one may have no side effects, so it is not polled.
bool session_queue_is_wanted(const struct session *s, const struct session_queue *sq)
{
    return s->state == SESSION_OPEN && s->mem && s->has_features && sq->size && sq->has_addr &&
           sq->is_kicked && is_enabled(s, sq);
}

// The bits that the driver negotiated, without those of the transport.
static uint64_t device_features(const struct session *s)
{
    return s->features &
           ~(VIRTIO_BIT(VHOST_F_LOG_ALL) | VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES));
}

// Non-blocking; a full eventfd is readable already.
static void signal_eventfd(int fd)
{
    uint64_t one = 1;
    ssize_t n = fd >= 0 ? write(fd, &one, sizeof(one)) : 0;
    (void)n;
}

int session_queue_start(struct session *s, struct session_queue *sq, struct error *e)
{
    struct queue *q = sq->queue;
    struct ring_config config = {
        .features = device_features(s),
        .size = sq->size,
        .base = sq->base,
        .desc_addr = sq->desc_addr,
        .driver_addr = sq->driver_addr,
        .device_addr = sq->device_addr,
        .is_resumed = sq->is_resumed,
    };
    int err = session_inflight_part(s, sq, &config, e);
    if (err)
        return err;
    struct dirty *log = session_log_of(s, s->features);
    err = ring_start(&q->ring, &config, s->mem, log, &q->stats, e);
    if (err && config.record_is_own && !config.is_resumed) {
        session_warn(s, "queue %u: %s; it goes on without a record", q->index, e->text);
        session_inflight_forget(s, q->index);
        err = ring_start(&q->ring, &config, s->mem, log, &q->stats, e);
    }
    if (err)
        return err;
    if (s->device->type->queue_start)
        err = s->device->type->queue_start(q, e);
    if (err)
        ring_stop(&q->ring);
    else if (sq->is_resumed)
        signal_eventfd(q->call_fd); // for what was used, and never told, before
    sq->is_resumed &= err != 0;
    sq->fault_seen = RING_OK;
    return err;
}

void session_queue_stop(struct session *s, struct session_queue *sq)
{
    struct queue *q = sq->queue;
    session_queue_check(s, sq); // a fault that came last is reported too
    sq->is_attached = false;
    sq->must_stop = false;
    if (q->device->type->queue_stop)
        q->device->type->queue_stop(q);
    sq->base = ring_base(&q->ring);
    ring_stop(&q->ring);
}

void session_queue_close_fds(struct session_queue *sq)
{
    session_replace_fd(&sq->queue->kick_fd, -1);
    session_replace_fd(&sq->queue->call_fd, -1);
    session_replace_fd(&sq->err_fd, -1);
}

void session_queue_reset(struct session_queue *sq)
{
    session_replace_fd(&sq->queue->kick_fd, -1);
    *sq = (struct session_queue){
        .queue = sq->queue, .err_fd = sq->err_fd, .call_id = sq->call_id, .err_id = sq->err_id};
}

// ---- faults ------------------------------------------------------------------------------

void session_queue_check(struct session *s, struct session_queue *sq)
{
    if (!sq->is_attached)
        return;
    uint64_t detail;
    enum ring_fault fault = ring_read_fault(&sq->queue->ring, &detail);
    if (fault == sq->fault_seen)
        return;
    sq->fault_seen = (uint8_t)fault;
    signal_eventfd(sq->err_fd);
    session_warn(s, "queue %u stopped: %s (0x%" PRIx64 ")", sq->queue->index,
                 ring_fault_name(fault), detail);
}

// A ring that cannot start for good is not wanted any more.
static bool is_blocked(const struct session *s, const struct session_queue *sq)
{
    return s->is_blocked && !sq->is_attached && session_queue_is_wanted(s, sq);
}

void session_describe_queue(const struct session *s, unsigned index,
                            struct session_queue_info *info)
{
    const struct session_queue *sq = &s->queues[index];
    uint64_t detail = 0;
    enum ring_fault fault = sq->is_attached ? ring_read_fault(&sq->queue->ring, &detail) : RING_OK;
    *info = (struct session_queue_info){
        .is_started = sq->is_attached,
        .is_enabled = is_enabled(s, sq),
        .size = sq->size,
        .layout = ring_layout_name(s->features),
        .fault = fault ? ring_fault_name(fault) : NULL,
        .fault_detail = detail,
        .waits_for = is_blocked(s, sq) ? s->blocked.text : NULL,
    };
}

// ---- requests by number ------------------------------------------------------------------

// The index is compared in its full width: 0x10000 is not queue 0. NULL is -EPROTO.
static struct session_queue *find_queue(struct session *s, uint32_t index, struct error *e)
{
    if (index < s->device->n_queues)
        return &s->queues[index];
    error_set(e, EPROTO, "queue %" PRIu32 ": there are %u", index, s->device->n_queues);
    return NULL;
}

static int check_stopped(const struct session_queue *sq, struct error *e)
{
    if (sq->is_attached)
        return error_set(e, EBUSY, "queue %u is running", sq->queue->index);
    return 0;
}

int session_set_vring_num(struct session *s, struct message *m, struct error *e)
{
    uint32_t size = m->payload.state.num;
    struct session_queue *sq = find_queue(s, m->payload.state.index, e);
    if (!sq)
        return -EPROTO;
    int err = check_stopped(sq, e);
    if (err)
        return err;
    if (size == 0 || size > RING_SIZE_MAX)
        return error_set(e, EINVAL, "queue %u: a size of %" PRIu32 ", not 1 to %d",
                         sq->queue->index, size, RING_SIZE_MAX);
    sq->size = size;
    return session_change(s, &(struct session_change){0});
}

int session_set_vring_base(struct session *s, struct message *m, struct error *e)
{
    struct session_queue *sq = find_queue(s, m->payload.state.index, e);
    if (!sq)
        return -EPROTO;
    int err = check_stopped(sq, e);
    if (!err)
        sq->base = m->payload.state.num;
    return err;
}

static int apply_addr(struct session *s, struct error *e)
{
    (void)e;
    const struct vhost_user_vring_addr *a = &s->reader.message.payload.addr;
    struct session_queue *sq = &s->queues[a->index];
    sq->desc_addr = a->descriptor;
    sq->driver_addr = a->available;
    sq->device_addr = a->used;
    sq->has_addr = true;
    return 0;
}

// While a log is on, the used ring is always in it, so the LOG flag changes nothing.
int session_set_vring_addr(struct session *s, struct message *m, struct error *e)
{
    const struct vhost_user_vring_addr *a = &m->payload.addr;
    struct session_queue *sq = find_queue(s, a->index, e);
    if (!sq)
        return -EPROTO;
    bool is_same = sq->has_addr && sq->desc_addr == a->descriptor &&
                   sq->driver_addr == a->available && sq->device_addr == a->used;
    if (is_same)
        return 0;
    session_stop_queue(sq);
    return session_change(s, &(struct session_change){.apply = apply_addr});
}

static int apply_get_base(struct session *s, struct error *e)
{
    (void)e;
    struct vhost_user_vring_state *state = &s->reader.message.payload.state;
    struct session_queue *sq = &s->queues[state->index];
    sq->is_kicked = false;
    sq->is_resumed = false;
    session_replace_fd(&sq->queue->kick_fd, -1);
    session_inflight_forget(s, state->index);
    state->num = sq->base;
    return 0;
}

// Answered when the last request is back, never earlier.
int session_get_vring_base(struct session *s, struct message *m, struct error *e)
{
    struct session_queue *sq = find_queue(s, m->payload.state.index, e);
    if (!sq)
        return -EPROTO;
    session_stop_queue(sq);
    return session_change(s, &(struct session_change){.apply = apply_get_base});
}

int session_set_vring_enable(struct session *s, struct message *m, struct error *e)
{
    uint32_t value = m->payload.state.num;
    struct session_queue *sq = find_queue(s, m->payload.state.index, e);
    if (!sq)
        return -EPROTO;
    if (value > 1)
        return error_set(e, EPROTO, "queue %u: %" PRIu32 " is neither 0 nor 1", sq->queue->index,
                         value);
    sq->is_enabled = value;
    if (!session_queue_is_wanted(s, sq))
        session_stop_queue(sq);
    return session_change(s, &(struct session_change){0});
}

// ---- requests with a descriptor ----------------------------------------------------------

// What KICK, CALL and ERR have in common. The descriptor stays in the message.
static int check_fd(const struct message *m, struct error *e)
{
    uint64_t value = m->payload.u64;
    unsigned wanted = value & VHOST_USER_VRING_NOFD ? 0 : 1;
    if (value & ~(uint64_t)(VHOST_USER_VRING_INDEX_MASK | VHOST_USER_VRING_NOFD))
        return error_set(e, EPROTO, "0x%" PRIx64 " has bits beyond the index and its flag", value);
    if (m->n_fds != wanted)
        return error_set(e, EPROTO, "0x%" PRIx64 " came with %u descriptors, not %u", value,
                         m->n_fds, wanted);
    return wanted ? session_check_eventfd(m->fds[0], e) : 0;
}

static uint32_t index_of(const struct message *m)
{
    return (uint32_t)(m->payload.u64 & VHOST_USER_VRING_INDEX_MASK);
}

static int take_fd(struct message *m)
{
    return m->n_fds ? message_take_fd(m, 0) : -1;
}

static int apply_kick(struct session *s, struct error *e)
{
    (void)e;
    struct session_queue *sq = &s->queues[index_of(&s->reader.message)];
    session_replace_fd(&sq->queue->kick_fd, take_fd(&s->reader.message));
    sq->is_kicked = true;
    return 0;
}

// The ring starts here, not at the first kick: the newest text says so, and a kick could be
// missed otherwise.
int session_set_vring_kick(struct session *s, struct message *m, struct error *e)
{
    struct session_queue *sq = find_queue(s, index_of(m), e);
    if (!sq)
        return -EPROTO;
    int err = check_fd(m, e);
    if (err)
        return err;
    session_stop_queue(sq);
    return session_change(s, &(struct session_change){.apply = apply_kick});
}

// [W] The old descriptor stays in the message, which closes it at the end.
static void swap_call(struct queue *q, void *argument)
{
    int *slot = argument;
    int old = q->call_fd;
    q->call_fd = *slot;
    *slot = old;
    q->call_changed = true;
}

// Comes at any time, also while the ring runs (the guest masks its vector).
int session_set_vring_call(struct session *s, struct message *m, struct error *e)
{
    struct session_queue *sq = find_queue(s, index_of(m), e);
    if (!sq)
        return -EPROTO;
    int err = check_fd(m, e);
    if (err)
        return err;
    if (!sq->is_attached) {
        session_replace_fd(&sq->queue->call_fd, take_fd(m));
        return 0;
    }
    if (!m->n_fds)
        m->fds[m->n_fds++] = -1;
    return session_change(
        s, &(struct session_change){.live = swap_call, .argument = m->fds, .only = sq});
}

int session_set_vring_err(struct session *s, struct message *m, struct error *e)
{
    struct session_queue *sq = find_queue(s, index_of(m), e);
    if (!sq)
        return -EPROTO;
    int err = check_fd(m, e);
    if (!err)
        session_replace_fd(&sq->err_fd, take_fd(m));
    return err;
}
