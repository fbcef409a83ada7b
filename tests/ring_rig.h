// SPDX-License-Identifier: Apache-2.0
// ring_rig.h - a ring over hand-written guest memory, for what a well-behaved driver never does.
//
// Guest memory: regions A and B touch, a hole follows, then C. The rings lie at the start of A.
// A rig writes single descriptors, in either layout, so that one table of cases serves both.
//
// Threads  one thread a rig.
#pragma once

#include "dataplane/ring.h"

#define RIG_A          UINT64_C(0x100000)
#define RIG_B          UINT64_C(0x200000)
#define RIG_HOLE       UINT64_C(0x300000)
#define RIG_C          UINT64_C(0x400000)
#define RIG_END        (RIG_C + RIG_C_BYTES)
#define RIG_REGION     UINT64_C(0x100000)  // bytes in A and in B
#define RIG_C_BYTES    UINT64_C(0x4000000) // in C: never touched, for long chains
#define RIG_BUFFER     (RIG_A + 0x80000)   // free for buffers
#define RIG_TABLE      (RIG_A + 0x60000)   // free for indirect tables
#define RIG_RINGS      32768               // bytes reserved for each of the three areas
#define RIG_USER_SHIFT UINT64_C(0x7f0000000000)

enum { RIG_NEXT = 1, RIG_WRITE = 2, RIG_INDIRECT = 4 }; // the same bits in both layouts

struct rig {
    struct mem *mem;
    struct dirty *log;
    struct ring ring;
    struct ring_stats stats;
    struct ring_config config;
    uint8_t *host; // of RIG_A; the hole included
    int fd;
    bool is_packed;
    uint16_t avail; // driver's side: free running, or position
    bool wrap;
    uint8_t inflight[8192] __attribute__((aligned(64)));
};

// Open with a started ring of @size descriptors and these features (VERSION_1 is added).
void rig_open(struct rig *rig, uint64_t features, uint32_t size);
// Likewise, but not started; the configuration may be changed first.
void rig_open_stopped(struct rig *rig, uint64_t features, uint32_t size);
int rig_start(struct rig *rig, struct error *e);
// Likewise, started with an in-flight record.
void rig_open_with_record(struct rig *rig, uint64_t features, uint32_t size);
// The process dies: nothing in the ring structure survives, guest memory and record do.
void rig_die_and_restart(struct rig *rig);
void rig_close(struct rig *rig);

void *rig_at(struct rig *rig, uint64_t addr);

// Write descriptor @i of the chain that is being made (split: table index; packed: that many
// places behind the next available one). @next counts for split rings, @id for packed.
void rig_put(struct rig *rig, uint32_t i, uint64_t addr, uint32_t len, uint16_t flags,
             uint16_t next, uint16_t id);

// Write entry @i of an indirect table at guest address @table.
void rig_put_entry(struct rig *rig, uint64_t table, uint32_t i, uint64_t addr, uint32_t len,
                   uint16_t flags, uint16_t next);

// Make the chain of @n descriptors that starts at @head available.
void rig_offer(struct rig *rig, uint16_t head, uint32_t n);

// A whole chain in one go: one writable buffer with this id.
void rig_offer_simple(struct rig *rig, uint16_t id);

// Split: what the available index is; packed: a jump flips wrap bits of descriptors.
void rig_jump(struct rig *rig, uint16_t distance);

// Pop at most one chain.
struct chain *rig_pop(struct rig *rig);

// Used entries the driver can see, since the start.
uint32_t rig_n_used(struct rig *rig);
// The length and id of used entry @i.
void rig_used(struct rig *rig, uint32_t i, uint32_t *id, uint32_t *len);
