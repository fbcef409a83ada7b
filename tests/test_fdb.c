// SPDX-License-Identifier: Apache-2.0
// The table of addresses, against one that is looked through from end to end.
#include "devices/fdb.h"
#include "tests/check.h"

#include <pthread.h>
#include <stdlib.h>

static uint64_t key_of(uint64_t n)
{
    uint8_t mac[6];
    uint16_t vlan = (uint16_t)(n % 5 == 0 ? n % 4095 : 0);
    for (unsigned i = 0; i < 6; i++)
        mac[i] = (uint8_t)(n * 0x9e3779b97f4a7c15 >> 8 * i);
    return fdb_key(mac, vlan);
}

static void keys_are_addresses(void **state)
{
    (void)state;
    static const uint8_t mac[6] = {1, 2, 3, 4, 5, 0xff};
    assert_true(fdb_key(mac, 0) == 0xff0504030201);
    assert_true(fdb_key(mac, 4094) == 0xffeff0504030201);
    assert_true(fdb_key(mac, 0xe000 | 7) == fdb_key(mac, 7)); // a priority is no VLAN
}

// Two keys in one bucket with equal rests would be taken for one.
static void no_bit_of_a_key_is_lost(void **state)
{
    (void)state;
    struct fdb t;
    assert_int_equal(fdb_open(&t), 0);
    for (uint64_t n = 0; n < 2000; n++) {
        uint64_t mix = fdb_mix(&t, key_of(n));
        assert_true(mix <= FDB_KEY_MASK);
        for (unsigned bit = 0; bit < FDB_KEY_BITS; bit++)
            assert_true(fdb_mix(&t, key_of(n) ^ 1ull << bit) != mix);
    }
    // Bit by bit back: xor with a shift, and the multiplication with an odd number.
    for (uint64_t n = 0; n < 64; n++) {
        uint64_t word = fdb_word(fdb_mix(&t, n), 0x7fff, true);
        assert_int_equal(fdb_word_port(word), 0x7fff);
        assert_true(word & FDB_STATIC && word & FDB_VALID);
        assert_true(word >> (FDB_PORT_BITS + 2) == fdb_mix(&t, n) >> FDB_BUCKET_BITS);
    }
    fdb_close(&t);
}

enum { N = 3000, STEPS = 60000 };

static void as_the_model_says(void **state)
{
    (void)state;
    struct {
        bool is_there, is_static;
        unsigned port;
        uint32_t seen_s;
    } model[N] = {0};
    struct fdb t;
    assert_int_equal(fdb_open(&t), 0);
    srandom(1);
    for (unsigned step = 0; step < STEPS; step++) {
        unsigned i = (unsigned)random() % N, port = (unsigned)random() % (1u << FDB_PORT_BITS);
        uint64_t key = key_of(i), mix = fdb_mix(&t, key);
        switch (random() % 4) {
        case 0: {
            bool is_static = random() % 8 == 0;
            struct fdb_entry entry = {key, port, is_static, step};
            assert_true(fdb_put(&t, &entry));
            model[i].is_there = true, model[i].is_static = is_static;
            model[i].port = port, model[i].seen_s = step;
            break;
        }
        case 1:
            fdb_remove(&t, key);
            model[i].is_there = false;
            break;
        case 2:
            if (random() % 2)
                port = model[i].port;
            bool is_quiet = model[i].is_there && (model[i].is_static || model[i].port == port);
            assert_int_equal(fdb_see(&t, mix, port, step), is_quiet);
            if (is_quiet && !model[i].is_static)
                model[i].seen_s = step;
            break;
        default: {
            struct fdb_entry entry;
            uint64_t word = fdb_find(&t, mix);
            assert_int_equal(word != 0, model[i].is_there);
            assert_int_equal(fdb_get(&t, key, &entry), model[i].is_there);
            if (!word)
                break;
            assert_int_equal(fdb_word_port(word), model[i].port);
            assert_true(entry.key == key && entry.port == model[i].port);
            assert_int_equal(entry.is_static, model[i].is_static);
            assert_int_equal(entry.seen_s, model[i].seen_s);
        }
        }
    }
    unsigned n = 0, n_found = 0;
    struct fdb_entry entry;
    for (unsigned i = 0; i < N; i++)
        n += model[i].is_there;
    for (uint32_t at = 0; fdb_next(&t, &at, &entry); n_found++)
        fdb_remove(&t, entry.key);
    assert_int_equal(n_found, n);
    for (uint32_t at = 0; fdb_next(&t, &at, &entry);)
        fail_msg("an entry that was removed");
    fdb_close(&t);
}

// Nine keys of one bucket: found by trying, as somebody outside cannot.
static void a_full_bucket_takes_no_more(void **state)
{
    (void)state;
    struct fdb t;
    uint64_t keys[FDB_WAYS + 1];
    unsigned n = 0;
    assert_int_equal(fdb_open(&t), 0);
    for (uint64_t key = 1; n <= FDB_WAYS; key++) {
        if (fdb_bucket_of(fdb_mix(&t, key)) == 77)
            keys[n++] = key;
    }
    for (unsigned i = 0; i < FDB_WAYS; i++)
        assert_true(fdb_put(&t, &(struct fdb_entry){.key = keys[i], .port = i}));
    assert_false(fdb_put(&t, &(struct fdb_entry){.key = keys[FDB_WAYS]}));
    assert_true(fdb_put(&t, &(struct fdb_entry){.key = keys[3], .port = 99}));
    for (unsigned i = 0; i < FDB_WAYS; i++)
        assert_int_equal(fdb_word_port(fdb_find(&t, fdb_mix(&t, keys[i]))), i == 3 ? 99 : i);
    fdb_remove(&t, keys[5]);
    assert_true(fdb_put(&t, &(struct fdb_entry){.key = keys[FDB_WAYS], .port = 5}));
    assert_true(fdb_find(&t, fdb_mix(&t, keys[5])) == 0);
    fdb_close(&t);
}

// A reader gets the port of the address that it asked for, whatever a writer does meanwhile: here
// the port says which address it is.
static struct fdb shared;
static atomic_bool is_over;

static void *read_all(void *argument)
{
    _Atomic unsigned *n_wrong = argument;
    for (uint64_t key = 0; !is_over; key = (key + 1) % 64) {
        uint64_t word = fdb_find(&shared, fdb_mix(&shared, key));
        if (word && fdb_word_port(word) % 64 != key)
            ++*n_wrong;
        fdb_see(&shared, fdb_mix(&shared, key), (unsigned)key, (uint32_t)key);
    }
    return NULL;
}

static void readers_see_whole_entries(void **state)
{
    (void)state;
    _Atomic unsigned n_wrong = 0;
    pthread_t reader;
    assert_int_equal(fdb_open(&shared), 0);
    is_over = false;
    assert_int_equal(pthread_create(&reader, NULL, read_all, (void *)&n_wrong), 0);
    for (unsigned i = 0; i < 300000; i++) {
        uint64_t key = (uint64_t)random() % 64;
        if (i % 3)
            fdb_put(&shared,
                    &(struct fdb_entry){.key = key, .port = (unsigned)(key + 64 * (i % 512))});
        else
            fdb_remove(&shared, key);
    }
    is_over = true;
    pthread_join(reader, NULL);
    assert_int_equal(n_wrong, 0);
    fdb_close(&shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_addresses),        cmocka_unit_test(no_bit_of_a_key_is_lost),
        cmocka_unit_test(as_the_model_says),         cmocka_unit_test(a_full_bucket_takes_no_more),
        cmocka_unit_test(readers_see_whole_entries),
    };
    return cmocka_run_group_tests_name("fdb", tests, NULL, NULL);
}
