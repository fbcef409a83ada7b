// SPDX-License-Identifier: Apache-2.0
// uring.h - a worker's io_uring: one for all disks, ports and eventfds on it.
//
// Created disabled, single issuer, deferred task work, task-run flag; sparse file table;
// opcodes restricted to those used. A turn enters the kernel at most once, and not at all
// with nothing to submit or reap.
//
// Threads  [C] opens and closes; everything else [W], the thread that called uring_enable().
// Memory   an op belongs to the caller, stays valid until its done() ran.
//
// An op can change its thread: what it belongs to moves to another ring's thread while the op is
// out. Its completion comes to the ring that took it, which must not run done() then, and hands
// it to late() instead: the owner of the ring sees to it that done() runs on the other thread.
#pragma once

#include "dataplane/base.h"
#include "dataplane/error.h"

#include <liburing.h>

#define URING_ENTRIES   1024 // submission entries; a full ring submits early
#define URING_FILES_MAX 4096 // slots in the file table

#define URING_BUFFERS_MAX            1024 // slots in the table of fixed buffers, for all disks
#define URING_REGISTER_CLONE_BUFFERS 30   // IORING_…: older headers lack it
#define URING_LOANS_MAX              64   // rings whose buffers are in it at once

struct uring;
struct uring_op;
typedef void uring_done(struct uring_op *op, int result);

// One request in flight. Embed it; container_of() leads back.
struct uring_op {
    uring_done *done; // [W] called once with the result: bytes, or -errno
    // Where the ring of the op's owner is written, by who moves the owner; NULL in there: nobody
    // owns it now. home == NULL: the op stays with the ring it was given to.
    struct uring *_Atomic const *home;
};

// Fixed buffers of another ring that are in this one's table too.
struct uring_loan {
    int from;
    unsigned first, n; // slots
    unsigned n_takers;
};

struct uring {
    struct io_uring ring;
    uint32_t n_staged;    // entries prepared since the last enter
    uint32_t n_in_flight; // submitted or staged, not yet done
    counter n_enters;     // system calls made
    uint32_t *free_files; // stack of free slots in the file table
    uint32_t n_free_files;
    struct uring_loan loans[URING_LOANS_MAX]; // by first
    unsigned n_loans;
    // [W] The completion of an op whose home is another ring; set before there are such ops.
    void (*late)(struct uring *u, struct uring_op *op, int result);
};

// [C] 0 or -errno with the reason (kernel too old, io_uring disabled by sysctl, …).
int uring_open(struct uring *u, struct error *e);
void uring_close(struct uring *u);

// [W] Become its single issuer. @avoid/@avoid_bytes: not used when NULL, else the CPU mask
// (sched_setaffinity form) that the kernel's helper threads may run on. 0 or -errno.
int uring_enable(struct uring *u, const void *helper_mask, size_t mask_bytes);

// [W] Put @fd in the file table. A slot, or -ENFILE / -errno. The table holds its own
// reference: the caller may close @fd.
int uring_add_file(struct uring *u, int fd);
void uring_remove_file(struct uring *u, int slot);

// [W] Have the @n buffers that are registered with the ring @from in the table too. Their first
// slot, or -ENOSPC / -errno (-EACCES: see uring_can_lend()). Taken once more, they are the same;
// given back as often, they leave the table. What is out keeps its buffer.
int uring_take_buffers(struct uring *u, int from, unsigned n);
void uring_give_buffers(struct uring *u, int from);

// [C] Whether this kernel has rings take buffers of others, beside what they have (Linux 6.13).
bool uring_can_lend(void);

// [W] An entry for @op, to be filled with io_uring_prep_…(), which keeps its user data; set
// sqe->flags (IOSQE_FIXED_FILE) after that. Never NULL: a full ring is submitted first.
struct io_uring_sqe *uring_entry(struct uring *u, struct uring_op *op);

// [W] Run done(), or late(), of up to @max completions; returns how many. No system call.
unsigned uring_reap(struct uring *u, unsigned max);

// [W] Enter the kernel if something is staged or task work is due. Returns true if it did.
bool uring_enter(struct uring *u);

// [W] Enter and sleep until a completion or for @timeout_us (UINT64_MAX: for ever).
void uring_sleep(struct uring *u, uint64_t timeout_us);
