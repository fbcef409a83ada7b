// SPDX-License-Identifier: Apache-2.0
// fdb.h - the addresses that a switch knows: MAC address and VLAN to port.
//
// An entry is one 64-bit word, so that a reader sees all of it or nothing. The words of a bucket
// share a cache line. A reversible mix of the key says which bucket; what is left of the mix stands
// in the word beside the port: no bit of a key is lost, and two keys are never taken for one. The
// mix is seeded: nobody outside can choose addresses that crowd a bucket.
//
// Threads  [C] one writer. [any worker] fdb_find() and fdb_see(), without locks.
// Memory   fixed at fdb_open().
// Trust    keys are hostile. They fill what its owner lets them, and slow nobody down.
#pragma once

#include "dataplane/base.h"

#include <string.h>

#define FDB_BUCKET_BITS 13
#define FDB_WAYS        8 // entries of a bucket: one line
#define FDB_SLOTS       (FDB_WAYS << FDB_BUCKET_BITS)
#define FDB_PORT_BITS   15

#define FDB_KEY_BITS 60
#define FDB_KEY_MASK ((1ull << FDB_KEY_BITS) - 1)

struct fdb_bucket {
    _Alignas(CACHE_LINE) _Atomic uint64_t words[FDB_WAYS];
};

struct fdb {
    struct fdb_bucket *buckets;
    _Atomic uint32_t *seen_s; // by slot: when its address last sent something
    uint64_t *keys;           // [C] by slot
    uint64_t seed, factor;    // constant
};

// What control sees of an entry.
struct fdb_entry {
    uint64_t key;
    unsigned port;
    bool is_static; // not learnt: neither moves nor ages
    uint32_t seen_s;
};

// [C] Empty. 0 or -ENOMEM.
int fdb_open(struct fdb *t);
void fdb_close(struct fdb *t);

// [C] False: it is not there.
bool fdb_get(const struct fdb *t, uint64_t key, struct fdb_entry *out);

// [C] Add @entry, or put it in the place of the one with its key. False: its bucket is full.
bool fdb_put(struct fdb *t, const struct fdb_entry *entry);

// [C] It may be gone already.
void fdb_remove(struct fdb *t, uint64_t key);

// [C] The first entry from slot *@at on, which then is the slot behind it; false: there is none.
// The entry may be removed.
bool fdb_next(const struct fdb *t, uint32_t *at, struct fdb_entry *out);

// ---- the workers' side -------------------------------------------------------------------

static inline uint64_t fdb_key(const uint8_t mac[6], uint16_t vlan)
{
    uint32_t high;
    uint16_t low;
    memcpy(&high, mac, sizeof(high));
    memcpy(&low, mac + sizeof(high), sizeof(low));
    return high | (uint64_t)low << 32 | (uint64_t)(vlan & 0xfff) << 48;
}

// Each step can be undone: the result is another name of the key.
static inline uint64_t fdb_mix(const struct fdb *t, uint64_t key)
{
    uint64_t x = key ^ t->seed;
    x = (x ^ x >> 31) * t->factor & FDB_KEY_MASK;
    x = (x ^ x >> 29) * 0x9e3779b97f4a7c15 & FDB_KEY_MASK;
    return x ^ x >> 32;
}

// A word: what the bucket does not say of the mix, the port, static, valid.
#define FDB_VALID  1ull
#define FDB_STATIC 2ull

static inline unsigned fdb_word_port(uint64_t word)
{
    return word >> 2 & ((1u << FDB_PORT_BITS) - 1);
}

static inline uint32_t fdb_bucket_of(uint64_t mix)
{
    return mix & ((1u << FDB_BUCKET_BITS) - 1);
}

static inline uint64_t fdb_word(uint64_t mix, unsigned port, bool is_static)
{
    return mix >> FDB_BUCKET_BITS << (FDB_PORT_BITS + 2) | (uint64_t)port << 2 |
           (is_static ? FDB_STATIC : 0) | FDB_VALID;
}

static inline void fdb_prefetch(const struct fdb *t, uint64_t mix)
{
    __builtin_prefetch(&t->buckets[fdb_bucket_of(mix)]);
}

// The word of @mix and its way in the bucket; 0: it is not known.
static inline uint64_t fdb_find_way(const struct fdb *t, uint64_t mix, unsigned *way)
{
    const struct fdb_bucket *b = &t->buckets[fdb_bucket_of(mix)];
    uint64_t wanted = fdb_word(mix, 0, false);
    for (unsigned i = 0; i < FDB_WAYS; i++) {
        uint64_t word = atomic_load_explicit(&b->words[i], memory_order_relaxed);
        if ((word & ~(uint64_t)(FDB_STATIC | ((1u << FDB_PORT_BITS) - 1) << 2)) == wanted) {
            *way = i;
            return word;
        }
    }
    return 0;
}

// [any worker] The word of the address, for fdb_word_port(); 0: it is not known.
static inline uint64_t fdb_find(const struct fdb *t, uint64_t mix)
{
    unsigned way;
    return fdb_find_way(t, mix, &way);
}

// [any worker] The address sent something through @port at @now_s. False if control should hear of
// that: it is new, or was elsewhere. Stores at most once a second.
static inline bool fdb_see(const struct fdb *t, uint64_t mix, unsigned port, uint32_t now_s)
{
    unsigned way;
    uint64_t word = fdb_find_way(t, mix, &way);
    if (word & FDB_STATIC)
        return true;
    if (!word || fdb_word_port(word) != port)
        return false;
    _Atomic uint32_t *seen_s = &t->seen_s[fdb_bucket_of(mix) * FDB_WAYS + way];
    if (unlikely(atomic_load_explicit(seen_s, memory_order_relaxed) != now_s))
        atomic_store_explicit(seen_s, now_s, memory_order_relaxed);
    return true;
}
