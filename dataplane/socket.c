// SPDX-License-Identifier: Apache-2.0
#include "dataplane/socket.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 64 // connections that wait for accept()

static int address_of(const char *path, struct sockaddr_un *address, struct error *e)
{
    size_t bytes = strlen(path);
    if (bytes == 0)
        return error_set(e, EINVAL, "a socket needs a path");
    if (bytes > UNIX_PATH_BYTES)
        return error_set(e, ENAMETOOLONG, "socket %s: %zu bytes, a socket's path has at most %d",
                         path, bytes, UNIX_PATH_BYTES);
    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, bytes + 1);
    return 0;
}

static int new_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return fd < 0 ? -errno : fd;
}

static int refuse_live(int fd, const char *path, struct error *e)
{
    pid_t pid = unix_peer_pid(fd);
    close(fd);
    return error_set(e, EADDRINUSE, "socket %s: process %d listens on it", path, (int)pid);
}

// Make room at @path. Nobody answers on a stale socket: connecting to it is refused.
static int remove_stale(const char *path, const struct sockaddr_un *address, struct error *e)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : error_set(e, errno, "socket %s: %s", path, strerror(errno));
    if (!S_ISSOCK(st.st_mode))
        return error_set(e, EEXIST, "socket %s: a file that is not a socket is there", path);

    int fd = new_socket();
    if (fd < 0)
        return error_set(e, -fd, "socket %s: %s", path, strerror(-fd));
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
        return refuse_live(fd, path, e);
    int cause = errno;
    close(fd);
    if (cause == EAGAIN) // its queue of connections is full
        return error_set(e, EADDRINUSE, "socket %s: a busy process listens on it", path);
    if (cause != ECONNREFUSED)
        return error_set(e, cause, "socket %s: %s", path, strerror(cause));
    if (unlink(path) < 0 && errno != ENOENT)
        return error_set(e, errno, "socket %s: cannot remove the stale one: %s", path,
                         strerror(errno));
    return 0;
}

// bind() takes the permissions from the descriptor's, less the umask: so they are never wider
// than asked; chmod() then gives back what the umask took.
static int bind_with_mode(int fd, const struct sockaddr_un *address, mode_t mode)
{
    if (fchmod(fd, mode) < 0)
        return -errno;
    if (bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0)
        return -errno;
    return chmod(address->sun_path, mode) < 0 ? -errno : 0;
}

int unix_listen(struct unix_listener *l, const char *path, mode_t mode, struct error *e)
{
    l->fd = -1;
    struct sockaddr_un address;
    int err = address_of(path, &address, e);
    if (!err)
        err = remove_stale(path, &address, e);
    if (err)
        return err;
    int fd = new_socket();
    if (fd < 0)
        return error_set(e, -fd, "socket %s: %s", path, strerror(-fd));
    struct stat st;
    err = bind_with_mode(fd, &address, mode);
    if (!err && (stat(path, &st) < 0 || listen(fd, BACKLOG) < 0))
        err = -errno;
    if (err) {
        close(fd);
        return error_set(e, -err, "socket %s: %s", path, strerror(-err));
    }
    l->fd = fd;
    l->device = st.st_dev;
    l->inode = st.st_ino;
    memcpy(l->path, address.sun_path, sizeof(l->path));
    return 0;
}

void unix_unlisten(struct unix_listener *l)
{
    struct stat st;
    if (l->fd < 0)
        return;
    if (lstat(l->path, &st) == 0 && st.st_dev == l->device && st.st_ino == l->inode)
        unlink(l->path);
    close(l->fd);
    l->fd = -1;
}

int unix_accept(const struct unix_listener *l)
{
    int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int unix_connect(const char *path, struct error *e)
{
    struct sockaddr_un address;
    int err = address_of(path, &address, e);
    if (err)
        return err;
    int fd = new_socket();
    if (fd < 0)
        return error_set(e, -fd, "socket %s: %s", path, strerror(-fd));
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        err = errno;
        close(fd);
        return error_set(e, err, "socket %s: %s", path, strerror(err));
    }
    return fd;
}

pid_t unix_peer_pid(int fd)
{
    struct ucred who;
    socklen_t bytes = sizeof(who);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &bytes) < 0)
        return 0;
    return who.pid;
}
