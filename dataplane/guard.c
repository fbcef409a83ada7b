// SPDX-License-Identifier: Apache-2.0
#include "dataplane/guard.h"

#include "dataplane/base.h"

#include <errno.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

// The handler reads slots while control rewrites them, so each has a generation, odd during a
// change. A slot that changes under the handler cannot be the one whose page was touched:
// nobody touches a mapping that is being added or removed.
struct slot {
    _Atomic uint32_t generation;
    _Atomic uintptr_t start;
    _Atomic size_t bytes; // 0: the slot is free
    _Atomic(atomic_bool *) failed;
};

static struct slot slots[GUARD_MAX];
static _Atomic int n_slots; // slots that were ever used; the handler looks no further
static _Atomic int event_fd = -1;

// Each store is a release and each load of the reader an acquire: who sees a field of the new
// slot also sees that the generation moved.
static void slot_write(struct slot *s, uintptr_t start, size_t bytes, atomic_bool *failed)
{
    uint32_t generation = atomic_load_explicit(&s->generation, memory_order_relaxed);
    atomic_store_explicit(&s->generation, generation + 1, memory_order_relaxed);
    atomic_store_explicit(&s->start, start, memory_order_release);
    atomic_store_explicit(&s->bytes, bytes, memory_order_release);
    atomic_store_explicit(&s->failed, failed, memory_order_release);
    atomic_store_explicit(&s->generation, generation + 2, memory_order_release);
}

// Map zero pages over the slot's range if @addr is in it.
static bool slot_repair(struct slot *s, uintptr_t addr)
{
    uint32_t generation = atomic_load_explicit(&s->generation, memory_order_acquire);
    uintptr_t start = atomic_load_explicit(&s->start, memory_order_acquire);
    size_t bytes = atomic_load_explicit(&s->bytes, memory_order_acquire);
    atomic_bool *failed = atomic_load_explicit(&s->failed, memory_order_acquire);

    if (addr - start >= bytes || generation % 2 != 0 ||
        generation != atomic_load_explicit(&s->generation, memory_order_relaxed))
        return false;
    // The bare call: the sanitizers' mmap() does more than a signal handler may.
    if (syscall(SYS_mmap, start, bytes, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1L, 0L) == -1)
        return false;
    atomic_store_explicit(failed, true, memory_order_release);
    return true;
}

static bool repair(uintptr_t addr)
{
    int n = atomic_load_explicit(&n_slots, memory_order_acquire);
    for (int i = 0; i < n; i++) {
        if (slot_repair(&slots[i], addr))
            return true;
    }
    return false;
}

static void tell_control(void)
{
    uint64_t one = 1;
    // A full eventfd is readable already, so what write() says does not matter.
    ssize_t n = write(atomic_load_explicit(&event_fd, memory_order_relaxed), &one, sizeof(one));
    (void)n;
}

// Only asynchronous signal-safe calls from here on down: mmap as above, write, signal, raise.
static void handle_sigbus(int number, siginfo_t *info, void *context)
{
    (void)context;
    int saved_errno = errno;
    bool is_sent = info->si_code <= 0; // by kill(): si_addr means nothing then
    if (!is_sent && repair((uintptr_t)info->si_addr)) {
        tell_control();
    } else {
        signal(number, SIG_DFL);
        // The processor raises its own again when we return; others have to be sent again.
        if (is_sent || info->si_code == BUS_MCEERR_AO)
            raise(number);
    }
    errno = saved_errno;
}

int guard_install(void)
{
    if (guard_event_fd() < 0) {
        int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (fd < 0)
            return -errno;
        atomic_store_explicit(&event_fd, fd, memory_order_relaxed);
    }
    struct sigaction action = {.sa_sigaction = handle_sigbus, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigemptyset(&action.sa_mask);
    return sigaction(SIGBUS, &action, NULL) < 0 ? -errno : 0;
}

int guard_event_fd(void)
{
    return atomic_load_explicit(&event_fd, memory_order_relaxed);
}

int guard_add(void *start, size_t bytes, atomic_bool *failed)
{
    assert(bytes > 0);
    int n = atomic_load_explicit(&n_slots, memory_order_relaxed);
    int i = 0;
    while (i < n && atomic_load_explicit(&slots[i].bytes, memory_order_relaxed) != 0)
        i++;
    if (i == GUARD_MAX)
        return -ENOSPC;
    slot_write(&slots[i], (uintptr_t)start, bytes, failed);
    if (i == n)
        atomic_store_explicit(&n_slots, n + 1, memory_order_release);
    return i;
}

void guard_remove(int slot)
{
    assert(slot >= 0 && slot < GUARD_MAX);
    slot_write(&slots[slot], 0, 0, NULL);
}
