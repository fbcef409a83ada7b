// SPDX-License-Identifier: Apache-2.0
// acceptor.h - a listening socket in the loop: says that somebody waits, takes them one by one.
//
// When the process has no descriptor left it rests a moment instead of spinning.
//
// Threads  [C] only.
// Memory   embedded in the caller's struct; it owns the socket and its file.
#pragma once

#include "dataplane/socket.h"
#include "pollers/loop.h"

#define ACCEPTOR_REST_MS 100

struct acceptor {
    struct unix_listener listener;
    struct loop *loop;
    struct loop_source source;
    struct loop_timer rest;
    void (*waiting)(struct acceptor *a); // take the connection, or pause
};

// [C] Listen, and call waiting() when somebody connects. 0 or -errno with the sentence.
int acceptor_open(struct acceptor *a, struct loop *l, const char *path, mode_t mode,
                  void (*waiting)(struct acceptor *a), struct error *e);

// [C] Does nothing when it is not open.
void acceptor_close(struct acceptor *a);

// [C] Leave those who connect waiting; and go on. A closed one stays closed.
void acceptor_pause(struct acceptor *a);
void acceptor_resume(struct acceptor *a);

// [C] The connection that waits, or -errno.
int acceptor_take(struct acceptor *a);
