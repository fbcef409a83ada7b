// SPDX-License-Identifier: Apache-2.0
// crew.h - a device that answers at once or only when told, its queues, and their drivers.
//
// The device pushes every chain it pops, or (slow) keeps it until crew_release(), which it hears
// of through its worker's io_uring. Drivers are the bench's.
//
// Threads  the test's, which is control and all drivers; the device runs on the workers.
#pragma once

#include "bench/driver.h"
#include "pollers/worker.h"
#include "tests/check.h"

#define CREW_SIZE        64 // descriptors of a queue
#define CREW_QUEUES_MAX  256
#define CREW_DEADLINE_MS 60000 // nothing takes that long: it is lost

// A chain that the device keeps until the gate lets it go: one READ each.
struct crew_held {
    struct uring_op op;
    struct chain *chain;
    struct crew_queue *of;
    uint64_t value;
};

struct crew_queue {
    struct queue *q;
    struct driver *driver;
    struct driver_segment segment[CREW_SIZE];
    struct driver_chain chain[CREW_SIZE];
    struct driver_chain *free[CREW_SIZE];
    unsigned n_free;

    // The device's, on the worker.
    bool is_slow;
    struct crew_held held[CREW_SIZE]; // by chain id
    atomic_uint n_held;
    int gate_fd; // lets one go for each that is written
    bool hoards; // keeps chains until settle()
    struct chain *hoard[CREW_SIZE];
    unsigned n_hoarded;
    atomic_uint n_lost; // a completion on a lane that does not have the queue
    atomic_bool
        sneaks; // once, between an empty pop and the parking, its driver makes a chain available
    uint64_t turn_seen; // lane's now at the last poll
    _Atomic uint64_t n_polls, n_popped, n_repolls;
    atomic_uint most_popped; // in one poll
    atomic_uint n_enters, n_leaves;
    atomic_int enter_result; // of the next lane_enter
    _Atomic enum queue_rest rest;
    atomic_uint
        n_settles; // more calls of settle() before it is true; the last gives the hoard back
};

struct crew {
    struct guest *guest;
    struct mem *mem;
    struct device device;
    unsigned n_queues;
    struct crew_queue *queues;
};

// Started rings, attached nowhere.
void crew_open(struct crew *crew, unsigned n_queues, uint64_t features);
void crew_close(struct crew *crew);

struct worker *crew_worker(unsigned index, enum worker_poll poll);
void crew_dismiss(struct worker *w);

void crew_await_parked(const struct worker *w, unsigned n);
struct worker_stats crew_stats(const struct worker *w);

// Every poll mode, every kind of ring.
#define CREW_MODES   3
#define CREW_LAYOUTS 4
extern const enum worker_poll crew_modes[CREW_MODES];
extern const uint64_t crew_layouts[CREW_LAYOUTS];
#define CREW_PACKED VIRTIO_BIT(VIRTIO_F_RING_PACKED)

void crew_do_nothing(struct queue *q, void *argument);
// Turns that a worker makes while it answers @n messages.
uint64_t crew_turns_during_calls(struct worker *w, struct queue *q, unsigned n);

// Ask, and wait for the answer.
void crew_attach(struct crew *crew, struct worker *w, unsigned i);
void crew_detach(struct crew *crew, struct worker *w, unsigned i);
void crew_call(struct worker *w, struct queue *q, void (*fn)(struct queue *q, void *argument),
               void *argument);
struct queue *crew_answer(struct worker *w);
bool crew_has_answered(struct worker *w); // takes the answer

// Driver: make up to @n chains available, kick if asked to. Returns how many found room.
unsigned crew_offer(struct crew_queue *s, unsigned n);
// Driver: collect what was used, without waiting.
unsigned crew_collect(struct crew_queue *s);
// Driver: poll until @n came back.
void crew_await(struct crew_queue *s, unsigned n);
// Driver: wait for interrupts until @n came back.
void crew_await_interrupt(struct crew_queue *s, unsigned n);
// Let the slow device finish what it holds, or @n of that.
void crew_release(struct crew_queue *s);
void crew_release_some(struct crew_queue *s, unsigned n);

// Fails the test if the condition does not come true.
#define crew_until(condition)                                                                      \
    do {                                                                                           \
        uint64_t crew_start_ = crew_now_ms();                                                      \
        while (!(condition)) {                                                                     \
            if (crew_now_ms() - crew_start_ > CREW_DEADLINE_MS)                                    \
                fail_msg("never: %s", #condition);                                                 \
            sched_yield();                                                                         \
        }                                                                                          \
    } while (0)
uint64_t crew_now_ms(void);
