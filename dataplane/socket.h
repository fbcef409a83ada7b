// SPDX-License-Identifier: Apache-2.0
// socket.h - Unix stream sockets by path: listen, accept, connect, who is there.
//
// A listener replaces the socket file that a dead process left behind, and refuses one that
// somebody still listens on. It knows nothing of what is said over the sockets. All of them
// are non-blocking and close-on-exec.
//
// Threads  [C]; also the command-line programs.
// Memory   the caller owns the struct and its descriptor.
// Trust    paths are an operator's; a listener removes only a file that it made.
#pragma once

#include "dataplane/error.h"

#include <sys/types.h>

#define UNIX_PATH_BYTES 107 // what fits into sockaddr_un beside its end

struct unix_listener {
    int fd; // -1: not listening
    char path[UNIX_PATH_BYTES + 1];
    dev_t device; // of the file we made, to know it again
    ino_t inode;
};

// [C] Listen on @path; the file's permissions are exactly @mode, never wider. 0, or -EADDRINUSE
// when a live process listens there, -ENAMETOOLONG, -EEXIST (not a socket) or another -errno,
// with the sentence.
int unix_listen(struct unix_listener *l, const char *path, mode_t mode, struct error *e);

// [C] Remove the file if it is still ours, and close. Does nothing when not listening.
void unix_unlisten(struct unix_listener *l);

// [C] The next waiting connection, or -errno (-EAGAIN: there is none).
int unix_accept(const struct unix_listener *l);

// [C] Connect; never waits (-EAGAIN: the other side's queue is full, try later). Returns the
// descriptor, or -errno with the sentence.
int unix_connect(const char *path, struct error *e);

// [C] The process at the other end when it connected or listened; 0 if the kernel will not say.
pid_t unix_peer_pid(int fd);
