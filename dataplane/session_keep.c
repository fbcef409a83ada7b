// SPDX-License-Identifier: Apache-2.0
// Theory: what a session was told is kept as a list of messages that would bring a new session to
// the same place, each with the descriptor that came with it. The list is renewed after each
// message that was carried out and answered; while one is read or carried out, the session is
// marked as unsettled, since then nobody knows where the stream stands. A process that finds a
// settled session takes the socket and says the messages again to itself, through the same checks
// as a front end's; what the front end sent meanwhile waits in the socket.
#include "dataplane/session_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct state_session *kept_of(const struct session *s)
{
    return s->device->state && state_keeper(s->device->state) ? state_session(s->device->state)
                                                              : NULL;
}

static void set_phase(struct state_session *kept, enum state_phase phase)
{
    __atomic_store_n(&kept->phase, (uint32_t)phase, __ATOMIC_RELEASE);
    atomic_signal_fence(memory_order_seq_cst); // the process may be killed at any instruction
}

void session_keep_begin(struct session *s)
{
    struct state_session *kept = kept_of(s);
    if (kept && !session_is_resuming(s))
        set_phase(kept, STATE_UNSETTLED);
}

// ---- the list ----------------------------------------------------------------------------

struct list {
    struct state_message *messages;
    unsigned n;
};

static void put(struct list *l, uint32_t request, const void *payload, size_t bytes,
                const struct keeper_id *fd)
{
    if (l->n == STATE_MESSAGES_MAX)
        return; // more than a session can have
    struct state_message *m = &l->messages[l->n++];
    *m = (struct state_message){.request = request, .n_bytes = (uint16_t)bytes};
    memcpy(m->payload, payload, bytes);
    if (fd) {
        m->flags = STATE_HAS_FD;
        m->fd = *fd;
    }
}

static void put_u64(struct list *l, uint32_t request, uint64_t value)
{
    put(l, request, &value, sizeof(value), NULL);
}

static void put_last(struct list *l, const struct state_message *last)
{
    if (last->request)
        put(l, last->request, last->payload, last->n_bytes, &last->fd);
}

static void put_memory(struct list *l, const struct mem *m)
{
    for (unsigned i = 0; m && i < m->n_regions; i++) {
        struct mem_desc d;
        struct keeper_id fd;
        mem_describe(m, i, &d, &fd.device, &fd.inode);
        struct vhost_user_single_region r = {.region = {.guest_addr = d.guest_addr,
                                                        .size = d.size,
                                                        .user_addr = d.user_addr,
                                                        .mmap_offset = d.mmap_offset}};
        put(l, VHOST_USER_ADD_MEM_REG, &r, sizeof(r), &fd);
    }
}

static void put_state(struct list *l, uint32_t request, unsigned index, uint32_t num)
{
    struct vhost_user_vring_state state = {index, num};
    put(l, request, &state, sizeof(state), NULL);
}

static void put_fd(struct list *l, uint32_t request, unsigned index, int fd,
                   const struct keeper_id *id)
{
    uint64_t value = fd < 0 ? index | VHOST_USER_VRING_NOFD : index;
    put(l, request, &value, sizeof(value), fd < 0 ? NULL : id);
}

static void put_queue(struct list *l, const struct session_queue *sq)
{
    const struct queue *q = sq->queue;
    unsigned index = q->index;
    struct vhost_user_vring_addr addr = {.index = index,
                                         .descriptor = sq->desc_addr,
                                         .used = sq->device_addr,
                                         .available = sq->driver_addr};
    if (sq->size)
        put_state(l, VHOST_USER_SET_VRING_NUM, index, sq->size);
    if (sq->base)
        put_state(l, VHOST_USER_SET_VRING_BASE, index, sq->base);
    if (sq->has_addr)
        put(l, VHOST_USER_SET_VRING_ADDR, &addr, sizeof(addr), NULL);
    if (sq->is_enabled)
        put_state(l, VHOST_USER_SET_VRING_ENABLE, index, 1);
    if (q->call_fd >= 0)
        put_fd(l, VHOST_USER_SET_VRING_CALL, index, q->call_fd, &sq->call_id);
    if (sq->err_fd >= 0)
        put_fd(l, VHOST_USER_SET_VRING_ERR, index, sq->err_fd, &sq->err_id);
    if (!sq->is_kicked)
        return;
    put_fd(l, VHOST_USER_SET_VRING_KICK, index, q->kick_fd, &sq->kick_id);
    if (sq->is_attached || sq->is_resumed)
        l->messages[l->n - 1].flags |= STATE_RUNNING;
}

// What has to be said again, in an order in which it can be: rings start when all is there.
static void list_all(const struct session *s, struct list *l)
{
    put_u64(l, VHOST_USER_SET_PROTOCOL_FEATURES, s->protocol_features);
    if (s->has_features)
        put_u64(l, VHOST_USER_SET_FEATURES, s->features);
    if (s->status)
        put_u64(l, VHOST_USER_SET_STATUS, s->status);
    if (s->inflight.mapping.at)
        put_last(l, &s->keep.region);
    put_memory(l, s->mem);
    if (s->log)
        put_last(l, &s->keep.log);
    if (s->backend_fd >= 0)
        put_last(l, &s->keep.backend);
    for (unsigned i = 0; i < s->device->n_queues; i++)
        put_queue(l, &s->queues[i]);
}

// ---- descriptors -------------------------------------------------------------------------

static void drop_all(struct keeper *k, const struct state_message messages[], unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (messages[i].flags & STATE_HAS_FD)
            keeper_drop(k, &messages[i].fd);
}

// The descriptors of the list are held, or none of them.
static bool hold_all(struct keeper *k, const struct list *l)
{
    for (unsigned i = 0; i < l->n; i++) {
        const struct state_message *m = &l->messages[i];
        if ((m->flags & STATE_HAS_FD) && !keeper_hold(k, &m->fd, -1)) {
            drop_all(k, l->messages, i);
            return false;
        }
    }
    return true;
}

static void remember(struct session *s, const struct state_message *m)
{
    bool is_vring = m->request == VHOST_USER_SET_VRING_KICK ||
                    m->request == VHOST_USER_SET_VRING_CALL ||
                    m->request == VHOST_USER_SET_VRING_ERR;
    if (is_vring && (m->flags & STATE_HAS_FD)) {
        struct session_queue *sq = &s->queues[m->payload[0]];
        *(m->request == VHOST_USER_SET_VRING_KICK   ? &sq->kick_id
          : m->request == VHOST_USER_SET_VRING_CALL ? &sq->call_id
                                                    : &sq->err_id) = m->fd;
    }
    if (m->request == VHOST_USER_SET_LOG_BASE)
        s->keep.log = *m;
    if (m->request == VHOST_USER_SET_BACKEND_REQ_FD)
        s->keep.backend = *m;
    if (m->request == VHOST_USER_SET_INFLIGHT_FD)
        s->keep.region = *m;
}

// They are offered to the keeper now; the list holds those that the session keeps.
void session_keep_message(struct session *s)
{
    const struct message *m = &s->reader.message;
    struct state_session *kept = kept_of(s);
    if (!kept)
        return;
    struct state_message *last = &s->keep.last;
    s->keep.is_listed = false;
    *last = (struct state_message){.request = m->header.request};
    last->n_bytes = (uint16_t)MIN(m->header.size, (uint32_t)STATE_PAYLOAD_BYTES);
    memcpy(last->payload, &m->payload, last->n_bytes);
    for (unsigned i = 0; i < m->n_fds && i < STATE_OFFERS_MAX; i++)
        s->keep.n_offered += keeper_identify(m->fds[i], &s->keep.offered[s->keep.n_offered]) &&
                             keeper_hold(state_keeper(s->device->state),
                                         &s->keep.offered[s->keep.n_offered], m->fds[i]);
    if (s->keep.n_offered) {
        last->flags = STATE_HAS_FD;
        last->fd = s->keep.offered[0];
    }
}

static void withdraw_offers(struct session *s)
{
    while (s->keep.n_offered)
        keeper_drop(state_keeper(s->device->state), &s->keep.offered[--s->keep.n_offered]);
}

// ---- keeping -----------------------------------------------------------------------------

static void hold_socket(struct session *s)
{
    struct keeper *k = state_keeper(s->device->state);
    if (!keeper_identify(s->fd, &s->keep.socket) || !keeper_hold(k, &s->keep.socket, s->fd))
        s->keep.socket = (struct keeper_id){0};
}

void session_keep_open(struct session *s)
{
    if (kept_of(s))
        hold_socket(s);
}

// Some rings cannot be taken up in the middle.
static bool can_resume(const struct session *s)
{
    for (unsigned i = 0; i < s->device->n_queues; i++)
        if (s->queues[i].is_attached && !ring_can_resume(&s->queues[i].queue->ring))
            return false;
    return s->keep.socket.inode;
}

// Replace what is held for the session by @l, which is held already.
static bool replace_held(struct session *s, const struct list *l)
{
    struct state_message *copy = malloc(l->n * sizeof(*copy));
    struct keeper *k = state_keeper(s->device->state);
    if (!copy) {
        drop_all(k, l->messages, l->n);
        return false;
    }
    memcpy(copy, l->messages, l->n * sizeof(*copy));
    drop_all(k, s->keep.held, s->keep.n_held);
    free(s->keep.held);
    s->keep.held = copy;
    s->keep.n_held = l->n;
    return true;
}

static bool is_held(const struct session *s, const struct list *l)
{
    return l->n == s->keep.n_held &&
           memcmp(l->messages, s->keep.held, l->n * sizeof(*l->messages)) == 0;
}

// True if another process could take the session up from here, once all is kept.
static bool renew(struct session *s, struct state_session *kept)
{
    static struct state_message messages[STATE_MESSAGES_MAX];
    struct list l = {messages, 0};
    bool is_possible = can_resume(s);
    if (is_possible)
        list_all(s, &l);
    if (is_possible && is_held(s, &l))
        return true;
    set_phase(kept, STATE_UNSETTLED); // while the list is neither the old one nor the new
    if (!is_possible || !hold_all(state_keeper(s->device->state), &l) || !replace_held(s, &l))
        return false;
    memcpy(kept->messages, messages, l.n * sizeof(messages[0]));
    kept->n_messages = l.n;
    kept->socket = s->keep.socket;
    return true;
}

void session_keep_end(struct session *s)
{
    struct state_session *kept = kept_of(s);
    if (!kept || s->state != SESSION_OPEN)
        return;
    if (s->keep.last.request && s->result == 0)
        remember(s, &s->keep.last);
    s->keep.last.request = 0;
    if (session_is_resuming(s)) {
        withdraw_offers(s);
        return;
    }
    s->keep.is_listed = s->keep.is_listed || renew(s, kept);
    withdraw_offers(s);
    if (keeper_settle(state_keeper(s->device->state)) && s->keep.is_listed)
        set_phase(kept, STATE_SETTLED);
}

static void end_saying(struct session *s)
{
    for (unsigned i = s->keep.next_again; s->keep.fds && i < s->keep.n_held; i++)
        session_replace_fd(&s->keep.fds[i], -1);
    free(s->keep.fds);
    s->keep.fds = NULL;
}

void session_keep_drop(struct session *s)
{
    struct state_session *kept = kept_of(s);
    if (!kept)
        return;
    set_phase(kept, STATE_UNSETTLED);
    withdraw_offers(s);
    drop_all(state_keeper(s->device->state), s->keep.held, s->keep.n_held);
    end_saying(s);
    free(s->keep.held);
    s->keep.held = NULL;
    s->keep.n_held = 0;
    keeper_drop(state_keeper(s->device->state), &s->keep.socket);
    keeper_settle(state_keeper(s->device->state));
}

// ---- taking up ---------------------------------------------------------------------------

bool session_is_kept(const struct device *d)
{
    return d->state && state_keeper(d->state) &&
           __atomic_load_n(&state_session(d->state)->phase, __ATOMIC_ACQUIRE) == STATE_SETTLED;
}

// The message as if it had just come.
static void load(struct session *s, unsigned i)
{
    struct message *to = &s->reader.message;
    const struct state_message *m = &s->keep.held[i];
    *to = (struct message){.header = {.request = m->request,
                                      .flags = VHOST_USER_VERSION,
                                      .size = MIN(m->n_bytes, STATE_PAYLOAD_BYTES)}};
    memcpy(&to->payload, m->payload, to->header.size);
    to->fds[0] = s->keep.fds[i];
    to->n_fds = to->fds[0] >= 0;
    if ((m->flags & STATE_RUNNING) && m->payload[0] < s->device->n_queues)
        s->queues[m->payload[0]].is_resumed = true;
}

void session_say_again(struct session *s)
{
    struct session_keep *keep = &s->keep;
    if (keep->is_saying)
        return;
    keep->is_saying = true;
    while (s->state == SESSION_OPEN && !s->is_busy && keep->next_again < keep->n_held) {
        load(s, keep->next_again++);
        session_handle(s);
    }
    keep->is_saying = false;
    if (s->state != SESSION_OPEN || s->is_busy)
        return;
    end_saying(s);
    log_info("%s %s: the session goes on", s->device->type->line.type, s->device->name);
    session_keep_end(s);
}

// Take the list, hold its descriptors, and have them. 0 or -errno with the sentence.
static int take_list(struct session_keep *keep, const struct device *d, struct error *e)
{
    const struct state_session *kept = state_session(d->state);
    struct keeper *k = state_keeper(d->state);
    unsigned n = MIN(guest_load32(&kept->n_messages), STATE_MESSAGES_MAX);
    keep->held = calloc(n + 1, sizeof(*keep->held));
    keep->fds = calloc(n + 1, sizeof(*keep->fds));
    if (!keep->held || !keep->fds)
        return error_set(e, ENOMEM, "%s: out of memory", d->name);
    memcpy(keep->held, kept->messages, n * sizeof(*keep->held));
    if (!hold_all(k, &(struct list){keep->held, n}))
        return error_set(e, ENOENT, "%s: a descriptor was not kept", d->name);
    keep->n_held = n;
    bool has_all = true;
    for (unsigned i = 0; i < n; i++) {
        bool has_fd = keep->held[i].flags & STATE_HAS_FD;
        keep->fds[i] = has_fd ? keeper_find(k, &keep->held[i].fd) : -1;
        has_all &= !has_fd || keep->fds[i] >= 0;
    }
    return has_all ? 0 : error_set(e, ENOENT, "%s: a descriptor was not kept", d->name);
}

int session_resume(struct session **out, struct device *d, const struct session_host *host,
                   void *context, struct error *e)
{
    struct keeper_id id = state_session(d->state)->socket;
    int fd = keeper_find(state_keeper(d->state), &id);
    if (fd < 0)
        return error_set(e, ENOENT, "%s: its socket was not kept", d->name);
    int err = session_open(out, fd, d, host, context, e);
    if (err) {
        close(fd);
        return err;
    }
    struct session *s = *out;
    err = take_list(&s->keep, d, e);
    if (err)
        session_close(s, e->text);
    else
        session_say_again(s);
    return 0;
}
