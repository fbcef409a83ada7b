// SPDX-License-Identifier: Apache-2.0
// guest_disk.h - a virtio-blk disk as a guest sees it, over a vhost-user front end.
//
// Threads  one thread a disk.
// Memory   the disk owns its guest memory, front end and drivers.
// Trust    as frontend.h and driver.h.
#pragma once

#include "bench/guest_request.h"
#include "bench/frontend.h"

#define GUEST_DISK_QUEUES_MAX 64

#define GUEST_DISK_PROTOCOL                                                                        \
    (VIRTIO_BIT(VHOST_USER_PROTOCOL_F_MQ) | VIRTIO_BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK) |          \
     VIRTIO_BIT(VHOST_USER_PROTOCOL_F_CONFIG) | VIRTIO_BIT(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD) | \
     VIRTIO_BIT(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS))

struct guest_disk_config {
    const char *path;  // the back end's socket; a disk keeps a copy
    uint64_t features; // of the ring: all of them must be offered
    uint64_t protocol; // what to acknowledge if it is offered
    unsigned n_queues;
    uint32_t ring_size;
    uint32_t table_entries; // room in each indirect table
    struct guest_layout memory;
};

struct guest_disk {
    struct guest_disk_config config;
    struct guest *guest;
    struct frontend *frontend;
    struct virtio_blk_config space; // as read at open
    struct driver *drivers[GUEST_DISK_QUEUES_MAX];
};

// Connect, negotiate, share memory, start the rings. 0, or -errno with the sentence.
int guest_disk_open(struct guest_disk **out, const struct guest_disk_config *config,
                    struct error *e);

// Stop the rings and check that each stopped where the driver is. For when nothing is in flight.
int guest_disk_stop(struct guest_disk *d, struct error *e);
// Start them again, where they stopped.
int guest_disk_start(struct guest_disk *d, struct error *e);

// The back end was started again: connect and go on.
int guest_disk_reconnect(struct guest_disk *d, struct error *e);

void guest_disk_close(struct guest_disk *d); // NULL is fine

// Offer @r on @queue, and kick if the device wants it. False if the ring is full.
bool guest_disk_submit(struct guest_disk *d, unsigned queue, struct guest_request *r);

// Offer @r and wait until it is back. Its used length, or -errno with the sentence.
int64_t guest_disk_run(struct guest_disk *d, unsigned queue, struct guest_request *r,
                       struct error *e);
