// SPDX-License-Identifier: Apache-2.0
// The dirty log: which bits, never beyond its end, and what a hostile front end does to it.
#include "dataplane/dirty.h"

#include "dataplane/guard.h"
#include "tests/check.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define PAGE       4096ull
#define FILE_BYTES (4 * PAGE)
#define LOG_BYTES  8 // 64 pages
#define LOG_OFFSET 24
#define CANARY     0x5a

static int file_open(void)
{
    static const uint8_t canaries[] = {[0 ... FILE_BYTES - 1] = CANARY};
    int fd = memfd_create("dirty", MFD_CLOEXEC);
    assert_int_equal(write(fd, canaries, sizeof(canaries)), sizeof(canaries));
    return fd;
}

static struct dirty *log_open(int fd, uint64_t bytes, uint64_t offset)
{
    struct dirty *d = NULL;
    struct error e = {""};
    if (dirty_open(&d, fd, bytes, offset, &e) != 0)
        fail_msg("%s", e.text);
    return d;
}

static void ranges_become_bits(void **state)
{
    (void)state;
    static const struct {
        uint64_t addr, bytes, bits, n_missed;
    } cases[] = {
        {0, 0, 0, 0},
        {0, 1, 0x1, 0},
        {PAGE - 1, 1, 0x1, 0},
        {PAGE - 1, 2, 0x3, 0},
        {PAGE, PAGE, 0x2, 0},
        {0, 8 * PAGE, 0xff, 0},
        {7 * PAGE + 5, 2 * PAGE, 0x380, 0}, // a byte's edge
        {3 * PAGE, 20 * PAGE, 0x7ffff8, 0},
        {0, 64 * PAGE, UINT64_MAX, 0},
        {63 * PAGE, PAGE, 1ull << 63, 0},
        {63 * PAGE, PAGE + 1, 1ull << 63, 1},
        {64 * PAGE, 1, 0, 1},
        {64 * PAGE, 0, 0, 0},
        {62 * PAGE, 10 * PAGE, 3ull << 62, 8},
        {UINT64_MAX, 1, 0, 1},
        {UINT64_MAX, UINT64_MAX, 0, 1}, // wraps: up to the last page
        {UINT64_MAX - PAGE, 1, 0, 1},
        {63 * PAGE, UINT64_MAX, 1ull << 63, (UINT64_MAX / PAGE) - 63},
        {1ull << 63, PAGE, 0, 1}, // the bit's index would wrap in 32 bits
        {PAGE << 35, PAGE, 0, 1},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int fd = file_open();
        struct dirty *d = log_open(fd, LOG_BYTES, LOG_OFFSET);
        uint64_t bits = 0;
        assert_int_equal(pwrite(fd, &bits, sizeof(bits), LOG_OFFSET), sizeof(bits));
        dirty_mark(d, cases[i].addr, cases[i].bytes);
        uint8_t around[LOG_OFFSET + LOG_BYTES + 8];
        assert_int_equal(pread(fd, around, sizeof(around), 0), sizeof(around));
        memcpy(&bits, around + LOG_OFFSET, sizeof(bits));
        if (bits != cases[i].bits || counter_read(&d->n_missed) != cases[i].n_missed)
            fail_msg("case %zu: %llx, missed %llu", i, (unsigned long long)bits,
                     (unsigned long long)counter_read(&d->n_missed));
        assert_int_equal(around[LOG_OFFSET - 1], CANARY);
        assert_int_equal(around[LOG_OFFSET + LOG_BYTES], CANARY);
        dirty_close(d);
        close(fd);
    }
}

static void bits_that_are_set_stay(void **state)
{
    (void)state;
    int fd = file_open();
    struct dirty *d = log_open(fd, LOG_BYTES, LOG_OFFSET);
    dirty_mark(d, 0, PAGE);
    assert_int_equal(d->bits[0], CANARY | 1);
    dirty_close(d);
    dirty_close(NULL);
    close(fd);
}

// Hostile row 22.
static void bad_logs_are_refused(void **state)
{
    (void)state;
    static const struct {
        uint64_t bytes, offset;
        const char *says;
    } cases[] = {
        {0, 0, "size is 0"},
        {0, UINT64_MAX, "size is 0"},
        {UINT64_MAX, 0, "are not in a file of 0x4000 bytes"},
        {UINT64_MAX, UINT64_MAX, "are not in a file"},
        {UINT64_MAX, 1, "are not in a file"}, // the sum is 0
        {1, UINT64_MAX, "are not in a file"},
        {UINT64_MAX - PAGE + 2, PAGE, "are not in a file"}, // the sum is 1
        {FILE_BYTES + 1, 0, "are not in a file"},
        {PAGE, FILE_BYTES - PAGE + 1, "are not in a file"},
        {1, FILE_BYTES, "are not in a file"},
    };
    int fd = file_open(), pipe_fds[2];
    struct error e = {""};
    struct dirty *d = NULL;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(dirty_open(&d, fd, cases[i].bytes, cases[i].offset, &e), -EINVAL);
        assert_null(d);
        if (strncmp(e.text, "dirty log: ", 11) != 0 || !strstr(e.text, cases[i].says))
            fail_msg("case %zu says: %s", i, e.text);
    }
    assert_int_equal(pipe(pipe_fds), 0);
    assert_int_equal(dirty_open(&d, pipe_fds[0], 1, 0, &e), -EINVAL);
    assert_non_null(strstr(e.text, "only tmpfs, memfd and hugetlbfs"));
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    close(fd);
}

// ---- against a front end that takes bits meanwhile -------------------------------------------

#define SHARED_PAGES (FILE_BYTES * 8)
#define ROUNDS       (SHARED_PAGES / 2) // each page once: a bit that is lost stays lost
#define MISSES       500000

struct marker {
    pthread_t thread;
    struct dirty *log;
    pthread_barrier_t *start;
    unsigned parity; // pages with this parity are ours: every byte is shared by two markers
    _Atomic uint32_t *written; // what a page holds: how often it was written
};

static void *mark_pages(void *argument)
{
    struct marker *m = argument;
    pthread_barrier_wait(m->start);
    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned page = (i * 2 + m->parity) % SHARED_PAGES;
        uint32_t n = atomic_load_explicit(&m->written[page], memory_order_relaxed);
        atomic_store_explicit(&m->written[page], n + 1, memory_order_relaxed);
        dirty_mark(m->log, page * PAGE, 1);
    }
    return NULL;
}

// Copy the pages whose bits are set, as a migration does. Returns how many.
static unsigned copy_dirty(struct dirty *log, _Atomic uint32_t *written, uint32_t *copies)
{
    unsigned n = 0;
    for (unsigned i = 0; i < log->n_bytes; i++) {
        uint8_t bits = __atomic_exchange_n(&log->bits[i], 0, __ATOMIC_ACQ_REL);
        for (unsigned bit = 0; bit < 8; bit++) {
            if (!(bits >> bit & 1))
                continue;
            unsigned page = i * 8 + bit;
            copies[page] = atomic_load_explicit(&written[page], memory_order_relaxed);
            n++;
        }
    }
    return n;
}

static void no_write_is_lost_to_a_migration(void **state)
{
    (void)state;
    static _Atomic uint32_t written[SHARED_PAGES];
    static uint32_t copies[SHARED_PAGES];
    int fd = file_open();
    struct dirty *log = log_open(fd, FILE_BYTES, 0);
    struct marker markers[2];
    pthread_barrier_t start;
    pthread_barrier_init(&start, NULL, 2);
    copy_dirty(log, written, copies); // canaries
    for (unsigned i = 0; i < 2; i++) {
        markers[i] = (struct marker){.log = log, .start = &start, .parity = i, .written = written};
        assert_int_equal(pthread_create(&markers[i].thread, NULL, mark_pages, &markers[i]), 0);
    }
    for (unsigned i = 0; i < 20; i++)
        copy_dirty(log, written, copies);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(markers[i].thread, NULL);
    copy_dirty(log, written, copies);
    uint32_t n_writes = 0;
    for (unsigned i = 0; i < SHARED_PAGES; i++) {
        assert_int_equal(copies[i], written[i]);
        n_writes += copies[i];
    }
    assert_int_equal(n_writes, 2 * ROUNDS);
    dirty_close(log);
    close(fd);
}

// Rings on several workers share a log: none of their misses may be lost.
static void *miss_pages(void *argument)
{
    for (unsigned i = 0; i < MISSES; i++)
        dirty_mark(argument, UINT64_MAX, 1);
    return NULL;
}

static void misses_of_two_workers_add_up(void **state)
{
    (void)state;
    pthread_t threads[2];
    int fd = file_open();
    struct dirty *log = log_open(fd, LOG_BYTES, 0);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, miss_pages, log), 0);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(counter_read(&log->n_missed), 2 * MISSES);
    dirty_close(log);
    close(fd);
}

// Hostile row 40.
static void truncated_log_fails_alone(void **state)
{
    (void)state;
#if UNDER_TSAN
    // Its atomic accesses take a lock, which the handler, inside one of them, waits for.
    print_message("skipped: no SIGBUS inside an atomic access under TSan\n");
    skip();
#endif
    assert_int_equal(guard_install(), 0); // here: cmocka takes SIGBUS at each test's start
    int fd = file_open(), other_fd = file_open();
    struct dirty *d = log_open(fd, PAGE, 0), *other = log_open(other_fd, PAGE, 0);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_false(atomic_load(&d->failed));
    dirty_mark(d, 0, 100 * PAGE);
    assert_true(atomic_load(&d->failed));
    dirty_mark(d, 0, 100 * PAGE);
    dirty_mark(other, 0, PAGE);
    assert_false(atomic_load(&other->failed));
    dirty_close(d);
    dirty_close(other);
    close(fd);
    close(other_fd);
}

static void our_addresses_become_the_guests(void **state)
{
    (void)state;
    const struct mem_desc descs[] = {
        {3 * PAGE, PAGE, 0, 0},
        {40 * PAGE, 2 * PAGE, 100 * PAGE, PAGE},
    };
    int fd = file_open(), mem_fd = file_open();
    int fds[] = {mem_fd, mem_fd};
    struct mem *m = NULL;
    struct error e;
    static uint32_t copies[SHARED_PAGES];
    static _Atomic uint32_t written[SHARED_PAGES];
    assert_int_equal(mem_set(&m, NULL, descs, fds, 2, &e), 0);
    struct dirty *d = log_open(fd, LOG_BYTES, 0);
    copy_dirty(d, written, copies);

    dirty_mark_host(d, m, m->regions[1].host + PAGE - 1, 2);
    dirty_mark_host(d, m, m->regions[0].host, 1);
    assert_int_equal(d->bits[0], 1 << 3);
    assert_int_equal(d->bits[5], 3);
    assert_int_equal(counter_read(&d->n_missed), 0);
    dirty_mark_host(d, m, &e, 1);
    assert_int_equal(counter_read(&d->n_missed), 1);
    assert_int_equal(copy_dirty(d, written, copies), 3);
    dirty_close(d);
    mem_free(m);
    close(fd);
    close(mem_fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_become_bits),
        cmocka_unit_test(bits_that_are_set_stay),
        cmocka_unit_test(bad_logs_are_refused),
        cmocka_unit_test(no_write_is_lost_to_a_migration),
        cmocka_unit_test(misses_of_two_workers_add_up),
        cmocka_unit_test(truncated_log_fails_alone),
        cmocka_unit_test(our_addresses_become_the_guests),
    };
    return cmocka_run_group_tests_name("dirty", tests, NULL, NULL);
}
