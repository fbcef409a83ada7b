// SPDX-License-Identifier: Apache-2.0
#include "tests/fuse_disk.h"

#include "tests/child.h"
#include "tests/disk_folder.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DEADLINE_S 60
#define ARGUMENTS  32

static bool is_served(pid_t pid, const char *name)
{
    time_t deadline = time(NULL) + DEADLINE_S;
    struct stat st;
    while (stat(name, &st) || st.st_size != FUSE_DISK_BYTES) {
        if (waitpid(pid, NULL, WNOHANG) == pid || time(NULL) > deadline)
            return false;
        usleep(1000);
    }
    return true;
}

pid_t fuse_disk_start(const char *name, const char *const filter[])
{
    const char *argv[ARGUMENTS] = {"nbdfuse", name, "--command",
                                   "nbdkit",  "-s", "--exit-with-parent"};
    unsigned n = 6;
    if (filter[0])
        argv[n++] = filter[0];
    argv[n++] = "memory";
    argv[n++] = "4M";
    for (unsigned i = 1; filter[0] && filter[i]; i++)
        argv[n++] = filter[i];
    assert_in_range(n, 0, ARGUMENTS - 1);
    disk_make_file(name, 0);
    pid_t pid = child_start((char *const *)argv);
    if (!is_served(pid, name)) {
        print_message("skipped: nbdfuse and nbdkit are not there, or may not mount\n");
        skip();
    }
    return pid;
}

void fuse_disk_stop(pid_t pid)
{
    child_stop(pid, DEADLINE_S); // it unmounts
}

void fuse_disk_hang(pid_t pid)
{
    int status;
    assert_int_equal(kill(pid, SIGSTOP), 0);
    // Its threads go on until they notice.
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(status));
}

void fuse_disk_resume(pid_t pid)
{
    assert_int_equal(kill(pid, SIGCONT), 0);
}
