// SPDX-License-Identifier: Apache-2.0
// What single chains do to a ring: hostile ones fault it with the right name, honest ones come
// out as they went in. Every case runs over both layouts unless its name says otherwise.
#include "tests/check.h"
#include "tests/ring_rig.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SIZE      8
#define PACKED    VIRTIO_BIT(VIRTIO_F_RING_PACKED)
#define INDIRECT  VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC)
#define EVENT_IDX VIRTIO_BIT(VIRTIO_F_EVENT_IDX)
#define IN_ORDER  VIRTIO_BIT(VIRTIO_F_IN_ORDER)

static const uint64_t layouts[] = {0, PACKED};

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t next;
};

#define B RIG_BUFFER
#define N RIG_NEXT
#define W RIG_WRITE
#define I RIG_INDIRECT

// ---- with or without a dirty log ---------------------------------------------------------

#define LOG_CANARY  0x5a
#define LOG_OFFSET  64
#define LOG_BYTES   (RIG_HOLE / DIRTY_PAGE_BYTES / 8) // too short for region C
#define LOG_IN_FILE (4 * DIRTY_PAGE_BYTES)

static bool is_logging; // the rigs that are opened from now on

// Rows of bad chains run once more with a log that lies amid canaries.
static void log_rig(struct rig *rig)
{
    static uint8_t canaries[LOG_IN_FILE];
    struct error e;
    if (!is_logging)
        return;
    memset(canaries, LOG_CANARY, sizeof(canaries));
    int fd = memfd_create("log", MFD_CLOEXEC);
    assert_int_equal(write(fd, canaries, sizeof(canaries)), sizeof(canaries));
    check_ok(dirty_open(&rig->log, fd, LOG_BYTES, LOG_OFFSET, &e), &e);
    close(fd);
}

static void open_rig(struct rig *rig, uint64_t features, uint32_t size)
{
    struct error e;
    rig_open_stopped(rig, features, size);
    log_rig(rig);
    check_ok(rig_start(rig, &e), &e);
}

// Nothing was written around the log.
static void check_log(const struct rig *rig)
{
    const struct mapping *m = &rig->log->mapping;
    const uint8_t *file = m->base;
    for (size_t i = 0; i < m->base_bytes && i < LOG_IN_FILE; i++)
        if ((i < LOG_OFFSET || i >= LOG_OFFSET + LOG_BYTES) && file[i] != LOG_CANARY)
            fail_msg("byte %zu is not of the log, and was written", i);
}

static void close_rig(struct rig *rig)
{
    if (rig->log)
        check_log(rig);
    ring_set_dirty(&rig->ring, NULL);
    dirty_close(rig->log);
    rig->log = NULL;
    rig_close(rig);
}

// ---- direct chains -----------------------------------------------------------------------

struct direct_case {
    const char *name;
    struct desc descs[4];
    unsigned n;
    enum ring_fault fault; // RING_OK: n_out and n_in iovecs come out
    unsigned n_out, n_in;
};

static const struct direct_case direct_cases[] = {
    {"one readable", {{B, 16, 0, 0}}, 1, RING_OK, 1, 0},
    {"one writable", {{B, 16, W, 0}}, 1, RING_OK, 0, 1},
    {"read then write", {{B, 16, N, 1}, {B, 1, W, 0}}, 2, RING_OK, 1, 1},
    {"three", {{B, 16, N, 1}, {B, 4096, N | W, 2}, {B, 1, W, 0}}, 3, RING_OK, 1, 2},
    {"over two regions that touch", {{RIG_B - 8, 16, 0, 0}}, 1, RING_OK, 2, 0},
    {"a whole region and its neighbour", {{RIG_A, 0x200000, W, 0}}, 1, RING_OK, 0, 2},
    {"over a hole", {{RIG_HOLE - 8, 16, 0, 0}}, 1, RING_BAD_ADDR, 0, 0},
    {"in a hole", {{RIG_HOLE, 16, 0, 0}}, 1, RING_BAD_ADDR, 0, 0},
    {"past the end", {{RIG_END - 8, 16, W, 0}}, 1, RING_BAD_ADDR, 0, 0},
    {"at the end", {{RIG_END, 1, W, 0}}, 1, RING_BAD_ADDR, 0, 0},
    {"before the start", {{RIG_A - 1, 1, W, 0}}, 1, RING_BAD_ADDR, 0, 0},
    {"wraps", {{UINT64_MAX - 3, 8, 0, 0}}, 1, RING_BAD_ADDR, 0, 0},
    {"last byte of the address space", {{UINT64_MAX, 1, 0, 0}}, 1, RING_BAD_ADDR, 0, 0},
    {"four GiB less one", {{RIG_A, UINT32_MAX, W, 0}}, 1, RING_BAD_ADDR, 0, 0},
    {"length 0", {{B, 0, 0, 0}}, 1, RING_ZERO_LENGTH, 0, 0},
    {"length 0 with a bad address", {{UINT64_MAX, 0, W, 0}}, 1, RING_ZERO_LENGTH, 0, 0},
    {"length 0 as second", {{B, 8, N, 1}, {B, 0, W, 0}}, 2, RING_ZERO_LENGTH, 0, 0},
    {"readable after writable", {{B, 8, N | W, 1}, {B, 8, 0, 0}}, 2, RING_BAD_ORDER, 0, 0},
    {"indirect not negotiated", {{RIG_TABLE, 16, I, 0}}, 1, RING_BAD_INDIRECT, 0, 0},
};

static void check_pop(struct rig *rig, const char *name, enum ring_fault fault, unsigned n_out,
                      unsigned n_in)
{
    struct chain *c = rig_pop(rig);
    if (rig->ring.fault != fault)
        fail_msg("%s (%s): fault %s, expected %s", name, rig->is_packed ? "packed" : "split",
                 ring_fault_name(rig->ring.fault), ring_fault_name(fault));
    if (fault) {
        assert_null(c);
        assert_int_equal(counter_read(&rig->stats.n_faults[fault]), 1);
        assert_int_equal(rig->ring.n_in_flight, 0);
        assert_false(ring_has_work(&rig->ring));
        assert_null(rig_pop(rig)); // sticky
        return;
    }
    assert_non_null(c);
    if (c->n_out != n_out || c->n_in != n_in)
        fail_msg("%s: %u readable and %u writable segments", name, c->n_out, c->n_in);
    ring_push(&rig->ring, c, c->in_bytes);
    ring_publish(&rig->ring);
    assert_int_equal(rig_n_used(rig), 1);
    assert_int_equal(rig->ring.n_in_flight, 0);
}

static void run_direct(const struct direct_case *t, uint64_t features)
{
    struct rig rig;
    open_rig(&rig, features, SIZE);
    for (unsigned i = 0; i < t->n; i++)
        rig_put(&rig, i, t->descs[i].addr, t->descs[i].len, t->descs[i].flags, t->descs[i].next, 0);
    rig_offer(&rig, 0, t->n);
    check_pop(&rig, t->name, t->fault, t->n_out, t->n_in);
    close_rig(&rig);
}

static void test_direct_chains(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++)
        for (unsigned i = 0; i < ARRAY_LEN(direct_cases); i++)
            run_direct(&direct_cases[i], layouts[l]);
}

// ---- indirect chains ---------------------------------------------------------------------

struct indirect_case {
    const char *name;
    uint64_t addr; // of the table
    uint32_t len;
    uint16_t flags; // of the descriptor that leads there
    struct desc entries[3];
    unsigned n;
    enum ring_fault fault;
    unsigned n_out, n_in;
};

#define T RIG_TABLE

static const struct indirect_case indirect_cases[] = {
    {"one", T, 16, I, {{B, 16, 0, 0}}, 1, RING_OK, 1, 0},
    {"three", T, 48, I, {{B, 16, N, 1}, {B, 512, N | W, 2}, {B, 1, W, 0}}, 3, RING_OK, 1, 2},
    {"write flag on the table is ignored", T, 16, I | W, {{B, 16, 0, 0}}, 1, RING_OK, 1, 0},
    {"empty", T, 0, I, {{0}}, 0, RING_BAD_INDIRECT, 0, 0},
    {"not whole entries", T, 24, I, {{B, 16, 0, 0}}, 1, RING_BAD_INDIRECT, 0, 0},
    {"chained on", T, 16, I | N, {{B, 16, 0, 0}}, 1, RING_BAD_INDIRECT, 0, 0},
    {"nested", T, 16, I, {{T, 16, I, 0}}, 1, RING_BAD_INDIRECT, 0, 0},
    {"nested later", T, 32, I, {{B, 16, N, 1}, {T, 16, I, 0}}, 2, RING_BAD_INDIRECT, 0, 0},
    {"in a hole", RIG_HOLE, 16, I, {{0}}, 0, RING_BAD_ADDR, 0, 0},
    {"over a hole", RIG_HOLE - 16, 32, I, {{0}}, 0, RING_BAD_ADDR, 0, 0},
    {"over two regions", RIG_B - 16, 32, I, {{0}}, 0, RING_BAD_ADDR, 0, 0},
    {"unaligned", T + 1, 16, I, {{0}}, 0, RING_BAD_ADDR, 0, 0},
    {"huge", T, UINT32_MAX - 15, I, {{B, 16, 0, 0}}, 1, RING_BAD_ADDR, 0, 0},
    {"bad address inside", T, 16, I, {{RIG_HOLE, 16, 0, 0}}, 1, RING_BAD_ADDR, 0, 0},
    {"length 0 inside", T, 16, I, {{B, 0, 0, 0}}, 1, RING_ZERO_LENGTH, 0, 0},
    {"readable after writable",
     T,
     32,
     I,
     {{B, 1, W | N, 1}, {B, 1, 0, 0}},
     2,
     RING_BAD_ORDER,
     0,
     0},
};

static void run_indirect(const struct indirect_case *t, uint64_t features)
{
    struct rig rig;
    open_rig(&rig, features | INDIRECT, SIZE);
    for (unsigned i = 0; i < t->n; i++)
        rig_put_entry(&rig, t->addr, i, t->entries[i].addr, t->entries[i].len, t->entries[i].flags,
                      t->entries[i].next);
    rig_put(&rig, 0, t->addr, t->len, t->flags, 1, 0);
    rig_offer(&rig, 0, 1);
    check_pop(&rig, t->name, t->fault, t->n_out, t->n_in);
    close_rig(&rig);
}

static void test_indirect_chains(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++)
        for (unsigned i = 0; i < ARRAY_LEN(indirect_cases); i++)
            run_indirect(&indirect_cases[i], layouts[l]);
}

// Direct descriptors followed by a table (2.7.5.3.2).
static void test_mixed_chain(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++) {
        struct rig rig;
        open_rig(&rig, layouts[l] | INDIRECT, SIZE);
        rig_put_entry(&rig, T, 0, B, 512, N | W, 1);
        rig_put_entry(&rig, T, 1, B + 512, 1, W, 0);
        rig_put(&rig, 0, B, 16, N, 1, 0);
        rig_put(&rig, 1, T, 32, I, 0, 0);
        rig_offer(&rig, 0, 2);
        check_pop(&rig, "mixed", RING_OK, 1, 2);
        close_rig(&rig);
    }
}

static void test_longest_indirect_chain(void **state)
{
    (void)state;
    const uint32_t lengths[] = {RING_SEGS_SMALL, RING_SEGS_SMALL + 1, RING_SEGS_MAX,
                                RING_SEGS_MAX + 1};
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++)
        for (unsigned t = 0; t < ARRAY_LEN(lengths); t++) {
            uint32_t n = lengths[t];
            struct rig rig;
            open_rig(&rig, layouts[l] | INDIRECT, SIZE);
            for (uint32_t i = 0; i < n; i++)
                rig_put_entry(&rig, T, i, B, 8, i + 1 < n ? N | W : W, (uint16_t)(i + 1));
            rig_put(&rig, 0, T, n * 16, I, 0, 0);
            rig_offer(&rig, 0, 1);
            check_pop(&rig, "long", n > RING_SEGS_MAX ? RING_TOO_LONG : RING_OK, 0, n);
            assert_int_equal(counter_read(&rig.stats.n_bytes_in), n > RING_SEGS_MAX ? 0 : 8 * n);
            assert_int_equal(rig.ring.n_large_free, RING_LARGE_MAX);
            close_rig(&rig);
        }
}

static void test_longest_direct_chain(void **state)
{
    (void)state;
    const uint32_t lengths[] = {RING_SEGS_MAX, RING_SEGS_MAX + 1};
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++)
        for (unsigned t = 0; t < ARRAY_LEN(lengths); t++) {
            uint32_t n = lengths[t];
            struct rig rig;
            open_rig(&rig, layouts[l], 2048);
            for (uint32_t i = 0; i < n; i++)
                rig_put(&rig, i, B, 8, i + 1 < n ? N : 0, (uint16_t)(i + 1), 0);
            rig_offer(&rig, 0, n);
            check_pop(&rig, "long", n > RING_SEGS_MAX ? RING_TOO_LONG : RING_OK, n, 0);
            close_rig(&rig);
        }
}

// A table that repeats one huge buffer: byte counts of a chain do not fit 32 bits (2.7.5.2).
static void test_four_gib_chain(void **state)
{
    (void)state;
    const uint32_t n_max = (uint32_t)(UINT64_C(0x100000000) / RIG_C_BYTES);
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++)
        for (uint32_t n = n_max - 1; n <= n_max; n++) {
            struct rig rig;
            open_rig(&rig, layouts[l] | INDIRECT, SIZE);
            for (uint32_t i = 0; i < n; i++)
                rig_put_entry(&rig, T, i, RIG_C, (uint32_t)RIG_C_BYTES, i + 1 < n ? N | W : W,
                              (uint16_t)(i + 1));
            rig_put(&rig, 0, T, n * 16, I, 0, 0);
            rig_offer(&rig, 0, 1);
            check_pop(&rig, "4 GiB", n == n_max ? RING_TOO_LONG : RING_OK, 0, n);
            close_rig(&rig);
        }
}

// ---- loops, heads and indices ------------------------------------------------------------

static void test_split_loops(void **state)
{
    (void)state;
    const struct {
        const char *name;
        struct desc descs[2];
        uint16_t head;
        enum ring_fault fault;
    } cases[] = {
        {"onto itself", {{B, 8, N, 0}}, 0, RING_BAD_CHAIN},
        {"two in a circle", {{B, 8, N, 1}, {B, 8, N, 0}}, 0, RING_BAD_CHAIN},
        {"next out of range", {{B, 8, N, SIZE}}, 0, RING_BAD_NEXT},
        {"next far out of range", {{B, 8, N, UINT16_MAX}}, 0, RING_BAD_NEXT},
        {"head out of range", {{B, 8, 0, 0}}, SIZE, RING_BAD_HEAD},
        {"head far out of range", {{B, 8, 0, 0}}, UINT16_MAX, RING_BAD_HEAD},
    };
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct rig rig;
        open_rig(&rig, 0, SIZE);
        for (uint32_t d = 0; d < 2; d++)
            rig_put(&rig, d, cases[i].descs[d].addr, cases[i].descs[d].len, cases[i].descs[d].flags,
                    cases[i].descs[d].next, 0);
        rig_offer(&rig, cases[i].head, 1);
        check_pop(&rig, cases[i].name, cases[i].fault, 0, 0);
        close_rig(&rig);
    }
}

static void test_split_indirect_loop(void **state)
{
    (void)state;
    const uint16_t nexts[] = {0, 2, UINT16_MAX};
    const enum ring_fault faults[] = {RING_BAD_CHAIN, RING_BAD_NEXT, RING_BAD_NEXT};
    for (unsigned i = 0; i < ARRAY_LEN(nexts); i++) {
        struct rig rig;
        open_rig(&rig, INDIRECT, SIZE);
        rig_put_entry(&rig, T, 0, B, 8, N, 1);
        rig_put_entry(&rig, T, 1, B, 8, N, nexts[i]);
        rig_put(&rig, 0, T, 32, I, 0, 0);
        rig_offer(&rig, 0, 1);
        check_pop(&rig, "loop in a table", faults[i], 0, 0);
        close_rig(&rig);
    }
}

static void test_packed_chain_round_the_ring(void **state)
{
    (void)state;
    struct rig rig;
    open_rig(&rig, PACKED, SIZE);
    for (uint32_t i = 0; i < SIZE; i++)
        rig_put(&rig, i, B, 8, N, 0, 0);
    rig_offer(&rig, 0, 1);
    check_pop(&rig, "never ends", RING_BAD_CHAIN, 0, 0);
    close_rig(&rig);
}

static void test_packed_id_out_of_range(void **state)
{
    (void)state;
    const uint16_t ids[] = {SIZE, UINT16_MAX};
    for (unsigned i = 0; i < ARRAY_LEN(ids); i++) {
        struct rig rig;
        open_rig(&rig, PACKED, SIZE);
        rig_put(&rig, 0, B, 8, 0, 0, ids[i]);
        rig_offer(&rig, 0, 1);
        check_pop(&rig, "id", RING_BAD_HEAD, 0, 0);
        close_rig(&rig);
    }
}

// The index may run ahead of what was popped by one ring, not by more (2.7.13.3).
static void test_split_index_jumps(void **state)
{
    (void)state;
    const uint16_t starts[] = {0, UINT16_MAX - 2, UINT16_MAX};
    const uint16_t jumps[] = {SIZE, SIZE + 1, 0x8000, UINT16_MAX};
    for (unsigned s = 0; s < ARRAY_LEN(starts); s++)
        for (unsigned j = 0; j < ARRAY_LEN(jumps); j++) {
            struct rig rig;
            rig_open_stopped(&rig, 0, SIZE);
            rig.config.base = starts[s];
            ((struct split_avail *)rig_at(&rig, RIG_A + 0x10000))->idx = starts[s];
            log_rig(&rig);
            struct error e;
            check_ok(rig_start(&rig, &e), &e);
            for (uint16_t i = 0; i < SIZE; i++) {
                rig_put(&rig, i, B, 8, W, 0, 0);
                ((struct split_avail *)rig_at(&rig, RIG_A + 0x10000))->ring[i] = i;
            }
            rig_jump(&rig, jumps[j]);
            struct chain *c[RING_BATCH_MAX];
            unsigned n = ring_pop(&rig.ring, c, RING_BATCH_MAX);
            assert_int_equal(n, jumps[j] == SIZE ? SIZE : 0);
            assert_int_equal(rig.ring.fault, jumps[j] == SIZE ? RING_OK : RING_BAD_INDEX);
            for (unsigned i = 0; i < n; i++)
                ring_push(&rig.ring, c[i], 0);
            ring_publish(&rig.ring);
            close_rig(&rig);
        }
}

// Flags of the wrong lap are no chain, and no fault either.
static void test_packed_wrap_flips(void **state)
{
    (void)state;
    const uint16_t bits[] = {0, PACKED_DESC_USED, PACKED_DESC_AVAIL | PACKED_DESC_USED};
    for (unsigned i = 0; i < ARRAY_LEN(bits); i++) {
        struct rig rig;
        rig_open(&rig, PACKED, SIZE);
        struct packed_desc *ring = rig_at(&rig, RIG_A);
        ring[0] = (struct packed_desc){B, 8, 0, bits[i]};
        assert_null(rig_pop(&rig));
        assert_int_equal(rig.ring.fault, RING_OK);
        rig_close(&rig);
    }
}

static void test_bad_chains_stay_inside_the_log(void **state)
{
    is_logging = true;
    test_direct_chains(state);
    test_indirect_chains(state);
    test_mixed_chain(state);
    test_longest_indirect_chain(state);
    test_longest_direct_chain(state);
    test_four_gib_chain(state);
    test_split_loops(state);
    test_split_indirect_loop(state);
    test_packed_chain_round_the_ring(state);
    test_packed_id_out_of_range(state);
    test_split_index_jumps(state);
    is_logging = false;
}

static void test_duplicate_head(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++) {
        struct rig rig;
        rig_open(&rig, layouts[l], SIZE);
        rig_offer_simple(&rig, 3);
        struct chain *c = rig_pop(&rig);
        assert_non_null(c);
        rig_offer_simple(&rig, 3);
        assert_null(rig_pop(&rig));
        assert_int_equal(rig.ring.fault, RING_DUP_HEAD);
        assert_int_equal(rig.ring.fault_detail, 3);
        // The one in flight comes back and is counted, but the driver sees nothing any more.
        ring_push(&rig.ring, c, 1);
        assert_false(ring_publish(&rig.ring));
        assert_int_equal(rig.ring.n_in_flight, 0);
        assert_int_equal(rig_n_used(&rig), 0);
        rig_close(&rig);
    }
}

// Chains before the bad one in a batch are served.
static void test_fault_inside_a_batch(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++) {
        struct rig rig;
        rig_open(&rig, layouts[l], SIZE);
        rig_offer_simple(&rig, 0);
        rig_offer_simple(&rig, 1);
        rig_put(&rig, rig.is_packed ? 0 : 2, RIG_HOLE, 8, 0, 0, 2);
        rig_offer(&rig, 2, 1);
        struct chain *c[RING_BATCH_MAX];
        assert_int_equal(ring_pop(&rig.ring, c, RING_BATCH_MAX), 2);
        assert_int_equal(rig.ring.fault, RING_BAD_ADDR);
        assert_int_equal(rig.ring.fault_detail, RIG_HOLE);
        ring_push(&rig.ring, c[1], 0);
        ring_push(&rig.ring, c[0], 0);
        ring_publish(&rig.ring);
        rig_close(&rig);
    }
}

// ---- running short -----------------------------------------------------------------------

// More long chains than large slots: the rest waits in the ring, nothing faults.
static void test_large_slots_run_out(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++) {
        struct rig rig;
        rig_open(&rig, layouts[l] | INDIRECT, 128);
        for (uint32_t i = 0; i < RING_SEGS_SMALL + 1; i++)
            rig_put_entry(&rig, T, i, B, 8, i < RING_SEGS_SMALL ? N | W : W, (uint16_t)(i + 1));
        for (uint16_t id = 0; id < RING_LARGE_MAX + 10; id++) {
            rig_put(&rig, rig.is_packed ? 0 : id, T, (RING_SEGS_SMALL + 1) * 16, I, 0, id);
            rig_offer(&rig, id, 1);
        }
        struct chain *c[RING_BATCH_MAX], *more[RING_BATCH_MAX];
        assert_int_equal(ring_pop(&rig.ring, c, RING_BATCH_MAX), RING_LARGE_MAX);
        assert_int_equal(ring_pop(&rig.ring, more, RING_BATCH_MAX), 0);
        assert_int_equal(rig.ring.fault, RING_OK);
        assert_int_not_equal(counter_read(&rig.stats.n_full), 0);
        for (unsigned i = 0; i < RING_LARGE_MAX; i++)
            ring_push(&rig.ring, c[i], 0);
        ring_publish(&rig.ring);
        assert_int_equal(ring_pop(&rig.ring, c, RING_BATCH_MAX), 10);
        for (unsigned i = 0; i < 10; i++)
            ring_push(&rig.ring, c[i], 0);
        ring_publish(&rig.ring);
        assert_int_equal(rig.ring.n_large_free, RING_LARGE_MAX);
        rig_close(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_direct_chains),
        cmocka_unit_test(test_indirect_chains),
        cmocka_unit_test(test_mixed_chain),
        cmocka_unit_test(test_longest_indirect_chain),
        cmocka_unit_test(test_longest_direct_chain),
        cmocka_unit_test(test_four_gib_chain),
        cmocka_unit_test(test_split_loops),
        cmocka_unit_test(test_split_indirect_loop),
        cmocka_unit_test(test_packed_chain_round_the_ring),
        cmocka_unit_test(test_packed_id_out_of_range),
        cmocka_unit_test(test_split_index_jumps),
        cmocka_unit_test(test_packed_wrap_flips),
        cmocka_unit_test(test_bad_chains_stay_inside_the_log),
        cmocka_unit_test(test_duplicate_head),
        cmocka_unit_test(test_fault_inside_a_batch),
        cmocka_unit_test(test_large_slots_run_out),
    };
    return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
