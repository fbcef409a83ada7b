// SPDX-License-Identifier: Apache-2.0
// control_rig.h - control with real sessions and workers, and a device that keeps its requests
// until the test lets them go.
//
// Threads  control runs on a thread of its own; the test is the front end and the client of its
//          socket.
#pragma once

#include "bench/guest_disk.h"
#include "pollers/control.h"
#include "tests/check.h"

#include <jansson.h>
#include <sched.h>

#define RIG_DEADLINE_MS 60000
#define RIG_QUEUES      2

extern unsigned rig_n_workers; // 2, or 1 where there is no other CPU
extern unsigned rig_drain_ms;  // to be set before rig_run()
extern atomic_uint rig_n_open; // devices

// For each test.
int rig_setup(void **state);
int rig_teardown(void **state);

void rig_run(void);
int rig_join(void); // after a signal: what control_run() returned

// Let what one queue holds go.
void rig_open_gate(void);

// A path in the test's folder.
const char *rig_path_of(const char *name);

// Send a request; the connection, whose answer may be waited for.
int rig_ask(const char *method, const char *params);
bool rig_is_answered(int fd);
json_t *rig_answer(int fd);
// The result; fails if it is refused.
json_t *rig_call(const char *method, const char *params);

// A device, whose socket has its name.
void rig_add(const char *name);
// The member @what of device @name in `show`, as text; "gone" without the device.
const char *rig_show(const char *name, const char *what);
// A number of a queue, -1: null. Its state, "none" without the queue.
long long rig_of_queue(const char *name, unsigned index, const char *what);
const char *rig_queue_state(const char *name, unsigned index);

struct guest_disk *rig_connect_queues(const char *name, unsigned n_queues);
struct guest_disk *rig_connect_disk(const char *name);
// One request, kept by the device; on queue 0.
void rig_submit(struct guest_disk *d, struct guest_request *r);
struct guest_disk *rig_connect_busy(const char *name, struct guest_request *r);
void rig_leave(struct guest_disk *d, struct guest_request *r);

#define rig_until(condition)                                                                       \
    do {                                                                                           \
        uint64_t start_ = loop_now_ms();                                                           \
        while (!(condition)) {                                                                     \
            if (loop_now_ms() - start_ > RIG_DEADLINE_MS)                                          \
                fail_msg("never: %s", #condition);                                                 \
            sched_yield();                                                                         \
        }                                                                                          \
    } while (0)
