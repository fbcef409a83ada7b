// SPDX-License-Identifier: Apache-2.0
#include "tests/crew.h"

#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

uint64_t crew_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

#define EVENT_IDX VIRTIO_BIT(VIRTIO_F_EVENT_IDX)

const enum worker_poll crew_modes[] = {WORKER_BUSY, WORKER_ADAPTIVE, WORKER_INTERRUPT};
const uint64_t crew_layouts[] = {0, EVENT_IDX, CREW_PACKED, CREW_PACKED | EVENT_IDX};

// ---- the device --------------------------------------------------------------------------

static __thread const struct lane *lane_here; // of the worker that runs

static void gate_opened(struct uring_op *op, int result)
{
    struct crew_held *h = container_of(op, struct crew_held, op);
    struct crew_queue *s = h->of;
    assert(result == sizeof(h->value));
    s->n_lost += s->q->lane == NULL || lane_here != s->q->lane;
    s->n_held--;
    queue_push(s->q, h->chain, 8);
}

static void hold(struct crew_queue *s, struct chain *c)
{
    struct crew_held *h = &s->held[c->id];
    *h = (struct crew_held){.op = {.done = gate_opened, .home = &s->q->uring}, .chain = c, .of = s};
    s->n_held++;
    io_uring_prep_read(uring_entry(&s->q->lane->uring, &h->op), s->gate_fd, &h->value,
                       sizeof(h->value), 0);
}

// The driver is at work elsewhere at any moment; here it is, at the worst one.
static void sneak(struct crew_queue *s)
{
    s->n_free -= driver_add(s->driver, &s->free[s->n_free - 1], 1);
    bool wants_kick = driver_publish(s->driver);
    assert(!wants_kick && "a polled ring asks for no kicks");
    s->sneaks = false;
}

static unsigned device_poll(struct queue *q, unsigned budget)
{
    struct crew_queue *s = q->priv;
    struct chain *chains[RING_BATCH_MAX];
    unsigned n = ring_pop(&q->ring, chains, budget);
    s->n_polls++;
    s->n_popped += n;
    s->n_repolls += s->turn_seen == q->lane->now;
    s->turn_seen = q->lane->now;
    if (n > s->most_popped)
        s->most_popped = n;
    for (unsigned i = 0; i < n; i++) {
        if (s->hoards)
            s->hoard[s->n_hoarded++] = chains[i];
        else if (s->is_slow)
            hold(s, chains[i]);
        else
            queue_push(q, chains[i], 8);
    }
    if (n == 0 && s->sneaks)
        sneak(s);
    return n;
}

static int lane_enter(struct queue *q)
{
    struct crew_queue *s = q->priv;
    lane_here = q->lane;
    int result = s->enter_result;
    if (result == 0)
        s->n_enters++;
    return result;
}

static void lane_leave(struct queue *q)
{
    struct crew_queue *s = q->priv;
    s->n_leaves++;
}

static enum queue_rest device_rest(struct queue *q)
{
    return ((struct crew_queue *)q->priv)->rest;
}

static bool settle(struct queue *q)
{
    struct crew_queue *s = q->priv;
    if (s->n_settles == 0)
        return true;
    if (--s->n_settles)
        return false;
    while (s->n_hoarded)
        queue_push(q, s->hoard[--s->n_hoarded], 8);
    queue_rouse(q); // too late, and harmless
    return true;
}

static const struct device_type device_type = {
    .line.type = "crew",
    .queues_max = CREW_QUEUES_MAX,
    .poll = device_poll,
    .lane_enter = lane_enter,
    .lane_leave = lane_leave,
    .rest = device_rest,
    .settle = settle,
};

// ---- its queues --------------------------------------------------------------------------

static void open_mem(struct crew *crew)
{
    const struct guest_region *r = &crew->guest->regions[0];
    struct mem_desc desc = {
        .guest_addr = r->guest_addr,
        .size = r->bytes,
        .user_addr = r->user_addr,
        .mmap_offset = r->file_offset,
    };
    struct error e;
    check_ok(mem_set(&crew->mem, NULL, &desc, &r->fd, 1, &e), &e);
}

static void start_ring(struct crew *crew, struct crew_queue *s, uint64_t features)
{
    struct driver_areas areas;
    driver_describe(s->driver, &areas);
    struct ring_config config = {
        .features = features,
        .size = CREW_SIZE,
        .base = driver_base(s->driver),
        .desc_addr = guest_user_addr(crew->guest, areas.desc),
        .driver_addr = guest_user_addr(crew->guest, areas.driver),
        .device_addr = guest_user_addr(crew->guest, areas.device),
    };
    struct error e;
    check_ok(ring_start(&s->q->ring, &config, crew->mem, NULL, &s->q->stats, &e), &e);
}

static void open_chains(struct crew *crew, struct crew_queue *s)
{
    for (unsigned i = 0; i < CREW_SIZE; i++) {
        void *buffer = guest_alloc(crew->guest, 8, 8);
        assert_non_null(buffer);
        s->segment[i] = (struct driver_segment){guest_addr(crew->guest, buffer), 8};
        s->chain[i] = (struct driver_chain){
            .segments = &s->segment[i], .n_in = 1, .n_direct = 1, .in_bytes = 8};
        s->free[s->n_free++] = &s->chain[i];
    }
}

static void open_queue(struct crew *crew, unsigned i, uint64_t features)
{
    struct crew_queue *s = &crew->queues[i];
    struct error e;
    struct driver_config config = {.features = features, .size = CREW_SIZE};
    check_ok(driver_open(&s->driver, crew->guest, &config, &e), &e);
    open_chains(crew, s);
    s->q = &crew->device.queues[i];
    *s->q = (struct queue){
        .device = &crew->device,
        .index = (uint16_t)i,
        .priv = s,
        .kick_fd = eventfd(0, EFD_NONBLOCK),
        .call_fd = eventfd(0, EFD_NONBLOCK),
    };
    s->gate_fd = eventfd(0, EFD_NONBLOCK | EFD_SEMAPHORE);
    start_ring(crew, s, features);
}

void crew_open(struct crew *crew, unsigned n_queues, uint64_t features)
{
    features |= VIRTIO_BIT(VIRTIO_F_VERSION_1);
    struct guest_layout layout = {
        .n_regions = 1, .region_bytes = (n_queues + 1) << 14, .first_addr = 0x100000};
    struct error e;
    *crew = (struct crew){.n_queues = n_queues, .device.type = &device_type};
    check_ok(guest_open(&crew->guest, &layout, &e), &e);
    open_mem(crew);
    crew->device.queues = calloc(n_queues, sizeof(struct queue));
    crew->queues = calloc(n_queues, sizeof(struct crew_queue));
    assert_true(crew->device.queues && crew->queues);
    for (unsigned i = 0; i < n_queues; i++)
        open_queue(crew, i, features);
}

void crew_close(struct crew *crew)
{
    for (unsigned i = 0; i < crew->n_queues; i++) {
        struct crew_queue *s = &crew->queues[i];
        assert_null(s->q->lane);
        assert_null(s->q->seat);
        assert_int_equal(s->n_enters, s->n_leaves);
        assert_int_equal(s->n_held, 0);
        assert_int_equal(s->n_lost, 0);
        ring_stop(&s->q->ring);
        driver_close(s->driver);
        close(s->gate_fd);
        if (s->q->kick_fd >= 0)
            close(s->q->kick_fd);
        if (s->q->call_fd >= 0)
            close(s->q->call_fd);
    }
    free(crew->queues);
    free(crew->device.queues);
    mem_free(crew->mem);
    guest_close(crew->guest);
}

// ---- control -----------------------------------------------------------------------------

// The @index-th CPU from the end, as far as there are so many.
struct worker *crew_worker(unsigned index, enum worker_poll poll)
{
    cpu_set_t set;
    sched_getaffinity(0, sizeof(set), &set);
    int cpu = -1;
    unsigned left = index;
    for (int i = CPU_SETSIZE - 1; i >= 0; i--) {
        if (!CPU_ISSET(i, &set))
            continue;
        cpu = i;
        if (left-- == 0)
            break;
    }
    struct worker *w;
    struct error e;
    struct worker_config config = {.cpu = cpu, .index = index, .poll = poll};
    check_ok(worker_start(&w, &config, &e), &e);
    return w;
}

void crew_dismiss(struct worker *w)
{
    worker_end(w);
    worker_free(w);
}

bool crew_has_answered(struct worker *w)
{
    struct worker_answer answer;
    return worker_receive(w, &answer);
}

struct queue *crew_answer(struct worker *w)
{
    struct worker_answer answer;
    while (!worker_receive(w, &answer)) {
        struct pollfd pfd = {.fd = worker_event_fd(w), .events = POLLIN};
        if (poll(&pfd, 1, CREW_DEADLINE_MS) != 1)
            fail_msg("a worker never answered");
    }
    return answer.queue;
}

void crew_attach(struct crew *crew, struct worker *w, unsigned i)
{
    worker_attach(w, crew->queues[i].q);
    assert_ptr_equal(crew_answer(w), crew->queues[i].q);
}

void crew_detach(struct crew *crew, struct worker *w, unsigned i)
{
    worker_detach(w, crew->queues[i].q);
    assert_ptr_equal(crew_answer(w), crew->queues[i].q);
}

void crew_call(struct worker *w, struct queue *q, void (*fn)(struct queue *q, void *argument),
               void *argument)
{
    worker_call(w, q, fn, argument);
    assert_ptr_equal(crew_answer(w), q);
}

struct worker_stats crew_stats(const struct worker *w)
{
    struct worker_stats stats;
    worker_read_stats(w, &stats);
    return stats;
}

void crew_await_parked(const struct worker *w, unsigned n)
{
    crew_until(crew_stats(w).n_parked == n);
}

void crew_do_nothing(struct queue *q, void *argument)
{
    (void)q, (void)argument;
}

uint64_t crew_turns_during_calls(struct worker *w, struct queue *q, unsigned n)
{
    uint64_t before = crew_stats(w).n_turns;
    while (n--)
        crew_call(w, q, crew_do_nothing, NULL);
    return crew_stats(w).n_turns - before;
}

// ---- drivers -----------------------------------------------------------------------------

unsigned crew_offer(struct crew_queue *s, unsigned n)
{
    n = MIN(n, s->n_free);
    n = driver_add(s->driver, &s->free[s->n_free - n], n);
    s->n_free -= n;
    if (driver_publish(s->driver) && s->q->kick_fd >= 0)
        eventfd_write(s->q->kick_fd, 1);
    return n;
}

unsigned crew_collect(struct crew_queue *s)
{
    struct driver_used used[CREW_SIZE];
    struct error e;
    int n = driver_poll(s->driver, used, CREW_SIZE, &e);
    if (n < 0)
        fail_msg("%s", e.text);
    for (int i = 0; i < n; i++) {
        assert_int_equal(used[i].len, 8);
        s->free[s->n_free++] = used[i].chain;
    }
    return (unsigned)n;
}

// Collect; what is left of @n.
static unsigned collect_of(struct crew_queue *s, unsigned n)
{
    unsigned came = crew_collect(s);
    return n - MIN(n, came);
}

void crew_await(struct crew_queue *s, unsigned n)
{
    crew_until((n = collect_of(s, n)) == 0);
}

void crew_await_interrupt(struct crew_queue *s, unsigned n)
{
    for (;;) {
        n = collect_of(s, n);
        if (n == 0)
            break;
        if (!driver_arm(s->driver))
            continue;
        struct pollfd pfd = {.fd = s->q->call_fd, .events = POLLIN};
        if (poll(&pfd, 1, CREW_DEADLINE_MS) != 1)
            fail_msg("a lost kick or interrupt");
        eventfd_t value;
        eventfd_read(s->q->call_fd, &value);
    }
    driver_disarm(s->driver);
}

void crew_release(struct crew_queue *s)
{
    crew_release_some(s, s->n_held);
}

void crew_release_some(struct crew_queue *s, unsigned n)
{
    if (n)
        eventfd_write(s->gate_fd, n);
}
