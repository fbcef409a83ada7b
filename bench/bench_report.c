// SPDX-License-Identifier: Apache-2.0
#include "bench/bench_report.h"

#include <jansson.h>
#include <string.h>

#define WARNINGS_MAX 8

static const struct {
    const char *name;
    double fraction;
} percentiles[] = {
    {"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}, {"p99.99", 0.9999},
};

static double mib_per_s(const struct bench_result *r, uint64_t bytes)
{
    return (double)bytes / r->seconds / (1 << 20);
}

static double mean_us(const struct bench_result *r, const struct histogram *h)
{
    return h->n ? (double)h->sum / (double)h->n * r->ns_per_tick / 1e3 : 0;
}

static double percentile_us(const struct bench_result *r, const struct histogram *h, double f)
{
    return (double)histogram_percentile(h, f) * r->ns_per_tick / 1e3;
}

static bool is_net(const struct bench_result *r)
{
    return r->options->command == BENCH_NET;
}

const char *bench_tail(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

// ---- table -------------------------------------------------------------------------------

static void print_row(const struct bench_result *r, const struct bench_row *row, FILE *to)
{
    const struct histogram *h = row->latency;
    fprintf(to, "%-24.24s %11.0f %9.1f %9.1f", row->name, (double)row->n_done / r->seconds,
            mib_per_s(r, row->n_bytes), mean_us(r, h));
    for (unsigned i = 0; i < ARRAY_LEN(percentiles); i++)
        fprintf(to, " %9.1f", percentile_us(r, h, percentiles[i].fraction));
    fprintf(to, " %9.1f\n", (double)h->max * r->ns_per_tick / 1e3);
}

static void print_environment(const struct bench_result *r, FILE *to)
{
    const struct environment *env = &r->environment;
    fprintf(to, "%s, %u processors, Linux %s, %s%sclock %s at %.3f GHz, %llu huge pages\n",
            env->processor, env->n_processors, env->kernel, env->governor,
            env->governor[0] ? " governor, " : "", env->clock, env->ticks_per_second / 1e9,
            (unsigned long long)env->n_huge_pages);
    if (r->has_distance)
        fprintf(to, "a cache line to processor %u and back: %.0f ns before, %.0f ns after\n",
                r->options->server_cpu, r->near_before_ns, r->near_after_ns);
}

static void print_load(const struct bench_result *r, FILE *to)
{
    const struct bench_options *o = r->options;
    if (is_net(r))
        fprintf(to, "%s, frames of %s%s", bench_options_mode(o), o->size,
                o->net_load.frame_bytes ? " bytes" : "");
    else
        fprintf(to, "%s, %u bytes", bench_options_pattern(o), o->block_bytes);
    fprintf(to, ", depth %u, %u guest%s with %u queue%s%s, %s ring of %u, %.2f s\n",
            is_net(r) ? o->net_load.depth : o->depth, o->n_guests, o->n_guests == 1 ? "" : "s",
            o->n_queues, is_net(r) ? " pair" : "", o->n_queues == 1 ? "" : "s",
            bench_options_layout(o), is_net(r) ? o->nic.ring_size : o->disk.ring_size, r->seconds);
}

static void print_figures(const struct bench_row *sum, FILE *to)
{
    for (unsigned i = 0; i < sum->n_figures; i++)
        fprintf(to, "%s%llu %s", i ? ", " : "", (unsigned long long)sum->figures[i].value,
                sum->figures[i].name);
    fprintf(to, "\n");
}

void bench_report_table(const struct bench_result *r, const struct bench_row *sum,
                        const struct bench_row rows[], unsigned n_rows, FILE *to)
{
    char warnings[WARNINGS_MAX][160];
    print_environment(r, to);
    print_load(r, to);
    fprintf(to, "%-24s %9s/s %9s %9s", "latency in us", is_net(r) ? "frames" : "requests", "MiB/s",
            "mean");
    for (unsigned i = 0; i < ARRAY_LEN(percentiles); i++)
        fprintf(to, " %9s", percentiles[i].name);
    fprintf(to, " %9s\n", "max");
    for (unsigned i = 0; n_rows > 1 && i < n_rows; i++)
        print_row(r, &rows[i], to);
    print_row(r, sum, to);
    print_figures(sum, to);
    unsigned n = bench_run_warnings(r, warnings, WARNINGS_MAX);
    for (unsigned i = 0; i < n; i++)
        fprintf(to, "warning: %s\n", warnings[i]);
}

// ---- JSON --------------------------------------------------------------------------------

static json_t *latency_json(const struct bench_result *r, const struct histogram *h)
{
    json_t *j = json_pack("{s:f}", "mean", mean_us(r, h));
    for (unsigned i = 0; i < ARRAY_LEN(percentiles); i++)
        json_object_set_new(j, percentiles[i].name,
                            json_real(percentile_us(r, h, percentiles[i].fraction)));
    json_object_set_new(j, "max", json_real((double)h->max * r->ns_per_tick / 1e3));
    return j;
}

static json_t *row_json(const struct bench_result *r, const struct bench_row *row)
{
    json_t *j = json_pack("{s:f, s:f, s:o}", is_net(r) ? "fps" : "iops",
                          (double)row->n_done / r->seconds, "mib_per_s", mib_per_s(r, row->n_bytes),
                          "latency_us", latency_json(r, row->latency));
    for (unsigned i = 0; i < row->n_figures; i++)
        json_object_set_new(j, row->figures[i].name,
                            json_integer((json_int_t)row->figures[i].value));
    return j;
}

static json_t *environment_json(const struct bench_result *r)
{
    const struct environment *env = &r->environment;
    json_t *j = json_pack("{s:s, s:s, s:s, s:s, s:i, s:I, s:f}", "processor", env->processor,
                          "kernel", env->kernel, "governor", env->governor, "clock", env->clock,
                          "processors", (int)env->n_processors, "huge_pages",
                          (json_int_t)env->n_huge_pages, "ticks_per_second", env->ticks_per_second);
    if (r->has_distance)
        json_object_set_new(
            j, "round_trip_ns",
            json_pack("{s:f, s:f}", "before", r->near_before_ns, "after", r->near_after_ns));
    return j;
}

static json_t *warnings_json(const struct bench_result *r)
{
    char warnings[WARNINGS_MAX][160];
    json_t *j = json_array();
    unsigned n = bench_run_warnings(r, warnings, WARNINGS_MAX);
    for (unsigned i = 0; i < n; i++)
        json_array_append_new(j, json_string(warnings[i]));
    return j;
}

static void set_load(json_t *j, const struct bench_result *r)
{
    const struct bench_options *o = r->options;
    if (is_net(r)) {
        json_object_set_new(j, "mode", json_string(bench_options_mode(o)));
        json_object_set_new(j, "size", json_string(o->size));
    } else {
        json_object_set_new(j, "rw", json_string(bench_options_pattern(o)));
        json_object_set_new(j, "bs", json_integer((json_int_t)o->block_bytes));
    }
    json_object_set_new(j, "depth", json_integer(is_net(r) ? o->net_load.depth : o->depth));
    json_object_set_new(j, "queues", json_integer(o->n_queues));
    json_object_set_new(j, "ring", json_string(bench_options_layout(o)));
    json_object_set_new(j, "ring_size",
                        json_integer(is_net(r) ? o->nic.ring_size : o->disk.ring_size));
    json_object_set_new(j, "rate", json_integer((json_int_t)o->rate));
}

void bench_report_json(const struct bench_result *r, const struct bench_row *sum,
                       const struct bench_row rows[], unsigned n_rows, FILE *to)
{
    json_t *guests = json_array(), *j = json_object();
    for (unsigned i = 0; i < n_rows; i++) {
        json_t *g = row_json(r, &rows[i]);
        json_object_set_new(g, "socket", json_string(r->options->sockets[i]));
        json_array_append_new(guests, g);
    }
    set_load(j, r);
    json_object_set_new(j, "seconds", json_real(r->seconds));
    json_object_set_new(j, "idle", json_real(r->idle));
    json_object_set_new(j, "environment", environment_json(r));
    json_object_set_new(j, "warnings", warnings_json(r));
    json_object_set_new(j, "all", row_json(r, sum));
    json_object_set_new(j, "guests", guests);
    json_dumpf(j, to, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    fprintf(to, "\n");
    json_decref(j);
}
