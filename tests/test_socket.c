// SPDX-License-Identifier: Apache-2.0
// Listening, connecting and who is there, on real socket files.
#include "dataplane/socket.h"
#include "tests/check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[32];

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/sluice-socket-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder); // fails if a test left something there
}

static const char *path_of(const char *name)
{
    static char path[128];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static bool exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

static void test_listen_connect_accept(void **state)
{
    (void)state;
    struct unix_listener l;
    struct error e;
    const char *path = path_of("a");
    check_ok(unix_listen(&l, path, 0660, &e), &e);
    assert_int_equal(unix_accept(&l), -EAGAIN);
    int client = unix_connect(path, &e);
    assert_true(client >= 0);
    int server = unix_accept(&l);
    assert_true(server >= 0);
    assert_int_equal(unix_peer_pid(server), getpid());
    assert_int_equal(unix_peer_pid(client), getpid());
    assert_true(fcntl(server, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(server, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(write(client, "x", 1), 1);
    char c;
    assert_int_equal(read(server, &c, 1), 1);
    close(client);
    close(server);
    unix_unlisten(&l);
    assert_false(exists(path));
    unix_unlisten(&l); // again: nothing
}

// The umask neither widens nor narrows what was asked.
static void test_mode(void **state)
{
    (void)state;
    static const mode_t modes[] = {0600, 0660, 0666, 0777, 0640};
    static const mode_t masks[] = {0, 022, 077, 0777};
    for (unsigned i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        for (unsigned k = 0; k < sizeof(masks) / sizeof(masks[0]); k++) {
            struct unix_listener l;
            struct error e;
            struct stat st;
            mode_t before = umask(masks[k]);
            int err = unix_listen(&l, path_of("m"), modes[i], &e);
            umask(before);
            check_ok(err, &e);
            assert_int_equal(stat(path_of("m"), &st), 0);
            assert_int_equal(st.st_mode & 07777, modes[i]);
            unix_unlisten(&l);
        }
    }
}

static void test_stale_is_replaced(void **state)
{
    (void)state;
    struct error e;
    const char *path = path_of("stale");
    pid_t child = fork();
    if (child == 0) {
        struct unix_listener l;
        _exit(unix_listen(&l, path, 0600, &e) ? 1 : 0); // without unlisten: as a crash does
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_true(exists(path));
    struct unix_listener l;
    check_ok(unix_listen(&l, path, 0600, &e), &e);
    int fd = unix_connect(path, &e);
    assert_true(fd >= 0);
    close(fd);
    unix_unlisten(&l);
}

static void test_live_is_refused(void **state)
{
    (void)state;
    struct unix_listener first, second;
    struct error e;
    char pid[32];
    check_ok(unix_listen(&first, path_of("live"), 0600, &e), &e);
    assert_int_equal(unix_listen(&second, path_of("live"), 0600, &e), -EADDRINUSE);
    snprintf(pid, sizeof(pid), "process %d ", (int)getpid());
    assert_non_null(strstr(e.text, pid));
    assert_non_null(strstr(e.text, path_of("live")));
    assert_int_equal(second.fd, -1);
    unix_unlisten(&second); // never listened: removes nothing
    int fd = unix_connect(path_of("live"), &e);
    assert_true(fd >= 0);
    close(fd);
    unix_unlisten(&first);
}

// A live one whose queue of connections is full does not answer at once, and is not stale.
static void test_full_is_live(void **state)
{
    (void)state;
    struct unix_listener first, second;
    struct error e;
    int fds[256], n = 0;
    check_ok(unix_listen(&first, path_of("full"), 0600, &e), &e);
    while (n < 256 && (fds[n] = unix_connect(path_of("full"), &e)) >= 0)
        n++;
    assert_in_range(n, 1, 255);
    assert_int_equal(fds[n], -EAGAIN);
    assert_int_equal(unix_listen(&second, path_of("full"), 0600, &e), -EADDRINUSE);
    while (n)
        close(fds[--n]);
    unix_unlisten(&first);
}

static void test_other_files_stay(void **state)
{
    (void)state;
    struct unix_listener l;
    struct error e;
    const char *path = path_of("file");
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    close(fd);
    assert_int_equal(unix_listen(&l, path, 0600, &e), -EEXIST);
    assert_true(exists(path));
    unlink(path);
}

// Somebody removed our file and made another: it is not ours to remove.
static void test_successor_stays(void **state)
{
    (void)state;
    struct unix_listener first, second;
    struct error e;
    const char *path = path_of("next");
    check_ok(unix_listen(&first, path, 0600, &e), &e);
    unlink(path);
    check_ok(unix_listen(&second, path, 0600, &e), &e);
    unix_unlisten(&first);
    assert_true(exists(path));
    unix_unlisten(&second);
    assert_false(exists(path));
}

static void test_path_length(void **state)
{
    (void)state;
    struct unix_listener l;
    struct error e;
    char path[256];
    int n = snprintf(path, sizeof(path), "%s/", folder);
    memset(path + n, 'x', sizeof(path) - (size_t)n);
    path[UNIX_PATH_BYTES] = '\0';
    check_ok(unix_listen(&l, path, 0600, &e), &e);
    int fd = unix_connect(path, &e);
    assert_true(fd >= 0);
    close(fd);
    unix_unlisten(&l);
    assert_false(exists(path));

    path[UNIX_PATH_BYTES] = 'x';
    path[UNIX_PATH_BYTES + 1] = '\0';
    assert_int_equal(unix_listen(&l, path, 0600, &e), -ENAMETOOLONG);
    assert_non_null(strstr(e.text, "107"));
    assert_int_equal(unix_connect(path, &e), -ENAMETOOLONG);
    assert_int_equal(unix_connect("", &e), -EINVAL);
}

static void test_connect_says_why(void **state)
{
    (void)state;
    struct error e;
    assert_int_equal(unix_connect(path_of("none"), &e), -ENOENT);
    assert_non_null(strstr(e.text, path_of("none")));
    struct unix_listener l;
    assert_int_equal(unix_listen(&l, path_of("no/such"), 0600, &e), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_listen_connect_accept), cmocka_unit_test(test_mode),
        cmocka_unit_test(test_stale_is_replaced),     cmocka_unit_test(test_live_is_refused),
        cmocka_unit_test(test_full_is_live),          cmocka_unit_test(test_other_files_stay),
        cmocka_unit_test(test_successor_stays),       cmocka_unit_test(test_path_length),
        cmocka_unit_test(test_connect_says_why),
    };
    return cmocka_run_group_tests_name("socket", tests, make_folder, remove_folder);
}
