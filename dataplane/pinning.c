// SPDX-License-Identifier: Apache-2.0
// pinning.c - a guest's memory as fixed buffers of io_uring.
//
// Theory: a struct pinned is one snapshot of memory, its slices, and the thread that allocates,
// registers and in the end unregisters them. It goes
//
//     next ─▶ working ─▶ current ─▶ retired ─▶ ended
//                 └───────────────────┘
//
// and has ended when its thread has, which waits for the last queue that has it in its view.
// Registering holds the ring's lock, which taking slices wants: so nobody takes any before all are
// registered. Pages are allocated in steps before that, so that a thread that is not wanted any
// more ends soon.
#include "dataplane/pinning.h"

#include "dataplane/log.h"

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define STEP_BYTES (UINT64_C(32) << 20) // about 60 ms
#define WORKING    1                    // a result that is not there yet

struct pinned {
    struct mem *mem;
    struct io_uring ring;
    pthread_t thread;
    sem_t may_end;
    bool was_told; // that it may
    atomic_bool is_unwanted;
    atomic_bool has_ended;
    atomic_int result;   // of the thread: WORKING, 0 or -errno
    atomic_int refusal;  // [W] -errno: some worker could not take the slices
    atomic_uint n_users; // views; more only under the lock, while it is current
    struct pinned *next; // retired
    uint64_t bytes;
    unsigned n_slices;
    struct pin_slice slices[]; // by start
};

// ---- the thread --------------------------------------------------------------------------

static int allocate(uintptr_t start, uint64_t bytes)
{
    uintptr_t page = (uintptr_t)getpagesize();
    uintptr_t first = start & ~(page - 1), end = (start + bytes + page - 1) & ~(page - 1);
    while (madvise((void *)first, end - first, MADV_POPULATE_WRITE)) {
        if (errno != EINTR && errno != EAGAIN)
            return -errno;
    }
    return 0;
}

static int pin_slice(struct pinned *p, unsigned i)
{
    const struct pin_slice *s = &p->slices[i];
    for (uint64_t done = 0; done < s->bytes; done += STEP_BYTES) {
        if (atomic_load_explicit(&p->is_unwanted, memory_order_relaxed))
            return -ECANCELED;
        int err = allocate(s->start + done, MIN(STEP_BYTES, s->bytes - done));
        if (err)
            return err;
    }
    struct iovec iov = {.iov_base = (void *)s->start, .iov_len = s->bytes};
    int n = io_uring_register_buffers_update_tag(&p->ring, i, &iov, NULL, 1);
    return n < 0 ? n : 0;
}

static int pin(struct pinned *p)
{
    int err = io_uring_register_buffers_sparse(&p->ring, p->n_slices);
    for (unsigned i = 0; !err && i < p->n_slices; i++)
        err = pin_slice(p, i);
    return err;
}

static void *run(void *argument)
{
    struct pinned *p = argument;
    atomic_store_explicit(&p->result, pin(p), memory_order_release);
    while (sem_wait(&p->may_end)) // EINTR
        ;
    io_uring_unregister_buffers(&p->ring);
    atomic_store_explicit(&p->has_ended, true, memory_order_release);
    return NULL;
}

static int start_thread(struct pinned *p)
{
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = -pthread_create(&p->thread, NULL, run, p);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return err;
}

// ---- one snapshot ------------------------------------------------------------------------

static unsigned count_slices(const struct mem *m)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < m->n_regions; i++)
        n += (m->regions[i].size + PINNING_SLICE_BYTES - 1) / PINNING_SLICE_BYTES;
    return (unsigned)MIN(n, URING_BUFFERS_MAX + 1);
}

static int compare_slices(const void *a, const void *b)
{
    uintptr_t x = ((const struct pin_slice *)a)->start, y = ((const struct pin_slice *)b)->start;
    return x < y ? -1 : x > y;
}

static void cut(struct pinned *p)
{
    unsigned n = 0;
    for (unsigned i = 0; i < p->mem->n_regions; i++) {
        const struct mem_region *r = &p->mem->regions[i];
        for (uint64_t at = 0; at < r->size; at += PINNING_SLICE_BYTES)
            p->slices[n++] =
                (struct pin_slice){(uintptr_t)r->host + at, MIN(PINNING_SLICE_BYTES, r->size - at)};
        p->bytes += r->size;
    }
    qsort(p->slices, n, sizeof(p->slices[0]), compare_slices);
}

// Takes @m over when it succeeds.
static int begin(struct pinned **out, struct mem *m)
{
    unsigned n = count_slices(m);
    if (n > URING_BUFFERS_MAX)
        return -ENOSPC;
    struct pinned *p = calloc(1, sizeof(*p) + n * sizeof(p->slices[0]));
    if (!p)
        return -ENOMEM;
    *p = (struct pinned){.mem = m, .n_slices = n, .result = WORKING};
    cut(p);
    sem_init(&p->may_end, 0, 0);
    int err = io_uring_queue_init(1, &p->ring, 0);
    if (!err) {
        err = start_thread(p);
        if (err)
            io_uring_queue_exit(&p->ring);
    }
    if (err) {
        sem_destroy(&p->may_end);
        free(p);
        return err;
    }
    *out = p;
    return 0;
}

static void tell_end(struct pinned *p)
{
    if (!p->was_told)
        sem_post(&p->may_end);
    p->was_told = true;
}

static void end(struct pinned *p)
{
    tell_end(p);
    pthread_join(p->thread, NULL);
    io_uring_queue_exit(&p->ring);
    sem_destroy(&p->may_end);
    mem_free(p->mem);
    free(p);
}

// ---- control's ---------------------------------------------------------------------------

static void retire(struct pinning *p, struct pinned *which)
{
    if (!which)
        return;
    atomic_store_explicit(&which->is_unwanted, true, memory_order_relaxed);
    which->next = p->retired;
    p->retired = which;
}

static void publish(struct pinning *p, struct pinned *which)
{
    pthread_mutex_lock(&p->lock);
    struct pinned *before = p->current;
    p->current = which;
    unsigned next = p->generation + 1;
    atomic_store_explicit(&p->generation, next ? next : 1, memory_order_relaxed);
    pthread_mutex_unlock(&p->lock);
    retire(p, before);
}

static bool has_ended(struct pinned *p)
{
    if (atomic_load_explicit(&p->n_users, memory_order_acquire))
        return false;
    tell_end(p);
    return atomic_load_explicit(&p->has_ended, memory_order_acquire);
}

static void sweep(struct pinning *p)
{
    struct pinned **at = &p->retired;
    while (*at) {
        struct pinned *which = *at;
        if (has_ended(which)) {
            *at = which->next;
            end(which);
        } else {
            at = &which->next;
        }
    }
}

// Of all that goes wrong with one guest the first is said: a front end can change its memory often.
static __attribute__((format(printf, 2, 3))) void say(struct pinning *p, const char *format, ...)
{
    char text[256];
    va_list args;
    if (p->has_said)
        return;
    p->has_said = true;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    log_warning("disk %s: pin=on: %s; requests pin their own pages", p->name, text);
}

// Who may lock memory without limit does not get ENOMEM for it.
static void say_failure(struct pinning *p, uint64_t bytes, int err)
{
    struct rlimit limit;
    unsigned long long mib = bytes >> 20;
    if (err == -ENOMEM && !getrlimit(RLIMIT_MEMLOCK, &limit) && limit.rlim_cur != RLIM_INFINITY)
        say(p,
            "%llu MiB of guest memory cannot be pinned: the limit of locked memory (ulimit -l, "
            "LimitMEMLOCK=) is %llu KiB",
            mib, (unsigned long long)(limit.rlim_cur >> 10));
    else
        say(p, "%llu MiB of guest memory cannot be pinned: %s", mib, strerror(-err));
}

static void look_at_work(struct pinning *p)
{
    struct pinned *which = p->working;
    int result = atomic_load_explicit(&which->result, memory_order_acquire);
    if (result == WORKING)
        return;
    p->working = NULL;
    if (result == 0) {
        log_debug("disk %s: %llu MiB of guest memory are pinned", p->name,
                  (unsigned long long)(which->bytes >> 20));
        publish(p, which);
    } else {
        say_failure(p, which->bytes, result);
        retire(p, which);
    }
}

static bool somebody_works(const struct pinning *p)
{
    bool works = p->working;
    for (const struct pinned *r = p->retired; r; r = r->next)
        works |= atomic_load_explicit(&r->result, memory_order_relaxed) == WORKING;
    return works;
}

static void begin_next(struct pinning *p)
{
    struct mem *m = p->next;
    p->next = NULL;
    int err = begin(&p->working, m);
    if (!err)
        return;
    say(p, "%s",
        err == -ENOSPC ? "the guest has more memory than a worker has buffers for"
                       : strerror(-err));
    mem_free(m);
}

static void look_at_refusal(struct pinning *p)
{
    int refusal = p->current ? atomic_exchange(&p->current->refusal, 0) : 0;
    if (refusal)
        say(p, "a worker cannot have its %u buffers: %s", p->current->n_slices, strerror(-refusal));
}

void pinning_tick(struct pinning *p)
{
    sweep(p);
    if (p->working)
        look_at_work(p);
    look_at_refusal(p);
    if (p->next && !somebody_works(p))
        begin_next(p);
}

void pinning_set_memory(struct pinning *p, const struct mem *m)
{
    struct error e;
    p->has_said &= m != NULL;
    retire(p, p->working);
    p->working = NULL;
    if (p->current && !(m && mem_keeps_all(m, p->current->mem)))
        publish(p, NULL);
    mem_free(p->next);
    p->next = NULL;
    if (m && m->n_regions && mem_copy(&p->next, m, &e))
        say(p, "%s", e.text);
}

int pinning_open(struct pinning **out, const char *name, struct error *e)
{
    *out = NULL;
    if (!uring_can_lend()) {
        log_warning("disk %s: pin=on: this kernel's rings cannot share buffers: Linux 6.13 or "
                    "later is needed; requests pin their own pages",
                    name);
        return 0;
    }
    struct pinning *p = calloc(1, sizeof(*p));
    if (!p)
        return error_set(e, ENOMEM, "disk %s: out of memory", name);
    p->name = name;
    p->generation = 1;
    pthread_mutex_init(&p->lock, NULL);
    *out = p;
    return 0;
}

void pinning_close(struct pinning *p)
{
    if (!p)
        return;
    pinning_set_memory(p, NULL);
    while (p->retired) {
        struct pinned *which = p->retired;
        p->retired = which->next;
        assert(!which->n_users && "no queue has a view of it");
        end(which);
    }
    pthread_mutex_destroy(&p->lock);
    free(p);
}

// ---- a queue's view ----------------------------------------------------------------------

static void let_go(struct pin_view *v, struct uring *u)
{
    if (!v->pinned)
        return;
    uring_give_buffers(u, v->pinned->ring.ring_fd);
    atomic_fetch_sub_explicit(&v->pinned->n_users, 1, memory_order_release);
}

void pinning_leave(struct pin_view *v, struct uring *u)
{
    let_go(v, u);
    *v = (struct pin_view){0};
}

void pinning_change(struct pinning *p, struct pin_view *v, struct uring *u)
{
    if (pthread_mutex_trylock(&p->lock))
        return; // at the next batch
    unsigned generation = atomic_load_explicit(&p->generation, memory_order_relaxed);
    struct pinned *now = p->current;
    if (now)
        atomic_fetch_add_explicit(&now->n_users, 1, memory_order_relaxed);
    pthread_mutex_unlock(&p->lock);

    pinning_leave(v, u);
    v->generation = generation;
    if (!now)
        return;
    int first = uring_take_buffers(u, now->ring.ring_fd, now->n_slices);
    if (first < 0) {
        atomic_store_explicit(&now->refusal, first, memory_order_relaxed);
        atomic_fetch_sub_explicit(&now->n_users, 1, memory_order_release);
        return;
    }
    v->pinned = now;
    v->first = first;
    v->slices = now->slices;
    v->n_slices = now->n_slices;
}

int pinning_search(const struct pin_view *v, uintptr_t at)
{
    unsigned low = 0, high = v->n_slices;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        const struct pin_slice *s = &v->slices[middle];
        if (at - s->start < s->bytes)
            return (int)middle;
        if (at < s->start)
            high = middle;
        else
            low = middle + 1;
    }
    return -1;
}
