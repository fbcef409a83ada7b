// SPDX-License-Identifier: Apache-2.0
// disk_file.c - a disk in a raw image file or on a block device, through the page cache.
//
// Theory: the kernel moves data between the file and the guest's own pages. One request is one
// entry of the worker's io_uring, as a rule. What comes back short goes on where it stopped:
// first the rest of the segment it stopped in, then the segments after it, so that no list of
// segments is ever copied. The contents are never interpreted: a disk is raw whatever a guest
// writes into it.
//
// A range is discarded or zeroed by fallocate(). What the file system refuses (EOPNOTSUPP) is not
// tried again: a discard then does nothing, and zeros are written.
#include "devices/disk.h"

#include "dataplane/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE_CACHE_BYTES 4096 // a write of less reads the page first
#define RETRIES_MAX      100  // of one request: EAGAIN and EINTR pass, or never will
#define RANGE_BYTES_MAX  (1u << 31)
#define RANGES_MAX       64

// Written where zeros cannot be had otherwise. We never touch it, so it takes no memory.
static uint8_t zeros[1 << 20];

// ---- open and close ----------------------------------------------------------------------

static int refuse(const struct disk *d, const char *path, int code, const char *why,
                  struct error *e)
{
    return error_set(e, code, "disk %s: file=%s: %s", d->name, path, why);
}

static int refuse_open(const struct disk *d, const char *path, int code, struct error *e)
{
    switch (code) {
    case ENOENT:
        return refuse(d, path, code, "there is no such file; it is never created here", e);
    case EISDIR:
        return refuse(d, path, code, "a directory, not an image", e);
    case EACCES:
    case EPERM:
        return refuse(d, path, code,
                      d->is_read_only ? "no permission to read it"
                                      : "no permission to read and write it (or add read-only)",
                      e);
    case EROFS:
        return refuse(d, path, code, "on a read-only file system (add read-only)", e);
    case ENXIO:
        return refuse(d, path, code, "neither an image file nor a block device", e);
    default:
        return refuse(d, path, code, strerror(code), e);
    }
}

static int lock(const struct disk *d, const char *path, struct error *e)
{
    if (flock(d->fd, (d->is_read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0)
        return 0;
    if (errno == EWOULDBLOCK)
        return refuse(d, path, EBUSY, "locked: another disk or program uses it", e);
    int code = errno;
    return error_set(e, code, "disk %s: file=%s: cannot lock it: %s", d->name, path,
                     strerror(code));
}

static int read_block_device(struct disk *d, uint64_t *bytes)
{
    int logical;
    unsigned physical, optimal;
    if (ioctl(d->fd, BLKGETSIZE64, bytes) || ioctl(d->fd, BLKSSZGET, &logical) ||
        ioctl(d->fd, BLKPBSZGET, &physical) || ioctl(d->fd, BLKIOOPT, &optimal))
        return -errno;
    d->logical_bytes = (uint32_t)logical;
    d->physical_bytes = MAX(physical, (uint32_t)logical);
    d->optimal_bytes = optimal;
    return 0;
}

static int read_size(struct disk *d, const char *path, struct error *e)
{
    struct stat st;
    uint64_t bytes = 0;
    if (fstat(d->fd, &st))
        return refuse(d, path, errno, strerror(errno), e);
    if (S_ISBLK(st.st_mode)) {
        int err = read_block_device(d, &bytes);
        if (err)
            return refuse(d, path, -err, strerror(-err), e);
    } else if (S_ISREG(st.st_mode)) {
        bytes = (uint64_t)st.st_size;
        d->logical_bytes = DISK_SECTOR_BYTES;
        d->physical_bytes = PAGE_CACHE_BYTES;
    } else if (S_ISDIR(st.st_mode)) {
        return refuse(d, path, EISDIR, "a directory, not an image", e);
    } else {
        return refuse(d, path, EINVAL, "neither an image file nor a block device", e);
    }

    d->range_bytes = RANGE_BYTES_MAX;
    d->n_ranges = RANGES_MAX;
    d->can_unmap = true;
    d->bytes = bytes - bytes % DISK_SECTOR_BYTES;
    if (d->bytes == 0)
        return error_set(e, EINVAL, "disk %s: file=%s: %llu bytes; a disk has at least %u", d->name,
                         path, (unsigned long long)bytes, DISK_SECTOR_BYTES);
    if (d->bytes != bytes)
        log_warning("disk %s: file=%s: the last %u bytes are no whole sector and are not shown",
                    d->name, path, (unsigned)(bytes - d->bytes));
    return 0;
}

static int file_open(struct disk *d, const struct line *l, struct error *e)
{
    const char *path = line_text(l, "file", "");
    // O_NONBLOCK: a FIFO must not hold us up; it is taken back, io_uring would obey it.
    int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (d->is_read_only ? O_RDONLY : O_RDWR);
    d->fd = open(path, flags);
    if (d->fd < 0)
        return refuse_open(d, path, errno, e);

    int err = read_size(d, path, e);
    if (!err)
        err = lock(d, path, e);
    if (!err && fcntl(d->fd, F_SETFL, 0))
        err = refuse(d, path, errno, strerror(errno), e);
    if (err)
        close(d->fd);
    return err;
}

static void file_close(struct disk *d)
{
    flock(d->fd, LOCK_UN); // a worker's io_uring may keep the file for a moment longer
    close(d->fd);
}

static int refuse_growth(const struct disk *d, int code, const char *why, struct error *e)
{
    return error_set(e, code, "disk %s: %s", d->name, why);
}

// Block devices are grown by what made them, files also by others: those are measured.
static int file_grow(struct disk *d, uint64_t *bytes, struct error *e)
{
    struct stat st;
    uint64_t size;
    if (fstat(d->fd, &st))
        return refuse_growth(d, errno, strerror(errno), e);
    if (!S_ISBLK(st.st_mode))
        size = (uint64_t)st.st_size;
    else if (ioctl(d->fd, BLKGETSIZE64, &size))
        return refuse_growth(d, errno, strerror(errno), e);

    if (*bytes == 0 || *bytes == size) {
        *bytes = size;
        return 0;
    }
    if (S_ISBLK(st.st_mode))
        return refuse_growth(
            d, EINVAL, "a block device has the size it has: grow it, then leave the size out", e);
    if (*bytes < size)
        return refuse_growth(d, EINVAL, "the file is larger: leave the size out to show all of it",
                             e);
    if (d->is_read_only)
        return refuse_growth(d, EROFS, "it is read-only: grow the file, then leave the size out",
                             e);
    if (ftruncate(d->fd, (off_t)*bytes))
        return refuse_growth(d, errno, strerror(errno), e);
    return 0;
}

static int file_lane_enter(struct disk_queue *q)
{
    int slot = uring_add_file(&q->queue->lane->uring, q->disk->fd);
    if (slot < 0)
        return slot;
    q->file_slot = slot;
    return 0;
}

static void file_lane_leave(struct disk_queue *q)
{
    uring_remove_file(&q->queue->lane->uring, q->file_slot);
}

// ---- requests ----------------------------------------------------------------------------

static uring_done file_done, punch_done, zero_done;

// Where @r goes on: the segment, and the bytes of it that are done.
static unsigned segment_at(const struct disk_request *r, size_t *skip)
{
    unsigned i = 0;
    size_t done = r->n_done;
    while (done >= r->iov[i].iov_len)
        done -= r->iov[i++].iov_len;
    *skip = done;
    return i;
}

static void prepare_move(struct io_uring_sqe *sqe, const struct disk_queue *q,
                         const struct disk_request *r)
{
    size_t skip;
    unsigned first = segment_at(r, &skip);
    const struct iovec *iov = &r->iov[first];
    unsigned n = MIN(r->n_iov - first, IOV_MAX);
    uint64_t offset = r->offset + r->n_done;
    bool is_single = skip || n == 1;
    void *base = (uint8_t *)iov->iov_base + skip;
    unsigned bytes = (unsigned)(iov->iov_len - skip);

    if (r->operation == DISK_READ && is_single)
        io_uring_prep_read(sqe, q->file_slot, base, bytes, offset);
    else if (r->operation == DISK_READ)
        io_uring_prep_readv(sqe, q->file_slot, iov, n, offset);
    else if (is_single)
        io_uring_prep_write(sqe, q->file_slot, base, bytes, offset);
    else
        io_uring_prep_writev(sqe, q->file_slot, iov, n, offset);
    if (r->operation == DISK_WRITE && q->is_write_through)
        sqe->rw_flags = RWF_DSYNC;
}

static bool is_refused(const atomic_bool *flag)
{
    return atomic_load_explicit(flag, memory_order_relaxed);
}

static __attribute__((noinline)) void
prepare_range(struct io_uring_sqe *sqe, const struct disk_queue *q, struct disk_request *r)
{
    const struct disk *d = q->disk;
    uint64_t offset = r->offset + r->n_done;
    uint32_t left = r->bytes - r->n_done;
    if (left == 0) { // they are zeros, and have to be stable
        io_uring_prep_fsync(sqe, q->file_slot, IORING_FSYNC_DATASYNC);
    } else if (r->operation != DISK_ZERO && !is_refused(&d->cannot_punch)) {
        r->op.done = punch_done;
        io_uring_prep_fallocate(sqe, q->file_slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                (off_t)offset, left);
    } else if (!is_refused(&d->cannot_zero)) {
        r->op.done = zero_done;
        io_uring_prep_fallocate(sqe, q->file_slot, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                                (off_t)offset, left);
    } else {
        io_uring_prep_write(sqe, q->file_slot, zeros, MIN(left, sizeof(zeros)), offset);
        sqe->rw_flags = q->is_write_through ? RWF_DSYNC : 0;
    }
}

static void start(struct disk_queue *q, struct disk_request *r)
{
    r->op = (struct uring_op){.done = file_done, .home = &q->queue->uring};
    struct io_uring_sqe *sqe = uring_entry(&q->queue->lane->uring, &r->op);
    if (likely(r->operation < DISK_FLUSH))
        prepare_move(sqe, q, r);
    else if (r->operation == DISK_FLUSH)
        io_uring_prep_fsync(sqe, q->file_slot, IORING_FSYNC_DATASYNC);
    else
        prepare_range(sqe, q, r);
    sqe->flags |= IOSQE_FIXED_FILE;
}

// A file that has become shorter reads as zeros there, as a hole would.
static void zero_rest(struct disk_request *r)
{
    size_t skip;
    for (unsigned i = segment_at(r, &skip); i < r->n_iov; i++, skip = 0)
        memset((uint8_t *)r->iov[i].iov_base + skip, 0, r->iov[i].iov_len - skip);
    r->n_done = r->bytes;
}

// What an entry's @result makes of @r.
static enum disk_result advance(struct disk_request *r, int result)
{
    if (result == -EAGAIN || result == -EINTR)
        return r->n_retries++ < RETRIES_MAX ? DISK_LATER : DISK_FAILED;
    if (result < 0)
        return DISK_FAILED;
    if (r->operation == DISK_FLUSH)
        return DISK_OK;
    r->n_done += (uint32_t)result;
    if (r->n_done == r->bytes)
        return DISK_OK;
    if (result > 0)
        return DISK_LATER;
    if (r->operation != DISK_READ) // a file that takes nothing, and does not say why
        return DISK_FAILED;
    zero_rest(r);
    return DISK_OK;
}

// What a fallocate's @result makes of @r; sets @refused where there is no such thing.
static enum disk_result advance_range(struct disk_request *r, int result, atomic_bool *refused)
{
    if (result == -EOPNOTSUPP) {
        atomic_store_explicit(refused, true, memory_order_relaxed);
        return r->operation == DISK_DISCARD ? DISK_OK : DISK_LATER; // in another way
    }
    if (result < 0)
        return advance(r, result);
    r->n_done = r->bytes;
    // There is no RWF_DSYNC for it. What was discarded may be anything, after a crash too.
    return r->queue->is_write_through && r->operation != DISK_DISCARD ? DISK_LATER : DISK_OK;
}

static void go_on(struct disk_request *r, enum disk_result result)
{
    r->result = (uint8_t)result;
    if (result == DISK_LATER)
        start(r->queue, r);
    else
        r->queue->done(r);
}

static void file_done(struct uring_op *op, int result)
{
    struct disk_request *r = container_of(op, struct disk_request, op);
    go_on(r, advance(r, result));
}

static void punch_done(struct uring_op *op, int result)
{
    struct disk_request *r = container_of(op, struct disk_request, op);
    go_on(r, advance_range(r, result, &r->queue->disk->cannot_punch));
}

static void zero_done(struct uring_op *op, int result)
{
    struct disk_request *r = container_of(op, struct disk_request, op);
    go_on(r, advance_range(r, result, &r->queue->disk->cannot_zero));
}

static void file_submit(struct disk_queue *q, struct disk_request *const batch[], unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (unlikely(batch[i]->operation == DISK_DISCARD) && is_refused(&q->disk->cannot_punch))
            batch[i]->result = DISK_OK;
        else
            start(q, batch[i]);
    }
}

const struct disk_type disk_file = {
    .key = "file",
    .open = file_open,
    .close = file_close,
    .submit = file_submit,
    .lane_enter = file_lane_enter,
    .lane_leave = file_lane_leave,
    .grow = file_grow,
};
