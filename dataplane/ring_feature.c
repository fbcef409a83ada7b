// SPDX-License-Identifier: Apache-2.0
#include "dataplane/ring_feature.h"

#include "dataplane/base.h"
#include "dataplane/virtio.h"

static const char *const names[] = {
    [VIRTIO_F_INDIRECT_DESC] = "INDIRECT_DESC",
    [VIRTIO_F_EVENT_IDX] = "EVENT_IDX",
    [VIRTIO_F_VERSION_1] = "VERSION_1",
    [VIRTIO_F_ACCESS_PLATFORM] = "ACCESS_PLATFORM",
    [VIRTIO_F_RING_PACKED] = "RING_PACKED",
    [VIRTIO_F_IN_ORDER] = "IN_ORDER",
    [VIRTIO_F_ORDER_PLATFORM] = "ORDER_PLATFORM",
    [VIRTIO_F_NOTIFICATION_DATA] = "NOTIFICATION_DATA",
    [VIRTIO_F_RING_RESET] = "RING_RESET",
};

const char *ring_feature_name(unsigned bit)
{
    return bit < ARRAY_LEN(names) ? names[bit] : NULL;
}
