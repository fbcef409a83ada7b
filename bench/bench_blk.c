// SPDX-License-Identifier: Apache-2.0
#include "bench/bench_command.h"

#include <errno.h>
#include <stdlib.h>

static int turn(void *load, uint64_t *n_left, struct error *e)
{
    return disk_load_turn(load, n_left, e);
}

static void pace(void *load, double per_second, double ticks_per_second)
{
    disk_load_pace(load, per_second, ticks_per_second);
}

static uint64_t n_in_flight(const void *load)
{
    return disk_load_n_in_flight(load);
}

static uint64_t n_done(const void *load)
{
    return disk_load_n_done(load);
}

static struct bench_row row_of(const char *name, const struct disk_load_stats *s,
                               const struct bench_options *o)
{
    uint64_t n = s->n_reads + s->n_writes;
    return (struct bench_row){
        .name = name,
        .n_done = n,
        .n_bytes = n * o->block_bytes,
        .latency = &s->latency,
        .figures = {{"reads", s->n_reads},
                    {"writes", s->n_writes},
                    {"errors", s->n_errors},
                    {"verified", s->n_verified},
                    {"kicks", s->n_kicks}},
        .n_figures = 5,
    };
}

static void add_up(struct disk_load_stats *sum, const struct disk_load_stats *s)
{
    sum->n_reads += s->n_reads;
    sum->n_writes += s->n_writes;
    sum->n_errors += s->n_errors;
    sum->n_verified += s->n_verified;
    sum->n_kicks += s->n_kicks;
    histogram_merge(&sum->latency, &s->latency);
}

static int report(const struct bench_result *r, const struct disk_load *l, struct error *e)
{
    const struct bench_options *o = r->options;
    struct bench_row *rows = calloc(o->n_guests, sizeof rows[0]);
    struct disk_load_stats *sum = calloc(1, sizeof *sum);
    if (!rows || !sum) {
        free(rows);
        free(sum);
        return error_set(e, ENOMEM, "no memory for the report");
    }
    for (unsigned i = 0; i < o->n_guests; i++) {
        add_up(sum, disk_load_stats(l, i));
        rows[i] = row_of(bench_tail(o->sockets[i]), disk_load_stats(l, i), o);
    }
    struct bench_row all = row_of("all", sum, o);
    (o->is_json ? bench_report_json : bench_report_table)(r, &all, rows, o->n_guests, stdout);
    int rc = sum->n_errors
                 ? error_set(e, EIO, "%llu requests failed", (unsigned long long)sum->n_errors)
                 : 0;
    free(rows);
    free(sum);
    return rc;
}

static int measure(const struct bench_options *o, struct guest_disk *disks[], struct error *e)
{
    struct disk_load *l;
    struct bench_result result;
    struct error e_report;
    int rc = disk_load_open(&l, disks, o->n_guests, &o->disk_load, e);
    if (rc < 0)
        return rc;
    const struct bench_load load = {.load = l,
                                    .unit = "requests",
                                    .turn = turn,
                                    .pace = pace,
                                    .n_in_flight = n_in_flight,
                                    .n_done = n_done};
    rc = bench_run(&result, o, &load, e);
    int rc_report = report(&result, l, rc == 0 ? e : &e_report);
    for (unsigned i = 0; rc == 0 && i < o->n_guests; i++)
        rc = guest_disk_stop(disks[i], e);
    disk_load_close(l);
    return rc < 0 ? rc : rc_report;
}

int bench_blk(const struct bench_options *o, struct error *e)
{
    struct guest_disk **disks = calloc(o->n_guests, sizeof disks[0]);
    if (!disks)
        return error_set(e, ENOMEM, "no memory for %u guests", o->n_guests);
    int rc = 0;
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
