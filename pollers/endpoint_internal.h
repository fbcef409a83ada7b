// SPDX-License-Identifier: Apache-2.0
// endpoint_internal.h - what the two halves of an endpoint ask of each other.
//
// Private to endpoint.c (its socket and session) and endpoint_life.c (its beginning and end).
#pragma once

#include "pollers/endpoint.h"

static inline bool endpoint_has_socket(const struct endpoint *p)
{
    return p->path != NULL;
}

// ---- endpoint.c --------------------------------------------------------------------------

// Arm what may happen next. The endpoint may be freed when this returns.
void endpoint_settle(struct endpoint *p);

// Listen, or begin to connect. 0 or -errno with the sentence.
int endpoint_listen(struct endpoint *p, struct error *e);

// Callbacks of its source and its timer.
void endpoint_session_ready(struct loop_source *s, uint32_t events);
void endpoint_connect_again(struct loop_timer *t);

// ---- endpoint_life.c ---------------------------------------------------------------------

// The next step out, if what it waits for is done. The endpoint may be freed when this returns.
void endpoint_go_on_leaving(struct endpoint *p);

// device_type.queue_stop of a queue that no session started.
void endpoint_stop_queue(struct queue *q);
