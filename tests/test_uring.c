// SPDX-License-Identifier: Apache-2.0
#include "dataplane/uring.h"
#include "tests/check.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

struct request {
    struct uring_op op;
    int result;
    unsigned n_done;
};

static void request_done(struct uring_op *op, int result)
{
    struct request *r = container_of(op, struct request, op);
    r->result = result;
    r->n_done++;
}

static struct uring u;

static int setup(void **state)
{
    (void)state;
    struct error e;
    return uring_open(&u, &e) || uring_enable(&u, NULL, 0);
}

static int teardown(void **state)
{
    (void)state;
    uring_close(&u);
    return 0;
}

static void nop(struct request *r)
{
    *r = (struct request){.op.done = request_done, .result = 1};
    io_uring_prep_nop(uring_entry(&u, &r->op));
}

static void wait_for(struct request *r)
{
    while (!r->n_done) {
        uring_sleep(&u, UINT64_MAX);
        uring_reap(&u, URING_ENTRIES);
    }
}

static void one_enter_submits_and_completes(void **state)
{
    (void)state;
    struct request r[3];
    uint64_t before = counter_read(&u.n_enters);
    for (unsigned i = 0; i < 3; i++)
        nop(&r[i]);
    assert_int_equal(u.n_staged, 3);
    assert_int_equal(u.n_in_flight, 3);
    assert_int_equal(uring_reap(&u, 8), 0);
    assert_true(uring_enter(&u));
    assert_int_equal(u.n_staged, 0);
    assert_int_equal(uring_reap(&u, 2), 2);
    assert_int_equal(u.n_in_flight, 1);
    assert_int_equal(uring_reap(&u, 8), 1);
    assert_int_equal(u.n_in_flight, 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(r[i].n_done, 1);
        assert_int_equal(r[i].result, 0);
    }
    assert_int_equal(counter_read(&u.n_enters), before + 1);
}

static void nothing_to_do_enters_never(void **state)
{
    (void)state;
    uint64_t before = counter_read(&u.n_enters);
    for (unsigned i = 0; i < 1000; i++) {
        assert_false(uring_enter(&u));
        assert_int_equal(uring_reap(&u, 8), 0);
    }
    assert_int_equal(counter_read(&u.n_enters), before);
}

static struct uring_op *late_op;
static int late_result;

static void keep_late(struct uring *ring, struct uring_op *op, int result)
{
    assert_ptr_equal(ring, &u);
    late_op = op;
    late_result = result;
}

// An op that is at home is done; one whose owner has gone, or is elsewhere, is handed over.
static void only_at_home_is_it_done(void **state)
{
    (void)state;
    struct uring elsewhere;
    struct uring *const homes[] = {&u, NULL, &elsewhere};
    u.late = keep_late;
    for (unsigned i = 0; i < ARRAY_LEN(homes); i++) {
        struct uring *_Atomic home = homes[i];
        struct request r = {.op = {.done = request_done, .home = &home}, .result = 1};
        late_op = NULL;
        late_result = 1;
        io_uring_prep_nop(uring_entry(&u, &r.op));
        while (u.n_in_flight) {
            uring_enter(&u);
            uring_reap(&u, 8);
        }
        assert_int_equal(r.n_done, i == 0);
        assert_ptr_equal(late_op, i == 0 ? NULL : &r.op);
        assert_int_equal(i == 0 ? r.result : late_result, 0);
    }
}

// What completes by itself shows in the flag: uring_enter() then fetches it.
static void task_work_is_fetched(void **state)
{
    (void)state;
    int fd = eventfd(0, EFD_NONBLOCK);
    uint64_t value = 0;
    struct request r = {.op.done = request_done};
    io_uring_prep_read(uring_entry(&u, &r.op), fd, &value, sizeof(value), 0);
    assert_true(uring_enter(&u));
    assert_int_equal(uring_reap(&u, 8), 0);
    assert_false(uring_enter(&u));

    eventfd_write(fd, 7);
    assert_int_equal(uring_reap(&u, 8), 0);
    assert_true(uring_enter(&u));
    assert_int_equal(uring_reap(&u, 8), 1);
    assert_int_equal(r.result, 8);
    assert_int_equal(value, 7);
    close(fd);
}

// More completions than the queue holds, fetched by turns alone.
static void overflow_loses_nothing(void **state)
{
    (void)state;
    unsigned n = 12 * URING_ENTRIES;
    struct request *r = calloc(n, sizeof(*r));
    for (unsigned i = 0; i < n; i++)
        nop(&r[i]);
    assert_int_equal(u.n_in_flight, n);
    while (uring_enter(&u) || u.n_in_flight)
        uring_reap(&u, 100);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(r[i].n_done, 1);
    free(r);
}

static void *write_later(void *argument)
{
    int *fd = argument;
    usleep(1000);
    eventfd_write(*fd, 1);
    return NULL;
}

static void sleep_ends_by_completion(void **state)
{
    (void)state;
    int fd = eventfd(0, EFD_NONBLOCK);
    uint64_t value;
    struct request r = {.op.done = request_done};
    io_uring_prep_read(uring_entry(&u, &r.op), fd, &value, sizeof(value), 0);
    pthread_t thread;
    pthread_create(&thread, NULL, write_later, &fd);
    wait_for(&r);
    assert_int_equal(r.result, 8);
    pthread_join(thread, NULL);
    close(fd);
}

static void sleep_ends_by_timeout(void **state)
{
    (void)state;
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    uring_sleep(&u, 2000);
    clock_gettime(CLOCK_MONOTONIC, &b);
    int64_t us = (b.tv_sec - a.tv_sec) * 1000000 + (b.tv_nsec - a.tv_nsec) / 1000;
    assert_true(us >= 2000);
    assert_int_equal(uring_reap(&u, 8), 0);
}

static void only_listed_opcodes_run(void **state)
{
    (void)state;
    struct request r = {.op.done = request_done};
    io_uring_prep_openat(uring_entry(&u, &r.op), AT_FDCWD, "/dev/null", O_RDONLY, 0);
    wait_for(&r);
    assert_int_equal(r.result, -EACCES);

    // The ring goes on after a refusal, also in the same batch.
    struct request bad = {.op.done = request_done}, good;
    io_uring_prep_socket(uring_entry(&u, &bad.op), 1, 1, 0, 0);
    nop(&good);
    wait_for(&good);
    assert_int_equal(bad.result, -EACCES);
    assert_int_equal(good.result, 0);

    struct io_uring_sqe *sqe = uring_entry(&u, &bad.op);
    io_uring_prep_nop(sqe);
    sqe->flags = IOSQE_IO_LINK;
    bad.n_done = 0;
    wait_for(&bad);
    assert_int_equal(bad.result, -EACCES);

    assert_int_equal(io_uring_register_eventfd(&u.ring, 0), -EACCES);
}

static int read_slot(int slot, char *out)
{
    struct request r = {.op.done = request_done};
    struct io_uring_sqe *sqe = uring_entry(&u, &r.op);
    io_uring_prep_read(sqe, slot, out, 1, 0);
    sqe->flags = IOSQE_FIXED_FILE;
    wait_for(&r);
    return r.result;
}

static int file_with(char byte)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    assert_int_equal(pwrite(fd, &byte, 1, 0), 1);
    return fd;
}

static void files_live_in_slots(void **state)
{
    (void)state;
    uint32_t n_free = u.n_free_files;
    int a = file_with('a'), b = file_with('b');
    int slot_a = uring_add_file(&u, a), slot_b = uring_add_file(&u, b);
    assert_true(slot_a >= 0 && slot_b >= 0 && slot_a != slot_b);
    close(a); // the table holds its own reference
    close(b);
    char c = 0;
    assert_int_equal(read_slot(slot_a, &c), 1);
    assert_int_equal(c, 'a');
    assert_int_equal(read_slot(slot_b, &c), 1);
    assert_int_equal(c, 'b');
    uring_remove_file(&u, slot_a);
    assert_int_equal(read_slot(slot_a, &c), -EBADF);
    uring_remove_file(&u, slot_b);
    assert_int_equal(u.n_free_files, n_free);
    assert_int_equal(uring_add_file(&u, 1 << 20), -EBADF);
    assert_int_equal(u.n_free_files, n_free);
}

// An entry staged for one file must not reach the next file of that slot.
static void removal_submits_what_is_staged(void **state)
{
    (void)state;
    int a = file_with('a'), b = file_with('b');
    int slot = uring_add_file(&u, a);
    struct request r = {.op.done = request_done};
    struct io_uring_sqe *sqe = uring_entry(&u, &r.op);
    io_uring_prep_write(sqe, slot, "x", 1, 0);
    sqe->flags = IOSQE_FIXED_FILE;
    uring_remove_file(&u, slot);
    assert_int_equal(uring_add_file(&u, b), slot);
    wait_for(&r);
    char c;
    assert_int_equal(pread(a, &c, 1, 0), 1);
    assert_int_equal(c, 'x');
    assert_int_equal(pread(b, &c, 1, 0), 1);
    assert_int_equal(c, 'b');
    uring_remove_file(&u, slot);
    close(a);
    close(b);
}

static void full_table_says_so(void **state)
{
    (void)state;
    int fd = file_with('a');
    unsigned n = u.n_free_files;
    int *slots = calloc(n, sizeof(*slots));
    for (unsigned i = 0; i < n; i++) {
        slots[i] = uring_add_file(&u, fd);
        assert_true(slots[i] >= 0);
    }
    assert_int_equal(uring_add_file(&u, fd), -ENFILE);
    while (n)
        uring_remove_file(&u, slots[--n]);
    assert_true(uring_add_file(&u, fd) >= 0);
    free(slots);
    close(fd);
}

static void table_fits_the_limit_of_files(void **state)
{
    (void)state;
    struct rlimit limit, low;
    getrlimit(RLIMIT_NOFILE, &limit);
    low = (struct rlimit){.rlim_cur = 200, .rlim_max = limit.rlim_max};
    setrlimit(RLIMIT_NOFILE, &low);
    struct uring small;
    struct error e;
    assert_int_equal(uring_open(&small, &e), 0);
    assert_int_equal(small.n_free_files, 200);
    uring_close(&small);
    struct rlimit after;
    getrlimit(RLIMIT_NOFILE, &after);
    assert_int_equal(after.rlim_cur, 200);
    setrlimit(RLIMIT_NOFILE, &limit);
}

// Opened on one thread, enabled and used on another, helpers kept to a mask.
static void *other_thread(void *argument)
{
    struct uring *ring = argument;
    cpu_set_t helpers;
    sched_getaffinity(0, sizeof(helpers), &helpers);
    if (uring_enable(ring, &helpers, sizeof(helpers)))
        return NULL;
    struct request r = {.op.done = request_done, .result = 1};
    io_uring_prep_nop(uring_entry(ring, &r.op));
    uring_sleep(ring, UINT64_MAX);
    uring_reap(ring, 8);
    return r.result ? NULL : ring;
}

static void worker_thread_enables(void **state)
{
    (void)state;
    struct uring ring;
    struct error e;
    assert_int_equal(uring_open(&ring, &e), 0);
    pthread_t thread;
    void *result;
    pthread_create(&thread, NULL, other_thread, &ring);
    pthread_join(thread, &result);
    assert_ptr_equal(result, &ring);
    uring_close(&ring);
}

// No io_uring for want of files: the sentence says why, and nothing leaks.
static void refusal_is_a_sentence(void **state)
{
    (void)state;
    struct rlimit limit, low;
    getrlimit(RLIMIT_NOFILE, &limit);
    low = (struct rlimit){.rlim_cur = 0, .rlim_max = limit.rlim_max};
    setrlimit(RLIMIT_NOFILE, &low);
    struct uring none;
    struct error e;
    int err = uring_open(&none, &e);
    setrlimit(RLIMIT_NOFILE, &limit);
    assert_int_equal(err, -EMFILE);
    assert_non_null(strstr(e.text, "io_uring: Too many open files"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_enter_submits_and_completes, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_to_do_enters_never, setup, teardown),
        cmocka_unit_test_setup_teardown(only_at_home_is_it_done, setup, teardown),
        cmocka_unit_test_setup_teardown(task_work_is_fetched, setup, teardown),
        cmocka_unit_test_setup_teardown(overflow_loses_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(sleep_ends_by_completion, setup, teardown),
        cmocka_unit_test_setup_teardown(sleep_ends_by_timeout, setup, teardown),
        cmocka_unit_test_setup_teardown(only_listed_opcodes_run, setup, teardown),
        cmocka_unit_test_setup_teardown(files_live_in_slots, setup, teardown),
        cmocka_unit_test_setup_teardown(removal_submits_what_is_staged, setup, teardown),
        cmocka_unit_test_setup_teardown(full_table_says_so, setup, teardown),
        cmocka_unit_test(table_fits_the_limit_of_files),
        cmocka_unit_test(worker_thread_enables),
        cmocka_unit_test(refusal_is_a_sentence),
    };
    return cmocka_run_group_tests_name("uring", tests, NULL, NULL);
}
