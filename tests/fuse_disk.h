// SPDX-License-Identifier: Apache-2.0
// fuse_disk.h - image files behind which nbdkit stands: they fail, are slow, or hang.
//
// Threads  one.
#pragma once

#include <sys/types.h>

#define FUSE_DISK_BYTES (4u << 20)

// Serve the new file @name with nbdkit's memory disk, through the filter and its parameters in
// @filter (NULL ends them). Skips the test, and says why, where that cannot be done.
pid_t fuse_disk_start(const char *name, const char *const filter[]);
// It must not hang.
void fuse_disk_stop(pid_t pid);

// Nothing that is asked of the file ends until it resumes.
void fuse_disk_hang(pid_t pid);
void fuse_disk_resume(pid_t pid);
