// SPDX-License-Identifier: Apache-2.0
#include "devices/disk_section.h"
#include "tests/bare_queue.h"
#include "tests/disk_folder.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK  4096u
#define BLOCKS 4u
#define ROUNDS 200u

// ---- turns -------------------------------------------------------------------------------

enum verb { SHARE, ALONE, LEAVE_SHARE, LEAVE_ALONE };

struct turn {
    unsigned side;
    enum verb verb;
    enum section_entry entry; // of SHARE and ALONE
};

static void turns_are_taken_in_order(void **state)
{
    (void)state;
    static const struct turn turns[] = {
        {0, SHARE, SECTION_ENTERED},  {1, SHARE, SECTION_ENTERED}, {0, SHARE, SECTION_ENTERED},
        {2, ALONE, SECTION_BUSY},                               // three write
        {1, LEAVE_SHARE, 0},          {1, SHARE, SECTION_BUSY}, // behind who is alone
        {0, ALONE, SECTION_BUSY},                               // behind both
        {2, ALONE, SECTION_BUSY},     {0, LEAVE_SHARE, 0},         {0, LEAVE_SHARE, 0},
        {1, SHARE, SECTION_BUSY},     {2, ALONE, SECTION_ENTERED}, {1, SHARE, SECTION_BUSY},
        {2, SHARE, SECTION_BUSY_OWN},                           // by itself
        {2, LEAVE_ALONE, 0},          {2, SHARE, SECTION_BUSY}, // its turn is last
        {1, SHARE, SECTION_ENTERED},  {0, ALONE, SECTION_BUSY},    {1, LEAVE_SHARE, 0},
        {0, ALONE, SECTION_ENTERED},  {0, LEAVE_ALONE, 0},         {2, SHARE, SECTION_ENTERED},
        {2, ALONE, SECTION_BUSY_OWN}, {2, LEAVE_SHARE, 0},         {2, ALONE, SECTION_ENTERED},
        {2, LEAVE_ALONE, 0},          {1, SHARE, SECTION_ENTERED}, {1, LEAVE_SHARE, 0},
    };
    struct section *s = aligned_alloc(_Alignof(struct section), sizeof(*s));
    assert_non_null(s);
    memset(s, 0, sizeof(*s));
    s->tickets = s->served = UINT32_MAX - 1; // they wrap
    for (unsigned i = 0; i < 3; i++)
        section_add(s, i);
    for (unsigned i = 0; i < ARRAY_LEN(turns); i++) {
        const struct turn *t = &turns[i];
        if (t->verb >= LEAVE_SHARE)
            section_leave(s, t->side, t->verb == LEAVE_ALONE);
        else if (section_enter(s, t->side, t->verb == ALONE) != t->entry)
            fail_msg("turn %u", i);
    }
    assert_int_equal(s->tickets, s->served);
    free(s);
}

// ---- workers -----------------------------------------------------------------------------

// What one thread writes again and again, and which sectors of it are its own.
struct job {
    unsigned thread;
    unsigned first_block, n_blocks;
    unsigned first_sector, n_sectors; // in each of the blocks
    unsigned n_own;                   // the first ones: nobody else writes them
};

static const struct job jobs[] = {
    // Whole blocks, beside parts of them that others write.
    {0, 0, 2, 0, 8, 5},
    {1, 0, 2, 5, 1, 0},
    {2, 0, 2, 6, 2, 0},
    // Parts of a block, each its own.
    {0, 2, 2, 0, 1, 1},
    {1, 2, 2, 1, 3, 3},
    {2, 2, 2, 7, 1, 1},
};

#define THREADS 3

struct writer {
    pthread_t thread;
    unsigned index;
    struct bare_queue queue;
    struct lane lane;
    uint8_t *written, *found; // a block each
    const char *failure;
};

static bool do_one(struct bare_queue *b, enum disk_operation operation, uint64_t at, void *data,
                   uint32_t bytes)
{
    bare_submit(b, 0, operation, at, data, bytes);
    bare_await(b, b->n_back + 1);
    return bare_result(b, 0) == DISK_OK;
}

static void write_and_look(struct writer *w, const struct job *job, unsigned round)
{
    for (unsigned k = 0; k < job->n_blocks; k++) {
        uint64_t at = (job->first_block + k) * BLOCK + job->first_sector * 512u;
        disk_pattern(w->written, job->n_sectors * 512, at / 512, round * THREADS + w->index);
        if (!do_one(&w->queue, DISK_WRITE, at, w->written, job->n_sectors * 512))
            w->failure = "a write failed";
        if (!job->n_own)
            continue;
        if (!do_one(&w->queue, DISK_READ, at, w->found, job->n_own * 512))
            w->failure = "a read failed";
        if (memcmp(w->found, w->written, job->n_own * 512) != 0)
            w->failure = "a write was lost";
    }
}

static void *write_all(void *argument)
{
    struct writer *w = argument;
    bare_lane_open(&w->lane);
    bare_queue_enter(&w->queue, &w->lane);
    for (unsigned round = 0; round < ROUNDS && !w->failure; round++) {
        for (unsigned i = 0; i < ARRAY_LEN(jobs); i++) {
            if (jobs[i].thread == w->index)
                write_and_look(w, &jobs[i], round);
        }
    }
    bare_queue_leave(&w->queue);
    bare_lane_close(&w->lane);
    return NULL;
}

// Sectors of one block, written by queues on different workers.
static void workers_lose_no_sector(void **state)
{
    (void)state;
    struct error e;
    struct device *d;
    disk_make_file("image", BLOCKS * BLOCK);
    disk_need_direct("image");
    check_ok(disk_open_line(&d, &e, "file=image cache=direct"), &e);
    disk_make_coarse(d, BLOCK);
    static struct writer writers[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        struct writer *w = &writers[i];
        w->index = i;
        w->written = aligned_alloc(BLOCK, 2 * (size_t)BLOCK);
        assert_non_null(w->written);
        w->found = w->written + BLOCK;
        bare_queue_start(&w->queue, d, i);
    }
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&writers[i].thread, NULL, write_all, &writers[i]), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(writers[i].thread, NULL), 0);
        if (writers[i].failure)
            fail_msg("thread %u: %s", i, writers[i].failure);
        bare_queue_stop(&writers[i].queue);
        free(writers[i].written);
    }
    device_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(turns_are_taken_in_order),
        cmocka_unit_test(workers_lose_no_sector),
    };
    return cmocka_run_group_tests_name("disk_section", tests, disk_folder_enter, disk_folder_leave);
}
