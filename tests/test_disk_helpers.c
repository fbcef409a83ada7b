// SPDX-License-Identifier: Apache-2.0
#include "devices/disk_file.h"
#include "tests/bare_queue.h"
#include "tests/disk_folder.h"
#include "tests/fuse_disk.h"

#include <stdlib.h>
#include <string.h>

#define QUEUES 4

// A disk that hangs and a good one, served by one worker.
struct pair {
    pid_t pid;
    struct lane lane;
    struct device *hung, *good;
    struct bare_queue queues[QUEUES], good_queue;
    uint8_t *data; // aligned
};

static void open_pair(struct pair *p)
{
    static const char *const no_filter[] = {NULL};
    struct error e;
    p->pid = fuse_disk_start("hung", no_filter);
    disk_make_file("good", 1 << 20);
    check_ok(disk_open_line(&p->hung, &e, "file=hung"), &e);
    check_ok(disk_open_line(&p->good, &e, "file=good"), &e);
    bare_lane_open(&p->lane);
    for (unsigned i = 0; i < QUEUES; i++) {
        bare_queue_start(&p->queues[i], p->hung, i);
        bare_queue_enter(&p->queues[i], &p->lane);
    }
    bare_queue_start(&p->good_queue, p->good, 0);
    bare_queue_enter(&p->good_queue, &p->lane);
    p->data = aligned_alloc(4096, 4096);
    assert_non_null(p->data);
    memset(p->data, 1, 4096);
}

static void close_queue(struct bare_queue *b)
{
    bare_queue_leave(b);
    bare_queue_stop(b);
}

static void close_pair(struct pair *p)
{
    for (unsigned i = 0; i < QUEUES; i++)
        close_queue(&p->queues[i]);
    close_queue(&p->good_queue);
    bare_lane_close(&p->lane);
    device_close(p->hung);
    device_close(p->good);
    fuse_disk_stop(p->pid);
    free(p->data);
}

static void read_all(struct bare_queue *b, uint8_t *data)
{
    for (unsigned slot = 0; slot < BARE_SIZE; slot++)
        bare_submit(b, slot, DISK_READ, slot * 4096ul, data, 4096);
}

static unsigned n_helped(const struct device *d)
{
    return disk_image(d)->n_helped;
}

// A disk whose requests never end keeps some helpers; the other one's work goes on.
static void a_hung_disk_leaves_the_others_their_helpers(void **state)
{
    (void)state;
    static struct pair p;
    open_pair(&p);
    assert_true(disk_image(p.hung)->is_helped);
    fuse_disk_hang(p.pid);
    for (unsigned i = 0; i < QUEUES; i++)
        read_all(&p.queues[i], p.data);
    assert_in_range(n_helped(p.hung), FILE_HELPERS_MAX, FILE_HELPERS_MAX + QUEUES - 1);
    for (unsigned i = 0; i < 50; i++) {
        bare_submit(&p.good_queue, 0, DISK_WRITE, i * 4096ul, p.data, 4096); // takes a new block
        bare_submit(&p.good_queue, 1, DISK_FLUSH, 0, NULL, 0);
        bare_await(&p.good_queue, 2 * (i + 1));
        assert_int_equal(bare_result(&p.good_queue, 0), DISK_OK);
        assert_int_equal(bare_result(&p.good_queue, 1), DISK_OK);
    }
    for (unsigned i = 0; i < QUEUES; i++)
        assert_int_equal(p.queues[i].n_back, 0);

    fuse_disk_resume(p.pid);
    for (unsigned i = 0; i < QUEUES; i++) {
        bare_await(&p.queues[i], BARE_SIZE);
        for (unsigned slot = 0; slot < BARE_SIZE; slot++)
            assert_int_equal(bare_result(&p.queues[i], slot), DISK_OK);
    }
    assert_int_equal(n_helped(p.hung), 0);
    close_pair(&p);
}

static void run_done(struct uring *u, struct uring_op *op, int result)
{
    (void)u;
    op->done(op, result);
}

// Who waits for a helper goes with its queue to another worker.
static void a_queue_moves_with_those_that_wait(void **state)
{
    (void)state;
    static struct pair p;
    static struct lane other;
    open_pair(&p);
    bare_lane_open(&other);
    p.lane.uring.late = run_done;
    fuse_disk_hang(p.pid);
    struct bare_queue *b = &p.queues[0];
    read_all(b, p.data);
    bare_turn(&p.lane);
    bare_queue_leave(b);
    bare_queue_enter(b, &other);
    fuse_disk_resume(p.pid);
    while (p.lane.uring.n_in_flight)
        bare_turn(&p.lane);
    assert_in_range(other.uring.n_in_flight, 1, FILE_HELPERS_MAX); // the rest is there
    bare_await(b, BARE_SIZE);
    bare_queue_leave(b);
    bare_queue_enter(b, &p.lane);
    bare_lane_close(&other);
    close_pair(&p);
}

static unsigned n_entries(const struct lane *lane)
{
    return lane->uring.ring.sq.sqe_tail;
}

// One that is out cannot cover what was written meanwhile; the next covers all who wait.
static void flushes_share_the_next_one(void **state)
{
    (void)state;
    struct error e;
    struct device *d;
    static struct lane lane;
    static struct bare_queue b;
    disk_make_file("image", 1 << 20);
    check_ok(disk_open_line(&d, &e, "file=image"), &e);
    bare_lane_open(&lane);
    bare_queue_start(&b, d, 0);
    bare_queue_enter(&b, &lane);
    unsigned before = n_entries(&lane);
    for (unsigned slot = 0; slot < 20; slot++)
        bare_submit(&b, slot, DISK_FLUSH, 0, NULL, 0);
    assert_int_equal(n_entries(&lane) - before, 1);
    bare_await(&b, 20);
    assert_int_equal(b.n_back, 20);
    assert_int_equal(n_entries(&lane) - before, 2);
    bare_submit(&b, 0, DISK_FLUSH, 0, NULL, 0);
    bare_await(&b, 21);
    assert_int_equal(n_entries(&lane) - before, 3);
    for (unsigned slot = 0; slot < 20; slot++)
        assert_int_equal(bare_result(&b, slot), DISK_OK);
    assert_int_equal(n_helped(d), 0);
    close_queue(&b);
    bare_lane_close(&lane);
    device_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hung_disk_leaves_the_others_their_helpers),
        cmocka_unit_test(a_queue_moves_with_those_that_wait),
        cmocka_unit_test(flushes_share_the_next_one),
    };
    return cmocka_run_group_tests_name("disk_helpers", tests, disk_folder_enter, disk_folder_leave);
}
