// SPDX-License-Identifier: Apache-2.0
// offload.h - what a receiver cannot do with a frame, done in software: checksums, segmentation.
//
// A receiver says what it takes. A frame that asks for more becomes one or several plain frames,
// each a header of its own and a range of the original's payload: nothing is copied before the
// receiver's own copy.
//
// Threads  [W] all calls; no state but the caller's.
// Trust    works on frames that frame_parse() passed: every length is inside the frame.
#pragma once

#include "devices/frame.h"

// What a receiver takes as it is.
enum offload {
    OFFLOAD_CSUM = 1 << 0, // frames with an unfinished checksum
    OFFLOAD_TSO4 = 1 << 1,
    OFFLOAD_TSO6 = 1 << 2,
    OFFLOAD_ECN = 1 << 3,
    OFFLOAD_UFO = 1 << 4,
    OFFLOAD_USO4 = 1 << 5,
    OFFLOAD_USO6 = 1 << 6,
};

// What a driver that negotiated @features takes (VIRTIO_NET_F_GUEST_...).
unsigned offload_of_guest(uint64_t features);

// Whether a receiver with @offloads takes @f as it is.
bool offload_is_taken(const struct frame *f, unsigned offloads);

// One piece of a frame.
struct segment {
    uint8_t head[FRAME_HEAD_MAX]; // complete: lengths, ids, flags, checksums of this piece
    uint16_t n_head;
    bool needs_csum; // the receiver finishes it (only if it takes OFFLOAD_CSUM)
    uint32_t offset; // where its payload starts in the original frame
    uint32_t bytes;  // of payload
};

struct segmenter {
    const struct frame *frame;
    unsigned offloads;
    uint32_t next; // byte of the frame
    uint32_t id;   // of the datagram, in IPv6 fragments
    unsigned n;    // pieces so far
};

// The plain frames that a receiver with @offloads gets for @f, in order: one for a frame that only
// lacks its checksum, several for one that is to be segmented.
void offload_begin(struct segmenter *s, const struct frame *f, unsigned offloads);
bool offload_next(struct segmenter *s, struct segment *piece);

// How many there will be.
unsigned offload_count(const struct frame *f, unsigned offloads);
