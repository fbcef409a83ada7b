// SPDX-License-Identifier: Apache-2.0
// inflight.h - the in-flight record: which chains a queue had popped and not yet pushed.
//
// The record lies in memory that the front end keeps across our death (vhost-user: "Inflight
// I/O tracking", struct QueueRegionSplit and QueueRegionPacked). A new daemon reads it, replays
// what was in flight in the order it was popped, and so neither loses nor repeats a request.
//
// Threads  [C] sizes a region; [W] the ring that owns a record writes it.
// Memory   the session maps the region; a record is a view into it.
// Trust    the region's contents are the front end's: every index is checked when read.
#pragma once

#include "dataplane/base.h"

struct inflight_split_desc {
    uint8_t inflight;
    uint8_t padding[5];
    uint16_t next;    // list of the last batch of used heads
    uint64_t counter; // order of popping
};
static_assert(sizeof(struct inflight_split_desc) == 16, "vhost-user: DescStateSplit");

struct inflight_split {
    uint64_t features;
    uint16_t version; // 1
    uint16_t desc_num;
    uint16_t last_batch_head;
    uint16_t used_idx;
    struct inflight_split_desc desc[];
};
static_assert(sizeof(struct inflight_split) == 16, "vhost-user: QueueRegionSplit");

struct inflight_packed_desc {
    uint8_t inflight;
    uint8_t padding;
    uint16_t next; // free list, or the chain's next entry
    uint16_t last; // of the chain, in its first entry
    uint16_t num;  // descriptors in the chain, in its first entry
    uint64_t counter;
    uint16_t id;
    uint16_t flags;
    uint32_t len;
    uint64_t addr;
};
static_assert(sizeof(struct inflight_packed_desc) == 32, "vhost-user: DescStatePacked");

struct inflight_packed {
    uint64_t features;
    uint16_t version; // 1
    uint16_t desc_num;
    uint16_t free_head;
    uint16_t old_free_head;
    uint16_t used_idx;
    uint16_t old_used_idx;
    uint8_t used_wrap_counter;
    uint8_t old_used_wrap_counter;
    uint8_t padding[7];
    // The specification's structure ends its header at 31 bytes and aligns desc[] to 8.
    struct inflight_packed_desc desc[] __attribute__((aligned(8)));
};
static_assert(offsetof(struct inflight_packed, desc) == 32, "vhost-user: QueueRegionPacked");

#define INFLIGHT_ALIGN 64 // bytes; vhost-user: each queue's region starts aligned

// [C] Bytes of one queue's region, a multiple of INFLIGHT_ALIGN.
size_t inflight_queue_bytes(uint64_t features, uint16_t queue_size);
