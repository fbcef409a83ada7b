// SPDX-License-Identifier: Apache-2.0
#include "dataplane/uring.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

// Completions outnumber submissions: requests stay in flight over many turns. When the queue
// overflows all the same, the kernel keeps the rest and says so (IORING_SQ_CQ_OVERFLOW).
#define COMPLETIONS (4 * URING_ENTRIES)

// Kernel helper threads of one worker: for disks, of which each has a share, and for what can wait
// without end. They come when they are needed, and go.
#define HELPERS_DISK  256
#define HELPERS_OTHER 16

// What a worker may submit and register: a mistake elsewhere reaches no other kernel code.
static const struct io_uring_restriction allowed[] = {
    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_NOP},
    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READ},
    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITE},
    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READV},
    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITEV},
    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READ_FIXED},
    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITE_FIXED},
    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FSYNC},
    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FALLOCATE},
    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_TIMEOUT},
    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_ASYNC_CANCEL},
    {.opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED, .sqe_flags = IOSQE_FIXED_FILE | IOSQE_ASYNC},
    {.opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = IORING_REGISTER_FILES_UPDATE},
    {.opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = IORING_REGISTER_IOWQ_AFF},
    {.opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = IORING_REGISTER_IOWQ_MAX_WORKERS},
    {.opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = IORING_REGISTER_BUFFERS_UPDATE},
    // The last one: kernels before 6.12 do not know it.
    {.opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = URING_REGISTER_CLONE_BUFFERS},
};

static int refused(struct error *e, int code)
{
    switch (code) {
    case ENOSYS:
        return error_set(e, code, "this kernel has no io_uring: Linux 6.1 or later is needed");
    case EPERM:
        return error_set(e, code,
                         "io_uring is not permitted here: sysctl kernel.io_uring_disabled must be "
                         "0, or 1 for members of kernel.io_uring_group, and no seccomp filter may "
                         "block io_uring_setup");
    case EINVAL:
        return error_set(e, code,
                         "this kernel's io_uring is too old: Linux 6.1 or later is needed");
    default:
        return error_set(e, code, "io_uring: %s", strerror(code));
    }
}

// The kernel allows no more slots than the process may have files open.
static unsigned file_slots(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur > URING_FILES_MAX)
        return URING_FILES_MAX;
    return (unsigned)limit.rlim_cur;
}

static int open_files(struct uring *u)
{
    unsigned n = file_slots();
    int err = io_uring_register_files_sparse(&u->ring, n);
    if (err)
        return err;
    u->free_files = calloc(n, sizeof(*u->free_files));
    if (!u->free_files)
        return -ENOMEM;
    u->n_free_files = n;
    for (unsigned i = 0; i < n; i++)
        u->free_files[i] = n - 1 - i;
    return 0;
}

// What the kernel refuses leaves the ring as it was.
static int restrict_to_allowed(struct uring *u)
{
    struct io_uring_restriction copy[ARRAY_LEN(allowed)];
    memcpy(copy, allowed, sizeof(copy));
    int err = io_uring_register_restrictions(&u->ring, copy, ARRAY_LEN(copy));
    return err == -EINVAL ? io_uring_register_restrictions(&u->ring, copy, ARRAY_LEN(copy) - 1)
                          : err;
}

int uring_open(struct uring *u, struct error *e)
{
    *u = (struct uring){0};
    struct io_uring_params params = {
        .flags = IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                 IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CLAMP |
                 IORING_SETUP_CQSIZE,
        .cq_entries = COMPLETIONS,
    };
    int err = io_uring_queue_init_params(URING_ENTRIES, &u->ring, &params);
    if (err)
        return refused(e, -err);
    // Tables first, then the restrictions, which hold from uring_enable() on.
    err = open_files(u);
    if (!err)
        err = restrict_to_allowed(u);
    if (err) {
        uring_close(u);
        return refused(e, -err);
    }
    return 0;
}

void uring_close(struct uring *u)
{
    io_uring_queue_exit(&u->ring);
    free(u->free_files);
    u->free_files = NULL;
}

static void nothing_done(struct uring_op *op, int result)
{
    (void)op, (void)result;
}

int uring_enable(struct uring *u, const void *helper_mask, size_t mask_bytes)
{
    int err = io_uring_enable_rings(&u->ring);
    if (err)
        return err;

    // A thread has helpers, whose limits can be set, from its first submission on.
    struct uring_op op = {.done = nothing_done};
    io_uring_prep_nop(uring_entry(u, &op));
    while (!uring_reap(u, 1))
        uring_sleep(u, UINT64_MAX);

    unsigned limits[2] = {HELPERS_DISK, HELPERS_OTHER};
    err = io_uring_register_iowq_max_workers(&u->ring, limits);
    if (err)
        return err;
    return helper_mask ? io_uring_register_iowq_aff(&u->ring, mask_bytes, helper_mask) : 0;
}

int uring_add_file(struct uring *u, int fd)
{
    if (!u->n_free_files)
        return -ENFILE;
    uint32_t slot = u->free_files[u->n_free_files - 1];
    int n = io_uring_register_files_update(&u->ring, slot, &fd, 1);
    if (n < 0)
        return n;
    u->n_free_files--;
    return (int)slot;
}

void uring_remove_file(struct uring *u, int slot)
{
    // A staged entry names its file by slot: it must not meet the slot's next file.
    while (u->n_staged)
        uring_enter(u);
    int none = -1;
    int n = io_uring_register_files_update(&u->ring, (unsigned)slot, &none, 1);
    assert(n == 1 && "the slot was in use");
    u->free_files[u->n_free_files++] = (uint32_t)slot;
}

// One system call. The kernel may take less than was staged, when memory is short or a signal
// came; the rest stays staged.
static void entered(struct uring *u, int result)
{
    assert((result >= 0 || result == -EAGAIN || result == -EBUSY || result == -EINTR ||
            result == -ETIME || result == -ENOMEM) &&
           "the ring is used by its own thread, and is sound");
    counter_add(&u->n_enters, 1);
    u->n_staged = io_uring_sq_ready(&u->ring);
}

struct io_uring_sqe *uring_entry(struct uring *u, struct uring_op *op)
{
    struct io_uring_sqe *sqe;
    while (unlikely(!(sqe = io_uring_get_sqe(&u->ring))))
        uring_enter(u);
    u->n_staged++;
    u->n_in_flight++;
    io_uring_sqe_set_data(sqe, op);
    return sqe;
}

// A thread that gave an op's owner away wrote its home itself, so never finds itself there.
static inline bool is_at_home(const struct uring *u, const struct uring_op *op)
{
    return !op->home || atomic_load_explicit(op->home, memory_order_relaxed) == u;
}

unsigned uring_reap(struct uring *u, unsigned max)
{
    struct io_uring_cqe *cqe;
    unsigned head, n = 0;
    io_uring_for_each_cqe(&u->ring, head, cqe)
    {
        if (n == max)
            break;
        n++;
        u->n_in_flight--;
        struct uring_op *op = io_uring_cqe_get_data(cqe);
        if (likely(is_at_home(u, op)))
            op->done(op, cqe->res);
        else
            u->late(u, op, cqe->res);
    }
    io_uring_cq_advance(&u->ring, n);
    return n;
}

bool uring_enter(struct uring *u)
{
    unsigned flags = IO_URING_READ_ONCE(*u->ring.sq.kflags);
    if (!u->n_staged && !(flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)))
        return false;
    entered(u, io_uring_submit_and_get_events(&u->ring));
    return true;
}

void uring_sleep(struct uring *u, uint64_t timeout_us)
{
    struct io_uring_cqe *cqe;
    struct __kernel_timespec timeout = {
        .tv_sec = (long long)(timeout_us / 1000000),
        .tv_nsec = (long long)(timeout_us % 1000000 * 1000),
    };
    bool is_endless = timeout_us == UINT64_MAX;
    entered(
        u, io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, is_endless ? NULL : &timeout, NULL));
}
