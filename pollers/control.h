// SPDX-License-Identifier: Apache-2.0
// control.h - the one control thread: owns devices, sessions and workers, and ends them.
//
// It runs the loop, adds and removes endpoints, checks sessions now and then, and on SIGTERM or
// SIGINT drains everything before it returns. It knows no JSON and no command line.
//
// Threads  [C] all calls, on the thread that opened it.
// Memory   control owns all that it opened; the caller owns the tables in control_config.
// Trust    lines are an operator's: mistakes are refused with a sentence and change nothing.
#pragma once

#include "pollers/endpoint.h"

#define CONTROL_CHECK_MS 100   // between two looks at the sessions
#define CONTROL_DRAIN_MS 10000 // what sluiced gives queues to drain after SIGTERM

struct control;

struct control_config {
    const struct device_type *const *types;
    unsigned n_types;
    const struct topo *topo;
    const int *cpus; // one worker on each
    unsigned n_cpus;
    enum worker_poll poll;
    unsigned drain_ms;   // after SIGTERM: queues not drained by then are given up
    struct state *state; // borrowed; NULL: nothing outlives this process
};

// [C] Block SIGTERM and SIGINT, ignore SIGPIPE, raise the limit of open files, start the
// workers. 0, or -errno with the sentence.
int control_open(struct control **out, const struct control_config *config, struct error *e);

// [C] No endpoint may be left.
void control_close(struct control *c);

// [C] Add the device of a line; when it returns 0 its socket listens. Else -errno, the sentence,
// and nothing changed.
int control_add(struct control *c, const char *text, struct error *e);

// [C] All devices are added that were there before: forget what is kept of others.
void control_forget_others(struct control *c);

// [C] Begin to remove a device; done() is called, also from inside, when it is gone. 0, or
// -ENOENT or -EBUSY with the sentence.
int control_remove(struct control *c, const char *name, void (*done)(void *context), void *context,
                   struct error *e);

// [C] Let the device grow to *@bytes, or (0) measure it again; its front end is told. 0 with the
// size in *@bytes, or -errno with the sentence and nothing changed.
int control_resize(struct control *c, const char *name, uint64_t *bytes, struct error *e);

// [C] Have @worker (by index) serve queue @queue of a device from now on, at once; -1: all of them,
// also those that start later. 0 and how many it was, or -errno with the sentence.
int control_move(struct control *c, const char *name, int queue, unsigned worker, unsigned *n_moved,
                 struct error *e);

// [C] Run until control_stop() or a signal, then until all is drained. 0; -ETIMEDOUT if some
// queue did not drain, or -EINTR after a second signal: then no worker may be stopped.
int control_run(struct control *c);

// [C] Begin to end: what SIGTERM does.
void control_stop(struct control *c);

// [C] For reports and for who serves control's methods.
struct loop *control_loop(struct control *c);
const struct pool *control_pool(const struct control *c);
struct endpoint *control_find(const struct control *c, const char *name);

// [C] Endpoints in the order they were added: the first after @p, or the first for NULL.
const struct endpoint *control_next(const struct control *c, const struct endpoint *p);
