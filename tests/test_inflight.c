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

static void test_abandoned_chains_come_again(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++) {
        struct rig rig;
        rig_open_with_record(&rig, layouts[l], SIZE);
        const uint16_t ids[] = {5, 2, 7, 0, 3};
        for (unsigned i = 0; i < 5; i++)
            rig_offer_simple(&rig, ids[i]);
        struct chain *c[RING_BATCH_MAX];
        assert_int_equal(ring_pop(&rig.ring, c, 4), 4); // 5, 2, 7, 0; 3 stays in the ring
        ring_push(&rig.ring, c[1], 1);
        ring_push(&rig.ring, c[3], 1);
        ring_publish(&rig.ring);       // 2 and 0 are done
        ring_push(&rig.ring, c[0], 1); // 5 is pushed but nobody saw it

        rig_die_and_restart(&rig);
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

        rig_die_and_restart(&rig); // nothing is in flight now
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
        rig_open_with_record(&rig, layouts[l % 2], SIZE);
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
        rig_die_and_restart(&rig);
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
        rig_open_with_record(&rig, layouts[l], SIZE);
        rig.config.record_is_own = true;
        rig_offer_simple(&rig, 0); // slow
        assert_non_null(rig_pop(&rig));
        for (unsigned i = 0; i < (rig.is_packed ? 2 * SIZE : 65536); i++) {
            rig_offer_simple(&rig, (uint16_t)(1 + i % (SIZE - 1)));
            ring_push(&rig.ring, rig_pop(&rig), 1);
            ring_publish(&rig.ring);
        }
        assert_int_equal(rig.ring.next_used, 0);
        rig_die_and_restart(&rig);
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
        rig_open_with_record(&rig, layouts[l], SIZE);
        rig_put(&rig, 0, RIG_BUFFER, 16, RIG_NEXT, 1, 0);
        rig_put(&rig, 1, RIG_BUFFER + 64, 512, RIG_NEXT | RIG_WRITE, 2, 0);
        rig_put(&rig, 2, RIG_BUFFER + 1024, 1, RIG_WRITE, 0, 0);
        rig_offer(&rig, 0, 3);
        assert_non_null(rig_pop(&rig));
        if (rig.is_packed)
            memset(rig_at(&rig, RIG_A + 16), 0, 32); // descriptors 1 and 2
        rig_die_and_restart(&rig);
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
    rig_die_and_restart(rig);
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
        rig_open_with_record(&rig, layouts[l], SIZE);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_abandoned_chains_come_again),
        cmocka_unit_test(test_long_chain_comes_again_whole),
        cmocka_unit_test(test_own_record_of_a_ring_set_up_anew),
        cmocka_unit_test(test_own_record_after_whole_laps),
        cmocka_unit_test(test_killed_at_any_instruction),
        cmocka_unit_test(test_killed_at_each_instruction),
    };
    return cmocka_run_group_tests_name("inflight", tests, NULL, NULL);
}
