// SPDX-License-Identifier: Apache-2.0
// In-flight records with what no back end wrote: a ring refuses them, or stops.
#include "tests/check.h"
#include "tests/ring_rig.h"
#include "dataplane/inflight.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SIZE   8
#define PACKED VIRTIO_BIT(VIRTIO_F_RING_PACKED)

static const uint64_t layouts[] = {0, PACKED};

static void test_random_record(void **state)
{
    (void)state;
    unsigned seed = 7, n_started = 0;
    for (unsigned round = 0; round < 4000; round++) {
        struct rig rig;
        struct error e;
        rig_open_stopped(&rig, layouts[round % 2], SIZE);
        rig.config.inflight = rig.inflight;
        rig.config.inflight_bytes = inflight_queue_bytes(layouts[round % 2], SIZE);
        // Mostly small numbers, so that many records get past the first checks.
        for (size_t i = 0; i < rig.config.inflight_bytes; i++)
            rig.inflight[i] = (uint8_t)(rand_r(&seed) % 3 ? 0 : rand_r(&seed) % 10);
        if (round % 4 < 2) { // a version, a size and an index that fit
            const uint16_t version = 1, size = SIZE, none = 0;
            memcpy(rig.inflight + 8, &version, 2);
            memcpy(rig.inflight + 10, &size, 2);
            memcpy(rig.inflight + (rig.is_packed ? 16 : 14), &none, 2);
        }
        for (uint16_t id = 0; id < SIZE; id++)
            rig_offer_simple(&rig, id);
        if (rig_start(&rig, &e) == 0) {
            n_started++;
            struct chain *c[RING_BATCH_MAX];
            unsigned n;
            while ((n = ring_pop(&rig.ring, c, 3)) > 0) {
                for (unsigned i = 0; i < n; i++)
                    ring_push(&rig.ring, c[i], 0);
                ring_publish(&rig.ring);
            }
        }
        rig_close(&rig);
    }
    assert_true(n_started > 100); // or the test tries nothing
}

// A packed record that was right when the ring started and says something else when its chains
// are popped: no more descriptors than the ring has, no entry beyond the record.
static void test_record_changes_after_the_start(void **state)
{
    (void)state;
    const struct {
        const char *name;
        uint16_t num, next, id;
        enum ring_fault fault;
    } cases[] = {
        {"the same", 1, 1, 3, RING_OK},
        {"no descriptor", 0, 1, 3, RING_BAD_RECORD},
        {"more than the ring has", SIZE + 1, 0, 3, RING_BAD_RECORD},
        {"more than a chain may have", UINT16_MAX, 0, 3, RING_BAD_RECORD},
        {"leads out of the record", 2, SIZE, 3, RING_BAD_RECORD},
        {"leads far out of the record", 2, UINT16_MAX, 3, RING_BAD_RECORD},
        {"another id", 1, 1, SIZE, RING_BAD_HEAD},
    };
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct rig rig;
        rig_open_with_record(&rig, PACKED, SIZE);
        rig_offer_simple(&rig, 3);
        assert_non_null(rig_pop(&rig));
        rig_die_and_restart(&rig);
        struct inflight_packed *record = (struct inflight_packed *)(void *)rig.inflight;
        record->desc[0].num = cases[i].num;
        record->desc[0].next = cases[i].next;
        record->desc[0].id = cases[i].id;
        struct chain *c = rig_pop(&rig);
        if (rig.ring.fault != cases[i].fault)
            fail_msg("%s: %s", cases[i].name, ring_fault_name(rig.ring.fault));
        assert_true(!c == !!cases[i].fault);
        if (c)
            ring_push(&rig.ring, c, 0);
        ring_publish(&rig.ring);
        rig_close(&rig);
    }
}

// Chains of a record that together have more descriptors than the ring, though each may pass.
static void test_replays_exceed_the_ring(void **state)
{
    (void)state;
    struct rig rig;
    rig_open_with_record(&rig, PACKED, SIZE);
    for (uint16_t id = 0; id < 3; id++) {
        rig_offer_simple(&rig, id);
        assert_non_null(rig_pop(&rig));
    }
    rig_die_and_restart(&rig);
    struct inflight_packed *record = (struct inflight_packed *)(void *)rig.inflight;
    struct chain *c[3];
    for (uint16_t i = 0; i < 3; i++) {
        record->desc[i].num = SIZE;
        record->desc[i].next = i; // a loop
        c[i] = rig_pop(&rig);
        assert_non_null(c[i]);
    }
    for (unsigned i = 0; i < 3; i++)
        ring_push(&rig.ring, c[i], 0);
    assert_false(ring_publish(&rig.ring));
    assert_int_equal(rig.ring.fault, RING_BAD_INDEX);
    rig_close(&rig);
}

static void test_wrong_records_are_refused(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++) {
        struct rig rig;
        struct error e;
        rig_open_stopped(&rig, layouts[l], SIZE);
        rig.config.inflight = rig.inflight;
        rig.config.inflight_bytes = inflight_queue_bytes(layouts[l], SIZE) - INFLIGHT_ALIGN;
        assert_int_equal(rig_start(&rig, &e), -EINVAL); // too small
        rig.config.inflight_bytes += INFLIGHT_ALIGN;
        const uint16_t version = 1, size = SIZE * 2;
        memcpy(rig.inflight + 8, &version, 2);
        memcpy(rig.inflight + 10, &size, 2);
        assert_int_equal(rig_start(&rig, &e), -EINVAL); // of another queue size
        assert_non_null(strstr(e.text, "in-flight record contradicts"));
        rig_close(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_record),
        cmocka_unit_test(test_record_changes_after_the_start),
        cmocka_unit_test(test_replays_exceed_the_ring),
        cmocka_unit_test(test_wrong_records_are_refused),
    };
    return cmocka_run_group_tests_name("inflight_hostile", tests, NULL, NULL);
}
