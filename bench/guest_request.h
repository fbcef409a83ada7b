// SPDX-License-Identifier: Apache-2.0
// guest_request.h - one virtio-blk request in guest memory: header, data, status.
//
// Threads  one thread a guest.
// Memory   the buffers are allocated from the guest once and used again and again.
#pragma once

#include "bench/driver.h"

#define GUEST_REQUEST_SEGMENTS_MAX 130
#define GUEST_REQUEST_STATUS_UNSET 0xee // what the status byte holds until the device writes it

struct guest_request {
    struct driver_chain chain; // first: a chain that comes back is its request
    struct virtio_blk_req_header *header;
    uint8_t *data;
    uint8_t *status;
    uint64_t header_addr, data_addr, status_addr;
    uint32_t capacity; // bytes at data
    uint32_t bytes;    // of data in this request
    uint32_t type;
    uint64_t sector;
    uint64_t submitted_at;           // the user's
    bool is_joined;                  // header, data and status lie side by side
    struct driver_segment plain[3];  // header, data, status
    struct driver_segment *shredded; // GUEST_REQUEST_SEGMENTS_MAX, made when it is first needed
};

enum guest_request_form { GUEST_REQUEST_DIRECT, GUEST_REQUEST_INDIRECT, GUEST_REQUEST_MIXED };

// Allocate @n requests for up to @capacity bytes of data each. 0 or -ENOMEM.
int guest_request_open(struct guest_request requests[], unsigned n, struct guest *g,
                       uint32_t capacity, struct error *e);
// One request whose header, data and status lie side by side, so that what is readable is one
// segment, and what is writable too.
int guest_request_open_joined(struct guest_request *r, struct guest *g, uint32_t capacity,
                              struct error *e);
void guest_request_close(struct guest_request requests[], unsigned n);

// One segment each for header, data (if any) and status; joined ones where they can be.
void guest_request_prepare(struct guest_request *r, uint32_t type, uint64_t sector, uint32_t bytes,
                           enum guest_request_form form);

// Cut the prepared request's segments at odd places, at most @n_max of them; @seed picks.
void guest_request_shred(struct guest_request *r, unsigned n_max, enum guest_request_form form,
                         uint64_t *seed);

// Whether the device writes the data of a request of @type.
static inline bool guest_request_is_read(uint32_t type)
{
    return type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID ||
           type == VIRTIO_BLK_T_GET_LIFETIME;
}

// A small generator for tests and loads: the same seed gives the same numbers everywhere.
static inline uint64_t random_next(uint64_t *seed)
{
    uint64_t z = *seed += UINT64_C(0x9e3779b97f4a7c15); // splitmix64
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

// Uniform enough below @n, which is not 0.
static inline uint64_t random_below(uint64_t *seed, uint64_t n)
{
    return (uint64_t)((unsigned __int128)random_next(seed) * n >> 64);
}
