// SPDX-License-Identifier: Apache-2.0
#include "bench/bench_command.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#define LINK_SECONDS 30 // for a frame to get through at all

static int turn(void *load, uint64_t *n_left, struct error *e)
{
    return net_load_turn(load, n_left, e);
}

static void pace(void *load, double per_second, double ticks_per_second)
{
    net_load_pace(load, per_second, ticks_per_second);
}

static uint64_t n_in_flight(const void *load)
{
    return net_load_n_in_flight(load);
}

static uint64_t n_done(const void *load)
{
    return net_load_n_done(load);
}

static bool give_up(void *load)
{
    net_load_give_up(load);
    return true;
}

static struct bench_row row_of(const char *name, const struct net_load_stats *s)
{
    return (struct bench_row){
        .name = name,
        .n_done = s->n_received,
        .n_bytes = s->n_bytes_received,
        .latency = &s->latency,
        .figures = {{"sent", s->n_sent},
                    {"received", s->n_received},
                    {"lost", s->n_lost},
                    {"foreign", s->n_foreign}},
        .n_figures = 4,
    };
}

static void add_up(struct net_load_stats *sum, const struct net_load_stats *s)
{
    sum->n_sent += s->n_sent;
    sum->n_received += s->n_received;
    sum->n_bytes_received += s->n_bytes_received;
    sum->n_lost += s->n_lost;
    sum->n_foreign += s->n_foreign;
    histogram_merge(&sum->latency, &s->latency);
}

static int report(const struct bench_result *r, const struct net_load *l, struct error *e)
{
    const struct bench_options *o = r->options;
    struct bench_row *rows = calloc(o->n_guests, sizeof rows[0]);
    struct net_load_stats *sum = calloc(1, sizeof *sum);
    if (!rows || !sum) {
        free(rows);
        free(sum);
        return error_set(e, ENOMEM, "no memory for the report");
    }
    for (unsigned i = 0; i < o->n_guests; i++) {
        add_up(sum, net_load_stats(l, i));
        rows[i] = row_of(bench_tail(o->sockets[i]), net_load_stats(l, i));
    }
    struct bench_row all = row_of("all", sum);
    (o->is_json ? bench_report_json : bench_report_table)(r, &all, rows, o->n_guests, stdout);
    int rc = sum->n_lost
                 ? error_set(e, EIO, "%llu frames were lost", (unsigned long long)sum->n_lost)
                 : 0;
    free(rows);
    free(sum);
    return rc;
}

// A link that comes up may drop what is on its way: wait until frames get through between each
// two guests.
static int wait_for_links(struct guest_nic *nics[], unsigned n, struct error *e)
{
    const struct net_load_config c = {NET_LOAD_ECHO, NET_LOAD_FRAME_MIN, 1, false};
    struct net_load *l;
    int rc = net_load_open(&l, nics, n, &c, e);
    if (rc < 0)
        return rc;
    time_t deadline = time(NULL) + LINK_SECONDS;
    unsigned n_up = 0;
    for (uint64_t n_turns = 1; rc >= 0 && n_up < n; n_turns++) {
        uint64_t n_left = n;
        rc = net_load_turn(l, &n_left, e);
        if (n_turns % 10000 == 0)
            net_load_give_up(l);
        for (n_up = 0; n_up < n && net_load_stats(l, n_up)->n_received;)
            n_up++;
        if (rc >= 0 && time(NULL) > deadline)
            rc =
                error_set(e, ETIMEDOUT, "no frame from %s in %d s: is its peer on the same switch?",
                          nics[n_up ^ 1]->config.path, LINK_SECONDS);
    }
    net_load_close(l);
    return MIN(rc, 0);
}

static int measure(const struct bench_options *o, struct guest_nic *nics[], struct error *e)
{
    struct net_load *l = NULL;
    struct bench_result result;
    struct error e_report;
    int rc = wait_for_links(nics, o->n_guests, e);
    if (rc == 0)
        rc = net_load_open(&l, nics, o->n_guests, &o->net_load, e);
    if (rc < 0)
        return rc;
    const struct bench_load load = {.load = l,
                                    .unit = "frames",
                                    .turn = turn,
                                    .pace = pace,
                                    .n_in_flight = n_in_flight,
                                    .n_done = n_done,
                                    .give_up = give_up};
    rc = bench_run(&result, o, &load, e);
    int rc_report = report(&result, l, rc == 0 ? e : &e_report);
    for (unsigned i = 0; rc == 0 && i < o->n_guests; i++)
        rc = guest_nic_stop(nics[i], e);
    net_load_close(l);
    return rc < 0 ? rc : rc_report;
}

int bench_net(const struct bench_options *o, struct error *e)
{
    struct guest_nic **nics = calloc(o->n_guests, sizeof nics[0]);
    if (!nics)
        return error_set(e, ENOMEM, "no memory for %u guests", o->n_guests);
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < o->n_guests; i++) {
        struct guest_nic_config c = o->nic;
        c.path = o->sockets[i];
        rc = guest_nic_open(&nics[i], &c, e);
    }
    if (rc == 0)
        rc = measure(o, nics, e);
    for (unsigned i = 0; i < o->n_guests; i++)
        guest_nic_close(nics[i]);
    free(nics);
    return rc;
}
