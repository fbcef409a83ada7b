// SPDX-License-Identifier: Apache-2.0
// The SIGBUS handler, with real truncated files and real deaths.
#include "dataplane/guard.h"

#include "dataplane/base.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define PAGE       4096
#define AREA_PAGES 16
#define AREA_BYTES (AREA_PAGES * PAGE)

struct area {
    int fd;
    volatile uint8_t *at;
    atomic_bool failed;
    int guard;
};

// A mapped memfd full of @fill, not yet guarded.
static void area_map(struct area *a, int fill)
{
    a->fd = memfd_create("guard", MFD_CLOEXEC);
    assert_int_equal(ftruncate(a->fd, AREA_BYTES), 0);
    void *at = mmap(NULL, AREA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, a->fd, 0);
    assert_ptr_not_equal(at, MAP_FAILED);
    memset(at, fill, AREA_BYTES);
    a->at = at;
    atomic_store(&a->failed, false);
}

static void area_open(struct area *a, int fill)
{
    area_map(a, fill);
    a->guard = guard_add((void *)a->at, AREA_BYTES, &a->failed);
    assert_true(a->guard >= 0);
}

static void area_unmap(struct area *a)
{
    munmap((void *)a->at, AREA_BYTES);
    close(a->fd);
}

static void area_close(struct area *a)
{
    guard_remove(a->guard);
    area_unmap(a);
}

static bool event_is_readable(void)
{
    struct pollfd p = {.fd = guard_event_fd(), .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static void event_drain(void)
{
    uint64_t n;
    while (read(guard_event_fd(), &n, sizeof(n)) > 0)
        continue;
}

// cmocka takes SIGBUS for itself at the start of each test.
static void install(void)
{
    assert_int_equal(guard_install(), 0);
}

static void install_again_keeps_the_eventfd(void **state)
{
    (void)state;
    assert_int_equal(guard_event_fd(), -1);
    assert_int_equal(guard_install(), 0);
    int fd = guard_event_fd();
    assert_true(fd >= 0);
    assert_int_equal(guard_install(), 0);
    assert_int_equal(guard_event_fd(), fd);
}

static void truncated_area_reads_as_zeros(void **state)
{
    (void)state;
    install();
    struct area hit, neighbour;
    area_open(&hit, 0xaa);
    area_open(&neighbour, 0xbb);
    event_drain();
    assert_false(event_is_readable());
    assert_int_equal(ftruncate(hit.fd, 0), 0);

    assert_int_equal(hit.at[5 * PAGE], 0);
    assert_true(atomic_load(&hit.failed));
    assert_true(event_is_readable());
    for (int i = 0; i < AREA_PAGES; i++)
        assert_int_equal(hit.at[i * PAGE], 0);
    hit.at[0] = 7; // and can be written
    assert_int_equal(hit.at[0], 7);

    assert_false(atomic_load(&neighbour.failed));
    assert_int_equal(neighbour.at[5 * PAGE], 0xbb);
    area_close(&hit);
    area_close(&neighbour);
}

// Control may be long in reading the eventfd. The handler neither waits for it nor shows that the
// write failed.
static void full_eventfd_changes_nothing(void **state)
{
    (void)state;
    install();
    struct area a;
    uint64_t full = UINT64_MAX - 1;
    area_open(&a, 0xaa);
    event_drain();
    assert_int_equal(write(guard_event_fd(), &full, sizeof(full)), sizeof(full));
    assert_int_equal(ftruncate(a.fd, 0), 0);
    alarm(60);
    errno = ENOTTY;
    uint8_t byte = a.at[0];
    atomic_signal_fence(memory_order_seq_cst); // else the compiler knows what errno is
    assert_int_equal(errno, ENOTTY);
    assert_int_equal(byte, 0);
    alarm(0);
    assert_true(atomic_load(&a.failed));
    event_drain();
    area_close(&a);
}

// The part of the file that is left goes too: a reader sees one state of the whole area.
static void half_truncated_area_is_zero_as_a_whole(void **state)
{
    (void)state;
    install();
    struct area a;
    area_open(&a, 0xaa);
    assert_int_equal(ftruncate(a.fd, AREA_BYTES / 2), 0);
    assert_int_equal(a.at[0], 0xaa);
    assert_false(atomic_load(&a.failed));
    assert_int_equal(a.at[AREA_BYTES - 1], 0);
    assert_true(atomic_load(&a.failed));
    assert_int_equal(a.at[0], 0);
    area_close(&a);
}

static void *touch_until_failed(void *argument)
{
    struct area *a = argument;
    for (unsigned i = 0; !atomic_load(&a->failed); i++) {
        uint8_t *p = (uint8_t *)a->at + i % AREA_PAGES * PAGE;
        __atomic_store_n(p, (uint8_t)(__atomic_load_n(p, __ATOMIC_RELAXED) + 1), __ATOMIC_RELAXED);
    }
    return NULL;
}

static void many_threads_fault_at_once(void **state)
{
    (void)state;
    install();
    for (int round = 0; round < 20; round++) {
        struct area a;
        pthread_t threads[8];
        area_open(&a, 1);
        for (size_t i = 0; i < ARRAY_LEN(threads); i++)
            assert_int_equal(pthread_create(&threads[i], NULL, touch_until_failed, &a), 0);
        assert_int_equal(ftruncate(a.fd, 0), 0);
        for (size_t i = 0; i < ARRAY_LEN(threads); i++)
            pthread_join(threads[i], NULL);
        area_close(&a);
    }
}

#define STORM_FAULTS 5000
#define STORM_BYTES  (4 * AREA_BYTES)

struct storm {
    uint8_t *base; // STORM_BYTES of address space; the area lies inside
    struct area area;
    unsigned n_unnoticed;
    atomic_bool is_over;
};

static void *fault_again_and_again(void *argument)
{
    struct storm *s = argument;
    for (int i = 0; i < STORM_FAULTS; i++) {
        mmap((void *)s->area.at, AREA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
             s->area.fd, 0);
        (void)s->area.at[0];
        s->n_unnoticed += !atomic_exchange(&s->area.failed, false);
    }
    atomic_store(&s->is_over, true);
    return NULL;
}

// Control adds and removes while a worker faults: a slot that changes neither matches nor hides the
// ones after it. It holds a page at the base, then a range past the end; the start of one with the
// size of the other would hold the area.
static void changing_slots_do_not_match(void **state)
{
    (void)state;
    install();
    static struct storm s;
    atomic_bool never = false;
    pthread_t thread;
    s.base = mmap(NULL, 2 * STORM_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int slot = guard_add(s.base, PAGE, &never); // the lowest: looked at first
    area_map(&s.area, 1);
    munmap((void *)s.area.at, AREA_BYTES);
    s.area.at = s.base + AREA_BYTES;
    s.area.guard = guard_add((void *)s.area.at, AREA_BYTES, &s.area.failed);
    assert_true(slot < s.area.guard);
    assert_int_equal(ftruncate(s.area.fd, 0), 0);

    assert_int_equal(pthread_create(&thread, NULL, fault_again_and_again, &s), 0);
    for (unsigned i = 0; !atomic_load(&s.is_over); i++) {
        guard_remove(slot);
        slot = i % 2 ? guard_add(s.base, PAGE, &never)
                     : guard_add(s.base + STORM_BYTES, STORM_BYTES, &never);
    }
    pthread_join(thread, NULL);
    assert_false(atomic_load(&never));
    assert_int_equal(s.n_unnoticed, 0);
    guard_remove(slot);
    area_close(&s.area);
    munmap(s.base, 2 * STORM_BYTES);
}

static void slots_are_bounded_and_used_again(void **state)
{
    (void)state;
    static int taken[GUARD_MAX];
    atomic_bool failed = false;
    for (int i = 0; i < GUARD_MAX; i++) {
        taken[i] = guard_add((void *)(uintptr_t)PAGE, PAGE, &failed);
        assert_true(taken[i] >= 0);
    }
    assert_int_equal(guard_add((void *)(uintptr_t)PAGE, PAGE, &failed), -ENOSPC);
    guard_remove(taken[77]);
    assert_int_equal(guard_add((void *)(uintptr_t)PAGE, PAGE, &failed), taken[77]);
    for (int i = 0; i < GUARD_MAX; i++)
        guard_remove(taken[i]);
}

// ---- deaths, each in a child ---------------------------------------------------------------

static void touch_what_is_not_guarded(void)
{
    struct area a;
    area_map(&a, 1);
    if (ftruncate(a.fd, 0) == 0)
        (void)a.at[0];
}

static void touch_what_was_guarded(void)
{
    struct area a;
    area_open(&a, 1);
    guard_remove(a.guard);
    if (ftruncate(a.fd, 0) == 0)
        (void)a.at[0];
}

static void touch_past_the_guarded_end(void)
{
    struct area a;
    area_map(&a, 1);
    if (guard_add((void *)a.at, AREA_BYTES - PAGE, &a.failed) >= 0 && ftruncate(a.fd, 0) == 0)
        (void)a.at[AREA_BYTES - PAGE];
}

static void be_sent_one(void)
{
    kill(getpid(), SIGBUS);
}

static void unknown_address_kills(void **state)
{
    (void)state;
    install();
    void (*const cases[])(void) = {
        touch_what_is_not_guarded,
        touch_what_was_guarded,
        touch_past_the_guarded_end,
        be_sent_one,
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
            alarm(60); // a child that faults for ever must not outlive the test
            cases[i]();
            _exit(0);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGBUS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(install_again_keeps_the_eventfd),
        cmocka_unit_test(truncated_area_reads_as_zeros),
        cmocka_unit_test(full_eventfd_changes_nothing),
        cmocka_unit_test(half_truncated_area_is_zero_as_a_whole),
        cmocka_unit_test(many_threads_fault_at_once),
        cmocka_unit_test(changing_slots_do_not_match),
        cmocka_unit_test(slots_are_bounded_and_used_again),
        cmocka_unit_test(unknown_address_kills),
    };
    return cmocka_run_group_tests_name("guard", tests, NULL, NULL);
}
