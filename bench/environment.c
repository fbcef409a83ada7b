// SPDX-License-Identifier: Apache-2.0
#include "bench/environment.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define TRIES  40  // of a round trip, each of…
#define ROUNDS 200 // …so many

// ---- what there is -----------------------------------------------------------------------

// The first line of a file, without its end; "" if it cannot be read.
static void read_line(const char *path, char *to, size_t room)
{
    FILE *f = fopen(path, "re");
    to[0] = '\0';
    if (!f)
        return;
    if (fgets(to, (int)room, f))
        to[strcspn(to, "\n")] = '\0';
    fclose(f);
}

static void read_processor(char *to, size_t room)
{
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "re");
    snprintf(to, room, "unknown");
    while (f && fgets(line, sizeof line, f)) {
        const char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && value) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(to, room, "%s", value + 2);
            break;
        }
    }
    if (f)
        fclose(f);
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double measure_ticks(void)
{
    double from = now_s(), seconds;
    uint64_t ticks = cycles_now();
    do
        seconds = now_s() - from;
    while (seconds < 0.02);
    return (double)(cycles_now() - ticks) / seconds;
}

void environment_read(struct environment *env)
{
    struct utsname name;
    char pages[32];
    memset(env, 0, sizeof *env);
    read_processor(env->processor, sizeof env->processor);
    if (uname(&name) == 0)
        snprintf(env->kernel, sizeof env->kernel, "%s", name.release);
    read_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", env->governor,
              sizeof env->governor);
    read_line("/sys/devices/system/clocksource/clocksource0/current_clocksource", env->clock,
              sizeof env->clock);
    read_line("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", pages, sizeof pages);
    env->n_huge_pages = strtoull(pages, NULL, 10);
    env->n_processors = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    env->ticks_per_second = measure_ticks();
}

// ---- a line's way there and back ---------------------------------------------------------

struct ping {
    _Alignas(CACHE_LINE) _Atomic uint64_t asked;
    _Alignas(CACHE_LINE) _Atomic uint64_t answered;
    _Alignas(CACHE_LINE) int processor;
    int result; // of pinning
};

static int pin_here(int processor)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((unsigned)processor, &set);
    return sched_setaffinity(0, sizeof set, &set) < 0 ? -errno : 0;
}

static void *answer(void *argument)
{
    struct ping *p = argument;
    uint64_t last = 0;
    p->result = pin_here(p->processor);
    while (last != UINT64_MAX) {
        uint64_t n = atomic_load_explicit(&p->asked, memory_order_acquire);
        if (n == last)
            continue;
        atomic_store_explicit(&p->answered, n, memory_order_release);
        last = n;
    }
    return NULL;
}

static void ask(struct ping *p, uint64_t n)
{
    atomic_store_explicit(&p->asked, n, memory_order_release);
    while (atomic_load_explicit(&p->answered, memory_order_acquire) != n)
        ;
}

static double best_of(struct ping *p)
{
    uint64_t n = 1, best = UINT64_MAX;
    ask(p, n);
    for (unsigned i = 0; i < TRIES; i++) {
        uint64_t from = cycles_now();
        for (unsigned k = 0; k < ROUNDS; k++)
            ask(p, ++n);
        best = MIN(best, cycles_now() - from);
    }
    ask(p, UINT64_MAX);
    return (double)best / ROUNDS;
}

int environment_round_trip(int here, int there, double *ns, struct error *e)
{
    struct ping *p = aligned_alloc(CACHE_LINE, sizeof *p);
    pthread_t thread;
    if (!p)
        return error_set(e, ENOMEM, "no memory to measure with");
    memset(p, 0, sizeof *p);
    p->processor = there;
    int rc = pin_here(here);
    if (rc == 0)
        rc = -pthread_create(&thread, NULL, answer, p);
    if (rc == 0) {
        *ns = best_of(p) * 1e9 / measure_ticks();
        pthread_join(thread, NULL);
        rc = p->result;
    }
    free(p);
    return rc < 0 ? error_set(e, -rc, "processors %d and %d: %s", here, there, strerror(-rc)) : 0;
}

// ---- what disturbs -----------------------------------------------------------------------

// The eighth figure of the first line: ticks that the hypervisor kept.
static uint64_t read_stolen_ms(void)
{
    char line[256];
    unsigned long long stolen = 0;
    read_line("/proc/stat", line, sizeof line);
    char *at = line + strcspn(line, " ");
    for (unsigned i = 0; i < 8; i++)
        stolen = strtoull(at, &at, 10);
    return stolen * 1000 / (unsigned long long)sysconf(_SC_CLK_TCK);
}

void disturbance_read(struct disturbance *d)
{
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    *d = (struct disturbance){(uint64_t)usage.ru_nivcsw, read_stolen_ms()};
}
