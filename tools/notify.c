// SPDX-License-Identifier: Apache-2.0
#include "tools/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define FIRST_FD    3   // sd_listen_fds(3): SD_LISTEN_FDS_START
#define MESSAGE_MAX 512 // bytes

bool notify_has_manager(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    return path && *path;
}

static int manager_address(struct sockaddr_un *address, socklen_t *length)
{
    const char *path = getenv("NOTIFY_SOCKET");
    if (!path)
        return -ENOENT;
    size_t bytes = strlen(path);
    if (bytes > sizeof(address->sun_path))
        return -ENAMETOOLONG;
    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, bytes);
    if (path[0] == '@') // an abstract name
        address->sun_path[0] = '\0';
    *length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + bytes);
    return 0;
}

static void attach_fd(struct msghdr *m, void *control, size_t bytes, int fd)
{
    memset(control, 0, bytes);
    m->msg_control = control;
    m->msg_controllen = bytes;
    struct cmsghdr *c = CMSG_FIRSTHDR(m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(fd));
    memcpy(CMSG_DATA(c), &fd, sizeof(fd));
}

// Never waits: -EAGAIN if the manager does not read.
static int send_message(const char *text, int passed_fd)
{
    struct sockaddr_un address;
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    struct iovec iov = {(void *)(uintptr_t)text, strlen(text)};
    struct msghdr m = {.msg_name = &address, .msg_iov = &iov, .msg_iovlen = 1};
    if (!notify_has_manager())
        return 0;
    int err = manager_address(&address, &m.msg_namelen);
    if (err)
        return err;
    if (passed_fd >= 0)
        attach_fd(&m, control, sizeof(control), passed_fd);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    err = sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
    close(fd);
    return err;
}

int notify_manager(const char *state)
{
    return send_message(state, -1);
}

// FDPOLL=0: or the manager drops what has hung up, before we could see that ourselves.
int notify_store(const char *name, int fd)
{
    char text[MESSAGE_MAX];
    snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", name);
    return send_message(text, fd);
}

int notify_forget(const char *name)
{
    char text[MESSAGE_MAX];
    snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s", name);
    return send_message(text, -1);
}

// ---- what was kept -----------------------------------------------------------------------

// Descriptors from FIRST_FD on, named one after the other in $LISTEN_FDNAMES; a colon between.
static int count_kept(void)
{
    const char *pid = getenv("LISTEN_PID"), *n = getenv("LISTEN_FDS");
    if (!pid || !n || strtol(pid, NULL, 10) != getpid())
        return 0;
    return (int)strtol(n, NULL, 10);
}

void notify_take_kept(void (*take)(void *context, const char *name, int fd), void *context)
{
    const char *names = getenv("LISTEN_FDNAMES");
    int n = count_kept();
    for (int i = 0; names && i < n; i++) {
        char name[MESSAGE_MAX] = "";
        size_t bytes = strcspn(names, ":");
        if (bytes < sizeof(name))
            memcpy(name, names, bytes);
        if (fcntl(FIRST_FD + i, F_SETFD, FD_CLOEXEC) == 0)
            take(context, name, FIRST_FD + i);
        names += bytes + (names[bytes] == ':');
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
}
