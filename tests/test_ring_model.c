// SPDX-License-Identifier: Apache-2.0
// A random driver against the rings, and a model that knows what must come out.
//
// Each chain has a number; its shape, what the device reports and what it writes follow from
// the number alone. So one and the same list of chains runs over every layout and feature set,
// whatever order they complete in, and what the driver saw must be the same list each time.
#include "tests/check.h"
#include "bench/driver.h"
#include "dataplane/ring.h"

#include <stdlib.h>
#include <string.h>

#define N_CHAINS     3000
#define SEGMENTS_MAX 9
#define SEGMENT_MAX  3000 // bytes
#define CHAIN_BYTES  (SEGMENTS_MAX * SEGMENT_MAX)
#define REGION_BYTES UINT64_C(0x400000)
#define N_SLOTS      256
#define RECORD_BYTES (2u << 20) // enough for the largest ring

// A number that looks random and depends on nothing but its arguments.
static uint32_t mix(uint32_t number, uint32_t salt)
{
    uint64_t x = ((uint64_t)number << 32 | salt) * UINT64_C(0x9e3779b97f4a7c15);
    x ^= x >> 29;
    x *= UINT64_C(0xbf58476d1ce4e5b9);
    return (uint32_t)(x >> 32);
}

// ---- what is known of chain @number ------------------------------------------------------

struct shape {
    uint16_t n_out, n_in;
    uint32_t bytes[SEGMENTS_MAX];
    uint32_t out_bytes, in_bytes;
    uint32_t used_len;
};

static uint32_t n_most; // segments of a chain, in the variant that runs

static struct shape shape_of(uint32_t number)
{
    struct shape s = {0};
    uint32_t n = 1 + mix(number, 1) % n_most;
    s.n_out = (uint16_t)(mix(number, 2) % (n + 1));
    s.n_in = (uint16_t)(n - s.n_out);
    for (uint32_t i = 0; i < n; i++) {
        s.bytes[i] = 1 + mix(number, 10 + i) % (i % 2 ? 16 : SEGMENT_MAX);
        *(i < s.n_out ? &s.out_bytes : &s.in_bytes) += s.bytes[i];
    }
    s.used_len = s.in_bytes ? mix(number, 3) % (s.in_bytes + 1) : 0;
    return s;
}

static uint8_t driver_byte(uint32_t number, uint32_t at)
{
    return (uint8_t)(number * 7 + at * 13);
}

static uint8_t device_byte(uint32_t number, uint32_t at)
{
    return (uint8_t)(number * 5 + at * 3 + 1);
}

// ---- one run -----------------------------------------------------------------------------

struct variant {
    const char *name;
    uint64_t features;
    uint32_t size;
    int direct; // segments that become ring descriptors: all (-1), or so many at most
    bool has_record;
    bool is_plain; // chains of one segment, mostly used without a slot
};

struct slot {
    struct driver_chain chain;
    struct driver_segment segments[SEGMENTS_MAX];
    uint32_t number;
    bool is_out;
};

struct run {
    const struct variant *variant;
    struct guest *guest;
    struct driver *driver;
    struct mem *mem;
    struct ring ring;
    struct ring_stats stats;
    uint8_t *record;
    unsigned seed;
    uint64_t data_addr;
    struct slot slots[N_SLOTS];
    uint32_t n_slots;
    uint32_t added[RING_SIZE_MAX]; // numbers in the order offered, a circle
    uint32_t n_added, n_popped, n_done;
    struct chain *held[N_SLOTS]; // by the device
    uint32_t held_number[N_SLOTS];
    uint32_t n_held, n_plain;
    uint32_t used_len[N_CHAINS]; // what the driver saw
};

static uint32_t at_random(struct run *r, uint32_t below)
{
    return (uint32_t)rand_r(&r->seed) % below;
}

static void share_memory(struct run *r)
{
    struct guest *g = r->guest;
    struct mem_desc descs[8];
    int fds[8];
    for (unsigned i = 0; i < g->n_regions; i++) {
        const struct guest_region *region = &g->regions[i];
        descs[i] = (struct mem_desc){region->guest_addr, region->bytes, region->user_addr,
                                     region->file_offset};
        fds[i] = region->fd;
    }
    struct error e;
    check_ok(mem_set(&r->mem, NULL, descs, fds, g->n_regions, &e), &e);
}

static void run_open(struct run *r, const struct variant *v, unsigned seed)
{
    struct error e;
    *r = (struct run){.variant = v, .seed = seed};
    n_most = v->is_plain ? 1 : SEGMENTS_MAX;
    const struct guest_layout layout = {
        .n_regions = 3, .region_bytes = REGION_BYTES, .first_addr = 0x100000};
    check_ok(guest_open(&r->guest, &layout, &e), &e);
    // Buffers lie around the border of the first two regions, and cross it.
    assert_non_null(guest_alloc_in(r->guest, 0, REGION_BYTES, 4096));
    assert_non_null(guest_alloc_in(r->guest, 1, REGION_BYTES, 4096));
    r->n_slots = MIN(N_SLOTS, (uint32_t)(2 * REGION_BYTES / CHAIN_BYTES));
    r->data_addr = layout.first_addr + REGION_BYTES - r->n_slots / 2 * CHAIN_BYTES - 100;

    const struct driver_config config = {
        v->features, v->size, v->features & VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) ? SEGMENTS_MAX : 0};
    check_ok(driver_open(&r->driver, r->guest, &config, &e), &e);
    share_memory(r);

    struct driver_areas areas;
    driver_describe(r->driver, &areas);
    r->record = aligned_alloc(64, RECORD_BYTES);
    memset(r->record, 0, RECORD_BYTES);
    const struct ring_config ring = {
        .features = v->features | VIRTIO_BIT(VIRTIO_F_VERSION_1),
        .size = v->size,
        .base = driver_base(r->driver),
        .desc_addr = guest_user_addr(r->guest, areas.desc),
        .driver_addr = guest_user_addr(r->guest, areas.driver),
        .device_addr = guest_user_addr(r->guest, areas.device),
        .inflight = v->has_record ? r->record : NULL,
        .inflight_bytes = RECORD_BYTES,
    };
    check_ok(ring_start(&r->ring, &ring, r->mem, NULL, &r->stats, &e), &e);
}

static void run_close(struct run *r)
{
    assert_int_equal(r->ring.n_in_flight, 0);
    assert_int_equal(r->ring.fault, RING_OK);
    assert_int_equal(ring_base(&r->ring), driver_base(r->driver));
    ring_stop(&r->ring);
    mem_free(r->mem);
    driver_close(r->driver);
    guest_close(r->guest);
    free(r->record);
}

// ---- the driver's steps ------------------------------------------------------------------

static struct slot *free_slot(struct run *r)
{
    for (uint32_t i = 0; i < r->n_slots; i++)
        if (!r->slots[i].is_out)
            return &r->slots[i];
    return NULL;
}

static void fill_slot(struct run *r, struct slot *slot, uint32_t number)
{
    const struct shape s = shape_of(number);
    uint64_t addr = r->data_addr + (uint64_t)(slot - r->slots) * CHAIN_BYTES;
    uint32_t n = s.n_out + s.n_in, at = 0;
    int direct = r->variant->direct;
    slot->number = number;
    for (uint32_t i = 0; i < n; i++) {
        uint8_t *host = guest_host(r->guest, addr);
        slot->segments[i] = (struct driver_segment){addr, s.bytes[i]};
        for (uint32_t b = 0; b < s.bytes[i]; b++)
            host[b] = i < s.n_out ? driver_byte(number, at++) : 0;
        addr += s.bytes[i] + mix(number, 30 + i) % 8; // touching or not
    }
    slot->chain = (struct driver_chain){
        .segments = slot->segments,
        .n_out = s.n_out,
        .n_in = s.n_in,
        .n_direct = (uint16_t)(direct < 0 ? n : MIN((uint32_t)direct, n)),
        .in_bytes = s.in_bytes,
    };
}

static void add_some(struct run *r)
{
    for (uint32_t n = at_random(r, 8); n && r->n_added < N_CHAINS; n--) {
        struct slot *slot = free_slot(r);
        if (!slot)
            break;
        fill_slot(r, slot, r->n_added);
        struct driver_chain *chain = &slot->chain;
        if (!driver_add(r->driver, &chain, 1))
            break;
        slot->is_out = true;
        r->added[r->n_added % RING_SIZE_MAX] = r->n_added;
        r->n_added++;
    }
    driver_publish(r->driver);
}

static void check_answer(struct run *r, const struct slot *slot, uint32_t len)
{
    const struct shape s = shape_of(slot->number);
    uint32_t at = 0;
    assert_int_equal(len, s.used_len);
    for (uint32_t i = s.n_out; i < (uint32_t)s.n_out + s.n_in; i++) {
        const uint8_t *host = guest_host(r->guest, slot->segments[i].addr);
        for (uint32_t b = 0; b < slot->segments[i].bytes; b++, at++)
            if (host[b] != (at < len ? device_byte(slot->number, at) : 0))
                fail_msg("%s: chain %u, byte %u is wrong", r->variant->name, slot->number, at);
    }
}

static void collect(struct run *r)
{
    struct driver_used used[16];
    struct error e;
    int n = driver_poll(r->driver, used, 1 + at_random(r, ARRAY_LEN(used)), &e);
    if (n < 0)
        fail_msg("%s: %s", r->variant->name, e.text);
    for (int i = 0; i < n; i++) {
        struct slot *slot = container_of(used[i].chain, struct slot, chain);
        assert_true(slot->is_out);
        check_answer(r, slot, used[i].len);
        slot->is_out = false;
        r->used_len[slot->number] = used[i].len;
        r->n_done++;
    }
}

// ---- the device's steps ------------------------------------------------------------------

// Chains come out in the order offered, byte for byte as the driver wrote them.
static void check_request(struct run *r, const struct chain *c, uint32_t number)
{
    const struct shape s = shape_of(number);
    uint32_t at = 0;
    assert_int_equal(c->out_bytes, s.out_bytes);
    assert_int_equal(c->in_bytes, s.in_bytes);
    for (uint32_t i = 0; i < c->n_out; i++) {
        const uint8_t *p = c->iov[i].iov_base;
        for (size_t b = 0; b < c->iov[i].iov_len; b++, at++)
            if (p[b] != driver_byte(number, at))
                fail_msg("%s: chain %u, byte %u came out wrong", r->variant->name, number, at);
    }
    assert_int_equal(at, s.out_bytes);
}

static void serve_some(struct run *r)
{
    if (r->variant->is_plain && at_random(r, 8))
        return; // what is in flight keeps chains from being used plainly
    uint32_t room = r->n_slots - r->n_held;
    unsigned max = (unsigned)MIN(at_random(r, RING_BATCH_MAX + 1), room);
    unsigned n = ring_pop(&r->ring, r->held + r->n_held, max);
    for (unsigned i = 0; i < n; i++) {
        uint32_t number = r->added[r->n_popped++ % RING_SIZE_MAX];
        check_request(r, r->held[r->n_held], number);
        r->held_number[r->n_held++] = number;
    }
}

static uint32_t serve_plain(struct run *r, const struct ring_plain *p, bool is_writable)
{
    uint32_t number = r->added[r->n_popped++ % RING_SIZE_MAX];
    const struct shape s = shape_of(number);
    assert_int_equal(p->bytes, is_writable ? s.in_bytes : s.out_bytes);
    for (uint32_t i = 0; !is_writable && i < p->bytes; i++)
        assert_int_equal(p->at[i], driver_byte(number, i));
    for (uint32_t i = 0; i < s.used_len; i++)
        p->at[i] = device_byte(number, i);
    return s.used_len;
}

// Some of the plain chains, used at once. What is looked at and not used comes again.
static void serve_plainly(struct run *r)
{
    struct ring_plain plain[RING_BATCH_MAX];
    uint32_t lengths[RING_BATCH_MAX];
    bool is_writable = at_random(r, 2);
    unsigned n = ring_peek(&r->ring, plain, at_random(r, RING_BATCH_MAX + 1), is_writable);
    n = at_random(r, n + 1);
    for (unsigned i = 0; i < n; i++)
        lengths[i] = serve_plain(r, &plain[i], is_writable);
    ring_spend(&r->ring, plain, is_writable ? lengths : NULL, n);
    r->n_plain += n;
    if (at_random(r, 2))
        ring_publish(&r->ring);
}

static void complete_some(struct run *r)
{
    for (uint32_t n = at_random(r, 8); n && r->n_held; n--) {
        uint32_t i = at_random(r, r->n_held), at = 0;
        struct chain *c = r->held[i];
        const struct shape s = shape_of(r->held_number[i]);
        for (uint32_t seg = 0; seg < c->n_in; seg++) {
            uint8_t *p = c->iov[c->n_out + seg].iov_base;
            for (size_t b = 0; b < c->iov[c->n_out + seg].iov_len && at < s.used_len; b++, at++)
                p[b] = device_byte(r->held_number[i], at);
        }
        ring_push(&r->ring, c, s.used_len);
        r->n_held--;
        r->held[i] = r->held[r->n_held];
        r->held_number[i] = r->held_number[r->n_held];
    }
    if (at_random(r, 2))
        ring_publish(&r->ring);
}

static void run_all(struct run *r)
{
    void (*const steps[])(struct run *) = {add_some, serve_some, complete_some, collect,
                                           serve_plainly};
    for (uint32_t idle = 0; r->n_done < N_CHAINS; idle++) {
        uint32_t before = r->n_done;
        steps[at_random(r, ARRAY_LEN(steps))](r);
        if (r->n_done != before)
            idle = 0;
        if (idle > 100000)
            fail_msg("%s: stuck after %u chains", r->variant->name, r->n_done);
    }
    ring_publish(&r->ring);
}

// ---- the variants ------------------------------------------------------------------------

#define P  VIRTIO_BIT(VIRTIO_F_RING_PACKED)
#define ID VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC)
#define EI VIRTIO_BIT(VIRTIO_F_EVENT_IDX)
#define IO VIRTIO_BIT(VIRTIO_F_IN_ORDER)

static const struct variant variants[] = {
    {"split direct", 0, 64, -1, true, false},
    {"split direct, as long as the ring", 0, 16, -1, true, false},
    {"split indirect", ID, 64, 0, true, false},
    {"split indirect, ring of one", ID, 1, 0, true, false},
    {"split mixed", ID, 128, 2, true, false},
    {"split event index", EI, 64, -1, true, false},
    {"split everything", ID | EI, 256, 0, true, false},
    {"split in order", IO, 64, -1, true, false},
    {"split in order indirect", IO | ID | EI, 32, 0, true, false},
    {"split without a record", ID, 64, 0, false, false},
    {"split huge ring", EI, 32768, -1, true, false},
    {"split plain", EI, 64, -1, false, true},
    {"split plain, in order, ring of two", IO, 2, -1, false, true},
    {"packed direct", P, 64, -1, true, false},
    {"packed direct, odd size", P, 37, -1, true, false},
    {"packed direct, as long as the ring", P, 9, -1, true, false},
    {"packed indirect", P | ID, 64, 0, true, false},
    {"packed indirect, odd size", P | ID, 7, 0, true, false},
    {"packed indirect, ring of one", P | ID, 1, 0, true, false},
    {"packed event index", P | EI, 63, -1, true, false},
    {"packed everything", P | ID | EI, 256, 0, true, false},
    {"packed in order", P | IO, 61, -1, true, false},
    {"packed in order indirect", P | IO | ID | EI, 33, 0, true, false},
    {"packed without a record", P | ID, 100, 0, false, false},
    {"packed huge ring", P | EI, 32768, -1, true, false},
    {"packed plain", P | EI, 63, -1, false, true},
    {"packed plain, in order, ring of three", P | IO, 3, -1, false, true},
};

static void test_all_variants_agree(void **state)
{
    (void)state;
    struct run *run = malloc(sizeof(*run));
    unsigned n_seeds = getenv("SLUICE_LONG") ? 200 : 1; // tools/check --long
    for (unsigned i = 0; i < n_seeds * ARRAY_LEN(variants); i++) {
        run_open(run, &variants[i % ARRAY_LEN(variants)], 42 + i / (unsigned)ARRAY_LEN(variants));
        run_all(run);
        for (uint32_t number = 0; number < N_CHAINS; number++)
            assert_int_equal(run->used_len[number], shape_of(number).used_len);
        if (run->variant->is_plain) // the step was tried
            assert_true(run->n_plain > N_CHAINS / 20);
        run_close(run);
    }
    free(run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all_variants_agree)};
    return cmocka_run_group_tests_name("ring_model", tests, NULL, NULL);
}
