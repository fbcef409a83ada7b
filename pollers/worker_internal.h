// SPDX-License-Identifier: Apache-2.0
// worker_internal.h - a worker, as its two halves see it: control's calls, and the thread.
//
// Private to worker.c and worker_turn.c.
#pragma once

#include "pollers/mailbox.h"
#include "pollers/roster.h"
#include "pollers/worker.h"

#include <pthread.h>
#include <semaphore.h>

enum message_kind {
    MESSAGE_ATTACH = WORKER_ATTACHED,  // subject: queue; argument: its seat
    MESSAGE_RELEASE = WORKER_RELEASED, // subject: queue; argument: its trail, then its seat
    MESSAGE_DETACH = WORKER_DETACHED,  // subject: queue; the answer's argument: its seat
    MESSAGE_CALL = WORKER_CALLED,      // subject: queue; argument: struct call
    MESSAGE_PASS = WORKER_PASSED,      // argument: the asker's own
    // Of no concern to who asks a worker.
    MESSAGE_GROW = WORKER_EVENTS, // argument: a larger array; the answer's: the one before
    MESSAGE_STOP,
    MESSAGE_VISIT, // argument: struct worker_visit; answered as MESSAGE_PASS
};

struct call {
    void (*fn)(struct queue *q, void *argument);
    void *argument;
};

struct worker {
    // The worker's own.
    struct roster roster;
    bool was_busy; // the turn before
    bool is_stopping;
    struct event wake; // READ of the lane's bell
    counter n_turns, n_busy_turns, busy_cycles, n_sleeps;

    struct mailbox mailbox;

    // Control's.
    struct worker_config config;
    pthread_t thread;
    unsigned n_seats; // attached, and not heard that they left
    unsigned room;    // in polled, as far as asked for
    sem_t has_started;
    int start_result;
};

// The thread's function; its argument is the worker.
void *worker_run(void *argument);
