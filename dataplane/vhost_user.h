// SPDX-License-Identifier: Apache-2.0
// vhost_user.h - what the vhost-user protocol fixes: requests, flags and payloads on the socket.
//
// The authority is QEMU's docs/interop/vhost-user.rst; its section stands beside each. All
// numbers are in native byte order ("Message Specification").
#pragma once

#include "dataplane/base.h"

// ---- "Front-end message types" -----------------------------------------------------------

enum vhost_user_request {
    VHOST_USER_GET_FEATURES = 1,
    VHOST_USER_SET_FEATURES = 2,
    VHOST_USER_SET_OWNER = 3,
    VHOST_USER_RESET_OWNER = 4,
    VHOST_USER_SET_MEM_TABLE = 5,
    VHOST_USER_SET_LOG_BASE = 6,
    VHOST_USER_SET_LOG_FD = 7,
    VHOST_USER_SET_VRING_NUM = 8,
    VHOST_USER_SET_VRING_ADDR = 9,
    VHOST_USER_SET_VRING_BASE = 10,
    VHOST_USER_GET_VRING_BASE = 11,
    VHOST_USER_SET_VRING_KICK = 12,
    VHOST_USER_SET_VRING_CALL = 13,
    VHOST_USER_SET_VRING_ERR = 14,
    VHOST_USER_GET_PROTOCOL_FEATURES = 15,
    VHOST_USER_SET_PROTOCOL_FEATURES = 16,
    VHOST_USER_GET_QUEUE_NUM = 17,
    VHOST_USER_SET_VRING_ENABLE = 18,
    VHOST_USER_SEND_RARP = 19,
    VHOST_USER_NET_SET_MTU = 20,
    VHOST_USER_SET_BACKEND_REQ_FD = 21,
    VHOST_USER_GET_CONFIG = 24,
    VHOST_USER_SET_CONFIG = 25,
    VHOST_USER_GET_INFLIGHT_FD = 31,
    VHOST_USER_SET_INFLIGHT_FD = 32,
    VHOST_USER_RESET_DEVICE = 34,
    VHOST_USER_GET_MAX_MEM_SLOTS = 36,
    VHOST_USER_ADD_MEM_REG = 37,
    VHOST_USER_REM_MEM_REG = 38,
    VHOST_USER_SET_STATUS = 39,
    VHOST_USER_GET_STATUS = 40,
};

// "Back-end message types"
#define VHOST_USER_BACKEND_CONFIG_CHANGE_MSG 2

// ---- feature bits ------------------------------------------------------------------------

#define VHOST_F_LOG_ALL                26 // "Migration"
#define VHOST_USER_F_PROTOCOL_FEATURES 30 // "Communication"

// "Protocol features"
#define VHOST_USER_PROTOCOL_F_MQ                  0
#define VHOST_USER_PROTOCOL_F_LOG_SHMFD           1
#define VHOST_USER_PROTOCOL_F_RARP                2
#define VHOST_USER_PROTOCOL_F_REPLY_ACK           3
#define VHOST_USER_PROTOCOL_F_NET_MTU             4
#define VHOST_USER_PROTOCOL_F_BACKEND_REQ         5
#define VHOST_USER_PROTOCOL_F_CONFIG              9
#define VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD      12
#define VHOST_USER_PROTOCOL_F_RESET_DEVICE        13
#define VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS 15
#define VHOST_USER_PROTOCOL_F_STATUS              16

// ---- "Header" ----------------------------------------------------------------------------

#define VHOST_USER_VERSION      0x1u
#define VHOST_USER_VERSION_MASK 0x3u
#define VHOST_USER_REPLY        0x4u
#define VHOST_USER_NEED_REPLY   0x8u

struct vhost_user_header {
    uint32_t request;
    uint32_t flags;
    uint32_t size; // bytes of payload
};
static_assert(sizeof(struct vhost_user_header) == 12, "Header");

// ---- "Payload" ---------------------------------------------------------------------------

// The u64 of SET_VRING_KICK, _CALL and _ERR ("Front-end message types").
#define VHOST_USER_VRING_INDEX_MASK 0xffu
#define VHOST_USER_VRING_NOFD       0x100u

struct vhost_user_vring_state { // "A vring state description"
    uint32_t index;
    uint32_t num;
};
static_assert(sizeof(struct vhost_user_vring_state) == 8, "A vring state description");

struct vhost_user_vring_addr { // "A vring address description"
    uint32_t index;
    uint32_t flags; // bit 0: log writes to the used ring
    uint64_t descriptor;
    uint64_t used;
    uint64_t available;
    uint64_t log;
};
static_assert(sizeof(struct vhost_user_vring_addr) == 40, "A vring address description");

struct vhost_user_region { // "Memory regions description"
    uint64_t guest_addr;
    uint64_t size;
    uint64_t user_addr;
    uint64_t mmap_offset;
};
static_assert(sizeof(struct vhost_user_region) == 32, "Memory regions description");

#define VHOST_USER_TABLE_MAX 8 // regions in one table: "region0 … region7"

struct vhost_user_memory { // "Memory regions description"
    uint32_t n_regions;
    uint32_t padding;
    struct vhost_user_region regions[VHOST_USER_TABLE_MAX];
};
static_assert(sizeof(struct vhost_user_memory) == 8 + 8 * 32, "Memory regions description");

struct vhost_user_single_region { // "Single memory region description"
    uint64_t padding;
    struct vhost_user_region region;
};
static_assert(sizeof(struct vhost_user_single_region) == 40, "Single memory region description");

struct vhost_user_log { // "Log description"
    uint64_t size;
    uint64_t offset;
};
static_assert(sizeof(struct vhost_user_log) == 16, "Log description");

#define VHOST_USER_CONFIG_MAX 256 // bytes of config space in one message

// "Virtio device config space", flags
#define VHOST_USER_CONFIG_WRITABLE  0u
#define VHOST_USER_CONFIG_MIGRATION 1u

struct vhost_user_config { // "Virtio device config space"
    uint32_t offset;
    uint32_t size;
    uint32_t flags;
    uint8_t bytes[VHOST_USER_CONFIG_MAX];
};
static_assert(offsetof(struct vhost_user_config, bytes) == 12, "Virtio device config space");

// "Inflight description". 20 bytes, but QEMU sends its C structure with 4 bytes of padding.
#define VHOST_USER_INFLIGHT_BYTES 20

struct vhost_user_inflight {
    uint64_t mmap_size;
    uint64_t mmap_offset;
    uint16_t num_queues;
    uint16_t queue_size;
};
static_assert(offsetof(struct vhost_user_inflight, queue_size) == 18, "Inflight description");
static_assert(sizeof(struct vhost_user_inflight) == 24, "Inflight description, padded");

union vhost_user_payload {
    uint64_t u64;
    struct vhost_user_vring_state state;
    struct vhost_user_vring_addr addr;
    struct vhost_user_memory memory;
    struct vhost_user_single_region region;
    struct vhost_user_log log;
    struct vhost_user_config config;
    struct vhost_user_inflight inflight;
};
