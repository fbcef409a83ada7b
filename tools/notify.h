// SPDX-License-Identifier: Apache-2.0
// notify.h - what a service manager is told, and what it keeps for us while we are dead.
//
// The protocols are those of sd_notify(3), FDSTORE, and sd_listen_fds(3), without their library.
//
// Threads  [C].
// Memory   the manager has descriptors of its own; ours stay the caller's.
// Trust    the manager starts us: it is an operator.
#pragma once

#include <stdbool.h>

// Whether there is one to talk to ($NOTIFY_SOCKET).
bool notify_has_manager(void);

// Send @state ("READY=1"). Without a manager nothing happens; 0 or -errno.
int notify_manager(const char *state);

// Let the manager keep @fd as @name until it is told to forget it, or the service is stopped. Never
// waits: -EAGAIN if it does not read.
int notify_store(const char *name, int fd);
int notify_forget(const char *name);

// Hand over what the manager kept, once; each is take()'s then, and stays with the manager too.
void notify_take_kept(void (*take)(void *context, const char *name, int fd), void *context);
