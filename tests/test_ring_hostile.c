// SPDX-License-Identifier: Apache-2.0
// A guest that writes to its rings while they are read, offers what it has no right to again
// and again, and never the same twice: faults or whole chains come out, and nothing is lost.
#include "tests/check.h"
#include "tests/device_rig.h"
#include "tests/disk_rig.h"
#include "tests/ring_rig.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SIZE     16
#define ENTRIES  16 // of the table at RIG_TABLE that the flipper writes
#define PACKED   VIRTIO_BIT(VIRTIO_F_RING_PACKED)
#define INDIRECT VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC)

static const uint64_t layouts[] = {INDIRECT, INDIRECT | PACKED};

static bool is_long(void)
{
    return getenv("SLUICE_LONG") != NULL; // tools/check --long
}

// ---- memory that changes between two reads -----------------------------------------------

// Mostly what is right, so that many reads get far.
static uint64_t any_addr(unsigned *seed)
{
    static const uint64_t wrong[] = {RIG_HOLE,      RIG_HOLE - 8, RIG_END - 1,
                                     RIG_TABLE + 1, RIG_A - 8,    UINT64_MAX - 3};
    static const uint64_t right[] = {RIG_BUFFER, RIG_TABLE, RIG_B - 8, RIG_C, RIG_TABLE + 16};
    unsigned v = (unsigned)rand_r(seed);
    return v % 64 ? right[v / 64 % ARRAY_LEN(right)] : wrong[v / 64 % ARRAY_LEN(wrong)];
}

static uint32_t any_len(unsigned *seed)
{
    static const uint32_t lens[] = {16, 16, 32, 32, 16 * ENTRIES, 4096, 48, 1u << 25};
    static const uint32_t wrong[] = {0, 17, UINT32_MAX, UINT32_MAX - 15};
    unsigned v = (unsigned)rand_r(seed);
    return v % 64 ? lens[v / 64 % ARRAY_LEN(lens)] : wrong[v / 64 % ARRAY_LEN(wrong)];
}

static uint16_t any_index(unsigned *seed)
{
    unsigned v = (unsigned)rand_r(seed);
    return (uint16_t)(v % 64 ? v / 64 % SIZE : v / 64);
}

static uint16_t any_flags(unsigned *seed)
{
    static const uint16_t lap[] = {0, PACKED_DESC_AVAIL, PACKED_DESC_USED,
                                   PACKED_DESC_AVAIL | PACKED_DESC_USED};
    static const uint16_t kinds[] = {RIG_WRITE, RIG_WRITE, RIG_WRITE, RIG_WRITE,
                                     RIG_WRITE, 0,         RIG_NEXT,  RIG_NEXT | RIG_WRITE};
    unsigned v = (unsigned)rand_r(seed);
    uint16_t kind = v % 32 == 0 ? RIG_INDIRECT : kinds[v / 32 % ARRAY_LEN(kinds)];
    return (uint16_t)(kind | lap[v / 256 % 4]);
}

// Both layouts have the address first, then 32 bits of length; the last two words change places.
static void flip_desc(void *at, bool is_packed, unsigned *seed)
{
    struct split_desc *s = at;
    struct packed_desc *p = at;
    switch (rand_r(seed) % 4) {
    case 0:
        __atomic_store_n(&s->addr, any_addr(seed), __ATOMIC_RELAXED);
        break;
    case 1:
        guest_store32(&s->len, any_len(seed));
        break;
    case 2:
        guest_store16(is_packed ? &p->flags : &s->flags, any_flags(seed));
        break;
    default:
        guest_store16(is_packed ? &p->id : &s->next, any_index(seed));
    }
}

struct flipper {
    struct rig *rig;
    atomic_bool stop;
    unsigned seed;
};

static void flip_once(struct flipper *f)
{
    struct rig *rig = f->rig;
    uint8_t *descs = rig_at(rig, RIG_A), *table = rig_at(rig, RIG_TABLE);
    struct split_avail *avail = rig_at(rig, RIG_A + 0x10000);
    flip_desc(descs + 16 * (rand_r(&f->seed) % SIZE), rig->is_packed, &f->seed);
    flip_desc(table + 16 * (rand_r(&f->seed) % ENTRIES), rig->is_packed, &f->seed);
    if (!rig->is_packed)
        guest_store16(&avail->ring[rand_r(&f->seed) % SIZE], any_index(&f->seed));
}

static void *flip_on(void *argument)
{
    struct flipper *f = argument;
    while (!f->stop)
        flip_once(f);
    return NULL;
}

static bool is_in_memory(const struct rig *rig, const struct iovec *v)
{
    const uint8_t *at = v->iov_base;
    for (unsigned i = 0; i < rig->mem->n_regions; i++) {
        const struct mem_region *m = &rig->mem->regions[i];
        if (at >= m->host && at < m->host + m->size)
            return v->iov_len > 0 && v->iov_len <= (uint64_t)(m->host + m->size - at);
    }
    return false;
}

static void check_chain(const struct rig *rig, const struct chain *c)
{
    uint64_t sums[2] = {0, 0};
    unsigned n = c->n_out + (unsigned)c->n_in;
    assert_true(n > 0 && n <= RING_SEGS_MAX && c->id < SIZE);
    for (unsigned i = 0; i < n; i++) {
        if (!is_in_memory(rig, &c->iov[i]))
            fail_msg("segment %u of %u leaves guest memory", i, n);
        sums[i >= c->n_out] += c->iov[i].iov_len;
    }
    assert_int_equal(sums[0], c->out_bytes);
    assert_int_equal(sums[1], c->in_bytes);
}

static void start_again(struct rig *rig)
{
    struct error e;
    assert_int_equal(rig->ring.n_in_flight, 0);
    assert_int_equal(rig->ring.n_large_free, RING_LARGE_MAX);
    rig->config.base = rig->is_packed ? 0x80008000u : ring_base(&rig->ring);
    ring_stop(&rig->ring);
    check_ok(rig_start(rig, &e), &e);
}

// The driver's part: something is available, whatever it is by now.
static void make_available(struct rig *rig, unsigned *seed)
{
    const struct ring *r = &rig->ring;
    if (rig->is_packed) {
        struct packed_desc *ring = rig_at(rig, RIG_A);
        uint16_t lap = r->avail_wrap ? PACKED_DESC_AVAIL : PACKED_DESC_USED;
        uint16_t kind = rand_r(seed) % 8 ? RIG_WRITE : any_flags(seed) & (RIG_NEXT | RIG_INDIRECT);
        guest_store16_release(&ring[r->next_avail].flags, (uint16_t)(kind | lap));
    } else {
        struct split_avail *avail = rig_at(rig, RIG_A + 0x10000);
        uint16_t index = (uint16_t)(r->next_avail + 1 + rand_r(seed) % 4);
        guest_store16_release(&avail->idx, index);
    }
}

// Pop, look, give back what chance says; after a fault all of it. Returns the chains popped.
static unsigned serve_once(struct rig *rig, struct chain *held[], unsigned *n_held, unsigned *seed)
{
    make_available(rig, seed);
    unsigned n = ring_pop(&rig->ring, held + *n_held, 4);
    for (unsigned i = 0; i < n; i++)
        check_chain(rig, held[*n_held + i]);
    *n_held += n;
    while (*n_held && (rig->ring.fault || rand_r(seed) % 4)) {
        struct chain *c = held[--*n_held];
        check_chain(rig, c); // nothing of it changed since
        ring_push(&rig->ring, c, c->in_bytes);
    }
    ring_publish(&rig->ring);
    return n;
}

static void run_flips(uint64_t features, unsigned n_turns)
{
    struct rig rig;
    rig_open(&rig, features, SIZE);
    struct flipper f = {.rig = &rig, .seed = 3}, own = {.rig = &rig, .seed = 5};
    for (unsigned i = 0; i < 1000; i++)
        flip_once(&f);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, flip_on, &f), 0);
    struct chain *held[SIZE + RING_BATCH_MAX];
    unsigned n_held = 0, seed = 4, n_chains = 0;
    for (unsigned i = 0; i < n_turns; i++) {
        flip_once(&own); // the other one may have to wait for a processor
        n_chains += serve_once(&rig, held, &n_held, &seed);
        if (rig.ring.fault && n_held == 0)
            start_again(&rig);
    }
    f.stop = true;
    pthread_join(thread, NULL);
    for (unsigned i = 0; i < n_held; i++)
        ring_push(&rig.ring, held[i], 0);
    ring_publish(&rig.ring);
    // Or the test tried nothing.
    assert_true(n_chains > n_turns / 20);
    assert_true(counter_read(&rig.stats.n_faults[RING_BAD_ADDR]) > n_turns / 1000);
    assert_true(counter_read(&rig.stats.n_faults[RING_DUP_HEAD]) > 0);
    rig_close(&rig);
}

static void test_memory_changes_between_reads(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++)
        run_flips(layouts[l], is_long() ? 5000000 : 40000);
}

// A guest that makes descriptors available again before it has them back: more are in flight
// than the ring has, and the position of the used ones must not leave it.
static void test_packed_descriptors_offered_twice(void **state)
{
    (void)state;
    struct rig rig;
    struct chain *c[3];
    rig_open(&rig, PACKED, SIZE);
    for (uint16_t lap = 0; lap < ARRAY_LEN(c); lap++) {
        for (uint32_t i = 0; i < SIZE; i++)
            rig_put(&rig, i, RIG_BUFFER, 8, i + 1 < SIZE ? RIG_NEXT : 0, 0, lap);
        rig_offer(&rig, 0, SIZE);
        c[lap] = rig_pop(&rig);
        assert_non_null(c[lap]);
    }
    for (unsigned i = 0; i < ARRAY_LEN(c); i++)
        ring_push(&rig.ring, c[i], 0);
    assert_false(ring_publish(&rig.ring));
    assert_int_equal(rig.ring.fault, RING_BAD_INDEX);
    assert_int_equal(rig.ring.fault_detail, ARRAY_LEN(c) * SIZE);
    assert_int_equal(rig.ring.n_in_flight, 0);
    assert_int_equal(rig.ring.n_large_free, RING_LARGE_MAX);
    rig_close(&rig);
}

// ---- runs of bad chains ------------------------------------------------------------------

// Three good long chains, then one that is found out when it holds a large slot already.
static void offer_batch(struct rig *rig, unsigned round)
{
    static const struct {
        uint64_t addr;
        uint32_t len;
        uint16_t flags;
    } bad[] = {{RIG_HOLE, 8, RIG_WRITE},
               {RIG_BUFFER, 0, RIG_WRITE},
               {RIG_BUFFER, 8, 0},
               {RIG_BUFFER, 16, RIG_INDIRECT},
               {UINT64_MAX - 3, 8, RIG_WRITE}};
    const uint32_t n = RING_SEGS_SMALL + 2;
    for (uint16_t id = 0; id < 4; id++) {
        uint64_t table = RIG_TABLE + id * 0x1000u;
        for (uint32_t i = 0; i < n; i++)
            rig_put_entry(rig, table, i, RIG_BUFFER, 8,
                          i + 1 < n ? RIG_WRITE | RIG_NEXT : RIG_WRITE, (uint16_t)(i + 1));
        if (id == 3)
            rig_put_entry(rig, table, n - 1, bad[round % 5].addr, bad[round % 5].len,
                          bad[round % 5].flags, 0);
        rig_put(rig, rig->is_packed ? 0 : id, table, n * 16, RIG_INDIRECT, 0, id);
        rig_offer(rig, id, 1);
    }
}

// Bring the driver to where a ring starts.
static void reset_driver(struct rig *rig)
{
    memset(rig_at(rig, RIG_A), 0, SIZE * sizeof(struct packed_desc));
    memset(rig_at(rig, RIG_A + 0x10000), 0, sizeof(struct split_avail));
    memset(rig_at(rig, RIG_A + 0x20000), 0, sizeof(struct split_used));
    rig->avail = 0;
    rig->wrap = true;
}

static void test_bad_chains_leak_nothing(void **state)
{
    (void)state;
    const unsigned n_batches = is_long() ? 250000 : 5000;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++) {
        struct rig rig;
        rig_open(&rig, layouts[l], SIZE);
        for (unsigned round = 0; round < n_batches; round++) {
            struct chain *c[4];
            offer_batch(&rig, round);
            assert_int_equal(ring_pop(&rig.ring, c, 4), 3);
            assert_int_not_equal(rig.ring.fault, RING_OK);
            assert_int_equal(rig.ring.n_in_flight, 3);
            assert_int_equal(rig.ring.n_large_free, RING_LARGE_MAX - 3);
            for (unsigned i = 0; i < 3; i++)
                ring_push(&rig.ring, c[i], 0);
            ring_publish(&rig.ring);
            reset_driver(&rig);
            start_again(&rig);
            if (!rig.is_packed) {
                rig.config.base = 0;
                ring_stop(&rig.ring);
                struct error e;
                check_ok(rig_start(&rig, &e), &e);
            }
        }
        rig_close(&rig);
    }
}

// Requests that fail one by one, on a ring that goes on.
static void test_bad_requests_leak_nothing(void **state)
{
    (void)state;
    const struct disk_call bad[] = {
        {.type = VIRTIO_BLK_T_IN, .sector = UINT64_MAX, .n_in = 512},
        {.type = VIRTIO_BLK_T_IN, .sector = 1u << 20, .n_in = 4096},
        {.type = VIRTIO_BLK_T_IN, .n_in = 513},
        {.type = VIRTIO_BLK_T_OUT, .sector = UINT64_MAX - 1, .n_out = 1024},
        {.type = 0x7777, .n_in = 512},
    };
    const unsigned n_rounds = is_long() ? 50000 : 100;
    for (unsigned l = 0; l < ARRAY_LEN(rig_layouts); l++) {
        struct disk_rig d;
        disk_rig_open(&d, "disk bad socket=/nowhere ram=1M", rig_layouts[l]);
        struct disk_call *calls = calloc(ARRAY_LEN(bad), sizeof(*calls));
        for (unsigned round = 0; round < n_rounds; round++) {
            const struct disk_shape *shape = &disk_shapes[round % disk_n_shapes];
            for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
                calls[i] = bad[i];
                calls[i].n_header = sizeof(struct virtio_blk_req_header);
                calls[i].has_status = true;
            }
            assert_int_equal(disk_rig_run(&d, shape, calls, ARRAY_LEN(bad)), ARRAY_LEN(bad));
            for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
                assert_int_equal(calls[i].status,
                                 i == 4 ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR);
            assert_int_equal(d.rig.queue->ring.n_in_flight, 0);
            assert_int_equal(d.rig.queue->ring.n_large_free, RING_LARGE_MAX);
            assert_int_equal(d.rig.lane.uring.n_in_flight, 0);
        }
        free(calls);
        disk_rig_close(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_changes_between_reads),
        cmocka_unit_test(test_packed_descriptors_offered_twice),
        cmocka_unit_test(test_bad_chains_leak_nothing),
        cmocka_unit_test(test_bad_requests_leak_nothing),
    };
    return cmocka_run_group_tests_name("ring_hostile", tests, NULL, NULL);
}
