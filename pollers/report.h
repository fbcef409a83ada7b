// SPDX-License-Identifier: Apache-2.0
// report.h - what `list`, `show` and `stats` answer, as JSON.
//
// The names of members are an interface: scripts read them. Counters are raw and only grow;
// who wants rates asks twice. Each returns a new object, or NULL when out of memory.
//
// Threads  [C] only; counters of workers are read while they run.
#pragma once

#include "pollers/control.h"

#include <jansson.h>

// [C] {"devices": […]}, one a device.
json_t *report_list(const struct control *c);

// [C] One device: its line, what was negotiated, the queues that are or were in use.
json_t *report_show(const struct endpoint *p);

// [C] What its type says of a device (device_type.tell) and of a queue (.tell_queue).
json_t *report_tell(const struct device *d);
json_t *report_tell_queue(const struct queue *q);

// [C] {"time_ms": now, "workers": […], "queues": […]}, the queues as above.
json_t *report_stats(const struct control *c);
