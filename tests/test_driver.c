// SPDX-License-Identifier: Apache-2.0
// The driver against a plain model of a device, in both layouts.
#include "bench/driver.h"
#include "bench/guest_request.h"
#include "tests/check.h"
#include "tests/device_model.h"

#include <stdlib.h>
#include <string.h>

#define PACKED   VIRTIO_BIT(VIRTIO_F_RING_PACKED)
#define EVENT    VIRTIO_BIT(VIRTIO_F_EVENT_IDX)
#define ORDER    VIRTIO_BIT(VIRTIO_F_IN_ORDER)
#define INDIRECT VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC)

#define ENTRIES    8 // segments in a chain at most
#define CHAINS_MAX 512

struct rig {
    struct guest *guest;
    struct driver *driver;
    struct model model;
    uint64_t features, seed;
    struct driver_chain chains[CHAINS_MAX];
    struct driver_segment segments[CHAINS_MAX][ENTRIES];
    unsigned free_chains[CHAINS_MAX], n_free;
    // Chains in the order they were offered, not popped yet; and popped, not used yet.
    unsigned offered[CHAINS_MAX], offered_head, offered_tail;
    struct {
        unsigned chain;
        struct model_chain popped;
    } out[CHAINS_MAX];
    unsigned n_out;
    uint32_t expected_len[CHAINS_MAX];
    bool is_used[CHAINS_MAX];
};

static void rig_open(struct rig *rig, uint64_t features, uint32_t size)
{
    struct error e;
    struct guest_layout layout = {1, 16 << 20, 0, 1 << 20, false, false};
    struct driver_config c = {features, size, features & INDIRECT ? ENTRIES : 0};
    *rig = (struct rig){.features = features, .seed = size};
    check_ok(guest_open(&rig->guest, &layout, &e), &e);
    check_ok(driver_open(&rig->driver, rig->guest, &c, &e), &e);
    model_open(&rig->model, rig->guest, rig->driver, features);
    for (unsigned i = 0; i < CHAINS_MAX; i++)
        rig->free_chains[rig->n_free++] = i;
}

static void rig_close(struct rig *rig)
{
    driver_close(rig->driver);
    guest_close(rig->guest);
}

static void make_chain(struct rig *rig, unsigned i)
{
    struct driver_chain *c = &rig->chains[i];
    unsigned n = 1 + (unsigned)random_below(&rig->seed, MIN(ENTRIES, driver_size(rig->driver)));
    *c = (struct driver_chain){.segments = rig->segments[i]};
    c->n_in = (uint16_t)random_below(&rig->seed, n + 1);
    c->n_out = (uint16_t)(n - c->n_in);
    for (unsigned k = 0; k < n; k++) {
        uint32_t bytes = 1 + (uint32_t)random_below(&rig->seed, 9000);
        rig->segments[i][k] = (struct driver_segment){random_next(&rig->seed), bytes};
        if (k >= c->n_out)
            c->in_bytes += bytes;
    }
    c->n_direct = (uint16_t)n;
    if (rig->features & INDIRECT)
        c->n_direct = (uint16_t)random_below(&rig->seed, n + 1);
    if (rig->features & PACKED && c->n_direct < n)
        c->n_direct = 0;
}

// Offer up to @max new chains in one batch.
static bool offer(struct rig *rig, unsigned max)
{
    struct driver_chain *batch[CHAINS_MAX];
    unsigned n = MIN(max, rig->n_free);
    for (unsigned i = 0; i < n; i++) {
        make_chain(rig, rig->free_chains[rig->n_free - 1 - i]);
        batch[i] = &rig->chains[rig->free_chains[rig->n_free - 1 - i]];
    }
    unsigned n_added = driver_add(rig->driver, batch, n);
    for (unsigned i = 0; i < n_added; i++)
        rig->offered[rig->offered_tail++ % CHAINS_MAX] = rig->free_chains[--rig->n_free];
    return driver_publish(rig->driver);
}

// The device takes up to @max chains; each must be the one offered next.
static unsigned take(struct rig *rig, unsigned max)
{
    struct model_chain c;
    unsigned n = 0;
    while (n < max && model_pop(&rig->model, &c)) {
        assert_int_not_equal(rig->offered_head, rig->offered_tail);
        unsigned i = rig->offered[rig->offered_head++ % CHAINS_MAX];
        assert_int_equal(c.n_out, rig->chains[i].n_out);
        assert_int_equal(c.n_in, rig->chains[i].n_in);
        for (unsigned k = 0; k < c.n_out + c.n_in; k++) {
            assert_int_equal(c.segments[k].addr, rig->segments[i][k].addr);
            assert_int_equal(c.segments[k].bytes, rig->segments[i][k].bytes);
        }
        rig->out[rig->n_out].chain = i;
        rig->out[rig->n_out++].popped = c;
        n++;
    }
    return n;
}

// The device uses chain @at of those it has, with a length of its choice.
static bool use_one(struct rig *rig, unsigned at)
{
    unsigned i = rig->out[at].chain;
    uint32_t len = (uint32_t)random_below(&rig->seed, (uint64_t)rig->chains[i].in_bytes + 1);
    bool wants = model_push(&rig->model, &rig->out[at].popped, len);
    rig->expected_len[i] = len;
    rig->is_used[i] = true;
    rig->n_out--;
    memmove(&rig->out[at], &rig->out[at + 1], (rig->n_out - at) * sizeof rig->out[0]);
    return wants;
}

// The device uses its @n oldest chains with one entry.
static void use_batch(struct rig *rig, unsigned n)
{
    unsigned n_descs = 0;
    for (unsigned k = 0; k < n; k++) {
        unsigned i = rig->out[k].chain;
        n_descs += rig->out[k].popped.n_descs;
        rig->expected_len[i] = k + 1 < n ? rig->chains[i].in_bytes : rig->chains[i].in_bytes / 2;
        rig->is_used[i] = true;
    }
    model_push_batch(&rig->model, n, n_descs, rig->out[n - 1].popped.id,
                     rig->expected_len[rig->out[n - 1].chain]);
    rig->n_out -= n;
    memmove(&rig->out[0], &rig->out[n], rig->n_out * sizeof rig->out[0]);
}

// The driver collects; each chain must be one that the device used, with its length.
static unsigned collect(struct rig *rig, unsigned max)
{
    struct error e;
    struct driver_used used[CHAINS_MAX];
    int n = driver_poll(rig->driver, used, max, &e);
    if (n < 0)
        fail_msg("%s", e.text);
    for (int k = 0; k < n; k++) {
        unsigned i = (unsigned)(used[k].chain - rig->chains);
        assert_true(rig->is_used[i]);
        assert_int_equal(used[k].len, rig->expected_len[i]);
        rig->is_used[i] = false;
        rig->free_chains[rig->n_free++] = i;
    }
    return (unsigned)n;
}

static void use_some(struct rig *rig)
{
    unsigned n = rig->n_out ? 1 + (unsigned)random_below(&rig->seed, rig->n_out) : 0;
    if (n && rig->features & ORDER && random_below(&rig->seed, 2)) {
        use_batch(rig, n);
        return;
    }
    while (n--)
        use_one(rig, rig->features & ORDER ? 0 : (unsigned)random_below(&rig->seed, rig->n_out));
}

static void drain(struct rig *rig)
{
    while (take(rig, CHAINS_MAX))
        ;
    while (rig->n_out)
        use_some(rig);
    while (collect(rig, CHAINS_MAX))
        ;
    assert_int_equal(driver_n_free(rig->driver), driver_size(rig->driver));
    assert_int_equal(driver_n_in_flight(rig->driver), 0);
    assert_int_equal(driver_base(rig->driver), model_base(&rig->model));
}

static void test_random_traffic(void **state)
{
    (void)state;
    static const uint64_t features[] = {0,
                                        INDIRECT,
                                        INDIRECT | EVENT,
                                        ORDER,
                                        INDIRECT | ORDER | EVENT,
                                        PACKED,
                                        PACKED | INDIRECT,
                                        PACKED | INDIRECT | EVENT,
                                        PACKED | ORDER,
                                        PACKED | INDIRECT | ORDER | EVENT};
    static const uint32_t sizes[] = {1, 2, 3, 7, 8, 100, 256, 32767, 32768};
    struct rig *rig = malloc(sizeof *rig);
    for (unsigned f = 0; f < ARRAY_LEN(features); f++) {
        for (unsigned s = 0; s < ARRAY_LEN(sizes); s++) {
            if (!(features[f] & PACKED) && !is_power_of_two(sizes[s]))
                continue;
            rig_open(rig, features[f], sizes[s]);
            // At size 1 this is past 65536 chains: the free-running indices wrap.
            for (unsigned turn = 0; turn < 140000 / MIN(sizes[s], 64u); turn++) {
                offer(rig, 1 + (unsigned)random_below(&rig->seed, 40));
                take(rig, (unsigned)random_below(&rig->seed, 60));
                use_some(rig);
                collect(rig, 1 + (unsigned)random_below(&rig->seed, 60));
            }
            drain(rig);
            rig_close(rig);
        }
    }
    free(rig);
}

static void test_full_ring(void **state)
{
    (void)state;
    static const uint64_t features[] = {0, PACKED};
    for (unsigned f = 0; f < ARRAY_LEN(features); f++) {
        struct rig *rig = malloc(sizeof *rig);
        rig_open(rig, features[f], 4);
        struct driver_segment s[3] = {{0, 1}, {16, 1}, {32, 1}};
        struct driver_chain three = {s, 3, 0, 3, 0, 0}, one = {s, 1, 0, 1, 0, 0};
        struct driver_chain *batch[] = {&three, &three, &one};
        assert_int_equal(driver_add(rig->driver, batch, 3), 1); // stops at the first that fails
        assert_int_equal(driver_n_free(rig->driver), 1);
        assert_int_equal(driver_add(rig->driver, batch + 2, 1), 1);
        assert_int_equal(driver_n_in_flight(rig->driver), 2);
        assert_int_equal(driver_add(rig->driver, batch + 2, 1), 0);
        rig_close(rig);
        free(rig);
    }
}

// Nothing is available before driver_publish(), and then everything is.
static void test_staging(void **state)
{
    (void)state;
    static const uint64_t features[] = {0, PACKED};
    for (unsigned f = 0; f < ARRAY_LEN(features); f++) {
        struct rig *rig = malloc(sizeof *rig);
        struct model_chain c;
        struct driver_segment s = {0, 1};
        struct driver_chain one = {&s, 1, 0, 1, 0, 0}, *batch[] = {&one, &one, &one};
        rig_open(rig, features[f], 4);
        for (unsigned lap = 0; lap < 9; lap++) {
            assert_int_equal(driver_add(rig->driver, batch, 3), 3);
            assert_false(model_pop(&rig->model, &c));
            driver_publish(rig->driver);
            for (unsigned i = 0; i < 3; i++) {
                struct error e;
                struct driver_used used;
                assert_true(model_pop(&rig->model, &c));
                assert_int_equal(driver_poll(rig->driver, &used, 1, &e), 0);
                model_push(&rig->model, &c, 0);
                assert_int_equal(driver_poll(rig->driver, &used, 1, &e), 1);
            }
        }
        rig_close(rig);
        free(rig);
    }
}

// ---- kicks and interrupts ----------------------------------------------------------------

static void test_kicks(void **state)
{
    (void)state;
    static const struct {
        uint64_t features;
        uint32_t size;
    } cases[] = {{0, 8}, {EVENT, 8}, {PACKED, 7}, {PACKED | EVENT, 7}};
    struct driver_segment s = {0, 1};
    struct driver_chain one = {&s, 1, 0, 1, 0, 0}, *batch[] = {&one, &one, &one, &one};
    for (unsigned k = 0; k < ARRAY_LEN(cases); k++) {
        struct rig *rig = malloc(sizeof *rig);
        rig_open(rig, cases[k].features, cases[k].size);
        for (unsigned turn = 0; turn < 70000; turn++) {
            unsigned n = 1 + turn % 4, ahead = turn % 3 ? turn / 4 % 6 : 0;
            bool expected = true;
            if (turn % 5 == 0) {
                model_want_no_kicks(&rig->model);
                expected = false;
            } else if (cases[k].features & EVENT) {
                model_want_kick_at(&rig->model, ahead);
                expected = ahead < n;
            } else {
                model_want_kicks(&rig->model);
            }
            assert_int_equal(driver_add(rig->driver, batch, n), n);
            assert_int_equal(driver_publish(rig->driver), expected);
            assert_false(driver_publish(rig->driver)); // nothing new
            struct model_chain c;
            struct driver_used used[4];
            struct error e;
            while (model_pop(&rig->model, &c))
                model_push(&rig->model, &c, 0);
            assert_int_equal(driver_poll(rig->driver, used, 4, &e), n);
        }
        rig_close(rig);
        free(rig);
    }
}

// In poll mode the device never sees a wish for an interrupt; armed, exactly one.
static void test_interrupts(void **state)
{
    (void)state;
    static const struct {
        uint64_t features;
        uint32_t size;
    } cases[] = {{0, 8}, {EVENT, 8}, {PACKED, 7}, {PACKED | EVENT, 7}};
    for (unsigned k = 0; k < ARRAY_LEN(cases); k++) {
        struct rig *rig = malloc(sizeof *rig);
        rig_open(rig, cases[k].features, cases[k].size);
        for (unsigned turn = 0; turn < 72000; turn++) {
            offer(rig, 1);
            take(rig, 1);
            bool arm = turn % 17 == 0 && turn < 2000; // then a whole lap without
            if (arm)
                assert_true(driver_arm(rig->driver));
            assert_int_equal(use_one(rig, 0), arm);
            if (turn % 19 == 0 && turn < 2000)
                assert_false(driver_arm(rig->driver)); // one is there already
            assert_int_equal(collect(rig, 2), 1);
            if (arm)
                driver_disarm(rig->driver);
        }
        rig_close(rig);
        free(rig);
    }
}

// ---- a device that breaks the rules ------------------------------------------------------

enum crime {
    UNKNOWN_ID,
    IDLE_ID,
    TWICE,
    TOO_LONG,
    INDEX_JUMP,
    WRONG_WRAP,
    NOTHING_OUT,
    LONG_BATCH,
};

// Two chains are out, "first" and "second"; the device commits the crime.
static void commit(struct rig *rig, enum crime crime)
{
    struct model *m = &rig->model;
    struct packed_desc *desc = (void *)m->desc;
    struct model_chain *first = &rig->out[0].popped, *second = &rig->out[1].popped;
    switch (crime) {
    case UNKNOWN_ID:
        first->id = 8;
        model_push(m, first, 0);
        break;
    case IDLE_ID:
        first->id = (uint16_t)(first->id == 5 || second->id == 5 ? 6 : 5);
        model_push(m, first, 0);
        break;
    case TWICE:
        model_push(m, first, 0);
        model_push(m, first, 0);
        break;
    case TOO_LONG:
        model_push(m, second, 11);
        break;
    case INDEX_JUMP:
        model_push_batch(m, 3, 3, first->id, 0);
        break;
    case WRONG_WRAP:
        desc[m->next_used].flags ^= PACKED_DESC_AVAIL | PACKED_DESC_USED;
        break;
    case NOTHING_OUT:
        model_push(m, first, 0);
        model_push(m, second, 0);
        model_push(m, first, 0);
        break;
    case LONG_BATCH:
        model_push_batch(m, 1, 1, second->id, 0);
        break;
    }
}

static void test_crimes(void **state)
{
    (void)state;
    static const struct {
        uint64_t features;
        enum crime crime;
        const char *says;
    } cases[] = {
        {0, UNKNOWN_ID, "id 8, which is not in flight"},
        {PACKED, UNKNOWN_ID, "id 8, which is not in flight"},
        {ORDER, UNKNOWN_ID, "id 8, which is not in flight"},
        {PACKED | ORDER, UNKNOWN_ID, "id 8, which is not in flight"},
        {0, IDLE_ID, "which is not in flight"},
        {PACKED, IDLE_ID, "which is not in flight"},
        {ORDER, IDLE_ID, "which is not in flight"},
        {PACKED | ORDER, IDLE_ID, "which is not in flight"},
        {0, TWICE, "which is not in flight"},
        {PACKED, TWICE, "which is not in flight"},
        {ORDER, TWICE, "which is not in flight"},
        {PACKED | ORDER, TWICE, "which is not in flight"},
        {0, TOO_LONG, "11 bytes of 10 writable"},
        {PACKED, TOO_LONG, "11 bytes of 10 writable"},
        {0, INDEX_JUMP, "3 ahead with 2 chains out"},
        {PACKED, WRONG_WRAP, "a wrong wrap counter"},
        {0, NOTHING_OUT, "3 ahead with 2 chains out"},
        {PACKED, NOTHING_OUT, "with none out"},
        {PACKED | ORDER, NOTHING_OUT, "with none out"},
        {ORDER, LONG_BATCH, "exceeds its used index"},
    };
    struct driver_segment s = {0, 10};
    struct driver_chain first = {&s, 0, 1, 1, 0, 10}, second = first;
    struct driver_chain *batch[] = {&first, &second};
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct rig *rig = malloc(sizeof *rig);
        struct error e;
        struct driver_used used[8];
        rig_open(rig, cases[i].features, 8);
        driver_add(rig->driver, batch, 2);
        driver_publish(rig->driver);
        assert_true(model_pop(&rig->model, &rig->out[0].popped));
        assert_true(model_pop(&rig->model, &rig->out[1].popped));
        commit(rig, cases[i].crime);
        if (driver_poll(rig->driver, used, 8, &e) >= 0)
            fail_msg("case %u was not noticed", i);
        if (!strstr(e.text, cases[i].says))
            fail_msg("case %u: '%s' does not say '%s'", i, e.text, cases[i].says);
        // After a reset everything works again.
        driver_reset(rig->driver);
        rig->n_out = 0;
        model_open(&rig->model, rig->guest, rig->driver, cases[i].features);
        assert_int_equal(collect(rig, 8), 0);
        offer(rig, 3);
        drain(rig);
        rig_close(rig);
        free(rig);
    }
}

static void test_bad_configurations(void **state)
{
    (void)state;
    static const struct driver_config cases[] = {
        {0, 0, 0},          {0, 100, 0}, {0, 65536, 0},
        {PACKED, 32769, 0}, {0, 8, 4},   {INDIRECT, 32768, 999},
    };
    struct guest *g;
    struct error e;
    struct guest_layout layout = {1, 1 << 20, 0, 0, false, false};
    check_ok(guest_open(&g, &layout, &e), &e);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct driver *d;
        if (driver_open(&d, g, &cases[i], &e) == 0)
            fail_msg("case %u was accepted", i);
    }
    guest_close(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_traffic),
        cmocka_unit_test(test_full_ring),
        cmocka_unit_test(test_staging),
        cmocka_unit_test(test_kicks),
        cmocka_unit_test(test_interrupts),
        cmocka_unit_test(test_crimes),
        cmocka_unit_test(test_bad_configurations),
    };
    return cmocka_run_group_tests_name("driver", tests, NULL, NULL);
}
