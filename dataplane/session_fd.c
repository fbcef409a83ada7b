// SPDX-License-Identifier: Apache-2.0
#include "dataplane/session_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void session_replace_fd(int *slot, int fd)
{
    if (*slot >= 0)
        close(*slot);
    *slot = fd;
}

// The kernel has no call that tells an eventfd from a pipe or a socket; procfs names it.
int session_check_eventfd(int fd, struct error *e)
{
    char path[32], name[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(path, name, sizeof(name) - 1);
    if (n < 0)
        return error_set(e, EINVAL, "%s: %s", path, strerror(errno));
    name[n] = '\0';
    if (strcmp(name, "anon_inode:[eventfd]") != 0)
        return error_set(e, EINVAL, "the descriptor is \"%s\", not an eventfd", name);
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return error_set(e, EINVAL, "the eventfd: %s", strerror(errno));
    return 0;
}
