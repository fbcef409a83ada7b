// SPDX-License-Identifier: Apache-2.0
// base.h - what every other file stands on: single-read guest accesses, counters, small helpers.
//
// Guest memory changes under our feet. A word of it is read exactly once, through
// the functions below, into a local that is then checked and used.
//
// Threads  all: nothing here has state.
#pragma once

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The rings are little-endian (VIRTIO 1.3, 2.1 and 1.4); so are all hosts we build for.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "sluice supports little-endian hosts only");

#define CACHE_LINE 64

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)    ((a) < (b) ? (a) : (b))
#define MAX(a, b)    ((a) > (b) ? (a) : (b))

#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

static inline bool is_power_of_two(uint64_t v)
{
    return v && !(v & (v - 1));
}

// ---- guest memory, read once -------------------------------------------------------------

static inline uint16_t guest_load16(const uint16_t *p)
{
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static inline uint32_t guest_load32(const uint32_t *p)
{
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static inline uint64_t guest_load64(const uint64_t *p)
{
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static inline uint16_t guest_load16_acquire(const uint16_t *p)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static inline void guest_store16(uint16_t *p, uint16_t v)
{
    __atomic_store_n(p, v, __ATOMIC_RELAXED);
}

static inline void guest_store32(uint32_t *p, uint32_t v)
{
    __atomic_store_n(p, v, __ATOMIC_RELAXED);
}

static inline void guest_store64(uint64_t *p, uint64_t v)
{
    __atomic_store_n(p, v, __ATOMIC_RELAXED);
}

static inline void guest_store16_release(uint16_t *p, uint16_t v)
{
    __atomic_store_n(p, v, __ATOMIC_RELEASE);
}

// Orders an earlier store before a later load. Each use names its pair; see docs/design.md.
static inline void full_fence(void)
{
    atomic_thread_fence(memory_order_seq_cst);
}

// ---- counters ----------------------------------------------------------------------------

// One thread writes, any thread reads. Not an atomic add: the writer is alone.
typedef struct {
    _Atomic uint64_t value;
} counter;

static inline void counter_add(counter *c, uint64_t n)
{
    uint64_t v = atomic_load_explicit(&c->value, memory_order_relaxed);
    atomic_store_explicit(&c->value, v + n, memory_order_relaxed);
}

static inline uint64_t counter_read(const counter *c)
{
    return atomic_load_explicit(&c->value, memory_order_relaxed);
}

// ---- time --------------------------------------------------------------------------------

// A cheap monotonic tick: the TSC on x86, the generic timer on arm64. Not ordered with memory.
static inline uint64_t cycles_now(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t v;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(v));
    return v;
#else
#error "cycles_now() is not written for this processor"
#endif
}

static inline void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    __asm__ volatile("yield");
#endif
}
