// SPDX-License-Identifier: Apache-2.0
#include "dataplane/uring.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REPLACE 2u // IORING_REGISTER_DST_REPLACE: beside what the table has

// struct io_uring_clone_buffers of Linux 6.13; older headers lack it.
struct clone {
    uint32_t from, flags, from_slot, to_slot, n;
    uint32_t zero[3];
};
static_assert(sizeof(struct clone) == 32, "as the kernel has it");

static int take(int to, int from, unsigned slot, unsigned n)
{
    struct clone c = {.from = (uint32_t)from, .flags = REPLACE, .to_slot = slot, .n = n};
    long result = syscall(SYS_io_uring_register, to, URING_REGISTER_CLONE_BUFFERS, &c, 1);
    return result < 0 ? -errno : 0;
}

static struct uring_loan *find(struct uring *u, int from)
{
    for (unsigned i = 0; i < u->n_loans; i++) {
        if (u->loans[i].from == from)
            return &u->loans[i];
    }
    return NULL;
}

// Where @n slots in a row are free: before this loan. NULL: nowhere.
static struct uring_loan *find_room(struct uring *u, unsigned n, unsigned *first)
{
    unsigned i = 0;
    for (*first = 0; i < u->n_loans && u->loans[i].first - *first < n; i++)
        *first = u->loans[i].first + u->loans[i].n;
    bool fits = n && n <= URING_BUFFERS_MAX - *first && u->n_loans < URING_LOANS_MAX;
    return fits ? &u->loans[i] : NULL;
}

int uring_take_buffers(struct uring *u, int from, unsigned n)
{
    struct uring_loan *loan = find(u, from);
    if (loan) {
        loan->n_takers++;
        return (int)loan->first;
    }
    unsigned first;
    loan = find_room(u, n, &first);
    if (!loan)
        return -ENOSPC;
    int err = take(u->ring.ring_fd, from, first, n);
    if (err)
        return err;
    memmove(loan + 1, loan, (size_t)(&u->loans[u->n_loans++] - loan) * sizeof(*loan));
    *loan = (struct uring_loan){.from = from, .first = first, .n = n, .n_takers = 1};
    return (int)first;
}

void uring_give_buffers(struct uring *u, int from)
{
    static const struct iovec none[URING_BUFFERS_MAX];
    struct uring_loan *loan = find(u, from);
    assert(loan && "it was taken");
    if (--loan->n_takers)
        return;
    // A staged entry names its buffer by slot: it must not meet the slot's next buffer.
    while (u->n_staged)
        uring_enter(u);
    int n = io_uring_register_buffers_update_tag(&u->ring, loan->first, none, NULL, loan->n);
    assert(n == (int)loan->n && "the slots were in use");
    u->n_loans--;
    memmove(loan, loan + 1, (size_t)(&u->loans[u->n_loans] - loan) * sizeof(*loan));
}

bool uring_can_lend(void)
{
    static uint8_t page[4096];
    struct iovec iov = {.iov_base = page, .iov_len = sizeof(page)};
    struct io_uring from, to;
    if (io_uring_queue_init(1, &from, 0))
        return false;
    bool can = false;
    if (io_uring_queue_init(1, &to, 0) == 0) {
        can = io_uring_register_buffers(&from, &iov, 1) == 0 &&
              take(to.ring_fd, from.ring_fd, 0, 1) == 0 &&
              take(to.ring_fd, from.ring_fd, 1, 1) == 0;
        io_uring_queue_exit(&to);
    }
    io_uring_queue_exit(&from);
    return can;
}
