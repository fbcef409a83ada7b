// SPDX-License-Identifier: Apache-2.0
#include "tests/daemon.h"

#include "dataplane/socket.h"
#include "tests/check.h"

#include <fcntl.h>
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

static void manager_path(char out[256])
{
    const char *source = getenv("SLUICE_SOURCE");
    if (!source)
        fail_msg("SLUICE_SOURCE is not set: where is tests/service_manager.py?");
    snprintf(out, 256, "%s/tests/service_manager.py", source);
}

static bool try_start(struct daemon *d)
{
    char program[256], manager[256], control[CHILD_PATH_MAX];
    char *argv[9 + 2 * DAEMON_LINES_MAX] = {0};
    unsigned n = 0;
    if (d->is_managed) {
        manager_path(manager);
        argv[n++] = "python3";
        argv[n++] = manager;
        argv[n++] = d->folder.path;
    }
    program_path(program);
    argv[n++] = program;
    argv[n++] = "--control";
    argv[n++] = control;
    child_path(&d->folder, control, "control");
    if (d->workers) {
        argv[n++] = "--workers";
        argv[n++] = (char *)d->workers;
    }
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

// Of the sluiced that said last that it is ready; 0 before the first.
static pid_t managed_pid(const struct daemon *d)
{
    char path[CHILD_PATH_MAX], text[16] = "";
    child_path(&d->folder, path, "pid");
    FILE *f = fopen(path, "re");
    if (!f)
        return 0;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    return n ? (pid_t)strtol(text, NULL, 10) : 0;
}

// What another than @before is.
static pid_t wait_for_pid(const struct daemon *d, pid_t before)
{
    time_t deadline = time(NULL) + 60;
    for (pid_t pid;;) {
        pid = managed_pid(d);
        if (pid != before)
            return pid;
        if (time(NULL) > deadline)
            fail_msg("no sluiced gets ready under the service manager");
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
}

static unsigned count_kept(const struct daemon *d)
{
    char path[CHILD_PATH_MAX], line[128];
    unsigned n = 0;
    child_path(&d->folder, path, "stored");
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        n++;
    if (f)
        fclose(f);
    return n;
}

void daemon_wait_kept(const struct daemon *d, unsigned n)
{
    time_t deadline = time(NULL) + 60;
    while (count_kept(d) != n) {
        if (time(NULL) > deadline)
            fail_msg("the manager keeps %u descriptors, not %u", count_kept(d), n);
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
}

void daemon_crash(struct daemon *d)
{
    pid_t pid = wait_for_pid(d, 0);
    kill(pid, SIGKILL);
    wait_for_pid(d, pid);
}

struct guest_disk *daemon_connect_as(const struct daemon *d, const char *name,
                                     struct guest_disk_config config)
{
    struct error e;
    struct guest_disk *disk;
    char socket[CHILD_PATH_MAX];
    daemon_socket(d, socket, name);
    config.path = socket;
    check_ok(guest_disk_open(&disk, &config, &e), &e);
    return disk;
}

struct guest_disk *daemon_connect(const struct daemon *d, const char *name, uint64_t features,
                                  unsigned n_queues, unsigned n_regions, uint64_t hole_bytes)
{
    const uint64_t unit = 1 << 20;
    bool is_indirect = features & VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC);
    const struct guest_disk_config c = {
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
    return daemon_connect_as(d, name, c);
}

json_t *daemon_call(const struct daemon *d, const char *method, const char *params)
{
    char path[CHILD_PATH_MAX];
    struct error e;
    child_path(&d->folder, path, "control");
    int fd = unix_connect(path, &e);
    if (fd < 0)
        fail_msg("%s", e.text);
    fcntl(fd, F_SETFL, 0);
    dprintf(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\",\"params\":%s}\n", method, params);
    FILE *in = fdopen(fd, "r");
    json_t *answer = json_loadf(in, JSON_DISABLE_EOF_CHECK, NULL);
    fclose(in);
    json_t *result = json_incref(json_object_get(answer, "result"));
    if (!result)
        fail_msg("%s %s: refused: %s", method, params, json_dumps(answer, 0));
    json_decref(answer);
    return result;
}
