// SPDX-License-Identifier: Apache-2.0
#include "tests/daemon.h"
#include "tests/check.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void daemon_open(struct daemon *d)
{
    memset(d, 0, sizeof *d);
    child_folder_open(&d->folder);
}

void daemon_close(struct daemon *d)
{
    if (d->pid)
        daemon_kill(d);
    child_folder_close(&d->folder);
}

void daemon_socket(const struct daemon *d, char out[CHILD_PATH_MAX], const char *name)
{
    child_path(&d->folder, out, name);
}

void daemon_add_disk(struct daemon *d, const char *name, const char *rest)
{
    char socket[CHILD_PATH_MAX];
    daemon_socket(d, socket, name);
    assert_true(d->n_lines < DAEMON_LINES_MAX);
    int n = snprintf(d->lines[d->n_lines++], DAEMON_LINE_MAX, "disk %s socket=%s %s", name, socket,
                     rest);
    assert_in_range(n, 1, DAEMON_LINE_MAX - 1);
}

void daemon_add_file_disk(struct daemon *d, const char *name, uint64_t bytes, const char *rest)
{
    char file_name[32], path[CHILD_PATH_MAX], line[DAEMON_LINE_MAX];
    snprintf(file_name, sizeof file_name, "%s.img", name);
    child_path(&d->folder, path, file_name);
    child_make_file(path, bytes);
    snprintf(line, sizeof line, "file=%s %s", path, rest);
    daemon_add_disk(d, name, line);
}

static void program_path(char out[256])
{
    const char *build = getenv("SLUICE_BUILD");
    if (!build)
        fail_msg("SLUICE_BUILD is not set: where is tools/sluiced?");
    snprintf(out, 256, "%s/tools/sluiced", build);
}

static bool try_start(struct daemon *d)
{
    char program[256], control[CHILD_PATH_MAX];
    char *argv[4 + 2 * DAEMON_LINES_MAX] = {program, "--control", control};
    unsigned n = 3;
    program_path(program);
    child_path(&d->folder, control, "control");
    for (unsigned i = 0; i < d->n_lines; i++) {
        argv[n++] = "--add";
        argv[n++] = d->lines[i];
    }
    d->pid = child_start_until(argv, "sluiced: ready", 60, &d->out);
    return d->pid != 0;
}

void daemon_start(struct daemon *d)
{
    if (!try_start(d))
        fail_msg("sluiced did not get ready");
}

void daemon_start_again(struct daemon *d)
{
    time_t deadline = time(NULL) + 60;
    while (!try_start(d)) {
        if (time(NULL) > deadline)
            fail_msg("sluiced does not start after a crash");
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
}

void daemon_stop(struct daemon *d)
{
    pid_t pid = d->pid;
    d->pid = 0;
    assert_int_equal(child_stop(pid, 60), 0);
    close(d->out);
}

void daemon_kill(struct daemon *d)
{
    kill(d->pid, SIGKILL);
    child_wait(d->pid, 60);
    close(d->out);
    d->pid = 0;
}

struct guest_disk *daemon_connect(const struct daemon *d, const char *name, uint64_t features,
                                  unsigned n_queues, unsigned n_regions, uint64_t hole_bytes)
{
    struct error e;
    struct guest_disk *disk;
    char socket[CHILD_PATH_MAX];
    const uint64_t unit = 1 << 20;
    bool is_indirect = features & VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC);
    struct guest_disk_config c = {
        .path = socket,
        .features = features,
        .protocol = GUEST_DISK_PROTOCOL | VIRTIO_BIT(VHOST_USER_PROTOCOL_F_LOG_SHMFD) |
                    VIRTIO_BIT(VHOST_USER_PROTOCOL_F_BACKEND_REQ),
        .n_queues = n_queues,
        .ring_size = 256,
        .table_entries = is_indirect ? GUEST_REQUEST_SEGMENTS_MAX : 0,
        .memory = {.n_regions = n_regions,
                   .region_bytes = unit * MAX(2, 1 + 16 / n_regions),
                   .hole_bytes = hole_bytes,
                   .first_addr = UINT64_C(1) << 32},
    };
    daemon_socket(d, socket, name);
    check_ok(guest_disk_open(&disk, &c, &e), &e);
    return disk;
}
