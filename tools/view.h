// SPDX-License-Identifier: Apache-2.0
// view.h - the daemon's answers as tables for people.
//
// Threads  one.
#pragma once

#include <jansson.h>

void view_list(const json_t *list);
void view_show(const json_t *device);
void view_move(const json_t *moved);
void view_resize(const json_t *resized);

// Counters since the start, or, with the answer before (@before not NULL), a second's rates.
void view_stats(const json_t *stats, const json_t *before);

// Of view_show(): what its type says of a device.
void view_details(const json_t *details);
