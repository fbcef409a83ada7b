// SPDX-License-Identifier: Apache-2.0
// guard.h - survive a peer that truncates the memory it shared with us.
//
// Touching a page past the end of a truncated file raises SIGBUS. The handler finds
// the mapping by address, maps zero pages over the whole of it, marks its owner
// failed and returns; whoever was reading reads zeros. An address that is in no
// guarded mapping is our own bug: the default action is restored and the process dies.
//
// Threads  [C] adds and removes; the handler runs in whichever thread touched the page. No
//          thread may block SIGBUS: the kernel kills the process then.
// Memory   the @failed flag belongs to the caller and must outlive the guard.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#define GUARD_MAX 16384 // mappings guarded at once, in the whole process

// [C] Install the SIGBUS handler; again after someone else (cmocka, at each test) took the signal.
// 0 or -errno.
int guard_install(void);

// [C] An eventfd that becomes readable each time the handler failed a mapping; -1 before
// guard_install().
int guard_event_fd(void);

// [C] Guard @bytes at @start. Returns a slot for guard_remove(), or -ENOSPC.
int guard_add(void *start, size_t bytes, atomic_bool *failed);

// [C] Before the munmap().
void guard_remove(int slot);
