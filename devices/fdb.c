// SPDX-License-Identifier: Apache-2.0
#include "devices/fdb.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

int fdb_open(struct fdb *t)
{
    uint64_t random[2];
    *t = (struct fdb){.seed = cycles_now()};
    if (getrandom(random, sizeof(random), GRND_NONBLOCK) == sizeof(random))
        *t = (struct fdb){.seed = random[0], .factor = random[1]};
    t->seed &= FDB_KEY_MASK;
    t->factor |= 1; // odd: it has an inverse
    t->buckets = aligned_alloc(CACHE_LINE, sizeof(t->buckets[0]) << FDB_BUCKET_BITS);
    t->seen_s = calloc(FDB_SLOTS, sizeof(t->seen_s[0]));
    t->keys = calloc(FDB_SLOTS, sizeof(t->keys[0]));
    if (!t->buckets || !t->seen_s || !t->keys) {
        fdb_close(t);
        return -ENOMEM;
    }
    memset(t->buckets, 0, sizeof(t->buckets[0]) << FDB_BUCKET_BITS);
    return 0;
}

void fdb_close(struct fdb *t)
{
    free(t->buckets);
    free(t->seen_s);
    free(t->keys);
}

static _Atomic uint64_t *word_at(const struct fdb *t, uint32_t slot)
{
    return &t->buckets[slot / FDB_WAYS].words[slot % FDB_WAYS];
}

static uint64_t read_word(const struct fdb *t, uint32_t slot)
{
    return atomic_load_explicit(word_at(t, slot), memory_order_relaxed);
}

static void describe(const struct fdb *t, uint32_t slot, struct fdb_entry *out)
{
    uint64_t word = read_word(t, slot);
    *out = (struct fdb_entry){
        .key = t->keys[slot],
        .port = fdb_word_port(word),
        .is_static = word & FDB_STATIC,
        .seen_s = atomic_load_explicit(&t->seen_s[slot], memory_order_relaxed),
    };
}

// The slot of @mix; FDB_SLOTS: it is not there.
static uint32_t find_slot(const struct fdb *t, uint64_t mix)
{
    unsigned way;
    return fdb_find_way(t, mix, &way) ? fdb_bucket_of(mix) * FDB_WAYS + way : FDB_SLOTS;
}

static uint32_t find_free(const struct fdb *t, uint64_t mix)
{
    uint32_t slot = fdb_bucket_of(mix) * FDB_WAYS;
    for (uint32_t end = slot + FDB_WAYS; slot < end; slot++) {
        if (!read_word(t, slot))
            return slot;
    }
    return FDB_SLOTS;
}

bool fdb_get(const struct fdb *t, uint64_t key, struct fdb_entry *out)
{
    uint32_t slot = find_slot(t, fdb_mix(t, key));
    if (slot == FDB_SLOTS)
        return false;
    describe(t, slot, out);
    return true;
}

bool fdb_put(struct fdb *t, const struct fdb_entry *entry)
{
    assert(entry->key <= FDB_KEY_MASK && entry->port < 1u << FDB_PORT_BITS);
    uint64_t mix = fdb_mix(t, entry->key);
    uint32_t slot = find_slot(t, mix);
    if (slot == FDB_SLOTS)
        slot = find_free(t, mix);
    if (slot == FDB_SLOTS)
        return false;
    t->keys[slot] = entry->key;
    atomic_store_explicit(&t->seen_s[slot], entry->seen_s, memory_order_relaxed);
    atomic_store_explicit(word_at(t, slot), fdb_word(mix, entry->port, entry->is_static),
                          memory_order_relaxed);
    return true;
}

void fdb_remove(struct fdb *t, uint64_t key)
{
    uint32_t slot = find_slot(t, fdb_mix(t, key));
    if (slot != FDB_SLOTS)
        atomic_store_explicit(word_at(t, slot), 0, memory_order_relaxed);
}

bool fdb_next(const struct fdb *t, uint32_t *at, struct fdb_entry *out)
{
    for (; *at < FDB_SLOTS; ++*at) {
        if (read_word(t, *at)) {
            describe(t, (*at)++, out);
            return true;
        }
    }
    return false;
}
