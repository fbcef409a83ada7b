// SPDX-License-Identifier: Apache-2.0
#include "pollers/report.h"

#include "pollers/cycles.h"
#include "pollers/feature.h"

#include <stdio.h>

static const char *const state_names[] = {
    [ENDPOINT_WAITING] = "waiting",
    [ENDPOINT_CONNECTED] = "connected",
    [ENDPOINT_DRAINING] = "draining",
    [ENDPOINT_RUNNING] = "running",
};

static json_t *number(uint64_t n)
{
    return json_integer((json_int_t)n);
}

static void set_number(json_t *object, const char *name, uint64_t n)
{
    json_object_set_new(object, name, number(n));
}

static void set_counter(json_t *object, const char *name, const counter *c)
{
    set_number(object, name, counter_read(c));
}

static void set_bool(json_t *object, const char *name, bool is)
{
    json_object_set_new(object, name, json_boolean(is));
}

static void set_text(json_t *object, const char *name, const char *text)
{
    json_t *value = text ? json_string(text) : json_null();
    if (!value) // a path may hold any bytes
        value = json_string("(not UTF-8)");
    json_object_set_new(object, name, value);
}

// ---- queues ------------------------------------------------------------------------------

static const char *queue_state(const struct queue *q, const struct session_queue_info *info,
                               const struct lease *lease)
{
    if (info->fault)
        return "faulted";
    if (!lease->at)
        return info->waits_for ? "waiting" : "stopped";
    if (lease->is_ending)
        return "draining";
    if (lease->to)
        return "moving";
    bool is_parked = atomic_load_explicit(&q->is_parked, memory_order_relaxed);
    return is_parked ? "parked" : "running";
}

static uint64_t count_faults(const struct queue *q)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < RING_FAULTS; i++)
        n += counter_read(&q->stats.n_faults[i]);
    return n;
}

static bool is_or_was_used(const struct endpoint *p, unsigned index)
{
    const struct queue *q = &p->device->queues[index];
    return p->leases[index].at || counter_read(&q->stats.n_chains) || count_faults(q);
}

static void set_counters(json_t *object, const struct queue *q)
{
    set_counter(object, "requests", &q->stats.n_chains);
    set_number(object, "in_flight", endpoint_in_flight(q));
    set_counter(object, "bytes_in", &q->stats.n_bytes_in);
    set_counter(object, "bytes_out", &q->stats.n_bytes_out);
    set_counter(object, "kicks", &q->n_kicks);
    set_counter(object, "calls", &q->n_calls);
    set_counter(object, "suppressed", &q->stats.n_suppressed);
    set_counter(object, "full", &q->stats.n_full);
    set_number(object, "faults", count_faults(q));
}

static void set_worker(json_t *object, const struct lease *lease)
{
    const struct pool_worker *w = lease_worker(lease);
    json_object_set_new(object, "worker", w ? number(w->index) : json_null());
}

static json_t *list_faults(const struct queue *q)
{
    json_t *faults = json_object();
    for (unsigned i = 0; i < RING_FAULTS; i++) {
        if (counter_read(&q->stats.n_faults[i]))
            set_counter(faults, ring_fault_name((enum ring_fault)i), &q->stats.n_faults[i]);
    }
    return faults;
}

static bool waits_to_start(const struct endpoint *p, unsigned index)
{
    struct session_queue_info info = {0};
    if (p->session)
        session_describe_queue(p->session, index, &info);
    return info.waits_for;
}

// Also of one that no session has.
static void describe_queue(const struct endpoint *p, unsigned index,
                           struct session_queue_info *info)
{
    if (p->session) {
        session_describe_queue(p->session, index, info);
        return;
    }
    enum ring_fault fault = ring_read_fault(&p->device->queues[index].ring, &info->fault_detail);
    info->fault = fault ? ring_fault_name(fault) : NULL;
    info->is_enabled = p->leases[index].at;
}

static json_t *show_queue(const struct endpoint *p, unsigned index)
{
    const struct queue *q = &p->device->queues[index];
    struct session_queue_info info = {0};
    describe_queue(p, index, &info);
    json_t *object = json_object();
    set_number(object, "index", index);
    set_text(object, "state", queue_state(q, &info, &p->leases[index]));
    set_worker(object, &p->leases[index]);
    set_number(object, "size", info.size);
    set_text(object, "layout", info.is_started ? info.layout : NULL);
    set_bool(object, "enabled", info.is_enabled);
    set_text(object, "fault", info.fault);
    set_number(object, "fault_detail", info.fault_detail);
    set_text(object, "waits_for", info.waits_for);
    set_number(object, "oldest_ms", endpoint_oldest_ms(q));
    set_counters(object, q);
    json_object_set_new(object, "faults_by_name", list_faults(q));
    json_object_set_new(object, "details", report_tell_queue(q));
    return object;
}

// ---- devices -----------------------------------------------------------------------------

static unsigned count_running(const struct endpoint *p)
{
    unsigned n = 0;
    for (unsigned i = 0; i < p->device->n_queues; i++)
        n += p->leases[i].at != NULL;
    return n;
}

static uint64_t count_requests(const struct endpoint *p)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < p->device->n_queues; i++)
        n += counter_read(&p->device->queues[i].stats.n_chains);
    return n;
}

// How long the front end has waited for queues to come back; 0: it does not.
static uint64_t waiting_ms(const struct endpoint *p)
{
    struct session_info info = {0};
    if (p->session)
        session_describe(p->session, &info);
    return info.waiting_ms;
}

static json_t *describe_device(const struct endpoint *p)
{
    json_t *object = json_object();
    set_text(object, "name", p->device->name);
    set_text(object, "type", p->device->type->line.type);
    set_text(object, "socket", p->path);
    set_text(object, "mode", !p->path ? NULL : p->is_client ? "client" : "server");
    set_text(object, "state", state_names[endpoint_state(p)]);
    set_number(object, "peer_pid", (uint64_t)p->peer_pid);
    set_number(object, "queues_running", count_running(p));
    set_number(object, "queues_max", p->device->n_queues);
    set_number(object, "requests", count_requests(p));
    set_number(object, "waiting_ms", waiting_ms(p));
    return object;
}

json_t *report_list(const struct control *c)
{
    json_t *devices = json_array();
    for (const struct endpoint *p = control_next(c, NULL); p; p = control_next(c, p))
        json_array_append_new(devices, describe_device(p));
    return json_pack("{s:o}", "devices", devices);
}

static void add_feature(json_t *names, unsigned bit, const char *name)
{
    char plain[16];
    snprintf(plain, sizeof(plain), "bit %u", bit);
    json_array_append_new(names, json_string(name ? name : plain));
}

static json_t *list_features(uint16_t virtio_id, uint64_t features)
{
    json_t *names = json_array();
    for (unsigned bit = 0; bit < 64; bit++) {
        if (features >> bit & 1)
            add_feature(names, bit, feature_name(virtio_id, bit));
    }
    return names;
}

static json_t *list_protocol_features(uint64_t features)
{
    json_t *names = json_array();
    for (unsigned bit = 0; bit < 64; bit++) {
        if (features >> bit & 1)
            add_feature(names, bit, feature_protocol_name(bit));
    }
    return names;
}

static void set_session(json_t *object, const struct endpoint *p)
{
    struct session_info info = {0};
    if (p->session)
        session_describe(p->session, &info);
    json_object_set_new(object, "features",
                        list_features(p->device->type->virtio_id, info.features));
    json_object_set_new(object, "protocol_features",
                        list_protocol_features(info.protocol_features));
    set_number(object, "memory_regions", info.n_regions);
    set_number(object, "memory_bytes", info.memory_bytes);
    set_bool(object, "is_logging", info.is_logging);
    set_bool(object, "has_inflight_region", info.has_inflight);
    set_bool(object, "is_waiting", info.is_waiting);
}

json_t *report_show(const struct endpoint *p)
{
    json_t *object = describe_device(p);
    set_text(object, "line", p->device->line->text);
    set_session(object, p);
    json_t *queues = json_array();
    for (unsigned i = 0; i < p->device->n_queues; i++) {
        if (is_or_was_used(p, i) || waits_to_start(p, i))
            json_array_append_new(queues, show_queue(p, i));
    }
    json_object_set_new(object, "queues", queues);
    json_object_set_new(object, "details", report_tell(p->device));
    return object;
}

// ---- counters ----------------------------------------------------------------------------

// Requests of the queues that are on @w now; those that left are in n_requests_moved.
static uint64_t requests_here(const struct endpoint *p, const struct pool_worker *w)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < p->device->n_queues; i++) {
        if (p->leases[i].at == w)
            n +=
                counter_read(&p->device->queues[i].stats.n_chains) - p->leases[i].n_requests_before;
    }
    return n;
}

static json_t *worker_stats(const struct control *c, const struct pool_worker *w)
{
    struct worker_stats stats;
    worker_read_stats(w->worker, &stats);
    uint64_t n_requests = w->n_requests_moved;
    for (const struct endpoint *p = control_next(c, NULL); p; p = control_next(c, p))
        n_requests += requests_here(p, w);
    json_t *object = json_object();
    set_number(object, "index", w->index);
    set_number(object, "cpu", (uint64_t)w->cpu);
    set_number(object, "node", w->node);
    set_number(object, "queues", stats.n_queues);
    set_number(object, "parked", stats.n_parked);
    set_number(object, "requests", n_requests);
    set_number(object, "turns", stats.n_turns);
    set_number(object, "busy_turns", stats.n_busy_turns);
    set_number(object, "busy_cycles", stats.busy_cycles);
    set_number(object, "cycles", cycles_now() - w->started_cycles);
    set_number(object, "sleeps", stats.n_sleeps);
    set_number(object, "enters", stats.n_enters);
    return object;
}

static void add_queues(json_t *queues, const struct endpoint *p)
{
    for (unsigned i = 0; i < p->device->n_queues; i++) {
        if (!is_or_was_used(p, i))
            continue;
        json_t *object = json_object();
        set_text(object, "device", p->device->name);
        set_number(object, "index", i);
        set_worker(object, &p->leases[i]);
        set_counters(object, &p->device->queues[i]);
        json_array_append_new(queues, object);
    }
}

json_t *report_stats(const struct control *c)
{
    json_t *workers = json_array(), *queues = json_array();
    for (unsigned i = 0; i < pool_n_workers(control_pool(c)); i++)
        json_array_append_new(workers, worker_stats(c, pool_worker_at(control_pool(c), i)));
    for (const struct endpoint *p = control_next(c, NULL); p; p = control_next(c, p))
        add_queues(queues, p);
    return json_pack("{s:I, s:o, s:o}", "time_ms", (json_int_t)loop_now_ms(), "workers", workers,
                     "queues", queues);
}
