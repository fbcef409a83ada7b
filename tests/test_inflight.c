// SPDX-License-Identifier: Apache-2.0
// The in-flight record: what a ring abandoned at any moment tells the ring that follows it.
#include "tests/check.h"
#include "tests/ring_rig.h"
#include "dataplane/inflight.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE   8
#define PACKED VIRTIO_BIT(VIRTIO_F_RING_PACKED)

static const uint64_t layouts[] = {0, PACKED};

// ---- abandoned between calls -------------------------------------------------------------

static void open_with_record(struct rig *rig, uint64_t features)
{
    rig_open_stopped(rig, features, SIZE);
    rig->config.inflight = rig->inflight;
    rig->config.inflight_bytes = sizeof(rig->inflight);
    struct error e;
    check_ok(rig_start(rig, &e), &e);
}

// The process dies: nothing in the ring structure survives, guest memory and record do.
static void die_and_restart(struct rig *rig)
{
    munmap(rig->ring.block, rig->ring.block_bytes);
    memset(&rig->ring, 0, sizeof(rig->ring));
    if (rig->is_packed)
        rig->config.base = 0x80008000; // what QEMU sends after a crash: stale
    struct error e;
    check_ok(rig_start(rig, &e), &e);
}

static void test_abandoned_chains_come_again(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++) {
        struct rig rig;
        open_with_record(&rig, layouts[l]);
        const uint16_t ids[] = {5, 2, 7, 0, 3};
        for (unsigned i = 0; i < 5; i++)
            rig_offer_simple(&rig, ids[i]);
        struct chain *c[RING_BATCH_MAX];
        assert_int_equal(ring_pop(&rig.ring, c, 4), 4); // 5, 2, 7, 0; 3 stays in the ring
        ring_push(&rig.ring, c[1], 1);
        ring_push(&rig.ring, c[3], 1);
        ring_publish(&rig.ring);       // 2 and 0 are done
        ring_push(&rig.ring, c[0], 1); // 5 is pushed but nobody saw it

        die_and_restart(&rig);
        const uint16_t expected[] = {5, 7, 3};
        unsigned n = ring_pop(&rig.ring, c, 2);
        assert_int_equal(n, 2);
        n += ring_pop(&rig.ring, c + n, 2);
        assert_int_equal(n, 3);
        for (unsigned i = 0; i < n; i++) {
            assert_int_equal(c[i]->id, expected[i]);
            assert_int_equal(c[i]->in_bytes, 64);
            ring_push(&rig.ring, c[i], 1);
        }
        ring_publish(&rig.ring);
        assert_int_equal(rig_n_used(&rig), 5);

        die_and_restart(&rig); // nothing is in flight now
        assert_null(rig_pop(&rig));
        rig_offer_simple(&rig, 1);
        struct chain *last = rig_pop(&rig);
        assert_non_null(last);
        assert_int_equal(last->id, 1);
        ring_push(&rig.ring, last, 1);
        ring_publish(&rig.ring);
        rig_close(&rig);
    }
}

// A record of our own knows nothing of the guest, which may have set its rings up anew while nobody
// looked: then it is not for them. The same memory, the same addresses.
static void test_own_record_of_a_ring_set_up_anew(void **state)
{
    (void)state;
    for (unsigned l = 0; l < 2 * ARRAY_LEN(layouts); l++) {
        struct rig rig;
        struct chain *c[RING_BATCH_MAX];
        bool is_anew = l >= ARRAY_LEN(layouts);
        open_with_record(&rig, layouts[l % 2]);
        rig.config.record_is_own = true;
        for (uint16_t id = 0; id < 3; id++)
            rig_offer_simple(&rig, id);
        assert_int_equal(ring_pop(&rig.ring, c, 3), 3);
        ring_push(&rig.ring, c[0], 1);
        ring_publish(&rig.ring);
        if (is_anew) {
            memset(rig_at(&rig, RIG_A), 0, RIG_BUFFER - RIG_A);
            rig.avail = 0;
            rig_offer_simple(&rig, 7);
        }
        die_and_restart(&rig);
        unsigned n = ring_pop(&rig.ring, c, 2);
        assert_int_equal(n, is_anew ? 1 : 2);
        assert_int_equal(c[0]->id, is_anew ? 7 : 1);
        for (unsigned i = 0; i < n; i++)
            ring_push(&rig.ring, c[i], 1);
        ring_publish(&rig.ring);
        assert_int_equal(ring_read_fault(&rig.ring, &(uint64_t){0}), RING_OK);
        rig_close(&rig);
    }
}

// A ring that stands where a new one does, since whole laps are behind it, is no new one.
static void test_own_record_after_whole_laps(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++) {
        struct rig rig;
        open_with_record(&rig, layouts[l]);
        rig.config.record_is_own = true;
        rig_offer_simple(&rig, 0); // slow
        assert_non_null(rig_pop(&rig));
        for (unsigned i = 0; i < (rig.is_packed ? 2 * SIZE : 65536); i++) {
            rig_offer_simple(&rig, (uint16_t)(1 + i % (SIZE - 1)));
            ring_push(&rig.ring, rig_pop(&rig), 1);
            ring_publish(&rig.ring);
        }
        assert_int_equal(rig.ring.next_used, 0);
        die_and_restart(&rig);
        struct chain *c = rig_pop(&rig);
        assert_non_null(c);
        assert_int_equal(c->id, 0);
        assert_null(rig_pop(&rig)); // what was used is not done again
        ring_push(&rig.ring, c, 1);
        ring_publish(&rig.ring);
        rig_close(&rig);
    }
}

// The driver may reuse the ring entries of a packed chain that is still in flight; the record
// has its descriptors, all of them.
static void test_long_chain_comes_again_whole(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++) {
        struct rig rig;
        open_with_record(&rig, layouts[l]);
        rig_put(&rig, 0, RIG_BUFFER, 16, RIG_NEXT, 1, 0);
        rig_put(&rig, 1, RIG_BUFFER + 64, 512, RIG_NEXT | RIG_WRITE, 2, 0);
        rig_put(&rig, 2, RIG_BUFFER + 1024, 1, RIG_WRITE, 0, 0);
        rig_offer(&rig, 0, 3);
        assert_non_null(rig_pop(&rig));
        if (rig.is_packed)
            memset(rig_at(&rig, RIG_A + 16), 0, 32); // descriptors 1 and 2
        die_and_restart(&rig);
        struct chain *c = rig_pop(&rig);
        assert_non_null(c);
        assert_int_equal(c->n_out, 1);
        assert_int_equal(c->n_in, 2);
        assert_int_equal(c->in_bytes, 513);
        assert_ptr_equal(c->iov[1].iov_base,
                         mem_at_user(rig.mem, RIG_BUFFER + 64 + RIG_USER_SHIFT, 1));
        ring_push(&rig.ring, c, 513);
        ring_publish(&rig.ring);
        assert_null(rig_pop(&rig));
        rig_close(&rig);
    }
}

// ---- killed anywhere ---------------------------------------------------------------------

// The device in a process of its own: pops, completes in a shuffled order, for ever.
static void serve_for_ever(struct rig *rig)
{
    unsigned seed = 1;
    struct chain *held[SIZE];
    unsigned n = 0;
    for (;;) {
        n += ring_pop(&rig->ring, held + n, SIZE - n);
        while (n && rand_r(&seed) % 3) {
            unsigned i = (unsigned)rand_r(&seed) % n;
            ring_push(&rig->ring, held[i], held[i]->id + 1u);
            held[i] = held[--n];
        }
        ring_publish(&rig->ring);
    }
}

// The driver's books: which ids it may offer.
struct books {
    bool is_offered[SIZE];
    uint32_t n_seen; // used entries taken
    uint16_t used;   // split: free running; packed: position
    bool wrap;
};

static bool next_used(struct rig *rig, struct books *b, uint32_t *id, uint32_t *len)
{
    if (!rig->is_packed) {
        struct split_used *used = rig_at(rig, RIG_A + 0x20000);
        if (guest_load16_acquire(&used->idx) == b->used)
            return false;
        rig_used(rig, b->used++, id, len);
        return true;
    }
    struct packed_desc *d = (struct packed_desc *)rig_at(rig, RIG_A) + b->used;
    uint16_t flags = guest_load16_acquire(&d->flags);
    if (!!(flags & PACKED_DESC_AVAIL) != b->wrap || !!(flags & PACKED_DESC_USED) != b->wrap)
        return false;
    *id = d->id;
    *len = d->len;
    if (++b->used == SIZE) {
        b->used = 0;
        b->wrap = !b->wrap;
    }
    return true;
}

// Offer what is free, take what is used; each id comes back once for each time it was offered.
static void drive(struct rig *rig, struct books *b)
{
    uint32_t id, len;
    while (next_used(rig, b, &id, &len)) {
        assert_true(id < SIZE);
        assert_true(b->is_offered[id]);
        assert_int_equal(len, id + 1);
        b->is_offered[id] = false;
        b->n_seen++;
    }
    for (uint16_t i = 0; i < SIZE; i++)
        if (!b->is_offered[i]) {
            b->is_offered[i] = true;
            rig_offer_simple(rig, i);
        }
}

static void test_killed_at_any_instruction(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++) {
        struct rig *rig =
            mmap(NULL, sizeof(*rig), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        assert_ptr_not_equal(rig, MAP_FAILED);
        struct books books = {.wrap = true};
        struct error e;
        rig_open_stopped(rig, layouts[l], SIZE);
        rig->config.inflight = rig->inflight;
        rig->config.inflight_bytes = sizeof(rig->inflight);
        for (unsigned life = 0; life < 20; life++) {
            uint32_t goal = books.n_seen + 100;
            pid_t pid = fork();
            assert_true(pid >= 0);
            if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (rig_start(rig, &e))
                    _exit(1);
                serve_for_ever(rig);
            }
            while (books.n_seen < goal && waitpid(pid, NULL, WNOHANG) == 0)
                drive(rig, &books);
            assert_true(books.n_seen >= goal); // else the device refused to start
            kill(pid, SIGKILL);
            waitpid(pid, NULL, 0);
            drive(rig, &books);
        }
        mem_free(rig->mem);
        munmap(rig->host, RIG_END - RIG_A);
        close(rig->fd);
        munmap(rig, sizeof(*rig));
    }
}

// ---- killed at each instruction ----------------------------------------------------------

#ifdef __x86_64__
// The processor traps after each instruction while its trap flag is set; the n-th trap jumps
// out, which to memory is the same as death. The red zone below the stack is left alone.
#define TRAP_FLAG(instruction, mask)                                                               \
    __asm__ volatile("lea -128(%%rsp), %%rsp; pushfq; " instruction " $" mask                      \
                     ", (%%rsp); popfq; lea 128(%%rsp), %%rsp" ::                                  \
                         : "memory", "cc")

static sigjmp_buf after_death;
static volatile unsigned n_traps, traps_max;

static void handle_trap(int number)
{
    (void)number;
    if (n_traps++ == traps_max)
        siglongjmp(after_death, 1);
}

// Serve one pop and two publishes, and die @n instructions on. Returns how many there were.
static unsigned serve_until(struct rig *rig, unsigned n)
{
    struct chain *c[SIZE];
    unsigned n_popped = ring_pop(&rig->ring, c, 2);
    assert_int_equal(n_popped, 2);
    n_traps = 0;
    traps_max = n;
    if (sigsetjmp(after_death, 1))
        return n_traps;
    TRAP_FLAG("orq", "0x100");
    ring_pop(&rig->ring, c + 2, SIZE - 2);
    ring_push(&rig->ring, c[2], c[2]->id + 1u);
    ring_push(&rig->ring, c[0], c[0]->id + 1u);
    ring_publish(&rig->ring);
    ring_push(&rig->ring, c[1], c[1]->id + 1u);
    ring_publish(&rig->ring);
    TRAP_FLAG("andq", "~0x100");
    return n_traps;
}

static void complete_all(struct rig *rig)
{
    struct chain *c[SIZE];
    unsigned n;
    while ((n = ring_pop(&rig->ring, c, SIZE)) > 0) {
        for (unsigned i = 0; i < n; i++)
            ring_push(&rig->ring, c[i], c[i]->id + 1u);
        ring_publish(&rig->ring);
    }
    assert_int_equal(rig->ring.fault, RING_OK);
}

// Offer four chains and kill the device @n instructions on; its successor does the rest.
static unsigned die_and_recover(struct rig *rig, struct books *b, unsigned n)
{
    for (uint16_t id = 0; id < 4; id++) {
        b->is_offered[id] = true;
        rig_offer_simple(rig, id);
    }
    unsigned n_steps = serve_until(rig, n);
    die_and_restart(rig);
    complete_all(rig);
    uint32_t id, len, n_seen = 0;
    for (; next_used(rig, b, &id, &len); n_seen++) {
        assert_true(id < SIZE && b->is_offered[id]);
        assert_int_equal(len, id + 1);
        b->is_offered[id] = false;
    }
    assert_int_equal(n_seen, 4);
    return n_steps;
}

static void test_killed_at_each_instruction(void **state)
{
    (void)state;
#if UNDER_TSAN
    print_message("skipped: no trap at each instruction of TSan's own runtime\n");
    skip();
#endif
    struct sigaction trap = {.sa_handler = handle_trap}, before;
    sigaction(SIGTRAP, &trap, &before);
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++) {
        struct rig rig;
        open_with_record(&rig, layouts[l]);
        struct books books = {.wrap = true};
        unsigned n_steps = die_and_recover(&rig, &books, UINT_MAX);
        assert_true(n_steps > 300); // or nothing was stepped through
        // Four chains further each time in a ring of eight: batches cross its end, too.
        // About 500 deaths; instrumented code is ten times as long.
        for (unsigned n = 0; n < n_steps; n += 1 + n_steps / 500)
            die_and_recover(&rig, &books, n);
        rig_close(&rig);
    }
    sigaction(SIGTRAP, &before, NULL);
}
#else
static void test_killed_at_each_instruction(void **state)
{
    (void)state;
    print_message("skipped: stepping through instructions is written for x86-64\n");
    skip();
}
#endif

// ---- hostile contents --------------------------------------------------------------------

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
        open_with_record(&rig, PACKED);
        rig_offer_simple(&rig, 3);
        assert_non_null(rig_pop(&rig));
        die_and_restart(&rig);
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
    open_with_record(&rig, PACKED);
    for (uint16_t id = 0; id < 3; id++) {
        rig_offer_simple(&rig, id);
        assert_non_null(rig_pop(&rig));
    }
    die_and_restart(&rig);
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
        cmocka_unit_test(test_abandoned_chains_come_again),
        cmocka_unit_test(test_long_chain_comes_again_whole),
        cmocka_unit_test(test_own_record_of_a_ring_set_up_anew),
        cmocka_unit_test(test_own_record_after_whole_laps),
        cmocka_unit_test(test_killed_at_any_instruction),
        cmocka_unit_test(test_killed_at_each_instruction),
        cmocka_unit_test(test_random_record),
        cmocka_unit_test(test_record_changes_after_the_start),
        cmocka_unit_test(test_replays_exceed_the_ring),
        cmocka_unit_test(test_wrong_records_are_refused),
    };
    return cmocka_run_group_tests_name("inflight", tests, NULL, NULL);
}
