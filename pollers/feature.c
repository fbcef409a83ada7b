// SPDX-License-Identifier: Apache-2.0
#include "pollers/feature.h"

#include "dataplane/base.h"
#include "dataplane/ring_feature.h"
#include "dataplane/vhost_user.h"
#include "dataplane/virtio.h"

static const char *const block[] = {
    // VIRTIO 1.3, 5.2.3
    [VIRTIO_BLK_F_SIZE_MAX] = "SIZE_MAX",
    [VIRTIO_BLK_F_SEG_MAX] = "SEG_MAX",
    [VIRTIO_BLK_F_GEOMETRY] = "GEOMETRY",
    [VIRTIO_BLK_F_RO] = "RO",
    [VIRTIO_BLK_F_BLK_SIZE] = "BLK_SIZE",
    [VIRTIO_BLK_F_FLUSH] = "FLUSH",
    [VIRTIO_BLK_F_TOPOLOGY] = "TOPOLOGY",
    [VIRTIO_BLK_F_CONFIG_WCE] = "CONFIG_WCE",
    [VIRTIO_BLK_F_MQ] = "MQ",
    [VIRTIO_BLK_F_DISCARD] = "DISCARD",
    [VIRTIO_BLK_F_WRITE_ZEROES] = "WRITE_ZEROES",
};

static const char *const protocol[] = {
    // vhost-user, "Protocol features"
    [VHOST_USER_PROTOCOL_F_MQ] = "MQ",
    [VHOST_USER_PROTOCOL_F_LOG_SHMFD] = "LOG_SHMFD",
    [VHOST_USER_PROTOCOL_F_REPLY_ACK] = "REPLY_ACK",
    [VHOST_USER_PROTOCOL_F_BACKEND_REQ] = "BACKEND_REQ",
    [VHOST_USER_PROTOCOL_F_CONFIG] = "CONFIG",
    [VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD] = "INFLIGHT_SHMFD",
    [VHOST_USER_PROTOCOL_F_RESET_DEVICE] = "RESET_DEVICE",
    [VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS] = "CONFIGURE_MEM_SLOTS",
    [VHOST_USER_PROTOCOL_F_STATUS] = "STATUS",
};

const char *feature_name(uint16_t virtio_id, unsigned bit)
{
    if (bit == VHOST_F_LOG_ALL)
        return "LOG_ALL";
    if (bit == VHOST_USER_F_PROTOCOL_FEATURES)
        return "PROTOCOL_FEATURES";
    if (virtio_id == VIRTIO_ID_BLOCK && bit < ARRAY_LEN(block) && block[bit])
        return block[bit];
    return ring_feature_name(bit);
}

const char *feature_protocol_name(unsigned bit)
{
    return bit < ARRAY_LEN(protocol) ? protocol[bit] : NULL;
}
