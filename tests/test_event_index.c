// SPDX-License-Identifier: Apache-2.0
// Notifications by event index, the driver and the device in two threads that both sleep
// whenever they may: whoever is asked to wake the other does so, or somebody sleeps for ever.
#include "tests/check.h"
#include "tests/crew.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#define PACKED    VIRTIO_BIT(VIRTIO_F_RING_PACKED)
#define EVENT_IDX VIRTIO_BIT(VIRTIO_F_EVENT_IDX)

static const uint64_t layouts[] = {EVENT_IDX, EVENT_IDX | PACKED};

// An eventfd without the system call: what was signalled since it was last cleared.
struct peer_bell {
    atomic_bool rings;
};

struct pair {
    struct crew crew;
    struct peer_bell kick, call;
    atomic_bool stop;
    _Atomic uint64_t n_parks; // the device's sleeps
};

// False: nobody rang.
static bool peer_wait(struct peer_bell *b, const atomic_bool *stop)
{
    uint64_t end_ms = 0;
    for (unsigned i = 1; !b->rings && !(stop && *stop); i++) {
        if (i % 64)
            cpu_relax();
        else
            sched_yield();
        if (i % 65536)
            continue;
        uint64_t now_ms = crew_now_ms();
        if (end_ms && now_ms > end_ms)
            return false;
        end_ms = end_ms ? end_ms : now_ms + CREW_DEADLINE_MS;
    }
    return true;
}

static unsigned serve(struct ring *r, struct peer_bell *call)
{
    struct chain *c[RING_BATCH_MAX];
    unsigned n = ring_pop(r, c, RING_BATCH_MAX);
    for (unsigned i = 0; i < n; i++)
        ring_push(r, c[i], 8);
    if (ring_publish(r))
        call->rings = true;
    return n;
}

static void *device(void *argument)
{
    struct pair *p = argument;
    struct ring *r = &p->crew.queues[0].q->ring;
    while (!p->stop) {
        if (serve(r, &p->call))
            continue;
        p->kick.rings =
            false; // before the last look: a kick for what was served counts for nothing
        if (!ring_park(r))
            continue;
        p->n_parks++;
        if (!peer_wait(&p->kick, &p->stop))
            break; // the driver finds out
        ring_unpark(r);
    }
    return NULL;
}

static unsigned offer(struct pair *p, unsigned n)
{
    struct crew_queue *s = &p->crew.queues[0];
    n = MIN(n, s->n_free);
    n = driver_add(s->driver, &s->free[s->n_free - n], n);
    s->n_free -= n;
    if (driver_publish(s->driver))
        p->kick.rings = true;
    return n;
}

// Sleep until something was used. Returns the number of sleeps.
static unsigned await_call(struct pair *p)
{
    struct crew_queue *s = &p->crew.queues[0];
    p->call.rings = false;
    if (!driver_arm(s->driver))
        return 0;
    if (!peer_wait(&p->call, NULL))
        fail_msg("a lost kick or interrupt: %u chains in flight", driver_n_in_flight(s->driver));
    driver_disarm(s->driver);
    return 1;
}

static void exchange(uint64_t features, uint64_t n_transitions)
{
    struct pair p = {.stop = false};
    crew_open(&p.crew, 1, features);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, device, &p), 0);
    unsigned seed = 9, out = 0;
    for (uint64_t n_calls = 0; n_calls + p.n_parks < n_transitions;) {
        out += offer(&p, 1 + (unsigned)rand_r(&seed) % 3);
        for (int pause = rand_r(&seed) % 64; pause; pause--)
            cpu_relax();
        // One by one, by interrupt; now and then what comes in between is only polled.
        while (out) {
            unsigned came = crew_collect(&p.crew.queues[0]);
            out -= came;
            if (out && !came && rand_r(&seed) % 8)
                n_calls += await_call(&p);
            if (out < CREW_SIZE / 2 && rand_r(&seed) % 4 == 0)
                break;
        }
    }
    while (out) {
        out -= crew_collect(&p.crew.queues[0]);
        if (out)
            await_call(&p);
    }
    p.stop = true;
    pthread_join(thread, NULL);
    crew_close(&p.crew);
}

static void test_no_notification_is_lost(void **state)
{
    (void)state;
    for (unsigned l = 0; l < ARRAY_LEN(layouts); l++)
        exchange(layouts[l], getenv("SLUICE_LONG") ? 10000000 : 100000); // tools/check --long
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_notification_is_lost)};
    return cmocka_run_group_tests_name("event_index", tests, NULL, NULL);
}
