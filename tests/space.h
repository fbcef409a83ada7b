// SPDX-License-Identifier: Apache-2.0
// space.h - network namespaces of a test's own, with interfaces of the kernel in them.
//
// The calling thread enters the namespace where it last was: what it opens then belongs there.
#pragma once

#include <stdbool.h>

// A new namespace, entered; a descriptor of it, closed by the caller. Without the right to make
// one the test is skipped, which says so.
int space_open(void);
void space_enter(int space);

// Run a command (ip, …) in the namespace where the thread is; the test fails if it does.
void space_run(const char *format, ...) __attribute__((format(printf, 1, 2)));
