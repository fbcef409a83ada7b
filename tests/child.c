// SPDX-License-Identifier: Apache-2.0
#include "tests/child.h"
#include "tests/check.h"

#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

void child_folder_open(struct child_folder *f)
{
    const char *base = getenv("TMPDIR");
    if (!base || strlen(base) > 32)
        base = "/tmp";
    snprintf(f->path, sizeof f->path, "%s/sluice-test-XXXXXX", base);
    if (!mkdtemp(f->path))
        fail_msg("cannot make %s: %s", f->path, strerror(errno));
}

void child_folder_close(struct child_folder *f)
{
    DIR *dir = opendir(f->path);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        unlinkat(dirfd(dir), entry->d_name, 0);
    if (dir)
        closedir(dir);
    rmdir(f->path);
}

void child_path(const struct child_folder *f, char out[CHILD_PATH_MAX], const char *name)
{
    int n = snprintf(out, CHILD_PATH_MAX, "%s/%s", f->path, name);
    assert_in_range(n, 1, CHILD_PATH_MAX - 1);
}

void child_make_file(const char *path, uint64_t bytes)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
        fail_msg("cannot make %s: %s", path, strerror(errno));
    close(fd);
}

static pid_t start(char *const argv[], int out)
{
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (out >= 0)
            dup2(out, STDOUT_FILENO);
        if (getppid() == parent)
            execvp(argv[0], argv);
        fprintf(stderr, "cannot run %s: %s\n", argv[0], strerror(errno));
        _exit(127);
    }
    if (pid < 0)
        fail_msg("cannot fork: %s", strerror(errno));
    return pid;
}

pid_t child_start(char *const argv[])
{
    return start(argv, -1);
}

// Read from @fd until @line was there.
static bool read_until(int fd, const char *line, unsigned timeout_s)
{
    char text[4096] = "";
    size_t n = 0;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    while (!strstr(text, line) && n < sizeof text - 1) {
        if (poll(&p, 1, (int)timeout_s * 1000) <= 0)
            return false;
        ssize_t got = read(fd, text + n, sizeof text - 1 - n);
        if (got <= 0)
            return false;
        n += (size_t)got;
        text[n] = '\0';
    }
    return true;
}

pid_t child_start_until(char *const argv[], const char *line, unsigned timeout_s, int *out)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        fail_msg("cannot make a pipe: %s", strerror(errno));
    pid_t pid = start(argv, fds[1]);
    close(fds[1]);
    *out = fds[0];
    if (read_until(fds[0], line, timeout_s))
        return pid;
    close(fds[0]);
    child_wait(pid, 0);
    return 0;
}

static void pause_10ms(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
}

int child_wait(pid_t pid, unsigned timeout_s)
{
    int status = 0;
    for (unsigned i = 0; waitpid(pid, &status, WNOHANG) == 0; i++) {
        if (i / 100 >= timeout_s) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            return -1;
        }
        pause_10ms();
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int child_stop(pid_t pid, unsigned timeout_s)
{
    kill(pid, SIGTERM);
    return child_wait(pid, timeout_s);
}

static bool is_listening(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strncpy(to.sun_path, path, sizeof to.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0;
    if (fd >= 0)
        close(fd);
    return ok;
}

void child_wait_for_socket(pid_t pid, const char *path, unsigned timeout_s)
{
    for (unsigned i = 0; !is_listening(path); i++) {
        if (waitpid(pid, NULL, WNOHANG) == pid)
            fail_msg("the program that should listen on %s has ended", path);
        if (i / 100 >= timeout_s)
            fail_msg("nothing listens on %s after %u s", path, timeout_s);
        pause_10ms();
    }
}
