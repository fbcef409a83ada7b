// SPDX-License-Identifier: Apache-2.0
#include "tests/guest/flush_ledger.h"

#include "bench/stamp.h"
#include "tests/guest/write_log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define BLOCK_BYTES    4096u
#define BLOCK_SECTORS  (BLOCK_BYTES / STAMP_SECTOR_BYTES)
#define DEPTH          8 // writes in flight on each queue
#define BURST_MAX      48
#define BLOCKS_MAX     4096u
#define WAIT_SECONDS   120
#define LEDGER_DISK_ID 7

// One a mark, with @n_blocks generations after it. A mark of 0 ends the ledger.
struct record {
    uint32_t mark, n_blocks;
};

struct writer {
    struct guest_disk *disk;
    struct guest_request writes[GUEST_DISK_QUEUES_MAX][DEPTH];
    bool is_out[GUEST_DISK_QUEUES_MAX][DEPTH];
    struct guest_request flush;
    bool is_flushing;
    uint32_t n_blocks;
    uint64_t seed;
    uint64_t n_acknowledged;
    bool is_busy[BLOCKS_MAX];
    uint32_t sent[BLOCKS_MAX];         // generation
    uint32_t acknowledged[BLOCKS_MAX]; // likewise
    uint32_t least[BLOCKS_MAX];        // what the next mark must find
};

// ---- the writer --------------------------------------------------------------------------

static struct stamp_key key_of(uint32_t block, uint32_t generation)
{
    return (struct stamp_key){LEDGER_DISK_ID, generation, (uint64_t)block * BLOCK_SECTORS};
}

static void submit_write(struct writer *w, unsigned queue, unsigned i)
{
    struct guest_request *r = &w->writes[queue][i];
    uint32_t block = (uint32_t)random_below(&w->seed, w->n_blocks);
    while (w->is_busy[block])
        block = (block + 1) % w->n_blocks;
    guest_request_prepare(r, VIRTIO_BLK_T_OUT, (uint64_t)block * BLOCK_SECTORS, BLOCK_BYTES,
                          GUEST_REQUEST_INDIRECT);
    stamp_write(r->data, BLOCK_BYTES, key_of(block, ++w->sent[block]));
    w->is_busy[block] = true;
    w->is_out[queue][i] = guest_disk_submit(w->disk, queue, r);
    assert(w->is_out[queue][i] && "the ring has room for the depth");
}

static int take(struct writer *w, unsigned queue, const struct driver_used *used, struct error *e)
{
    struct guest_request *r = (struct guest_request *)used->chain;
    if (*r->status != VIRTIO_BLK_S_OK)
        return error_set(e, EIO, "request type %u at sector %llu: status %u", r->type,
                         (unsigned long long)r->sector, *r->status);
    if (r == &w->flush) {
        w->is_flushing = false;
        return 0;
    }
    uint32_t block = (uint32_t)(r->sector / BLOCK_SECTORS);
    w->is_busy[block] = false;
    w->acknowledged[block] = w->sent[block];
    w->n_acknowledged++;
    w->is_out[queue][r - w->writes[queue]] = false;
    return 0;
}

// Collect what came back and keep every queue at its depth.
static int turn(struct writer *w, bool is_offering, struct error *e)
{
    int rc = 0;
    for (unsigned q = 0; rc == 0 && q < w->disk->config.n_queues; q++) {
        struct driver_used used[DEPTH + 1];
        int n = driver_poll(w->disk->drivers[q], used, DEPTH + 1, e);
        rc = MIN(n, 0);
        for (int i = 0; rc == 0 && i < n; i++)
            rc = take(w, q, &used[i], e);
        for (unsigned i = 0; rc == 0 && is_offering && i < DEPTH; i++) {
            if (!w->is_out[q][i])
                submit_write(w, q, i);
        }
    }
    sched_yield();
    return rc;
}

static int write_some(struct writer *w, struct error *e)
{
    uint64_t until = w->n_acknowledged + 1 + random_below(&w->seed, BURST_MAX);
    time_t deadline = time(NULL) + WAIT_SECONDS;
    int rc = 0;
    while (rc == 0 && w->n_acknowledged < until) {
        if (time(NULL) > deadline)
            return error_set(e, ETIMEDOUT, "writes do not come back");
        rc = turn(w, true, e);
    }
    return rc;
}

// A flush on one queue; writes go on, on all.
static int flush(struct writer *w, unsigned queue, struct error *e)
{
    guest_request_prepare(&w->flush, VIRTIO_BLK_T_FLUSH, 0, 0, GUEST_REQUEST_INDIRECT);
    w->is_flushing = true;
    if (!guest_disk_submit(w->disk, queue, &w->flush))
        return error_set(e, EAGAIN, "the ring is full");
    time_t deadline = time(NULL) + WAIT_SECONDS;
    int rc = 0;
    while (rc == 0 && w->is_flushing) {
        if (time(NULL) > deadline)
            return error_set(e, ETIMEDOUT, "a flush does not come back");
        rc = turn(w, true, e);
    }
    return rc;
}

// Marks the write log: all that the log has by now stands before it.
static int set_mark(const char *device, unsigned mark, struct error *e)
{
    union {
        struct dm_ioctl head;
        char bytes[512];
    } m = {.head = {.version = {DM_VERSION_MAJOR, 0, 0}, .data_size = sizeof m}};
    // A struct dm_target_msg follows: the sector, then the text.
    m.head.data_start = sizeof m.head;
    snprintf(m.head.name, sizeof m.head.name, "%s", device);
    snprintf(m.bytes + sizeof m.head + sizeof(struct dm_target_msg), 32, "mark %u", mark);
    int fd = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
    int rc = fd < 0 ? -1 : ioctl(fd, DM_TARGET_MSG, &m);
    int code = errno;
    if (fd >= 0)
        close(fd);
    return rc < 0 ? error_set(e, code, "cannot mark %s: %s", device, strerror(code)) : 0;
}

static int run_marks(struct writer *w, FILE *ledger, const struct flush_ledger_options *o,
                     struct error *e)
{
    int rc = 0;
    for (unsigned mark = 1; rc == 0 && mark <= o->n_marks; mark++) {
        struct record record = {mark, w->n_blocks};
        rc = write_some(w, e);
        memcpy(w->least, w->acknowledged, sizeof w->least);
        if (rc == 0 && !o->is_write_through)
            rc = flush(w, mark % w->disk->config.n_queues, e);
        if (rc == 0)
            rc = set_mark(o->device, mark, e);
        fwrite(&record, sizeof record, 1, ledger);
        fwrite(w->least, sizeof w->least[0], w->n_blocks, ledger);
    }
    for (unsigned q = 0; q < w->disk->config.n_queues; q++) {
        while (rc == 0 && driver_n_in_flight(w->disk->drivers[q]))
            rc = turn(w, false, e);
    }
    return rc;
}

static int open_writer(struct writer *w, struct guest_disk *disk, struct error *e)
{
    w->disk = disk;
    w->seed = 3;
    w->n_blocks = (uint32_t)(disk->space.capacity / BLOCK_SECTORS);
    if (w->n_blocks > BLOCKS_MAX)
        return error_set(e, EINVAL, "at most %u blocks, not %u", BLOCKS_MAX, w->n_blocks);
    int rc = guest_request_open(&w->flush, 1, disk->guest, BLOCK_BYTES, e);
    for (unsigned q = 0; rc == 0 && q < disk->config.n_queues; q++)
        rc = guest_request_open(w->writes[q], DEPTH, disk->guest, BLOCK_BYTES, e);
    return rc;
}

int flush_ledger_write(struct guest_disk *disk, const struct flush_ledger_options *o,
                       struct error *e)
{
    const struct record end = {0, 0};
    struct writer *w = calloc(1, sizeof *w);
    FILE *ledger = fopen(o->path, "r+be");
    int rc = 0;
    if (!w || !ledger)
        rc = error_set(e, w ? errno : ENOMEM, "%s: %s", o->path, strerror(w ? errno : ENOMEM));
    if (rc == 0)
        rc = open_writer(w, disk, e);
    if (rc == 0)
        rc = run_marks(w, ledger, o, e);
    if (rc == 0 && fwrite(&end, sizeof end, 1, ledger) != 1)
        rc = error_set(e, EIO, "%s: cannot write it", o->path);
    if (ledger && fclose(ledger) && rc == 0)
        rc = error_set(e, errno, "%s: %s", o->path, strerror(errno));
    free(w);
    return rc;
}

// ---- the checker -------------------------------------------------------------------------

struct checker {
    FILE *ledger;
    struct write_log *log;
    uint8_t *disk; // as it was at the mark
    uint64_t bytes;
    struct record record;
    uint32_t least[BLOCKS_MAX];
};

static int read_record(struct checker *c, struct error *e)
{
    if (fread(&c->record, sizeof c->record, 1, c->ledger) != 1)
        return error_set(e, EINVAL, "the ledger has no end");
    if (!c->record.mark)
        return 0;
    if (c->record.n_blocks > BLOCKS_MAX ||
        fread(c->least, sizeof c->least[0], c->record.n_blocks, c->ledger) != c->record.n_blocks)
        return error_set(e, EINVAL, "the ledger is broken");
    return 1;
}

static int replay_to_mark(struct checker *c, struct error *e)
{
    char wanted[16];
    struct write_log_entry entry;
    snprintf(wanted, sizeof wanted, "%u", c->record.mark);
    for (;;) {
        int rc = write_log_next(c->log, &entry, e);
        if (rc <= 0)
            return rc < 0 ? rc : error_set(e, EINVAL, "the log has no mark %s", wanted);
        if (entry.flags & WRITE_LOG_MARK && !strcmp(entry.mark, wanted))
            return 0;
        if (entry.offset > c->bytes || entry.bytes > c->bytes - entry.offset)
            return error_set(e, EINVAL, "the log writes beyond the disk");
        if (entry.data && entry.bytes)
            memcpy(c->disk + entry.offset, entry.data, entry.bytes);
    }
}

static int check_block(const struct checker *c, uint32_t block, struct error *e)
{
    const uint8_t *data = c->disk + (uint64_t)block * BLOCK_BYTES;
    uint32_t generation = stamp_generation(data);
    if (generation < c->least[block])
        return error_set(e, EIO, "mark %u: block %u has generation %u, %u was acknowledged",
                         c->record.mark, block, generation, c->least[block]);
    return generation ? stamp_check(data, BLOCK_BYTES, key_of(block, generation), e) : 0;
}

static int check_marks(struct checker *c, struct error *e)
{
    int n_marks = 0, rc;
    while ((rc = read_record(c, e)) > 0) {
        rc = replay_to_mark(c, e);
        for (uint32_t i = 0; rc == 0 && i < c->record.n_blocks; i++)
            rc = check_block(c, i, e);
        if (rc < 0)
            return rc;
        n_marks++;
    }
    return rc < 0 ? rc : n_marks;
}

int flush_ledger_check(const char *ledger_path, const char *log_path, struct error *e)
{
    struct checker c = {.ledger = fopen(ledger_path, "rbe"),
                        .bytes = (uint64_t)BLOCKS_MAX * BLOCK_BYTES};
    int rc = c.ledger ? 0 : error_set(e, errno, "%s: %s", ledger_path, strerror(errno));
    c.disk = calloc(1, c.bytes);
    if (rc == 0 && !c.disk)
        rc = error_set(e, ENOMEM, "no memory for a disk");
    if (rc == 0)
        rc = write_log_open(&c.log, log_path, e);
    if (rc == 0)
        rc = check_marks(&c, e);
    write_log_close(c.log);
    free(c.disk);
    if (c.ledger)
        fclose(c.ledger);
    return rc;
}
