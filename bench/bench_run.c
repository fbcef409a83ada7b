// SPDX-License-Identifier: Apache-2.0
#include "bench/bench_run.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define TURNS_BETWEEN_LOOKS 64   // turns between two looks at the clock
#define STALL_SECONDS       30.0 // without an answer: the device hangs
#define LOSS_SECONDS        1.0  // without a frame: those on their way are lost
#define COUNT_LOSS_SECONDS  20.0 // likewise, where a number of them was asked for, and no time

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

struct run {
    const struct bench_load *load;
    struct bench_result *result;
    uint64_t n_left;
    double started, last_report, last_progress;
    uint64_t last_done;
    uint64_t n_turns, n_idle_turns;
    uint64_t last_turn, longest_gap; // ticks
};

static void report_progress(struct run *run, double now)
{
    uint64_t done = run->load->n_done(run->load->load);
    fprintf(stderr, "%4.0f s  %11.0f %s/s\n", now - run->started,
            (double)(done - run->last_done) / (now - run->last_report), run->load->unit);
    run->last_done = done;
    run->last_report = now;
}

// Look at the clock: report, stop offering when the time is over, notice a hang.
static int look(struct run *run, bool has_progress, struct error *e)
{
    const struct bench_load *load = run->load;
    double now = now_s(), limit = run->result->options->seconds;
    double loss_s = limit > 0 ? LOSS_SECONDS : COUNT_LOSS_SECONDS;
    bool is_waiting = load->n_in_flight(load->load) > 0;
    if (has_progress || !is_waiting)
        run->last_progress = now;
    if (now - run->last_report >= 1)
        report_progress(run, now);
    if (is_interrupted || (limit > 0 && now - run->started >= limit))
        run->n_left = 0;
    if (now - run->last_progress > loss_s && load->give_up && load->give_up(load->load))
        run->last_progress = now;
    if (now - run->last_progress > STALL_SECONDS)
        return error_set(e, ETIMEDOUT, "no answer for %.0f s", STALL_SECONDS);
    return 0;
}

static int turn(struct run *run, struct error *e)
{
    int n = run->load->turn(run->load->load, &run->n_left, e);
    uint64_t now = cycles_now();
    run->longest_gap = MAX(run->longest_gap, now - run->last_turn);
    run->last_turn = now;
    run->n_turns++;
    run->n_idle_turns += n == 0;
    return n;
}

static int turn_all(struct run *run, struct error *e)
{
    const struct bench_load *load = run->load;
    int rc = 0;
    while (rc == 0 && (run->n_left || load->n_in_flight(load->load))) {
        int n = 0;
        for (unsigned i = 0; rc >= 0 && i < TURNS_BETWEEN_LOOKS; i++) {
            rc = turn(run, e);
            n += rc;
        }
        rc = rc < 0 ? rc : look(run, n > 0, e);
    }
    return rc;
}

static int measure_distance(struct bench_result *r, double *ns, struct error *e)
{
    const struct bench_options *o = r->options;
    r->has_distance = o->server_cpu != BENCH_NO_CPU;
    return r->has_distance ? environment_round_trip((int)o->cpu, (int)o->server_cpu, ns, e) : 0;
}

int bench_run(struct bench_result *r, const struct bench_options *o, const struct bench_load *load,
              struct error *e)
{
    *r = (struct bench_result){.options = o};
    struct run run = {.load = load, .result = r, .n_left = o->n_units};
    struct disturbance before;
    environment_read(&r->environment);
    int rc = measure_distance(r, &r->near_before_ns, e);
    if (rc < 0)
        return rc;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    load->pace(load->load, (double)o->rate, r->environment.ticks_per_second);
    disturbance_read(&before);
    run.started = run.last_report = run.last_progress = now_s();
    uint64_t started_ticks = run.last_turn = cycles_now();
    rc = turn_all(&run, e);
    uint64_t ticks = cycles_now() - started_ticks;
    disturbance_read(&r->disturbed);
    r->disturbed.n_switches -= before.n_switches;
    r->disturbed.stolen_ms -= before.stolen_ms;
    r->seconds = now_s() - run.started;
    r->ns_per_tick = r->seconds * 1e9 / (double)ticks;
    r->longest_gap_us = (double)run.longest_gap * r->ns_per_tick / 1e3;
    r->idle = run.n_turns ? (double)run.n_idle_turns / (double)run.n_turns : 0;
    return rc < 0 ? rc : measure_distance(r, &r->near_after_ns, e);
}

// ---- what spoilt it ----------------------------------------------------------------------

#define IDLE_LEAST     0.05 // a load that never waits is what limits
#define SWITCHES_MOST  20.0 // a second
#define STOLEN_MOST_MS 10.0 // a second

static bool is_near(double ns)
{
    return ns < ENVIRONMENT_NEAR_NS;
}

unsigned bench_run_warnings(const struct bench_result *r, char to[][160], unsigned max)
{
    unsigned n = 0;
    const struct bench_options *o = r->options;
    double switches = (double)r->disturbed.n_switches / r->seconds;
    double stolen = (double)r->disturbed.stolen_ms / r->seconds;
    if (o->cpu == BENCH_NO_CPU && n < max)
        snprintf(to[n++], 160, "not pinned (--cpu): the kernel may have moved this program");
    if (!o->rate && r->idle < IDLE_LEAST && n < max)
        snprintf(to[n++], 160,
                 "this program is the bottleneck: it waited in %.1f %% of its turns; the back end "
                 "may be faster",
                 100 * r->idle);
    if (switches > SWITCHES_MOST && n < max)
        snprintf(to[n++], 160,
                 "a noisy processor: taken away %.0f times a second, once for %.0f us", switches,
                 r->longest_gap_us);
    if (stolen > STOLEN_MOST_MS && n < max)
        snprintf(to[n++], 160, "the hypervisor took %.0f ms a second from this machine", stolen);
    if (r->has_distance && is_near(r->near_before_ns) != is_near(r->near_after_ns) && n < max)
        snprintf(to[n++], 160,
                 "the processors moved: a cache line took %.0f ns before and %.0f ns after",
                 r->near_before_ns, r->near_after_ns);
    return n;
}
