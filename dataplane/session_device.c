// SPDX-License-Identifier: Apache-2.0
#include "dataplane/session_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

// ---- features ----------------------------------------------------------------------------

// What every session offers; device types add theirs.
#define PROTOCOL_FEATURES                                                                          \
    (VIRTIO_BIT(VHOST_USER_PROTOCOL_F_MQ) | VIRTIO_BIT(VHOST_USER_PROTOCOL_F_LOG_SHMFD) |          \
     VIRTIO_BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK) | VIRTIO_BIT(VHOST_USER_PROTOCOL_F_BACKEND_REQ) | \
     VIRTIO_BIT(VHOST_USER_PROTOCOL_F_RESET_DEVICE) |                                              \
     VIRTIO_BIT(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS) |                                       \
     VIRTIO_BIT(VHOST_USER_PROTOCOL_F_STATUS))

static uint64_t offered_features(const struct session *s)
{
    return s->device->features | RING_FEATURES | VIRTIO_BIT(VHOST_F_LOG_ALL) |
           VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES);
}

static uint64_t offered_protocol_features(const struct session *s)
{
    return s->device->type->protocol_features | PROTOCOL_FEATURES;
}

static int reply_u64(struct message *m, uint64_t value)
{
    m->payload.u64 = value;
    m->header.size = sizeof(value);
    return 0;
}

// VIRTIO 2.2: a driver accepts only what was offered.
static int check_features(uint64_t accepted, uint64_t offered, struct error *e)
{
    uint64_t extra = accepted & ~offered;
    if (!extra)
        return 0;
    return error_set(e, EPROTO,
                     "0x%" PRIx64 " acknowledges 0x%" PRIx64 ", which was not offered (0x%" PRIx64
                     ")",
                     accepted, extra, offered);
}

int session_get_features(struct session *s, struct message *m, struct error *e)
{
    (void)e;
    return reply_u64(m, offered_features(s));
}

static int apply_features(struct session *s, struct error *e)
{
    (void)e;
    s->features = s->reader.message.payload.u64;
    s->has_features = true;
    return 0;
}

// Logging goes on and off under running rings. What else changes is fixed while a ring runs.
// Enabled rings stay enabled: net says so before it sends its features.
int session_set_features(struct session *s, struct message *m, struct error *e)
{
    uint64_t features = m->payload.u64;
    int err = check_features(features, offered_features(s), e);
    if (err)
        return err;
    uint64_t changed = features ^ s->features;
    if (s->has_features && !changed)
        return 0;
    if (changed & ~VIRTIO_BIT(VHOST_F_LOG_ALL))
        session_stop_all(s);
    return session_change(s, &(struct session_change){.apply = apply_features,
                                                      .live = session_tell_log,
                                                      .argument = session_log_of(s, features)});
}

int session_get_protocol_features(struct session *s, struct message *m, struct error *e)
{
    (void)e;
    return reply_u64(m, offered_protocol_features(s));
}

int session_set_protocol_features(struct session *s, struct message *m, struct error *e)
{
    int err = check_features(m->payload.u64, offered_protocol_features(s), e);
    if (!err)
        s->protocol_features = m->payload.u64;
    return err;
}

// ---- owner, status, reset ----------------------------------------------------------------

// Connecting made the peer the owner; net says it once for each pair of queues.
int session_set_owner(struct session *s, struct message *m, struct error *e)
{
    (void)s;
    (void)m;
    (void)e;
    return 0;
}

int session_get_queue_num(struct session *s, struct message *m, struct error *e)
{
    (void)e;
    return reply_u64(m, s->device->n_queues / MAX(1, s->device->type->rings_per_queue));
}

static void tell_mtu(struct queue *q, void *value) // [W]
{
    q->device->type->queue_notify(q, DEVICE_MTU, *(const uint64_t *)value);
}

static void tell_rarp(struct queue *q, void *value) // [W]
{
    q->device->type->queue_notify(q, DEVICE_RARP, *(const uint64_t *)value);
}

// The device hears of it here, then each of its queues that runs, on its worker.
static int notify(struct session *s, enum device_event event, uint64_t *value, struct error *e)
{
    static void (*const tell[])(struct queue * q, void *value) = {
        [DEVICE_MTU] = tell_mtu,
        [DEVICE_RARP] = tell_rarp,
    };
    const struct device_type *type = s->device->type;
    int err = type->notify ? type->notify(s->device, event, *value, e) : 0;
    if (err || !type->queue_notify)
        return err;
    return session_change(s, &(struct session_change){.live = tell[event], .argument = value});
}

// The migration is over: "a fake RARP" tells the network where the guest is now.
int session_send_rarp(struct session *s, struct message *m, struct error *e)
{
    uint64_t mac = m->payload.u64;
    if (mac >> 48)
        return error_set(e, EPROTO, "0x%" PRIx64 " is longer than a MAC address", mac);
    return notify(s, DEVICE_RARP, &m->payload.u64, e);
}

int session_net_set_mtu(struct session *s, struct message *m, struct error *e)
{
    uint64_t mtu = m->payload.u64;
    if (mtu < 68 || mtu > UINT16_MAX) // VIRTIO 5.1.4.1
        return error_set(e, EINVAL, "an MTU of %" PRIu64 ", not 68 to 65535", mtu);
    return notify(s, DEVICE_MTU, &m->payload.u64, e);
}

// QEMU sends 0 before GET_VRING_BASE at every stop, so it must not reset the rings.
int session_set_status(struct session *s, struct message *m, struct error *e)
{
    uint64_t status = m->payload.u64;
    if (status > UINT8_MAX) // VIRTIO 2.1: a byte
        return error_set(e, EPROTO, "0x%" PRIx64 " is no device status", status);
    s->status = (uint8_t)status;
    return 0;
}

int session_get_status(struct session *s, struct message *m, struct error *e)
{
    (void)e;
    return reply_u64(m, s->status);
}

static int apply_reset(struct session *s, struct error *e)
{
    (void)e;
    for (unsigned i = 0; i < s->device->n_queues; i++) {
        session_queue_reset(&s->queues[i]);
        session_inflight_forget(s, i);
    }
    session_inflight_drop(s);
    s->features = 0;
    s->has_features = false;
    s->status = 0;
    return 0;
}

// "disable all rings and reset all internal device state". Memory, log and the descriptors for
// calls are the connection's: they stay.
int session_reset_device(struct session *s, struct message *m, struct error *e)
{
    (void)m;
    (void)e;
    session_stop_all(s);
    return session_change(s, &(struct session_change){.apply = apply_reset});
}

// ---- config space ------------------------------------------------------------------------

static bool is_in_config(const struct message *m, uint32_t limit)
{
    const struct vhost_user_config *c = &m->payload.config;
    return c->size && m->header.size == offsetof(struct vhost_user_config, bytes) + c->size &&
           c->offset <= limit && c->size <= limit - c->offset;
}

// "payload size MUST match the front-end's request"; what the device does not have reads as
// zeros. "zero length of payload to indicate an error".
int session_get_config(struct session *s, struct message *m, struct error *e)
{
    (void)e;
    struct vhost_user_config *c = &m->payload.config;
    if (s->device->type->config_read)
        s->device->type->config_read(s->device);
    if (!is_in_config(m, sizeof(s->device->config))) {
        m->header.size = 0;
        return 0;
    }
    memcpy(c->bytes, s->device->config + c->offset, c->size);
    return 0;
}

int session_set_config(struct session *s, struct message *m, struct error *e)
{
    const struct vhost_user_config *c = &m->payload.config;
    if (c->flags > VHOST_USER_CONFIG_MIGRATION)
        return error_set(e, EPROTO, "unknown flags 0x%" PRIx32, c->flags);
    if (!is_in_config(m, s->device->config_bytes))
        return error_set(e, EINVAL,
                         "%" PRIu32 " bytes at %" PRIu32 " are not in %u bytes of config", c->size,
                         c->offset, s->device->config_bytes);
    if (!s->device->type->config_write)
        return error_set(e, EOPNOTSUPP, "no field of this device can be written");
    int err = s->device->type->config_write(s->device, c->offset, c->bytes, c->size);
    if (err)
        return error_set(e, -err, "%" PRIu32 " bytes at %" PRIu32 ": %s", c->size, c->offset,
                         strerror(-err));
    session_config_changed(s); // "has changed", by whomever: what the front end has read is old
    return 0;
}

// ---- our requests ------------------------------------------------------------------------

int session_set_backend_req_fd(struct session *s, struct message *m, struct error *e)
{
    struct stat st;
    if (fstat(m->fds[0], &st) < 0 || !S_ISSOCK(st.st_mode))
        return error_set(e, EINVAL, "the descriptor is not a socket");
    session_replace_fd(&s->backend_fd, message_take_fd(m, 0));
    return 0;
}

// No answer is asked for: a front end that waits for us meanwhile would never give it.
void session_config_changed(struct session *s)
{
    static const struct vhost_user_header header = {.request = VHOST_USER_BACKEND_CONFIG_CHANGE_MSG,
                                                    .flags = VHOST_USER_VERSION};
    struct error e;
    if (s->backend_fd < 0 || !session_has_protocol(s, VHOST_USER_PROTOCOL_F_CONFIG))
        return;
    if (message_send(s->backend_fd, &header, NULL, -1, &e))
        session_warn(s, "the front end was not told of the change: %s", e.text);
}
