// SPDX-License-Identifier: Apache-2.0
#include "pollers/loop.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define BATCH_MAX 64 // events of one turn

LIST_HEAD(timer_list, loop_timer);

struct loop {
    int fd;
    bool is_stopped;
    struct timer_list timers;
    struct timer_list due; // of this turn
    int n_batch, next;     // events of this turn, and the next to be called
    struct epoll_event batch[BATCH_MAX];
};

uint64_t loop_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

int loop_open(struct loop **out)
{
    struct loop *l = calloc(1, sizeof(*l));
    if (!l)
        return -ENOMEM;
    l->fd = epoll_create1(EPOLL_CLOEXEC);
    if (l->fd < 0) {
        int err = -errno;
        free(l);
        return err;
    }
    *out = l;
    return 0;
}

void loop_close(struct loop *l)
{
    close(l->fd);
    free(l);
}

// What this turn still has to call must not reach a source that is gone.
static void forget_events(struct loop *l, const struct loop_source *s)
{
    for (int i = l->next; i < l->n_batch; i++) {
        if (l->batch[i].data.ptr == s)
            l->batch[i].data.ptr = NULL;
    }
}

void loop_unwatch(struct loop *l, struct loop_source *s)
{
    if (s->events == 0)
        return;
    epoll_ctl(l->fd, EPOLL_CTL_DEL, s->fd, NULL);
    s->events = 0;
    forget_events(l, s);
}

int loop_watch(struct loop *l, struct loop_source *s, int fd, uint32_t events)
{
    if (s->events == events && (events == 0 || s->fd == fd))
        return 0;
    if (events == 0 || (s->events && s->fd != fd))
        loop_unwatch(l, s);
    if (events == 0)
        return 0;
    struct epoll_event event = {.events = events, .data.ptr = s};
    if (epoll_ctl(l->fd, s->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) < 0) {
        int err = -errno;
        loop_unwatch(l, s);
        return err;
    }
    s->fd = fd;
    s->events = events;
    return 0;
}

void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t delay_ms)
{
    loop_timer_cancel(t);
    t->is_armed = true;
    t->due_ms = loop_now_ms() + delay_ms;
    LIST_INSERT_HEAD(&l->timers, t, link);
}

void loop_timer_cancel(struct loop_timer *t)
{
    if (!t->is_armed)
        return;
    t->is_armed = false;
    LIST_REMOVE(t, link);
}

// How long epoll may wait: until the first timer, at most @limit_ms.
static int wait_ms(const struct loop *l, int limit_ms)
{
    uint64_t now = loop_now_ms();
    uint64_t wait = limit_ms < 0 ? UINT64_MAX : (uint64_t)limit_ms;
    const struct loop_timer *t;
    LIST_FOREACH(t, &l->timers, link)
    {
        uint64_t left = t->due_ms > now ? t->due_ms - now : 0;
        if (left < wait)
            wait = left;
    }
    if (wait == UINT64_MAX)
        return -1;
    return wait > 60000 ? 60000 : (int)wait;
}

// A timer that is set again while the due ones run waits for the next turn.
static void run_timers(struct loop *l)
{
    uint64_t now = loop_now_ms();
    struct loop_timer *t, *next;
    for (t = LIST_FIRST(&l->timers); t; t = next) {
        next = LIST_NEXT(t, link);
        if (t->due_ms > now)
            continue;
        LIST_REMOVE(t, link);
        LIST_INSERT_HEAD(&l->due, t, link);
    }
    while ((t = LIST_FIRST(&l->due))) {
        loop_timer_cancel(t);
        t->due(t);
    }
}

void loop_turn(struct loop *l, int limit_ms)
{
    int n = epoll_wait(l->fd, l->batch, BATCH_MAX, wait_ms(l, limit_ms));
    l->n_batch = n < 0 ? 0 : n; // EINTR: a turn without events
    for (l->next = 0; l->next < l->n_batch;) {
        const struct epoll_event *event = &l->batch[l->next++];
        struct loop_source *s = event->data.ptr;
        if (s)
            s->ready(s, event->events);
    }
    run_timers(l);
}

void loop_run(struct loop *l)
{
    while (!l->is_stopped)
        loop_turn(l, -1);
}

void loop_stop(struct loop *l)
{
    l->is_stopped = true;
}
