// SPDX-License-Identifier: Apache-2.0
#include "tools/view.h"

#include "tools/table.h"

#include <stdbool.h>
#include <string.h>

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "-";
}

static long long number_of(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}

static void add_text(struct table *t, const json_t *object, const char *name)
{
    table_add(t, "%s", text_of(object, name));
}

// A number, or "-" where there is none.
static void add_number(struct table *t, const json_t *object, const char *name)
{
    if (json_is_integer(json_object_get(object, name)))
        table_add(t, "%lld", number_of(object, name));
    else
        table_add(t, "-");
}

// ---- list --------------------------------------------------------------------------------

void view_list(const json_t *list)
{
    struct table t;
    size_t i;
    json_t *d;
    table_open(&t, "NAME TYPE STATE QUEUES REQUESTS SOCKET");
    json_array_foreach(json_object_get(list, "devices"), i, d)
    {
        add_text(&t, d, "name");
        add_text(&t, d, "type");
        add_text(&t, d, "state");
        add_number(&t, d, "queues_running");
        add_number(&t, d, "requests");
        add_text(&t, d, "socket");
    }
    table_print(&t, stdout);
}

// ---- show --------------------------------------------------------------------------------

static void print_names(const char *title, const json_t *names)
{
    size_t i;
    json_t *name;
    printf("%-12s", title);
    json_array_foreach(names, i, name) printf(" %s", json_string_value(name));
    printf(json_array_size(names) ? "\n" : " (not negotiated)\n");
}

static void print_peer(const json_t *d)
{
    printf("%-12s %s", "state", text_of(d, "state"));
    if (number_of(d, "peer_pid"))
        printf(", to process %lld", number_of(d, "peer_pid"));
    if (json_is_true(json_object_get(d, "is_waiting")))
        printf(", has waited %lld ms for requests to finish", number_of(d, "waiting_ms"));
    printf("\n");
}

// Those that are not 0.
static void print_counts(const json_t *q, const char *what, const json_t *counts)
{
    const char *name;
    json_t *n;
    json_object_foreach((json_t *)counts, name, n)
    {
        if (json_integer_value(n))
            printf("queue %lld %s: %s %lld\n", number_of(q, "index"), what, name,
                   (long long)json_integer_value(n));
    }
}

static void print_faults(const json_t *q)
{
    if (json_is_string(json_object_get(q, "waits_for")))
        printf("queue %lld waits: %s\n", number_of(q, "index"), text_of(q, "waits_for"));
    if (json_is_string(json_object_get(q, "fault")))
        printf("queue %lld stopped: %s (%lld)\n", number_of(q, "index"), text_of(q, "fault"),
               number_of(q, "fault_detail"));
    print_counts(q, "has had", json_object_get(q, "faults_by_name"));
    print_counts(q, "dropped", json_object_get(json_object_get(q, "details"), "drops"));
}

// Of the queues of ports.
static void print_frames(const json_t *queues)
{
    struct table t;
    size_t i;
    json_t *q;
    if (!json_object_get(json_object_get(json_array_get(queues, 0), "details"), "frames"))
        return;
    printf("\n");
    table_open(&t, "QUEUE FRAMES FRAME-BYTES SEGMENTED");
    json_array_foreach(queues, i, q)
    {
        const json_t *details = json_object_get(q, "details");
        add_number(&t, q, "index");
        add_number(&t, details, "frames");
        add_number(&t, details, "frame_bytes");
        add_number(&t, details, "segmented");
    }
    table_print(&t, stdout);
}

static void print_queues(const json_t *queues)
{
    struct table t;
    size_t i;
    json_t *q;
    if (json_array_size(queues) == 0)
        return;
    printf("\n");
    table_open(&t, "QUEUE STATE WORKER SIZE LAYOUT REQUESTS IN-FLIGHT OLDEST-MS KICKS CALLS "
                   "FAULTS");
    json_array_foreach(queues, i, q)
    {
        add_number(&t, q, "index");
        add_text(&t, q, "state");
        add_number(&t, q, "worker");
        add_number(&t, q, "size");
        add_text(&t, q, "layout");
        add_number(&t, q, "requests");
        add_number(&t, q, "in_flight");
        add_number(&t, q, "oldest_ms");
        add_number(&t, q, "kicks");
        add_number(&t, q, "calls");
        add_number(&t, q, "faults");
    }
    table_print(&t, stdout);
    print_frames(queues);
    json_array_foreach(queues, i, q) print_faults(q);
}

static void print_session(const json_t *d)
{
    print_names("features", json_object_get(d, "features"));
    print_names("protocol", json_object_get(d, "protocol_features"));
    printf("%-12s %lld regions, %lld MiB\n", "memory", number_of(d, "memory_regions"),
           number_of(d, "memory_bytes") >> 20);
    printf("%-12s %s\n", "in-flight",
           json_is_true(json_object_get(d, "has_inflight_region")) ? "recorded by the front end"
                                                                   : "not recorded");
    if (json_is_true(json_object_get(d, "is_logging")))
        printf("%-12s under way, dirty pages are logged\n", "migration");
}

void view_show(const json_t *d)
{
    printf("%s\n", text_of(d, "line"));
    print_peer(d);
    if (json_is_string(json_object_get(d, "socket")))
        print_session(d);
    view_details(json_object_get(d, "details"));
    print_queues(json_object_get(d, "queues"));
}

// ---- resize ------------------------------------------------------------------------------

void view_resize(const json_t *resized)
{
    printf("%lld bytes\n", number_of(resized, "bytes"));
}

// ---- move --------------------------------------------------------------------------------

void view_move(const json_t *moved)
{
    long long n = number_of(moved, "queues");
    printf("%lld %s\n", n, n == 1 ? "queue" : "queues");
}

// ---- stats -------------------------------------------------------------------------------

// The object of @list with the same worker or queue as @like.
static const json_t *find_same(const json_t *list, const json_t *like)
{
    size_t i;
    json_t *object;
    json_array_foreach(list, i, object)
    {
        if (number_of(object, "index") == number_of(like, "index") &&
            strcmp(text_of(object, "device"), text_of(like, "device")) == 0)
            return object;
    }
    return NULL;
}

// What a counter grew by since @before (NULL: since the start).
static double growth(const json_t *now, const json_t *before, const char *name)
{
    return (double)(number_of(now, name) - number_of(before, name));
}

static double ratio(double a, double b)
{
    return b > 0 ? a / b : 0;
}

static void add_worker(struct table *t, const json_t *w, const json_t *before, double unit)
{
    double busy = growth(w, before, "busy_cycles");
    add_number(t, w, "index");
    add_number(t, w, "cpu");
    add_number(t, w, "node");
    add_number(t, w, "queues");
    add_number(t, w, "parked");
    table_add(t, "%.1f", 100 * ratio(busy, growth(w, before, "cycles")));
    table_add(t, "%.0f", ratio(busy, growth(w, before, "requests")));
    table_add(t, "%.0f", growth(w, before, "requests") / unit);
    table_add(t, "%.0f", growth(w, before, "turns") / unit);
    table_add(t, "%.0f", growth(w, before, "sleeps") / unit);
    table_add(t, "%.0f", growth(w, before, "enters") / unit);
}

// Bytes as the guest sees them: what the device wrote is what the guest got.
static void add_queue(struct table *t, const json_t *q, const json_t *before, double unit)
{
    add_text(t, q, "device");
    add_number(t, q, "index");
    add_number(t, q, "worker");
    add_number(t, q, "in_flight");
    table_add(t, "%.0f", growth(q, before, "requests") / unit);
    table_add(t, "%.1f", growth(q, before, "bytes_in") / unit / 1e6);
    table_add(t, "%.1f", growth(q, before, "bytes_out") / unit / 1e6);
    table_add(t, "%.0f", growth(q, before, "kicks") / unit);
    table_add(t, "%.0f", growth(q, before, "calls") / unit);
    add_number(t, q, "faults");
}

struct stats_table {
    const char *list;
    const char *totals, *rates; // its heading
    void (*add)(struct table *t, const json_t *now, const json_t *before, double unit);
};

static const struct stats_table tables[] = {
    {"workers", "WORKER CPU NODE QUEUES PARKED BUSY% CYCLES/REQUEST REQUESTS TURNS SLEEPS ENTERS",
     "WORKER CPU NODE QUEUES PARKED BUSY% CYCLES/REQUEST REQUESTS/S TURNS/S SLEEPS/S ENTERS/S",
     add_worker},
    {"queues",
     "DEVICE QUEUE WORKER IN-FLIGHT REQUESTS TO-GUEST-MB FROM-GUEST-MB KICKS CALLS FAULTS",
     "DEVICE QUEUE WORKER IN-FLIGHT REQUESTS/S TO-GUEST-MB/S FROM-GUEST-MB/S KICKS/S CALLS/S "
     "FAULTS",
     add_queue},
};

static void print_stats(const struct stats_table *kind, const json_t *stats, const json_t *before)
{
    double seconds = before ? growth(stats, before, "time_ms") / 1000 : 0;
    struct table t;
    size_t i;
    json_t *now;
    table_open(&t, seconds > 0 ? kind->rates : kind->totals);
    json_array_foreach(json_object_get(stats, kind->list), i, now) kind->add(
        &t, now, find_same(json_object_get(before, kind->list), now), seconds > 0 ? seconds : 1);
    table_print(&t, stdout);
}

void view_stats(const json_t *stats, const json_t *before)
{
    print_stats(&tables[0], stats, before);
    printf("\n");
    print_stats(&tables[1], stats, before);
}
