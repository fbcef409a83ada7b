// SPDX-License-Identifier: Apache-2.0
// virtio.h - what VIRTIO 1.3 fixes: wire layouts, feature bits, device ids.
//
// Names are the specification's; the section stands beside each. All fields are
// little-endian, and so is the host (base.h asserts it).
#pragma once

#include <assert.h>
#include <stdint.h>

// ---- 6: reserved feature bits ------------------------------------------------------------

#define VIRTIO_F_INDIRECT_DESC     28 // VIRTIO_RING_F_INDIRECT_DESC
#define VIRTIO_F_EVENT_IDX         29 // VIRTIO_RING_F_EVENT_IDX
#define VIRTIO_F_VERSION_1         32
#define VIRTIO_F_ACCESS_PLATFORM   33
#define VIRTIO_F_RING_PACKED       34
#define VIRTIO_F_IN_ORDER          35
#define VIRTIO_F_ORDER_PLATFORM    36
#define VIRTIO_F_NOTIFICATION_DATA 38
#define VIRTIO_F_RING_RESET        40

#define VIRTIO_BIT(n) (UINT64_C(1) << (n))

// ---- 2.7: split virtqueues ---------------------------------------------------------------

#define SPLIT_SIZE_MAX 32768 // 2.7: a power of two

#define SPLIT_DESC_NEXT     1u // 2.7.5
#define SPLIT_DESC_WRITE    2u
#define SPLIT_DESC_INDIRECT 4u

struct split_desc { // 2.7.5
    uint64_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t next;
};
static_assert(sizeof(struct split_desc) == 16, "2.7.5");

#define SPLIT_AVAIL_NO_INTERRUPT 1u // 2.7.6

struct split_avail { // 2.7.6; used_event follows ring[size]
    uint16_t flags;
    uint16_t idx;
    uint16_t ring[];
};
static_assert(sizeof(struct split_avail) == 4, "2.7.6");

#define SPLIT_USED_NO_NOTIFY 1u // 2.7.8

struct split_used_elem { // 2.7.8
    uint32_t id;
    uint32_t len;
};

struct split_used { // 2.7.8; avail_event follows ring[size]
    uint16_t flags;
    uint16_t idx;
    struct split_used_elem ring[];
};
static_assert(sizeof(struct split_used_elem) == 8 && sizeof(struct split_used) == 4, "2.7.8");

// ---- 2.8: packed virtqueues --------------------------------------------------------------

#define PACKED_SIZE_MAX 32768 // 2.8.10.1: any size up to this

#define PACKED_DESC_NEXT     0x0001u // 2.8.13
#define PACKED_DESC_WRITE    0x0002u
#define PACKED_DESC_INDIRECT 0x0004u
#define PACKED_DESC_AVAIL    0x0080u
#define PACKED_DESC_USED     0x8000u

struct packed_desc { // 2.8.13
    uint64_t addr;
    uint32_t len;
    uint16_t id;
    uint16_t flags;
};
static_assert(sizeof(struct packed_desc) == 16, "2.8.13");

#define PACKED_EVENT_ENABLE  0u // 2.8.10
#define PACKED_EVENT_DISABLE 1u
#define PACKED_EVENT_DESC    2u

struct packed_event {  // 2.8.14
    uint16_t off_wrap; // bits 0-14: descriptor offset, bit 15: wrap counter
    uint16_t flags;
};
static_assert(sizeof(struct packed_event) == 4, "2.8.14");

// ---- 5: device ids -----------------------------------------------------------------------

#define VIRTIO_ID_NET   1
#define VIRTIO_ID_BLOCK 2
#define VIRTIO_ID_RNG   4

// ---- 5.1: network device -----------------------------------------------------------------

#define VIRTIO_NET_F_CSUM                0 // 5.1.3
#define VIRTIO_NET_F_GUEST_CSUM          1
#define VIRTIO_NET_F_CTRL_GUEST_OFFLOADS 2
#define VIRTIO_NET_F_MTU                 3
#define VIRTIO_NET_F_MAC                 5
#define VIRTIO_NET_F_GUEST_TSO4          7
#define VIRTIO_NET_F_GUEST_TSO6          8
#define VIRTIO_NET_F_GUEST_ECN           9
#define VIRTIO_NET_F_GUEST_UFO           10
#define VIRTIO_NET_F_HOST_TSO4           11
#define VIRTIO_NET_F_HOST_TSO6           12
#define VIRTIO_NET_F_HOST_ECN            13
#define VIRTIO_NET_F_HOST_UFO            14
#define VIRTIO_NET_F_MRG_RXBUF           15
#define VIRTIO_NET_F_STATUS              16
#define VIRTIO_NET_F_CTRL_VQ             17
#define VIRTIO_NET_F_CTRL_RX             18
#define VIRTIO_NET_F_CTRL_VLAN           19
#define VIRTIO_NET_F_CTRL_RX_EXTRA       20
#define VIRTIO_NET_F_GUEST_ANNOUNCE      21
#define VIRTIO_NET_F_MQ                  22
#define VIRTIO_NET_F_CTRL_MAC_ADDR       23
#define VIRTIO_NET_F_GUEST_USO4          54
#define VIRTIO_NET_F_GUEST_USO6          55
#define VIRTIO_NET_F_HOST_USO            56
#define VIRTIO_NET_F_HASH_REPORT         57
#define VIRTIO_NET_F_RSS                 60
#define VIRTIO_NET_F_SPEED_DUPLEX        63

#define VIRTIO_NET_S_LINK_UP  1u // 5.1.4
#define VIRTIO_NET_S_ANNOUNCE 2u

struct virtio_net_config { // 5.1.4
    uint8_t mac[6];
    uint16_t status;
    uint16_t max_virtqueue_pairs;
    uint16_t mtu;
    uint32_t speed;
    uint8_t duplex;
    uint8_t rss_max_key_size;
    uint16_t rss_max_indirection_table_length;
    uint32_t supported_hash_types;
} __attribute__((packed));
static_assert(sizeof(struct virtio_net_config) == 24, "5.1.4");

#define VIRTIO_NET_HDR_F_NEEDS_CSUM 1u // 5.1.6
#define VIRTIO_NET_HDR_F_DATA_VALID 2u
#define VIRTIO_NET_HDR_F_RSC_INFO   4u

#define VIRTIO_NET_HDR_GSO_NONE   0u
#define VIRTIO_NET_HDR_GSO_TCPV4  1u
#define VIRTIO_NET_HDR_GSO_UDP    3u
#define VIRTIO_NET_HDR_GSO_TCPV6  4u
#define VIRTIO_NET_HDR_GSO_UDP_L4 5u
#define VIRTIO_NET_HDR_GSO_ECN    0x80u

struct virtio_net_hdr { // 5.1.6; the last fields only with VERSION_1 or MRG_RXBUF, HASH_REPORT
    uint8_t flags;
    uint8_t gso_type;
    uint16_t hdr_len;
    uint16_t gso_size;
    uint16_t csum_start;
    uint16_t csum_offset;
    uint16_t num_buffers;
    uint32_t hash_value;
    uint16_t hash_report;
    uint16_t padding_reserved;
};
static_assert(sizeof(struct virtio_net_hdr) == 20, "5.1.6");

#define VIRTIO_NET_HDR_BYTES_LEGACY 10u // 5.1.6.1: no num_buffers
#define VIRTIO_NET_HDR_BYTES        12u
#define VIRTIO_NET_HDR_BYTES_HASH   20u

// ---- 5.1.6.5: the control virtqueue of a network device ----------------------------------

struct virtio_net_ctrl { // 5.1.6.5; then the command's data, then what the device writes: ack
    uint8_t class;
    uint8_t command;
};
static_assert(sizeof(struct virtio_net_ctrl) == 2, "5.1.6.5");

#define VIRTIO_NET_OK  0u
#define VIRTIO_NET_ERR 1u

#define VIRTIO_NET_CTRL_RX          0u // 5.1.6.5.1
#define VIRTIO_NET_CTRL_RX_PROMISC  0u
#define VIRTIO_NET_CTRL_RX_ALLMULTI 1u
#define VIRTIO_NET_CTRL_RX_ALLUNI   2u
#define VIRTIO_NET_CTRL_RX_NOMULTI  3u
#define VIRTIO_NET_CTRL_RX_NOUNI    4u
#define VIRTIO_NET_CTRL_RX_NOBCAST  5u

#define VIRTIO_NET_CTRL_MAC           1u // 5.1.6.5.2
#define VIRTIO_NET_CTRL_MAC_TABLE_SET 0u // two tables: a number (32 bits), then so many addresses
#define VIRTIO_NET_CTRL_MAC_ADDR_SET  1u

#define VIRTIO_NET_CTRL_VLAN     2u // 5.1.6.5.3
#define VIRTIO_NET_CTRL_VLAN_ADD 0u
#define VIRTIO_NET_CTRL_VLAN_DEL 1u

#define VIRTIO_NET_CTRL_ANNOUNCE     3u // 5.1.6.5.4
#define VIRTIO_NET_CTRL_ANNOUNCE_ACK 0u

#define VIRTIO_NET_CTRL_MQ              4u // 5.1.6.5.5
#define VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET 0u // 5.1.6.5.6
#define VIRTIO_NET_CTRL_MQ_RSS_CONFIG   1u // 5.1.6.5.7
#define VIRTIO_NET_CTRL_MQ_HASH_CONFIG  2u // 5.1.6.5.6.4

#define VIRTIO_NET_CTRL_GUEST_OFFLOADS     5u // 5.1.6.5.8
#define VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET 0u

#define VIRTIO_NET_HASH_TYPE_IPV4 (1u << 0) // 5.1.6.4.3.1
#define VIRTIO_NET_HASH_TYPE_TCP4 (1u << 1)
#define VIRTIO_NET_HASH_TYPE_UDP4 (1u << 2)
#define VIRTIO_NET_HASH_TYPE_IPV6 (1u << 3)
#define VIRTIO_NET_HASH_TYPE_TCP6 (1u << 4)
#define VIRTIO_NET_HASH_TYPE_UDP6 (1u << 5)

#define VIRTIO_NET_HASH_REPORT_NONE 0u // 5.1.6.4.4
#define VIRTIO_NET_HASH_REPORT_IPV4 1u
#define VIRTIO_NET_HASH_REPORT_TCP4 2u
#define VIRTIO_NET_HASH_REPORT_UDP4 3u
#define VIRTIO_NET_HASH_REPORT_IPV6 4u
#define VIRTIO_NET_HASH_REPORT_TCP6 5u
#define VIRTIO_NET_HASH_REPORT_UDP6 6u

#define VIRTIO_NET_RSS_KEY_BYTES_MIN 40u  // 5.1.4.1: rss_max_key_size is at least that
#define VIRTIO_NET_RSS_TABLE_MIN     128u // rss_max_indirection_table_length likewise

// ---- 5.2: block device -------------------------------------------------------------------

#define VIRTIO_BLK_F_SIZE_MAX     1
#define VIRTIO_BLK_F_SEG_MAX      2
#define VIRTIO_BLK_F_GEOMETRY     4
#define VIRTIO_BLK_F_RO           5
#define VIRTIO_BLK_F_BLK_SIZE     6
#define VIRTIO_BLK_F_FLUSH        9
#define VIRTIO_BLK_F_TOPOLOGY     10
#define VIRTIO_BLK_F_CONFIG_WCE   11
#define VIRTIO_BLK_F_MQ           12
#define VIRTIO_BLK_F_DISCARD      13
#define VIRTIO_BLK_F_WRITE_ZEROES 14
#define VIRTIO_BLK_F_LIFETIME     15
#define VIRTIO_BLK_F_SECURE_ERASE 16
#define VIRTIO_BLK_F_ZONED        17

#define VIRTIO_BLK_T_IN             0u // 5.2.6
#define VIRTIO_BLK_T_OUT            1u
#define VIRTIO_BLK_T_FLUSH          4u
#define VIRTIO_BLK_T_GET_ID         8u
#define VIRTIO_BLK_T_GET_LIFETIME   10u
#define VIRTIO_BLK_T_DISCARD        11u
#define VIRTIO_BLK_T_WRITE_ZEROES   13u
#define VIRTIO_BLK_T_SECURE_ERASE   14u
#define VIRTIO_BLK_T_ZONE_APPEND    15u
#define VIRTIO_BLK_T_ZONE_REPORT    16u
#define VIRTIO_BLK_T_ZONE_OPEN      18u
#define VIRTIO_BLK_T_ZONE_CLOSE     20u
#define VIRTIO_BLK_T_ZONE_FINISH    22u
#define VIRTIO_BLK_T_ZONE_RESET     24u
#define VIRTIO_BLK_T_ZONE_RESET_ALL 26u

#define VIRTIO_BLK_S_OK                   0u // 5.2.6
#define VIRTIO_BLK_S_IOERR                1u
#define VIRTIO_BLK_S_UNSUPP               2u
#define VIRTIO_BLK_S_ZONE_INVALID_CMD     3u
#define VIRTIO_BLK_S_ZONE_UNALIGNED_WP    4u
#define VIRTIO_BLK_S_ZONE_OPEN_RESOURCE   5u
#define VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE 6u

#define VIRTIO_BLK_SECTOR_SIZE 512u
#define VIRTIO_BLK_ID_BYTES    20u // 5.2.6.1, not terminated when full

struct virtio_blk_req_header { // 5.2.6
    uint32_t type;
    uint32_t reserved;
    uint64_t sector; // in units of 512 bytes
};
static_assert(sizeof(struct virtio_blk_req_header) == 16, "5.2.6");

#define VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP 1u // 5.2.6

struct virtio_blk_discard_write_zeroes { // 5.2.6
    uint64_t sector;                     // in units of 512 bytes
    uint32_t num_sectors;
    uint32_t flags;
};
static_assert(sizeof(struct virtio_blk_discard_write_zeroes) == 16, "5.2.6");

struct virtio_blk_lifetime {            // 5.2.6
    uint16_t pre_eol_info;              // 0: unknown; 1: normal, 2: warning, 3: urgent
    uint16_t device_lifetime_est_typ_a; // 0: unknown; tenths of the life used, 11: all of it
    uint16_t device_lifetime_est_typ_b;
};
static_assert(sizeof(struct virtio_blk_lifetime) == 6, "5.2.6");

#define VIRTIO_BLK_ZT_SWR 2u // 5.2.6: sequential writes required

#define VIRTIO_BLK_ZS_EMPTY  1u // 5.2.6
#define VIRTIO_BLK_ZS_IOPEN  2u
#define VIRTIO_BLK_ZS_EOPEN  3u
#define VIRTIO_BLK_ZS_CLOSED 4u
#define VIRTIO_BLK_ZS_FULL   14u

struct virtio_blk_zone_report { // 5.2.6, then the descriptors
    uint64_t nr_zones;
    uint8_t reserved[56];
};
static_assert(sizeof(struct virtio_blk_zone_report) == 64, "5.2.6");

struct virtio_blk_zone_descriptor { // 5.2.6, in sectors
    uint64_t z_cap;
    uint64_t z_start;
    uint64_t z_wp;
    uint8_t z_type;
    uint8_t z_state;
    uint8_t reserved[38];
};
static_assert(sizeof(struct virtio_blk_zone_descriptor) == 64, "5.2.6");

#define VIRTIO_BLK_Z_HM 1u // 5.2.4: host-managed

struct virtio_blk_config { // 5.2.4
    uint64_t capacity;     // in units of 512 bytes
    uint32_t size_max;     // bytes in one segment
    uint32_t seg_max;      // data segments in one request
    struct {
        uint16_t cylinders;
        uint8_t heads;
        uint8_t sectors;
    } geometry;
    uint32_t blk_size; // bytes
    struct {
        uint8_t physical_block_exp; // log2 of logical blocks in a physical one
        uint8_t alignment_offset;   // logical blocks
        uint16_t min_io_size;       // logical blocks
        uint32_t opt_io_size;       // logical blocks
    } topology;
    uint8_t writeback;
    uint8_t unused0;
    uint16_t num_queues;
    uint32_t max_discard_sectors;
    uint32_t max_discard_seg;
    uint32_t discard_sector_alignment;
    uint32_t max_write_zeroes_sectors;
    uint32_t max_write_zeroes_seg;
    uint8_t write_zeroes_may_unmap;
    uint8_t unused1[3];
    uint32_t max_secure_erase_sectors;
    uint32_t max_secure_erase_seg;
    uint32_t secure_erase_sector_alignment;
    struct {
        uint32_t zone_sectors;
        uint32_t max_open_zones; // 0: any number
        uint32_t max_active_zones;
        uint32_t max_append_sectors;
        uint32_t write_granularity; // bytes
        uint8_t model;
        uint8_t unused2[3];
    } zoned;
} __attribute__((packed));
static_assert(sizeof(struct virtio_blk_config) == 96, "5.2.4");
