// SPDX-License-Identifier: Apache-2.0
// child.h - a program that a test runs beside itself, in a folder of its own.
//
// Threads  one. Memory: the caller owns the struct; the folder goes with child_close().
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define CHILD_PATH_MAX 108 // a socket path

struct child_folder {
    char path[64];
};

// A fresh folder below $TMPDIR or /tmp; the path of a file in it.
void child_folder_open(struct child_folder *f);
void child_folder_close(struct child_folder *f); // with all files in it
void child_path(const struct child_folder *f, char out[CHILD_PATH_MAX], const char *name);

// A sparse file of @bytes.
void child_make_file(const char *path, uint64_t bytes);

// Run @argv; its output goes to ours. It dies with the test.
pid_t child_start(char *const argv[]);
// Likewise, and wait until it prints @line, to a pipe that then stays open in @out. 0 if it ends
// without it.
pid_t child_start_until(char *const argv[], const char *line, unsigned timeout_s, int *out);
// Wait for its end, killing it after @timeout_s. Its exit status, or -1 if it had to be killed
// or died of a signal.
int child_wait(pid_t pid, unsigned timeout_s);
// SIGTERM, then child_wait().
int child_stop(pid_t pid, unsigned timeout_s);

// Poll until something listens on @socket_path.
void child_wait_for_socket(pid_t pid, const char *socket_path, unsigned timeout_s);
