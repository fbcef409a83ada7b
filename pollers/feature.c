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

static const char *const net[] = {
    // VIRTIO 1.3, 5.1.3
    [VIRTIO_NET_F_CSUM] = "CSUM",
    [VIRTIO_NET_F_GUEST_CSUM] = "GUEST_CSUM",
    [VIRTIO_NET_F_CTRL_GUEST_OFFLOADS] = "CTRL_GUEST_OFFLOADS",
    [VIRTIO_NET_F_MTU] = "MTU",
    [VIRTIO_NET_F_MAC] = "MAC",
    [VIRTIO_NET_F_GUEST_TSO4] = "GUEST_TSO4",
    [VIRTIO_NET_F_GUEST_TSO6] = "GUEST_TSO6",
    [VIRTIO_NET_F_GUEST_ECN] = "GUEST_ECN",
    [VIRTIO_NET_F_GUEST_UFO] = "GUEST_UFO",
    [VIRTIO_NET_F_HOST_TSO4] = "HOST_TSO4",
    [VIRTIO_NET_F_HOST_TSO6] = "HOST_TSO6",
    [VIRTIO_NET_F_HOST_ECN] = "HOST_ECN",
    [VIRTIO_NET_F_HOST_UFO] = "HOST_UFO",
    [VIRTIO_NET_F_MRG_RXBUF] = "MRG_RXBUF",
    [VIRTIO_NET_F_STATUS] = "STATUS",
    [VIRTIO_NET_F_CTRL_VQ] = "CTRL_VQ",
    [VIRTIO_NET_F_CTRL_RX] = "CTRL_RX",
    [VIRTIO_NET_F_CTRL_VLAN] = "CTRL_VLAN",
    [VIRTIO_NET_F_CTRL_RX_EXTRA] = "CTRL_RX_EXTRA",
    [VIRTIO_NET_F_GUEST_ANNOUNCE] = "GUEST_ANNOUNCE",
    [VIRTIO_NET_F_MQ] = "MQ",
    [VIRTIO_NET_F_CTRL_MAC_ADDR] = "CTRL_MAC_ADDR",
    [VIRTIO_NET_F_GUEST_USO4] = "GUEST_USO4",
    [VIRTIO_NET_F_GUEST_USO6] = "GUEST_USO6",
    [VIRTIO_NET_F_HOST_USO] = "HOST_USO",
    [VIRTIO_NET_F_HASH_REPORT] = "HASH_REPORT",
    [VIRTIO_NET_F_RSS] = "RSS",
    [VIRTIO_NET_F_SPEED_DUPLEX] = "SPEED_DUPLEX",
};

static const char *const protocol[] = {
    // vhost-user, "Protocol features"
    [VHOST_USER_PROTOCOL_F_MQ] = "MQ",
    [VHOST_USER_PROTOCOL_F_LOG_SHMFD] = "LOG_SHMFD",
    [VHOST_USER_PROTOCOL_F_RARP] = "RARP",
    [VHOST_USER_PROTOCOL_F_REPLY_ACK] = "REPLY_ACK",
    [VHOST_USER_PROTOCOL_F_NET_MTU] = "NET_MTU",
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
    if (virtio_id == VIRTIO_ID_NET && bit < ARRAY_LEN(net) && net[bit])
        return net[bit];
    return ring_feature_name(bit);
}

const char *feature_protocol_name(unsigned bit)
{
    return bit < ARRAY_LEN(protocol) ? protocol[bit] : NULL;
}
