// SPDX-License-Identifier: Apache-2.0
// daemon.h - a sluiced of the test's own, with its sockets and images in one folder.
//
// Threads  one. Memory: daemon_close() ends the program and removes the folder.
#pragma once

#include "bench/guest_disk.h"
#include "tests/child.h"

#include <jansson.h>

#define DAEMON_LINES_MAX 80
#define DAEMON_LINE_MAX  192

struct daemon {
    struct child_folder folder;
    const char *workers; // the CPUs that poll; NULL: it chooses
    bool is_managed;     // by tests/service_manager.py, which starts it again when it is killed
    pid_t pid;           // 0: not running; of the manager if there is one
    int out;             // what it prints
    char lines[DAEMON_LINES_MAX][DAEMON_LINE_MAX];
    unsigned n_lines;
};

// A folder, and no program yet.
void daemon_open(struct daemon *d);
void daemon_close(struct daemon *d);

// Add "disk NAME socket=FOLDER/NAME @rest". In @rest, "file" makes an image of @bytes.
void daemon_add_disk(struct daemon *d, const char *name, const char *rest);
void daemon_add_file_disk(struct daemon *d, const char *name, uint64_t bytes, const char *rest);

// Run it with the lines; returns when every socket listens.
void daemon_start(struct daemon *d);
// SIGTERM; checks that it ends with 0 in time.
void daemon_stop(struct daemon *d);
// SIGKILL.
void daemon_kill(struct daemon *d);
// After daemon_kill(): try until the images are no longer locked. They are as long as writes of
// the dead process may still land.
void daemon_start_again(struct daemon *d);

// Managed: wait until the manager keeps @n descriptors.
void daemon_wait_kept(const struct daemon *d, unsigned n);

// Managed: SIGKILL to sluiced, and wait until the manager has started another one.
void daemon_crash(struct daemon *d);

// Ask it; the result. Fails the test if it refuses.
json_t *daemon_call(const struct daemon *d, const char *method, const char *params);

// The socket of disk @name.
void daemon_socket(const struct daemon *d, char out[CHILD_PATH_MAX], const char *name);

// A guest on disk @name as @config has it, without its path. Fails the test if it cannot be had.
struct guest_disk *daemon_connect_as(const struct daemon *d, const char *name,
                                     struct guest_disk_config config);
// A guest with @n_regions of memory, 16 MiB in all at least, @hole_bytes apart.
struct guest_disk *daemon_connect(const struct daemon *d, const char *name, uint64_t features,
                                  unsigned n_queues, unsigned n_regions, uint64_t hole_bytes);
