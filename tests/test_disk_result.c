// SPDX-License-Identifier: Apache-2.0
// What the kernel may answer, put in place of what it did answer: the file stays real.
#include "devices/disk_file.h"
#include "tests/bare_queue.h"
#include "tests/disk_folder.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define DATA  8192u
#define IMAGE (1u << 20)

enum {
    KEEP = INT_MIN, // the kernel's answer
    HALF,           // it did less
    NOT_TRIED,      // how many entries it takes depends on the file system
};

struct answer {
    const char *name;
    int results[4];  // of the entries in turn; then KEEP
    bool for_ever;   // the first one again and again
    int read, write; // what comes of it: enum disk_result
    int flush, zeros;
};

static const struct answer answers[] = {
    {"as it is", {KEEP}, false, DISK_OK, DISK_OK, DISK_OK, DISK_OK},
    {"interrupted", {-EINTR, -EINTR, KEEP}, false, DISK_OK, DISK_OK, DISK_OK, DISK_OK},
    {"busy", {-EAGAIN, -EAGAIN, -EINTR, KEEP}, false, DISK_OK, DISK_OK, DISK_OK, DISK_OK},
    {"busy for ever", {-EAGAIN}, true, DISK_FAILED, DISK_FAILED, DISK_FAILED, DISK_FAILED},
    {"interrupted for ever", {-EINTR}, true, DISK_FAILED, DISK_FAILED, DISK_FAILED, DISK_FAILED},
    {"timed out", {-ETIMEDOUT, KEEP}, false, DISK_FAILED, DISK_FAILED, DISK_FAILED, DISK_FAILED},
    {"broken", {-EIO, KEEP}, false, DISK_FAILED, DISK_FAILED, DISK_FAILED, DISK_FAILED},
    {"full", {-ENOSPC, KEEP}, false, DISK_FAILED, DISK_FAILED, DISK_FAILED, DISK_FAILED},
    {"gone", {-ENODEV, KEEP}, false, DISK_FAILED, DISK_FAILED, DISK_FAILED, DISK_FAILED},
    {"cancelled", {-ECANCELED, KEEP}, false, DISK_FAILED, DISK_FAILED, DISK_FAILED, DISK_FAILED},
    {"memory gone", {-EFAULT, KEEP}, false, DISK_FAILED, DISK_FAILED, DISK_FAILED, DISK_FAILED},
    {"less", {HALF, HALF, KEEP}, false, DISK_OK, DISK_OK, DISK_OK, DISK_OK},
    {"less, then an error",
     {HALF, -EIO, KEEP},
     false,
     DISK_FAILED,
     DISK_FAILED,
     DISK_OK,
     NOT_TRIED},
};

// Where a request goes; not every file has all of them.
struct way {
    const char *name;
    const char *keys;
    uint32_t block;  // of a direct file that is made coarse; 0: as it is
    uint32_t offset; // of the request
    uint32_t shift;  // of its data in memory
};

static const struct way ways[] = {
    {"buffered", "file=image cache=buffered", 0, 512, 3},
    {"direct", "file=image cache=direct", 0, 4096, 0},
    {"through a slot", "file=image cache=direct", 0, 512, 3},
    {"whole blocks", "file=image cache=direct", 4096, 8192, 0},
    {"parts of blocks", "file=image cache=direct", 4096, 512, 0},
};

// ---- answers that are put in place -------------------------------------------------------

static const struct answer *now;
static unsigned n_answers;
static int unit; // no direct I/O ends inside a block

static int put_in_place(int result)
{
    unsigned i = now->for_ever ? 0 : n_answers;
    n_answers++;
    int other = i < ARRAY_LEN(now->results) ? now->results[i] : KEEP;
    if (i && other == 0) // beyond the last one
        other = KEEP;
    if (other == HALF)
        return MAX(result / 2 / unit * unit, MIN(result, unit));
    return other == KEEP ? result : other;
}

// Every completion comes here: the queue says that it lives elsewhere.
static void intercept(struct uring *u, struct uring_op *op, int result)
{
    (void)u;
    op->done(op, result == -ETIME ? result : put_in_place(result));
}

struct bench {
    struct device *device;
    struct lane lane;
    struct bare_queue queue;
    struct uring elsewhere;
    uint8_t *memory;
};

static void open_way(struct bench *b, const struct way *w)
{
    struct error e;
    disk_make_file("image", IMAGE);
    check_ok(disk_open_line(&b->device, &e, w->keys), &e);
    if (w->block > disk_image(b->device)->offset_align)
        disk_make_coarse(b->device, w->block);
    bare_lane_open(&b->lane);
    bare_queue_start(&b->queue, b->device, 0);
    bare_queue_enter(&b->queue, &b->lane);
    b->lane.uring.late = intercept;
    b->queue.queue->uring = &b->elsewhere;
    b->memory = aligned_alloc(4096, 4 * DATA);
    assert_non_null(b->memory);
}

static void close_way(struct bench *b)
{
    const struct file_queue *f = file_of(b->queue.dq);
    assert_int_equal(f->image->n_helped, 0);
    assert_int_equal(f->helpers, 0);
    assert_int_equal(f->n_free_slots, f->slots ? FILE_SLOTS : 0);
    assert_int_equal(f->waiting.first, 0);
    bare_queue_leave(&b->queue);
    bare_queue_stop(&b->queue);
    bare_lane_close(&b->lane);
    device_close(b->device);
    free(b->memory);
}

static void check_one(struct bench *b, const struct way *w, const struct answer *a,
                      enum disk_operation operation, uint8_t *data, uint32_t bytes, int expected)
{
    now = a;
    n_answers = 0;
    bare_submit(&b->queue, 5, operation, w->offset, data, bytes);
    bare_await(&b->queue, b->queue.n_back + 1);
    if ((int)bare_result(&b->queue, 5) != expected)
        fail_msg("%s: %s: operation %d: %d, not %d", w->name, a->name, operation,
                 bare_result(&b->queue, 5), expected);
}

static void check_answer(struct bench *b, const struct way *w, const struct answer *a)
{
    uint8_t *data = b->memory + w->shift, *found = b->memory + 2ul * DATA;
    disk_pattern(data, DATA, w->offset / 512, (unsigned)(a - answers));
    check_one(b, w, a, DISK_WRITE, data, DATA, a->write);
    if (a->write == DISK_OK) {
        disk_read_file("image", found, w->offset, DATA);
        assert_memory_equal(found, data, DATA);
        memset(data, 0xa5, DATA);
        check_one(b, w, a, DISK_READ, data, DATA, a->read);
        assert_memory_equal(found, data, DATA);
    } else {
        check_one(b, w, a, DISK_READ, data, DATA, a->read);
    }
    check_one(b, w, a, DISK_FLUSH, NULL, 0, a->flush);
    if (a->zeros != NOT_TRIED)
        check_one(b, w, a, DISK_ZERO, NULL, DATA, a->zeros);
}

static void answers_become_results(void **state)
{
    (void)state;
    disk_make_file("image", IMAGE);
    for (unsigned i = 0; i < ARRAY_LEN(ways); i++) {
        if (strstr(ways[i].keys, "direct"))
            disk_need_direct("image");
        static struct bench b;
        open_way(&b, &ways[i]);
        unit = (int)MAX(disk_image(b.device)->offset_align, 512);
        for (unsigned k = 0; k < ARRAY_LEN(answers); k++)
            check_answer(&b, &ways[i], &answers[k]);
        close_way(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_become_results),
    };
    return cmocka_run_group_tests_name("disk_result", tests, disk_folder_enter, disk_folder_leave);
}
