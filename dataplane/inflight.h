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
#include "dataplane/virtio.h"

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

// The used position before and after the batch that is being published: eight bytes that are
// stored at once, so that no index is ever seen with another's wrap counter.
struct inflight_packed_position {
    uint16_t used_idx;
    uint16_t old_used_idx;
    uint8_t used_wrap_counter;
    uint8_t old_used_wrap_counter;
    uint8_t padding[2];
} __attribute__((aligned(8)));

struct inflight_packed {
    uint64_t features;
    uint16_t version; // 1
    uint16_t desc_num;
    uint16_t free_head;
    uint16_t old_free_head;
    struct inflight_packed_position position;
    uint8_t padding[3];
    struct inflight_packed_desc desc[]; // aligned to 8, so at byte 32
};
static_assert(offsetof(struct inflight_packed, desc) == 32, "vhost-user: QueueRegionPacked");

// The most that a queue of any size needs, in either layout.
#define INFLIGHT_QUEUE_BYTES_MAX                                                                   \
    (sizeof(struct inflight_packed) + PACKED_SIZE_MAX * sizeof(struct inflight_packed_desc))
static_assert(sizeof(struct inflight_split) + SPLIT_SIZE_MAX * sizeof(struct inflight_split_desc) <=
                  INFLIGHT_QUEUE_BYTES_MAX,
              "a packed queue needs more");

#define INFLIGHT_ALIGN 64 // bytes; vhost-user: each queue's region starts aligned

// [C] Bytes of one queue's region, a multiple of INFLIGHT_ALIGN.
size_t inflight_queue_bytes(uint64_t features, uint32_t queue_size);

static_assert(offsetof(struct inflight_split, version) == offsetof(struct inflight_packed, version),
              "inflight_is_used() reads either");

// [C] Whether a queue has been run with this record, of either layout.
static inline bool inflight_is_used(const void *record)
{
    return guest_load16(&((const struct inflight_split *)record)->version) != 0;
}

// A process that is killed stops between two instructions: what it stored before is stored.
// So the steps below only need their program order kept, by the compiler.
static inline void inflight_step(void)
{
    atomic_signal_fence(memory_order_seq_cst);
}

// ---- split -------------------------------------------------------------------------------

// What a record says of the life before.
struct inflight_split_state {
    uint64_t next_age; // of the next pop
    uint32_t n_replay; // heads in flight, oldest first, in the caller's array
};

// [C] Read, or on its first use set up, @rec of a queue with @size descriptors whose used index
// in guest memory is @used_idx. @replay has room for @size heads. 0, or -EINVAL if the record
// contradicts itself or the ring.
int inflight_split_open(struct inflight_split *rec, uint32_t size, uint16_t used_idx,
                        uint16_t replay[], struct inflight_split_state *out);

// [W] @head was popped.
static inline void inflight_split_take(struct inflight_split *rec, uint16_t head, uint64_t age)
{
    rec->desc[head].counter = age;
    inflight_step();
    rec->desc[head].inflight = 1;
}

// [W] The @n heads are about to be published; @used_idx is the index after them.
void inflight_split_retire(struct inflight_split *rec, const uint16_t heads[], uint32_t n);
// [W] They are.
void inflight_split_settle(struct inflight_split *rec, const uint16_t heads[], uint32_t n,
                           uint16_t used_idx);

// ---- packed ------------------------------------------------------------------------------

struct inflight_packed_state {
    uint64_t next_age;
    uint32_t n_replay; // first entries of chains in flight, oldest first
    uint32_t n_descs;  // ring descriptors of all of them
    uint16_t used_idx; // where the device goes on
    bool used_wrap;
    uint16_t free_head; // first free entry
};

// [C] As inflight_split_open(). @ring is the descriptor ring, to see whether the last batch got
// through; @used_idx and @used_wrap, the front end's base, are used on the record's first use.
int inflight_packed_open(struct inflight_packed *rec, uint32_t size, const struct packed_desc *ring,
                         uint16_t used_idx, bool used_wrap, uint16_t replay[],
                         struct inflight_packed_state *out);

// [W] A chain of @n descriptors was popped. Copies them into free entries from *@free_head on,
// which moves. False if the record contradicts itself; *@last is the chain's last entry.
bool inflight_packed_take(struct inflight_packed *rec, uint32_t size, uint16_t *free_head,
                          const struct packed_desc chain[], uint16_t n, uint64_t age,
                          uint16_t *last);

// [W] The chain in entries @first to @last is about to be published.
void inflight_packed_retire(struct inflight_packed *rec, uint16_t *free_head, uint16_t first,
                            uint16_t last);
// [W] The used index is about to move there.
void inflight_packed_advance(struct inflight_packed *rec, uint16_t used_idx, bool used_wrap);
// [W] The batch is published: its first entries are no longer in flight.
static inline void inflight_packed_clear(struct inflight_packed *rec, uint16_t first)
{
    rec->desc[first].inflight = 0;
}
void inflight_packed_settle(struct inflight_packed *rec, uint16_t free_head);
