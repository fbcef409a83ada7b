// SPDX-License-Identifier: Apache-2.0
// A switch in the running daemon: lines come and go in any order while two workers forward, queues
// move, workers sleep and are woken. Ports are plugs: one queue without a ring, which sends as much
// as it can (or nothing: silent) and takes what it gets.
//
// The test's thread is control.
#include "devices/switch.h"
#include "pollers/control.h"
#include "tests/check.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEADLINE_MS 60000
#define FRAMES      128 // of a plug
#define KEPT        16  // frames that a plug sits on
#define STATIONS    8   // plugs have these numbers, and addresses

// ---- plugs -------------------------------------------------------------------------------

struct plug_frame {
    struct frame frame;
    struct iovec iov;
    uint8_t bytes[60];
    struct plug_frame *next;
};

struct plug {
    struct port port;
    struct queue *receivers[1];
    struct port_stats stats;
    unsigned station;
    bool is_silent, refuses;
    struct plug_frame frames[FRAMES];
    struct plug_frame *free; // [W]
    unsigned n_out;          // [W]
    unsigned seed;
    struct frame *kept[KEPT]; // of others
    unsigned n_kept;
};

static _Atomic uint64_t n_got[STATIONS];
static _Atomic unsigned n_plugs;

static void give_back(struct plug *p, struct lane *lane)
{
    while (p->n_kept)
        frame_return(lane, p->kept[--p->n_kept]);
}

static void plug_deliver(struct queue *to, struct frame *const frames[], unsigned n)
{
    struct plug *p = (struct plug *)port_of(to);
    for (unsigned i = 0; i < n; i++) {
        n_got[p->station]++;
        if (p->station % 2 && p->n_kept < KEPT && !p->is_silent)
            p->kept[p->n_kept++] = frames[i];
        else
            frame_return(to->lane, frames[i]);
    }
}

static void plug_free(struct frame *f)
{
    struct plug *p = (struct plug *)port_of(f->home);
    struct plug_frame *own = container_of(f, struct plug_frame, frame);
    own->next = p->free;
    p->free = own;
    p->n_out--;
}

// To a station, to one that there is not, or to all.
static struct frame *new_frame(struct plug *p, struct queue *q)
{
    struct plug_frame *f = p->free;
    p->free = f->next;
    unsigned to = (unsigned)rand_r(&p->seed) % 64;
    memset(f->bytes, 0, sizeof(f->bytes));
    f->bytes[0] = f->bytes[6] = 2;
    f->bytes[5] = (uint8_t)(to % (STATIONS + 1));
    f->bytes[11] = (uint8_t)p->station;
    if (to == 63)
        memset(f->bytes, 0xff, 6);
    f->iov = (struct iovec){f->bytes, sizeof(f->bytes)};
    frame_parse(&f->frame, &f->iov, 1, 0, NULL);
    f->frame.home = q;
    f->frame.free = plug_free;
    p->n_out++;
    return &f->frame;
}

static unsigned plug_poll(struct queue *q, unsigned budget)
{
    struct plug *p = (struct plug *)port_of(q);
    struct frame *frames[32];
    unsigned n = 0;
    give_back(p, q->lane);
    while (!p->is_silent && p->free && n < MIN(budget, 32u))
        frames[n++] = new_frame(p, q);
    if (n)
        switch_forward(&p->port, q->lane, frames, n, &p->stats);
    return n;
}

static bool plug_settle(struct queue *q)
{
    struct plug *p = (struct plug *)port_of(q);
    give_back(p, q->lane);
    return p->n_out == 0;
}

static enum queue_rest plug_rest(struct queue *q)
{
    return ((struct plug *)port_of(q))->is_silent ? QUEUE_SLEEPS : QUEUE_STAYS;
}

static int plug_queue_start(struct queue *q, struct error *e)
{
    struct plug *p = (struct plug *)port_of(q);
    if (p->refuses)
        return error_set(e, EIO, "plug %s: it refuses", q->device->name);
    p->receivers[0] = q;
    atomic_store_explicit(&p->port.n_receivers, 1, memory_order_release);
    return 0;
}

static void plug_queue_stop(struct queue *q)
{
    struct plug *p = (struct plug *)port_of(q);
    atomic_store_explicit(&p->port.n_receivers, 0, memory_order_relaxed);
    assert(p->n_out == 0 && p->n_kept == 0);
}

static const struct port_type plug_port = {.key = "plug", .deliver = plug_deliver};

static int plug_open(struct device *d, const struct line *l, struct error *e)
{
    struct vswitch *at = switch_find(line_text(l, "switch", ""));
    if (!at)
        return error_set(e, ENOENT, "plug %s: no such switch", l->name);
    struct plug *p = aligned_alloc(CACHE_LINE, (sizeof(*p) + 63) / 64 * 64);
    memset(p, 0, sizeof(*p));
    p->station = p->seed = (unsigned)line_number(l, "station", 0);
    p->is_silent = line_has(l, "silent");
    p->refuses = line_has(l, "refuses");
    for (unsigned i = 0; i < FRAMES; i++) {
        p->frames[i].next = p->free;
        p->free = &p->frames[i];
    }
    p->port = (struct port){
        .type = &plug_port,
        .device = d,
        .name = d->name,
        .receivers = p->receivers,
        .n_receivers_max = 1,
        .stats = &p->stats,
    };
    d->priv = p;
    d->n_queues = 1;
    n_plugs++;
    int err = switch_attach(at, &p->port, e);
    if (err)
        free(p);
    return err;
}

static void plug_close(struct device *d)
{
    n_plugs--;
    free(d->priv);
}

static void plug_leave(struct device *d)
{
    switch_detach(d->priv);
}

static const struct line_key plug_keys[] = {
    {.name = "switch", .kind = LINE_TEXT, .required = true},
    {.name = "station", .kind = LINE_NUMBER},
    {.name = "silent", .kind = LINE_FLAG},
    {.name = "refuses", .kind = LINE_FLAG},
    {.name = NULL},
};

static const struct device_type plug_type = {
    .line = {.type = "plug", .keys = plug_keys},
    .queues_max = 1,
    .open = plug_open,
    .close = plug_close,
    .poll = plug_poll,
    .settle = plug_settle,
    .rest = plug_rest,
    .queue_start = plug_queue_start,
    .queue_stop = plug_queue_stop,
    .leave = plug_leave,
};

// ---- control -----------------------------------------------------------------------------

static struct control *control;
static struct topo *topo;

static unsigned two_cpus(int cpus[2])
{
    cpu_set_t set;
    unsigned n = 0;
    sched_getaffinity(0, sizeof(set), &set);
    for (int cpu = 0; cpu < CPU_SETSIZE && n < 2; cpu++) {
        if (CPU_ISSET(cpu, &set))
            cpus[n++] = cpu;
    }
    return n;
}

static void open_control(enum worker_poll poll)
{
    static const struct device_type *const types[] = {&switch_device, &plug_type};
    static cpu_set_t before;
    static bool is_known;
    struct error e;
    int cpus[2];
    if (!is_known)
        sched_getaffinity(0, sizeof(before), &before);
    is_known = true;
    sched_setaffinity(0, sizeof(before), &before); // control left the workers' cores
    struct control_config config = {
        .types = types,
        .n_types = 2,
        .cpus = cpus,
        .n_cpus = two_cpus(cpus),
        .poll = poll,
        .drain_ms = DEADLINE_MS,
    };
    check_ok(topo_open(&topo, NULL, &e), &e);
    config.topo = topo;
    check_ok(control_open(&control, &config, &e), &e);
    for (unsigned i = 0; i < STATIONS; i++)
        n_got[i] = 0;
}

static void end_control(void)
{
    control_stop(control);
    assert_int_equal(control_run(control), 0);
    control_close(control);
    topo_close(topo);
    assert_int_equal(n_plugs, 0);
    assert_null(switch_find("s"));
}

#define until(condition)                                                                           \
    do {                                                                                           \
        uint64_t start_ = loop_now_ms();                                                           \
        while (!(condition)) {                                                                     \
            loop_turn(control_loop(control), 5);                                                   \
            if (loop_now_ms() - start_ > DEADLINE_MS)                                              \
                fail_msg("never: %s", #condition);                                                 \
        }                                                                                          \
    } while (0)

static void add(const char *format, unsigned n)
{
    struct error e;
    char line[128];
    // NOLINTNEXTLINE(clang-diagnostic-format-nonliteral)
    snprintf(line, sizeof(line), format, n, n);
    check_ok(control_add(control, line, &e), &e);
}

static void add_plug(unsigned n)
{
    add("plug p%u switch=s station=%u", n);
}

static void count_down(void *context)
{
    --*(unsigned *)context;
}

static void begin_removal(const char *name, unsigned *n_left)
{
    struct error e;
    ++*n_left;
    check_ok(control_remove(control, name, count_down, n_left, &e), &e);
}

static void remove_plug(unsigned n)
{
    char name[8];
    unsigned n_left = 0;
    snprintf(name, sizeof(name), "p%u", n);
    begin_removal(name, &n_left);
    until(!n_left);
}

static void until_all_got(unsigned n_stations, uint64_t n_more)
{
    for (unsigned i = 0; i < n_stations; i++) {
        uint64_t before = n_got[i];
        until(n_got[i] >= before + n_more);
    }
}

// ---- the tests ---------------------------------------------------------------------------

static const enum worker_poll polls[] = {WORKER_BUSY, WORKER_ADAPTIVE, WORKER_INTERRUPT};

static void plugs_come_and_go_under_traffic(void **state)
{
    (void)state;
    for (unsigned k = 0; k < ARRAY_LEN(polls); k++) {
        open_control(polls[k]);
        add("switch s", 0);
        for (unsigned i = 0; i < STATIONS; i++)
            add_plug(i);
        until_all_got(STATIONS, 2000);
        for (unsigned round = 0; round < 2 * STATIONS; round++) {
            remove_plug(round % STATIONS);
            until_all_got(1 + (round % STATIONS == 0), 100 * (round % STATIONS != 0));
            add_plug(round % STATIONS);
            until_all_got(STATIONS, 200);
        }
        end_control(); // with everything there, the switch first
    }
}

static void a_switch_goes_after_its_ports(void **state)
{
    (void)state;
    struct error e;
    unsigned n_left = 0;
    open_control(WORKER_ADAPTIVE);
    assert_int_equal(control_add(control, "plug p switch=s", &e), -ENOENT);
    add("switch s", 0);
    add("switch t", 0);
    for (unsigned i = 0; i < 3; i++)
        add_plug(i);
    until_all_got(3, 100);
    assert_int_equal(control_remove(control, "s", NULL, NULL, &e), -EBUSY);
    assert_string_equal(e.text, "switch s: 3 ports use it: p0, p1, p2");
    // All of a sudden: what goes is still there until it has gone.
    for (unsigned i = 0; i < 3; i++)
        begin_removal(i == 0 ? "p0" : i == 1 ? "p1" : "p2", &n_left);
    begin_removal("t", &n_left);
    assert_int_equal(control_remove(control, "s", NULL, NULL, &e), -EBUSY);
    until(!n_left);
    begin_removal("s", &n_left);
    assert_int_equal(control_add(control, "switch s", &e), -EEXIST); // not gone yet
    until(!n_left);
    add("switch s", 0); // and again
    add_plug(0);
    add_plug(1);
    until_all_got(2, 100);
    end_control();
}

static void what_cannot_start_leaves_nothing(void **state)
{
    (void)state;
    struct error e;
    open_control(WORKER_BUSY);
    add("switch s", 0);
    add_plug(0);
    add_plug(1);
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(control_add(control, "plug p9 switch=s refuses", &e), -EIO);
        assert_string_equal(e.text, "plug p9: it refuses");
        until_all_got(2, 50);
    }
    until(n_plugs == 2);
    assert_int_equal(control_add(control, "plug p9 switch=s refuses", &e), -EIO);
    end_control(); // before that one is closed
}

// The plug that only listens is on a worker of its own, which sleeps in between.
static void a_sleeping_worker_is_woken(void **state)
{
    (void)state;
    for (unsigned k = 1; k < ARRAY_LEN(polls); k++) {
        open_control(polls[k]);
        add("switch s", 0);
        add("plug q%u switch=s station=%u silent", 1);
        for (unsigned round = 0; round < 20; round++) {
            const struct worker *w = pool_worker_at(control_pool(control), 0)->worker;
            struct worker_stats before, now;
            worker_read_stats(w, &before);
            do {
                loop_turn(control_loop(control), 1);
                worker_read_stats(w, &now);
            } while (now.n_sleeps == before.n_sleeps && now.n_turns != before.n_turns);
            uint64_t n_before = n_got[1];
            add_plug(0);
            until(n_got[1] > n_before + 100);
            remove_plug(0); // its frames came home
        }
        end_control();
    }
}

static void queues_move_under_traffic(void **state)
{
    (void)state;
    struct error e;
    open_control(WORKER_ADAPTIVE);
    if (pool_n_workers(control_pool(control)) < 2) {
        print_message("only one CPU: nowhere to move to\n");
        end_control();
        skip();
    }
    add("switch s", 0);
    for (unsigned i = 0; i < STATIONS; i++)
        add_plug(i);
    until_all_got(STATIONS, 100);
    for (unsigned round = 0; round < 60; round++) {
        char name[8];
        unsigned n_moved;
        snprintf(name, sizeof(name), "p%u", round % STATIONS);
        check_ok(control_move(control, name, -1, round / STATIONS % 2, &n_moved, &e), &e);
        loop_turn(control_loop(control), 2);
        if (round % 10 == 9)
            until_all_got(STATIONS, 100);
    }
    end_control();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plugs_come_and_go_under_traffic),
        cmocka_unit_test(a_switch_goes_after_its_ports),
        cmocka_unit_test(what_cannot_start_leaves_nothing),
        cmocka_unit_test(a_sleeping_worker_is_woken),
        cmocka_unit_test(queues_move_under_traffic),
    };
    return cmocka_run_group_tests_name("switch_life", tests, NULL, NULL);
}
