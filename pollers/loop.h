// SPDX-License-Identifier: Apache-2.0
// loop.h - the control thread's event loop: descriptors and timers.
//
// A turn waits for descriptors (epoll, level-triggered), calls those that are ready, then the
// timers that are due. A timer of 0 ms is work put off to this turn's end. Callbacks may remove any
// source or timer, their own too, and free what it is embedded in.
//
// Threads  [C] only.
// Memory   sources and timers are embedded in the caller's structs; zeroed, they are idle.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct loop;

struct loop_source {
    void (*ready)(struct loop_source *s, uint32_t events);
    int fd;          // [loop]
    uint32_t events; // [loop] 0: not watched
};

struct loop_timer {
    void (*due)(struct loop_timer *t);
    bool is_armed; // [loop]
    uint64_t due_ms;
    LIST_ENTRY(loop_timer) link;
};

// [C] 0 or -errno.
int loop_open(struct loop **out);
void loop_close(struct loop *l);

// [C] Watch @fd for @events (EPOLLIN | EPOLLOUT …); 0 stops watching, also for hang-ups, and must
// come before the close. 0 or -errno (the source is then not watched).
int loop_watch(struct loop *l, struct loop_source *s, int fd, uint32_t events);
void loop_unwatch(struct loop *l, struct loop_source *s);

// [C] Call t->due() once, @delay_ms from now; an armed timer is set anew.
void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t delay_ms);
void loop_timer_cancel(struct loop_timer *t);

// [C] One turn; waits at most @limit_ms for something to happen (-1: no limit).
void loop_turn(struct loop *l, int limit_ms);

// [C] Turns until loop_stop().
void loop_run(struct loop *l);
void loop_stop(struct loop *l);

// [C] Milliseconds of CLOCK_MONOTONIC.
uint64_t loop_now_ms(void);
