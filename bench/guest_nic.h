// SPDX-License-Identifier: Apache-2.0
// guest_nic.h - a virtio-net device as a guest sees it, over a vhost-user front end.
//
// Each pair has a receive ring, kept full of buffers, and a transmit ring. Frames are handed
// over as they lie in guest memory.
//
// Threads  one thread a device.
// Memory   the device owns its guest memory, front end and drivers.
// Trust    as frontend.h and driver.h; a merged frame must come whole.
#pragma once

#include "bench/frontend.h"

#define GUEST_NIC_PAIRS_MAX 127
#define GUEST_NIC_MERGE_MAX 128 // buffers of one frame

#define GUEST_NIC_PROTOCOL                                                                         \
    (VIRTIO_BIT(VHOST_USER_PROTOCOL_F_MQ) | VIRTIO_BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK) |          \
     VIRTIO_BIT(VHOST_USER_PROTOCOL_F_CONFIG))

struct guest_nic_config {
    const char *path;  // the back end's socket; a device keeps a copy
    uint64_t features; // wanted if they are offered
    uint64_t required; // must be offered
    uint64_t protocol; // what to acknowledge if it is offered
    unsigned n_pairs;
    uint32_t ring_size;
    uint32_t table_entries; // room in each indirect table
    uint32_t receive_bytes; // of one receive buffer, header included
    uint32_t send_bytes;    // of one transmit buffer, header included
    bool is_header_apart;   // the header goes out as a descriptor of its own
    bool has_control;       // a control ring behind the pairs
    struct guest_layout memory;
};

struct nic_buffer {
    struct driver_chain chain; // first: a chain that comes back is its buffer
    struct driver_segment segments[2];
    uint8_t *data; // the header, then the frame
    uint32_t used; // bytes that the device wrote
    uint32_t index;
    uint64_t sent_at; // the user's
};

struct nic_pair {
    struct driver *receive, *send;
    struct nic_buffer *receive_buffers, *send_buffers; // ring_size of each
    struct nic_buffer **idle;                          // transmit buffers, a stack
    unsigned n_idle;
    struct nic_buffer *parts[GUEST_NIC_MERGE_MAX]; // of a frame that comes in
    unsigned n_parts, n_parts_wanted;
};

struct guest_nic {
    struct guest_nic_config config;
    struct guest *guest;
    struct frontend *frontend;
    struct virtio_net_config space; // as read at open, zeros without CONFIG
    uint32_t header_bytes;
    bool is_mergeable;
    struct nic_pair pairs[GUEST_NIC_PAIRS_MAX];
    struct driver *control;
    uint64_t n_kicks;
    // Where the device stopped: it may have used more than was collected.
    uint32_t bases[2 * GUEST_NIC_PAIRS_MAX + 1];
    bool has_bases;
};

// Connect, negotiate, share memory, post receive buffers, start the rings. 0, or -errno with the
// sentence.
int guest_nic_open(struct guest_nic **out, const struct guest_nic_config *config, struct error *e);
void guest_nic_close(struct guest_nic *n); // NULL is fine

// Guest memory that a device needs.
uint64_t guest_nic_memory_bytes(const struct guest_nic_config *config);

// Stop the rings, wherever they are; start them again there.
int guest_nic_stop(struct guest_nic *n, struct error *e);
int guest_nic_start(struct guest_nic *n, struct error *e);
// The back end died and was started again: connect and go on. All it used was collected.
int guest_nic_reconnect(struct guest_nic *n, struct error *e);

// A transmit buffer to be filled, NULL if all are on their way.
static inline struct nic_buffer *guest_nic_idle(struct guest_nic *n, unsigned pair)
{
    struct nic_pair *p = &n->pairs[pair];
    return p->n_idle ? p->idle[--p->n_idle] : NULL;
}

// Offer @b with @bytes, header included. guest_nic_flush() makes it visible.
void guest_nic_send(struct guest_nic *n, unsigned pair, struct nic_buffer *b, uint32_t bytes);
void guest_nic_flush(struct guest_nic *n, unsigned pair);

// Take transmit buffers back. How many, or -errno with the sentence.
int guest_nic_reap(struct guest_nic *n, unsigned pair, struct error *e);

// Call @frame for each whole frame that came, at most about @max: its buffers, each with the bytes
// it holds; the first begins with the header. 0 goes on, -errno ends. The buffers are posted
// again afterwards. Returns how many, or -errno with the sentence.
typedef int guest_nic_frame(void *context, struct nic_buffer *const parts[], unsigned n,
                            struct error *e);
int guest_nic_receive(struct guest_nic *n, unsigned pair, unsigned max, guest_nic_frame *frame,
                      void *context, struct error *e);

// Copy a received frame, without its header, to @to. Its bytes, or -EMSGSIZE.
int guest_nic_copy(const struct guest_nic *n, struct nic_buffer *const parts[], unsigned n_parts,
                   void *to, uint32_t room);
