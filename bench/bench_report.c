// SPDX-License-Identifier: Apache-2.0
#include "bench/bench_report.h"

#include <jansson.h>
#include <string.h>

static const struct {
    const char *name;
    double fraction;
} percentiles[] = {
    {"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}, {"p99.99", 0.9999},
};

static uint64_t n_done(const struct disk_load_stats *s)
{
    return s->n_reads + s->n_writes;
}

static void add_up(const struct bench_result *r, struct disk_load_stats *sum)
{
    memset(sum, 0, sizeof *sum);
    for (unsigned i = 0; i < r->options->n_guests; i++) {
        const struct disk_load_stats *s = disk_load_stats(r->load, i);
        sum->n_reads += s->n_reads;
        sum->n_writes += s->n_writes;
        sum->n_errors += s->n_errors;
        sum->n_verified += s->n_verified;
        sum->n_kicks += s->n_kicks;
        histogram_merge(&sum->latency, &s->latency);
    }
}

uint64_t bench_report_n_done(const struct bench_result *r)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < r->options->n_guests; i++)
        n += n_done(disk_load_stats(r->load, i));
    return n;
}

static double mib_per_s(const struct bench_result *r, uint64_t ios)
{
    return (double)ios * r->options->load.block_bytes / r->seconds / (1 << 20);
}

static double mean_us(const struct bench_result *r, const struct histogram *h)
{
    return h->n ? (double)h->sum / (double)h->n * r->ns_per_tick / 1e3 : 0;
}

static double percentile_us(const struct bench_result *r, const struct histogram *h, double f)
{
    return (double)histogram_percentile(h, f) * r->ns_per_tick / 1e3;
}

// ---- table -------------------------------------------------------------------------------

static void print_row(const struct bench_result *r, const char *name,
                      const struct disk_load_stats *s, FILE *to)
{
    uint64_t ios = n_done(s);
    fprintf(to, "%-24.24s %11.0f %9.1f %9.1f", name, (double)ios / r->seconds, mib_per_s(r, ios),
            mean_us(r, &s->latency));
    for (unsigned i = 0; i < ARRAY_LEN(percentiles); i++)
        fprintf(to, " %9.1f", percentile_us(r, &s->latency, percentiles[i].fraction));
    fprintf(to, " %9.1f\n", (double)s->latency.max * r->ns_per_tick / 1e3);
}

static const char *tail_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

void bench_report_table(const struct bench_result *r, FILE *to)
{
    const struct bench_options *o = r->options;
    struct disk_load_stats sum;
    add_up(r, &sum);
    fprintf(to, "%s, %u bytes, depth %u, %u guest%s with %u queue%s, %s ring of %u, %.2f s\n",
            bench_options_pattern(o), o->load.block_bytes, o->load.depth, o->n_guests,
            o->n_guests == 1 ? "" : "s", o->disk.n_queues, o->disk.n_queues == 1 ? "" : "s",
            bench_options_layout(o), o->disk.ring_size, r->seconds);
    fprintf(to, "%-24s %11s %9s %9s", "latency in us", "requests/s", "MiB/s", "mean");
    for (unsigned i = 0; i < ARRAY_LEN(percentiles); i++)
        fprintf(to, " %9s", percentiles[i].name);
    fprintf(to, " %9s\n", "max");
    for (unsigned i = 0; o->n_guests > 1 && i < o->n_guests; i++)
        print_row(r, tail_of(o->sockets[i]), disk_load_stats(r->load, i), to);
    print_row(r, "all", &sum, to);
    fprintf(to, "%llu reads, %llu writes, %llu errors, %llu kicks", (unsigned long long)sum.n_reads,
            (unsigned long long)sum.n_writes, (unsigned long long)sum.n_errors,
            (unsigned long long)sum.n_kicks);
    if (o->load.verify)
        fprintf(to, "; %llu reads verified", (unsigned long long)sum.n_verified);
    fprintf(to, "\n");
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

static json_t *stats_json(const struct bench_result *r, const struct disk_load_stats *s)
{
    uint64_t ios = n_done(s);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:o}", "reads", (json_int_t)s->n_reads,
                     "writes", (json_int_t)s->n_writes, "errors", (json_int_t)s->n_errors,
                     "verified", (json_int_t)s->n_verified, "kicks", (json_int_t)s->n_kicks, "iops",
                     (double)ios / r->seconds, "mib_per_s", mib_per_s(r, ios), "latency_us",
                     latency_json(r, &s->latency));
}

void bench_report_json(const struct bench_result *r, FILE *to)
{
    const struct bench_options *o = r->options;
    struct disk_load_stats sum;
    add_up(r, &sum);
    json_t *guests = json_array();
    for (unsigned i = 0; i < o->n_guests; i++) {
        json_t *g = stats_json(r, disk_load_stats(r->load, i));
        json_object_set_new(g, "socket", json_string(o->sockets[i]));
        json_array_append_new(guests, g);
    }
    json_t *all = stats_json(r, &sum);
    json_t *j =
        json_pack("{s:s, s:i, s:i, s:i, s:s, s:i, s:f, s:o, s:o}", "rw", bench_options_pattern(o),
                  "bs", (int)o->load.block_bytes, "depth", (int)o->load.depth, "queues",
                  (int)o->disk.n_queues, "ring", bench_options_layout(o), "ring_size",
                  (int)o->disk.ring_size, "seconds", r->seconds, "all", all, "guests", guests);
    json_dumpf(j, to, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    fprintf(to, "\n");
    json_decref(j);
}
