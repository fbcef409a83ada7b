// SPDX-License-Identifier: Apache-2.0
#include "dataplane/session_internal.h"

#include <errno.h>

// ---- requests ----------------------------------------------------------------------------

#define ANY 0xff // needs no protocol feature

// What a request may look like, and who handles it.
struct request {
    const char *name;
    session_handler *handle;
    uint16_t payload_min, payload_max; // bytes
    uint8_t fds_min, fds_max;
    uint8_t needs; // protocol feature: "Only legal if …"
    bool replies;  // it has a reply of its own ("Communication")
};

#define U64      sizeof(uint64_t), sizeof(uint64_t)
#define STATE    sizeof(struct vhost_user_vring_state), sizeof(struct vhost_user_vring_state)
#define ADDR     sizeof(struct vhost_user_vring_addr), sizeof(struct vhost_user_vring_addr)
#define TABLE    offsetof(struct vhost_user_memory, regions), sizeof(struct vhost_user_memory)
#define REGION   sizeof(struct vhost_user_single_region), sizeof(struct vhost_user_single_region)
#define LOG      sizeof(struct vhost_user_log), sizeof(struct vhost_user_log)
#define CONFIG   offsetof(struct vhost_user_config, bytes), sizeof(struct vhost_user_config)
#define INFLIGHT VHOST_USER_INFLIGHT_BYTES, sizeof(struct vhost_user_inflight)
#define F(name)  VHOST_USER_PROTOCOL_F_##name

// clang-format off
static const struct request requests[] = {
    [VHOST_USER_GET_FEATURES] =
        {"GET_FEATURES", session_get_features, 0, 0, 0, 0, ANY, true},
    [VHOST_USER_SET_FEATURES] =
        {"SET_FEATURES", session_set_features, U64, 0, 0, ANY, false},
    [VHOST_USER_SET_OWNER] =
        {"SET_OWNER", session_set_owner, 0, 0, 0, 0, ANY, false},
    [VHOST_USER_RESET_OWNER] = // deprecated: "either ignore this message, or …"
        {"RESET_OWNER", session_set_owner, 0, 0, 0, 0, ANY, false},
    [VHOST_USER_SET_MEM_TABLE] =
        {"SET_MEM_TABLE", session_set_mem_table, TABLE, 0, VHOST_USER_TABLE_MAX, ANY, false},
    [VHOST_USER_SET_LOG_BASE] =
        {"SET_LOG_BASE", session_set_log_base, LOG, 1, 1, F(LOG_SHMFD), true},
    [VHOST_USER_SET_LOG_FD] = // older texts have a u64
        {"SET_LOG_FD", session_set_log_fd, 0, sizeof(uint64_t), 1, 1, ANY, false},
    [VHOST_USER_SET_VRING_NUM] =
        {"SET_VRING_NUM", session_set_vring_num, STATE, 0, 0, ANY, false},
    [VHOST_USER_SET_VRING_ADDR] =
        {"SET_VRING_ADDR", session_set_vring_addr, ADDR, 0, 0, ANY, false},
    [VHOST_USER_SET_VRING_BASE] =
        {"SET_VRING_BASE", session_set_vring_base, STATE, 0, 0, ANY, false},
    [VHOST_USER_GET_VRING_BASE] =
        {"GET_VRING_BASE", session_get_vring_base, STATE, 0, 0, ANY, true},
    [VHOST_USER_SET_VRING_KICK] =
        {"SET_VRING_KICK", session_set_vring_kick, U64, 0, 1, ANY, false},
    [VHOST_USER_SET_VRING_CALL] =
        {"SET_VRING_CALL", session_set_vring_call, U64, 0, 1, ANY, false},
    [VHOST_USER_SET_VRING_ERR] =
        {"SET_VRING_ERR", session_set_vring_err, U64, 0, 1, ANY, false},
    [VHOST_USER_GET_PROTOCOL_FEATURES] =
        {"GET_PROTOCOL_FEATURES", session_get_protocol_features, 0, 0, 0, 0, ANY, true},
    [VHOST_USER_SET_PROTOCOL_FEATURES] =
        {"SET_PROTOCOL_FEATURES", session_set_protocol_features, U64, 0, 0, ANY, false},
    [VHOST_USER_GET_QUEUE_NUM] = // some ask without MQ
        {"GET_QUEUE_NUM", session_get_queue_num, 0, 0, 0, 0, ANY, true},
    [VHOST_USER_SET_VRING_ENABLE] =
        {"SET_VRING_ENABLE", session_set_vring_enable, STATE, 0, 0, ANY, false},
    [VHOST_USER_SEND_RARP] =
        {"SEND_RARP", session_send_rarp, U64, 0, 0, F(RARP), false},
    [VHOST_USER_NET_SET_MTU] =
        {"NET_SET_MTU", session_net_set_mtu, U64, 0, 0, F(NET_MTU), false},
    [VHOST_USER_SET_BACKEND_REQ_FD] =
        {"SET_BACKEND_REQ_FD", session_set_backend_req_fd, 0, 0, 1, 1, F(BACKEND_REQ), false},
    [VHOST_USER_GET_CONFIG] =
        {"GET_CONFIG", session_get_config, CONFIG, 0, 0, F(CONFIG), true},
    [VHOST_USER_SET_CONFIG] =
        {"SET_CONFIG", session_set_config, CONFIG, 0, 0, F(CONFIG), false},
    [VHOST_USER_GET_INFLIGHT_FD] =
        {"GET_INFLIGHT_FD", session_get_inflight_fd, INFLIGHT, 0, 0, F(INFLIGHT_SHMFD), true},
    [VHOST_USER_SET_INFLIGHT_FD] =
        {"SET_INFLIGHT_FD", session_set_inflight_fd, INFLIGHT, 1, 1, F(INFLIGHT_SHMFD), false},
    [VHOST_USER_RESET_DEVICE] =
        {"RESET_DEVICE", session_reset_device, 0, 0, 0, 0, F(RESET_DEVICE), false},
    [VHOST_USER_GET_MAX_MEM_SLOTS] =
        {"GET_MAX_MEM_SLOTS", session_get_max_mem_slots, 0, 0, 0, 0, F(CONFIGURE_MEM_SLOTS), true},
    [VHOST_USER_ADD_MEM_REG] =
        {"ADD_MEM_REG", session_add_mem_reg, REGION, 1, 1, F(CONFIGURE_MEM_SLOTS), false},
    [VHOST_USER_REM_MEM_REG] = // "the back-end MAY accept messages with one file descriptor"
        {"REM_MEM_REG", session_rem_mem_reg, REGION, 0, 1, F(CONFIGURE_MEM_SLOTS), false},
    [VHOST_USER_SET_STATUS] =
        {"SET_STATUS", session_set_status, U64, 0, 0, F(STATUS), false},
    [VHOST_USER_GET_STATUS] =
        {"GET_STATUS", session_get_status, 0, 0, 0, 0, F(STATUS), true},
};
// clang-format on

static const struct request *request_find(uint32_t number)
{
    static const struct request unknown = {.name = "unknown request"};
    bool is_known = number < ARRAY_LEN(requests) && requests[number].handle;
    return is_known ? &requests[number] : &unknown;
}

static int request_check(const struct session *s, const struct request *r, const struct message *m,
                         struct error *e)
{
    uint32_t size = m->header.size;
    if (!r->handle)
        return error_set(e, EOPNOTSUPP, "request %u is not known here", m->header.request);
    if (size < r->payload_min || size > r->payload_max)
        return error_set(e, EPROTO, "a payload of %u bytes, not %u to %u", size, r->payload_min,
                         r->payload_max);
    if (m->n_fds < r->fds_min || m->n_fds > r->fds_max)
        return error_set(e, EPROTO, "%u descriptors, not %u to %u", m->n_fds, r->fds_min,
                         r->fds_max);
    if (r->needs != ANY && !session_is_resuming(s) && !session_has_protocol(s, r->needs))
        return error_set(e, EPROTO, "protocol feature %u was not negotiated", r->needs);
    return 0;
}

bool session_has_protocol(const struct session *s, unsigned bit)
{
    return s->protocol_features & VIRTIO_BIT(bit);
}

// ---- answers -----------------------------------------------------------------------------

// A reply has version 1 and the reply flag, nothing else: QEMU compares with 0x5.
static int send_reply(struct session *s, struct error *e)
{
    struct message *m = &s->reader.message;
    m->header.flags = VHOST_USER_VERSION | VHOST_USER_REPLY;
    return message_send(s->fd, &m->header, &m->payload, s->reply_fd, e);
}

// "REPLY_ACK": a u64, zero for success.
static int send_ack(struct session *s, bool is_ok, struct error *e)
{
    struct message *m = &s->reader.message;
    m->header.size = sizeof(m->payload.u64);
    m->payload.u64 = !is_ok;
    return send_reply(s, e);
}

static void forget_message(struct session *s)
{
    session_replace_fd(&s->reply_fd, -1);
    message_reader_reset(&s->reader);
    s->is_busy = false;
}

// A request that cannot be carried out is refused if the front end listens for that. If it
// does not, or broke the protocol, going on would only hide it: a front end that waits for a
// reply of another kind would wait for ever.
static bool is_fatal(const struct session *s)
{
    return s->result == -EPROTO || (s->result < 0 && !s->wants_ack);
}

static int send_answer(struct session *s, const struct request *r, struct error *e)
{
    if (s->state != SESSION_OPEN || session_is_resuming(s))
        return 0; // nobody reads it
    if (s->wants_ack)
        return send_ack(s, s->result == 0, e);
    return r->replies && s->result == 0 ? send_reply(s, e) : 0;
}

void session_complete(struct session *s)
{
    struct error send_error;
    const struct request *r = request_find(s->reader.message.header.request);
    int sent = send_answer(s, r, &send_error);
    session_keep_end(s);
    forget_message(s);
    if (s->state != SESSION_OPEN) {
        session_shut(s);
        return;
    }
    if (s->result)
        session_warn(s, "%s: %s", r->name, s->error.text);
    if (is_fatal(s))
        session_close(s, "the front end's last request cannot be followed");
    else if (sent)
        session_close(s, send_error.text);
    else if (session_is_resuming(s))
        session_say_again(s);
}

void session_handle(struct session *s)
{
    struct message *m = &s->reader.message;
    const struct request *r = request_find(m->header.request);
    s->is_busy = true;
    session_keep_message(s);
    s->wants_ack = !r->replies && (m->header.flags & VHOST_USER_NEED_REPLY) &&
                   session_has_protocol(s, VHOST_USER_PROTOCOL_F_REPLY_ACK);
    int result = request_check(s, r, m, &s->error);
    if (result == 0)
        result = r->handle(s, m, &s->error);
    if (result == REQUEST_PENDING)
        return; // maybe complete by now
    s->result = result;
    session_complete(s);
}
