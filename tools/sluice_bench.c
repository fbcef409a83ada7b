// SPDX-License-Identifier: Apache-2.0
// sluice-bench: loads the disks of a vhost-user back end and measures.
#include "bench/bench_report.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define TURNS_BETWEEN_LOOKS 64   // turns between two looks at the clock
#define STALL_SECONDS       30.0 // without an answer: the device hangs

static volatile sig_atomic_t is_interrupted;

static void on_signal(int signal)
{
    (void)signal;
    is_interrupted = 1;
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int pin(int cpu, struct error *e)
{
    cpu_set_t set;
    if (cpu < 0)
        return 0;
    CPU_ZERO(&set);
    CPU_SET((unsigned)cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0)
        return error_set(e, errno, "cannot pin to processor %d: %s", cpu, strerror(errno));
    return 0;
}

// A guest takes a memfd, a socket and two eventfds a queue.
static void raise_file_limit(void)
{
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
        l.rlim_cur = l.rlim_max;
        setrlimit(RLIMIT_NOFILE, &l);
    }
}

// ---- the run -----------------------------------------------------------------------------

struct run {
    struct bench_result result;
    struct disk_load *load;
    uint64_t n_left;
    double started, last_report, last_done_at;
    uint64_t last_done;
    uint64_t started_ticks;
};

static void report_progress(struct run *run, double now)
{
    uint64_t done = bench_report_n_done(&run->result);
    fprintf(stderr, "%4.0f s  %11.0f requests/s\n", now - run->started,
            (double)(done - run->last_done) / (now - run->last_report));
    run->last_done = done;
    run->last_report = now;
}

// Look at the clock: report, stop offering when the time is over, notice a hang.
static int look(struct run *run, bool has_progress, struct error *e)
{
    double now = now_s(), limit = run->result.options->seconds;
    if (has_progress)
        run->last_done_at = now;
    if (now - run->last_report >= 1)
        report_progress(run, now);
    if (is_interrupted || (limit > 0 && now - run->started >= limit))
        run->n_left = 0;
    if (now - run->last_done_at > STALL_SECONDS)
        return error_set(e, ETIMEDOUT, "no request came back for %.0f s", STALL_SECONDS);
    return 0;
}

static int run_load(struct run *run, struct error *e)
{
    int rc = 0;
    run->started = run->last_report = run->last_done_at = now_s();
    run->started_ticks = cycles_now();
    while (rc == 0 && (run->n_left || disk_load_n_in_flight(run->load))) {
        int n = 0;
        for (unsigned i = 0; rc >= 0 && i < TURNS_BETWEEN_LOOKS; i++) {
            rc = disk_load_turn(run->load, &run->n_left, e);
            n += rc;
        }
        rc = rc < 0 ? rc : look(run, n > 0, e);
    }
    uint64_t ticks = cycles_now() - run->started_ticks;
    run->result.seconds = now_s() - run->started;
    run->result.ns_per_tick = run->result.seconds * 1e9 / (double)ticks;
    return rc;
}

static int stop_disks(struct guest_disk *disks[], unsigned n, struct error *e)
{
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < n; i++)
        rc = guest_disk_stop(disks[i], e);
    return rc;
}

static int measure(const struct bench_options *o, struct guest_disk *disks[], struct error *e)
{
    struct run run = {.result.options = o, .n_left = o->n_ios};
    int rc = disk_load_open(&run.load, disks, o->n_guests, &o->load, e);
    if (rc < 0)
        return rc;
    run.result.load = run.load;
    rc = run_load(&run, e);
    if (o->is_json)
        bench_report_json(&run.result, stdout);
    else
        bench_report_table(&run.result, stdout);
    if (rc == 0)
        rc = stop_disks(disks, o->n_guests, e);
    for (unsigned i = 0; rc == 0 && i < o->n_guests; i++) {
        if (disk_load_stats(run.load, i)->n_errors)
            rc = error_set(e, EIO, "%s: requests failed", o->sockets[i]);
    }
    disk_load_close(run.load);
    return rc;
}

static int run_bench(const struct bench_options *o, struct error *e)
{
    struct guest_disk **disks = calloc(o->n_guests, sizeof disks[0]);
    if (!disks)
        return error_set(e, ENOMEM, "no memory for %u guests", o->n_guests);
    raise_file_limit();
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    int rc = pin(o->cpu, e);
    for (unsigned i = 0; rc == 0 && i < o->n_guests; i++) {
        struct guest_disk_config c = o->disk;
        c.path = o->sockets[i];
        rc = guest_disk_open(&disks[i], &c, e);
    }
    if (rc == 0)
        rc = measure(o, disks, e);
    for (unsigned i = 0; i < o->n_guests; i++)
        guest_disk_close(disks[i]);
    free(disks);
    return rc;
}

int main(int argc, char *argv[])
{
    struct bench_options o;
    struct error e;
    int rc = bench_options_parse(&o, argc, argv, &e);
    if (rc == 0 && o.is_help)
        fputs(bench_options_help, stdout);
    else if (rc == 0)
        rc = run_bench(&o, &e);
    if (rc < 0)
        fprintf(stderr, "sluice-bench: %s\n", e.text);
    bench_options_close(&o);
    return rc < 0 ? 1 : 0;
}
