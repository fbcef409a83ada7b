// SPDX-License-Identifier: Apache-2.0
// What becomes of chains that were popped: order, used entries, notification, the dirty log; and
// where a ring starts, stops and goes on. Every case runs over both layouts unless its name says
// otherwise.
#include "tests/check.h"
#include "tests/ring_rig.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SIZE      8
#define PACKED    VIRTIO_BIT(VIRTIO_F_RING_PACKED)
#define EVENT_IDX VIRTIO_BIT(VIRTIO_F_EVENT_IDX)
#define IN_ORDER  VIRTIO_BIT(VIRTIO_F_IN_ORDER)

static const uint64_t layouts[] = {0, PACKED};

// ---- order, used entries, notification ---------------------------------------------------

static void pop_three(struct rig *rig, struct chain *c[3])
{
    for (uint16_t id = 0; id < 3; id++)
        rig_offer_simple(rig, id);
    assert_int_equal(ring_pop(&rig->ring, c, 3), 3);
}

static void test_order_of_completion(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++)
        for (int is_ordered = 0; is_ordered < 2; is_ordered++) {
            struct rig rig;
            rig_open_stopped(&rig, layouts[l] | (is_ordered ? IN_ORDER : 0), SIZE);
            rig.config.inflight = rig.inflight; // or the ring orders without being asked
            rig.config.inflight_bytes = sizeof(rig.inflight);
            struct error e;
            check_ok(rig_start(&rig, &e), &e);
            struct chain *c[3];
            pop_three(&rig, c);
            ring_push(&rig.ring, c[2], 12);
            ring_publish(&rig.ring);
            assert_int_equal(rig_n_used(&rig), is_ordered ? 0 : 1);
            ring_push(&rig.ring, c[0], 10);
            ring_publish(&rig.ring);
            assert_int_equal(rig_n_used(&rig), is_ordered ? 1 : 2);
            ring_push(&rig.ring, c[1], 11);
            ring_publish(&rig.ring);
            assert_int_equal(rig_n_used(&rig), 3);
            assert_int_equal(rig.ring.n_in_flight, 0);
            const uint32_t expected[2][3] = {{2, 0, 1}, {0, 1, 2}};
            for (uint32_t i = 0; i < 3; i++) {
                uint32_t id, len;
                rig_used(&rig, i, &id, &len);
                assert_int_equal(id, expected[is_ordered][i]);
                assert_int_equal(len, 10 + id);
            }
            rig_close(&rig);
        }
}

static void test_no_record_completes_in_order(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++) {
        struct rig rig;
        rig_open(&rig, layouts[l], SIZE);
        struct chain *c[3];
        pop_three(&rig, c);
        ring_push(&rig.ring, c[1], 0);
        ring_push(&rig.ring, c[2], 0);
        ring_publish(&rig.ring);
        assert_int_equal(rig_n_used(&rig), 0);
        ring_push(&rig.ring, c[0], 0);
        ring_publish(&rig.ring);
        assert_int_equal(rig_n_used(&rig), 3);
        rig_close(&rig);
    }
}

static bool complete_one(struct rig *rig, uint16_t id)
{
    rig_offer_simple(rig, id);
    struct chain *c = rig_pop(rig);
    assert_non_null(c);
    ring_push(&rig->ring, c, 1);
    return ring_publish(&rig->ring);
}

static void test_notification_flags(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++) {
        struct rig rig;
        rig_open(&rig, layouts[l], SIZE);
        uint16_t *flags = rig_at(&rig, RIG_A + 0x10000 + (rig.is_packed ? 2 : 0));
        *flags = 1;                         // 2.7.6.1 NO_INTERRUPT, 2.8.10 DISABLE
        assert_true(complete_one(&rig, 0)); // once after a start, to be safe
        assert_false(complete_one(&rig, 1));
        *flags = 0;
        assert_true(complete_one(&rig, 2));
        assert_int_equal(counter_read(&rig.stats.n_notify), 2);
        assert_int_equal(counter_read(&rig.stats.n_suppressed), 1);
        rig_close(&rig);
    }
}

static void test_notification_event(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++) {
        struct rig rig;
        rig_open(&rig, layouts[l] | EVENT_IDX, SIZE);
        complete_one(&rig, 0);
        uint16_t *driver = rig_at(&rig, RIG_A + 0x10000);
        if (rig.is_packed) { // notify when descriptor 3 of the first lap is used
            driver[0] = 3 | 0x8000;
            driver[1] = PACKED_EVENT_DESC;
        } else {
            driver[2 + SIZE] = 3;
        }
        assert_false(complete_one(&rig, 1));
        assert_false(complete_one(&rig, 2));
        assert_true(complete_one(&rig, 3));
        assert_false(complete_one(&rig, 4));
        // A batch that passes the event notifies, wherever in it the event lies; here across
        // the ring's end.
        if (rig.is_packed)
            driver[0] = 0; // first descriptor of the second lap
        else
            driver[2 + SIZE] = 8;
        struct chain *c[RING_BATCH_MAX];
        for (uint16_t id = 0; id < 5; id++)
            rig_offer_simple(&rig, id);
        assert_int_equal(ring_pop(&rig.ring, c, RING_BATCH_MAX), 5);
        for (unsigned i = 0; i < 5; i++)
            ring_push(&rig.ring, c[i], 1);
        assert_true(ring_publish(&rig.ring));
        // The event lies one lap behind: 4 was passed long ago.
        if (rig.is_packed) {
            driver[0] = 4 | 0x8000;
            assert_false(complete_one(&rig, 5));
        }
        rig_close(&rig);
    }
}

// Every write to guest memory is logged: the buffer, the used entry, the index or flags.
static void test_dirty_log(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++) {
        struct rig rig;
        rig_open(&rig, layouts[l], SIZE);
        int fd = memfd_create("log", MFD_CLOEXEC);
        const size_t log_bytes = RIG_END / DIRTY_PAGE_BYTES / 8;
        assert_int_equal(ftruncate(fd, (off_t)log_bytes), 0);
        struct error e;
        check_ok(dirty_open(&rig.log, fd, log_bytes, 0, &e), &e);
        ring_set_dirty(&rig.ring, rig.log);

        // A chain that spans two pages and two regions, but says that it wrote nothing.
        rig_put(&rig, 0, RIG_B - 1, 2, RIG_WRITE, 0, 0);
        rig_offer(&rig, 0, 1);
        struct chain *c = rig_pop(&rig);
        ring_push(&rig.ring, c, 0);
        ring_publish(&rig.ring);
        ring_park(&rig.ring);
        const uint64_t expected[] = {RIG_B - 1, RIG_B, RIG_A + (rig.is_packed ? 0 : 0x20000),
                                     RIG_A + 0x20000};
        for (unsigned i = 0; i < ARRAY_LEN(expected); i++) {
            uint64_t page = expected[i] / DIRTY_PAGE_BYTES;
            if (!(rig.log->bits[page / 8] & (1u << page % 8)))
                fail_msg("page of 0x%llx is not logged", (unsigned long long)expected[i]);
        }
        for (unsigned i = 0; i < ARRAY_LEN(expected); i++)
            rig.log->bits[expected[i] / DIRTY_PAGE_BYTES / 8] = 0;
        for (size_t i = 0; i < log_bytes; i++)
            assert_int_equal(rig.log->bits[i], 0); // and nothing else
        ring_set_dirty(&rig.ring, NULL);
        complete_one(&rig, 1);
        for (size_t i = 0; i < log_bytes; i++)
            assert_int_equal(rig.log->bits[i], 0);
        dirty_close(rig.log);
        close(fd);
        rig_close(&rig);
    }
}

static void test_parking(void **state)
{
    (void)state;
    const uint64_t events[] = {0, EVENT_IDX};
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++)
        for (unsigned v = 0; v < ARRAY_LEN(events); v++) {
            struct rig rig;
            rig_open(&rig, layouts[l] | events[v], SIZE);
            const uint16_t *device = rig_at(&rig, RIG_A + 0x20000);
            bool has_event_word = !rig.is_packed && events[v];
            const uint16_t *flags = rig.is_packed ? &device[1] : &device[0];
            const uint16_t *event = &device[2 + SIZE * 4];
            complete_one(&rig, 0);
            assert_true(ring_park(&rig.ring));
            assert_int_equal(*flags, 0);
            if (has_event_word)
                assert_int_equal(*event, 1); // kick me for the second one
            ring_unpark(&rig.ring);
            assert_int_equal(*flags, has_event_word ? 0 : 1);
            rig_offer_simple(&rig, 1);
            assert_false(ring_park(&rig.ring)); // there is work: no sleep
            assert_int_equal(*flags, has_event_word ? 0 : 1);
            struct chain *c = rig_pop(&rig);
            ring_push(&rig.ring, c, 0);
            ring_publish(&rig.ring);
            rig_close(&rig);
        }
}

// ---- taking a pop back -------------------------------------------------------------------

// Two writable descriptors, so that packed rings step by more than one.
static void offer_pair(struct rig *rig, uint16_t id)
{
    uint16_t head = (uint16_t)(2 * id);
    rig_put(rig, rig->is_packed ? 0 : head, RIG_BUFFER, 8, RIG_NEXT | RIG_WRITE,
            (uint16_t)(head + 1), id);
    rig_put(rig, rig->is_packed ? 1 : head + 1u, RIG_BUFFER + 8, 8, RIG_WRITE, 0, id);
    rig_offer(rig, rig->is_packed ? id : head, 2);
}

// Pop three, take two back, pop them again: as if nothing had been, at every position of the
// ring, so that packed rings go back over their end too.
static void test_unpop(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++) {
        struct rig rig;
        rig_open(&rig, layouts[l], SIZE);
        for (unsigned lap = 0; lap < 2 * SIZE; lap++) {
            struct chain *first[3], *again[3];
            for (uint16_t id = 0; id < 3; id++)
                offer_pair(&rig, id);
            assert_int_equal(ring_pop(&rig.ring, first, 3), 3);
            uint64_t n_chains = counter_read(&rig.stats.n_chains);
            ring_unpop(&rig.ring, &first[1], 2);
            assert_int_equal(counter_read(&rig.stats.n_chains), n_chains - 2);
            assert_int_equal(rig.ring.n_in_flight, 1);
            assert_true(ring_has_work(&rig.ring));
            assert_int_equal(ring_pop(&rig.ring, again, 3), 2);
            for (unsigned i = 0; i < 3; i++) {
                struct chain *c = i == 0 ? first[0] : again[i - 1];
                assert_ptr_equal(c, first[i]);
                assert_int_equal(c->in_bytes, 16);
                ring_push(&rig.ring, c, i);
            }
            ring_publish(&rig.ring);
            assert_int_equal(rig.ring.n_in_flight, 0);
            assert_int_equal(rig.ring.fault, RING_OK);
        }
        assert_int_equal(counter_read(&rig.stats.n_used), 2 * SIZE * 3);
        rig_close(&rig);
    }
}

// ---- starting ----------------------------------------------------------------------------

static void test_start_refusals(void **state)
{
    (void)state;
    const struct {
        uint64_t features;
        uint32_t size;
        int64_t desc_shift;
        uint32_t base;
        const char *says;
    } cases[] = {
        {0, 0, 0, 0, "ring size 0"},
        {0, 12, 0, 0, "not a power of two"},
        {PACKED, 32769, 0, 0x80008000, "from 1 to 32768"},
        {0, SIZE, 8, 0, "not in guest memory or not aligned"},
        {PACKED, SIZE, 4, 0x80008000, "not in guest memory or not aligned"},
        {0, SIZE, -0x100000, 0, "not in guest memory"},
        {PACKED, SIZE, 0x200000, 0x80008000, "not in guest memory"},
        {PACKED, SIZE, 0, 0x80088008, "beyond a ring of size"},
    };
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct rig rig;
        struct error e = {""};
        rig_open_stopped(&rig, cases[i].features, cases[i].size);
        rig.config.desc_addr += (uint64_t)cases[i].desc_shift;
        rig.config.base = cases[i].base;
        assert_true(rig_start(&rig, &e) < 0);
        if (!strstr(e.text, cases[i].says))
            fail_msg("case %u says: %s", i, e.text);
        assert_false(ring_is_started(&rig.ring));
        rig_close(&rig);
    }
}

static void test_base_goes_round(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++) {
        struct rig rig;
        rig_open(&rig, layouts[l], SIZE);
        for (uint16_t i = 0; i < 2 * SIZE + 3; i++) {
            complete_one(&rig, i % SIZE);
            // Stop and start again where it was.
            rig.config.base = ring_base(&rig.ring);
            if (!rig.is_packed)
                assert_int_equal(rig.config.base, i + 1);
            ring_stop(&rig.ring);
            struct error e;
            check_ok(rig_start(&rig, &e), &e);
        }
        rig_close(&rig);
    }
}

// virtio-user sends 0x8000: the used half is left out.
static void test_packed_base_without_used_half(void **state)
{
    (void)state;
    struct rig rig;
    rig_open_stopped(&rig, PACKED, SIZE);
    rig.config.base = 0x8000;
    struct error e;
    check_ok(rig_start(&rig, &e), &e);
    complete_one(&rig, 0);
    assert_int_equal(rig_n_used(&rig), 1);
    rig_close(&rig);
}

// A front end whose back end died gives the base of the last start, whatever was used since.
static void test_packed_base_is_old(void **state)
{
    (void)state;
    for (uint16_t n = 0; n <= 4 * SIZE; n++)
        for (uint16_t n_waiting = 0; n_waiting <= SIZE; n_waiting++) {
            struct rig rig;
            struct error e;
            rig_open(&rig, PACKED, SIZE);
            for (uint16_t i = 0; i < n; i++)
                complete_one(&rig, i % SIZE);
            for (uint16_t i = 0; i < n_waiting; i++)
                rig_offer_simple(&rig, i);
            uint32_t base = ring_base(&rig.ring);
            ring_stop(&rig.ring);
            check_ok(rig_start(&rig, &e), &e); // at 0x80008000
            // The last descriptor waits, all others are used in a second lap; or it ends a chain
            // of two, and the base is right.
            bool is_ambiguous = n % (2 * SIZE) == 2 * SIZE - 1 && n_waiting;
            if (is_ambiguous)
                base = ring_base(&rig.ring);
            if (ring_base(&rig.ring) != base)
                fail_msg("%u used, %u waiting: base 0x%x, not 0x%x", n, n_waiting,
                         ring_base(&rig.ring), base);
            struct chain *c[SIZE];
            unsigned n_popped = ring_pop(&rig.ring, c, SIZE);
            if (!is_ambiguous)
                assert_int_equal(n_popped, n_waiting);
            ring_unpop(&rig.ring, c, n_popped);
            rig_close(&rig);
        }
}

// DPDK gives 0, as if nothing had been used; one that can be right is.
static void test_split_base_is_old(void **state)
{
    (void)state;
    for (uint16_t n = 0; n <= 4 * SIZE; n++)
        for (uint16_t n_waiting = 0; n_waiting <= SIZE; n_waiting++)
            for (uint16_t base = 0; base <= 5 * SIZE; base++) {
                struct rig rig;
                struct error e;
                rig_open(&rig, 0, SIZE);
                for (uint16_t i = 0; i < n; i++)
                    complete_one(&rig, i % SIZE);
                for (uint16_t i = 0; i < n_waiting; i++)
                    rig_offer_simple(&rig, i);
                ring_stop(&rig.ring);
                rig.config.base = base;
                check_ok(rig_start(&rig, &e), &e);
                bool can_be = base >= n && base <= n + n_waiting;
                assert_int_equal(ring_base(&rig.ring), can_be ? base : n);
                rig_close(&rig);
            }
}

// A base that can be right is: the end of a longer chain is not marked as used.
static void test_packed_base_behind_a_pair(void **state)
{
    (void)state;
    for (uint16_t n = 0; n < 2 * SIZE; n++) {
        struct rig rig;
        struct error e;
        rig_open(&rig, PACKED, SIZE);
        for (uint16_t i = 0; i < n; i++)
            complete_one(&rig, 0);
        offer_pair(&rig, 1);
        struct chain *c = rig_pop(&rig);
        ring_push(&rig.ring, c, 1);
        ring_publish(&rig.ring);
        uint32_t base = rig.config.base = ring_base(&rig.ring);
        ring_stop(&rig.ring);
        check_ok(rig_start(&rig, &e), &e);
        assert_int_equal(ring_base(&rig.ring), base);
        rig_close(&rig);
    }
}

static void test_memory_goes_away(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++) {
        struct rig rig;
        rig_open(&rig, layouts[l], SIZE);
        struct mem_desc a = {RIG_A, RIG_REGION, RIG_A + RIG_USER_SHIFT, 0};
        struct mem *less;
        struct error e;
        check_ok(mem_remove(&less, rig.mem, &a, &e), &e);
        ring_set_mem(&rig.ring, less);
        assert_int_equal(rig.ring.fault, RING_UNMAPPED);
        assert_null(rig_pop(&rig));
        assert_true(ring_park(&rig.ring)); // without touching the lost areas
        ring_unpark(&rig.ring);
        mem_free(less);
        rig_close(&rig);
    }
}

static void test_oldest_chain(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++) {
        struct rig rig;
        rig_open_stopped(&rig, layouts[l], SIZE);
        assert_int_equal(ring_oldest(&rig.ring), 0);
        struct error e;
        check_ok(rig_start(&rig, &e), &e);
        assert_int_equal(ring_oldest(&rig.ring), 0);
        struct chain *chains[3];
        for (uint16_t i = 0; i < 3; i++) {
            rig_offer_simple(&rig, i);
            chains[i] = rig_pop(&rig);
        }
        uint64_t second = chains[1]->popped_at;
        assert_int_equal(ring_oldest(&rig.ring), chains[0]->popped_at);
        ring_push(&rig.ring, chains[0], 0);
        ring_publish(&rig.ring);
        assert_int_equal(ring_oldest(&rig.ring), second);
        ring_push(&rig.ring, chains[1], 0);
        ring_push(&rig.ring, chains[2], 0);
        ring_publish(&rig.ring);
        assert_int_equal(ring_oldest(&rig.ring), 0);
        rig_close(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_of_completion),
        cmocka_unit_test(test_no_record_completes_in_order),
        cmocka_unit_test(test_notification_flags),
        cmocka_unit_test(test_notification_event),
        cmocka_unit_test(test_dirty_log),
        cmocka_unit_test(test_parking),
        cmocka_unit_test(test_start_refusals),
        cmocka_unit_test(test_base_goes_round),
        cmocka_unit_test(test_packed_base_without_used_half),
        cmocka_unit_test(test_packed_base_is_old),
        cmocka_unit_test(test_split_base_is_old),
        cmocka_unit_test(test_packed_base_behind_a_pair),
        cmocka_unit_test(test_memory_goes_away),
        cmocka_unit_test(test_oldest_chain),
        cmocka_unit_test(test_unpop),
    };
    return cmocka_run_group_tests_name("ring_used", tests, NULL, NULL);
}
