// SPDX-License-Identifier: Apache-2.0
// What is kept, once; what is forgotten, and when; and what comes back.
#include "dataplane/keeper.h"
#include "tests/check.h"
#include "tests/keep_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define FILES 5

static struct keeper *k;
static int fds[FILES]; // a memfd, two eventfds, a socket and its other end
static struct keeper_id ids[FILES];

static int setup(void **state)
{
    (void)state;
    keep_rig_clear();
    k = keeper_open(&keep_rig_host);
    fds[0] = memfd_create("kept", MFD_CLOEXEC);
    fds[1] = eventfd(0, EFD_CLOEXEC);
    fds[2] = eventfd(0, EFD_CLOEXEC);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, &fds[3]), 0);
    for (unsigned i = 0; i < FILES; i++)
        assert_true(keeper_identify(fds[i], &ids[i]));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    keeper_close(k);
    for (unsigned i = 0; i < FILES; i++)
        close(fds[i]);
    keep_rig_clear();
    return 0;
}

static void test_files_are_told_apart(void **state)
{
    (void)state;
    for (unsigned i = 0; i < FILES; i++) {
        struct keeper_id again;
        int copy = dup(fds[i]);
        assert_true(keeper_identify(copy, &again));
        close(copy);
        for (unsigned j = 0; j < FILES; j++)
            assert_int_equal(keeper_is_same(&again, &ids[j]), i == j);
    }
    assert_false(keeper_identify(-1, &ids[0]));
}

static void test_each_is_kept_once(void **state)
{
    (void)state;
    for (unsigned i = 0; i < FILES; i++) {
        int copy = dup(fds[i]); // of another user
        assert_true(keeper_hold(k, &ids[i], fds[i]));
        assert_true(keeper_hold(k, &ids[i], copy));
        close(copy);
    }
    assert_true(keeper_settle(k));
    assert_int_equal(keep_rig.n_stored, FILES);
    for (unsigned i = 0; i < FILES; i++)
        keeper_drop(k, &ids[i]);
    assert_true(keeper_settle(k));
    assert_int_equal(keep_rig.n, FILES);
    for (unsigned i = 0; i < FILES; i++) {
        assert_true(keeper_is_held(k, &ids[i]));
        keeper_drop(k, &ids[i]);
        assert_false(keeper_is_held(k, &ids[i]));
    }
    assert_true(keeper_settle(k));
    assert_int_equal(keep_rig.n, 0);
    assert_false(keeper_hold(k, &ids[0], -1)); // nobody has it
    keeper_drop(k, &ids[0]);                   // of nobody
}

// Nothing is lost while nobody reads, and the order stays.
static void test_slow_manager(void **state)
{
    (void)state;
    keep_rig.result = -EAGAIN;
    assert_true(keeper_hold(k, &ids[0], fds[0]));
    keeper_drop(k, &ids[0]);
    assert_true(keeper_hold(k, &ids[0], fds[0]));
    assert_true(keeper_hold(k, &ids[1], fds[1]));
    assert_false(keeper_settle(k));
    assert_int_equal(keep_rig.n_stored, 0);
    keep_rig.result = 0;
    assert_true(keeper_settle(k));
    assert_int_equal(keep_rig.n_stored, 3);
    assert_int_equal(keep_rig.n_forgotten, 1);
    assert_int_equal(keep_rig.n, 2);
}

// Then nobody may count on it.
static void test_manager_that_refuses(void **state)
{
    (void)state;
    keep_rig.result = -EPERM;
    assert_true(keeper_hold(k, &ids[0], fds[0]));
    assert_false(keeper_settle(k));
    keep_rig.result = 0;
    assert_false(keeper_settle(k));
}

static void test_next_life(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        assert_true(keeper_hold(k, &ids[i], fds[i]));
    keeper_close(k);
    assert_int_equal(keep_rig.n, 3);
    k = keeper_open(&keep_rig_host);
    keep_rig_hand_over(k);
    for (unsigned i = 0; i < FILES; i++) {
        struct keeper_id id;
        int fd = keeper_find(k, &ids[i]);
        assert_int_equal(fd >= 0, i < 3);
        if (fd < 0)
            continue;
        assert_true(keeper_identify(fd, &id));
        assert_true(keeper_is_same(&id, &ids[i]));
        close(fd);
    }
    assert_true(keeper_hold(k, &ids[1], -1));
    keeper_forget_rest(k);
    assert_int_equal(keep_rig.n, 1);
    assert_int_equal(keep_rig.n_stored, 3); // not a second time
    keeper_drop(k, &ids[1]);
    assert_true(keeper_settle(k));
    assert_int_equal(keep_rig.n, 0);
}

// What has a name that it cannot have from us is of somebody else.
static void test_foreign_names(void **state)
{
    (void)state;
    static const char *const names[] = {"", "listen", "1-1", "../x"};
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        int fd = dup(fds[0]);
        keeper_adopt(k, names[i], fd);
        assert_int_equal(fcntl(fd, F_GETFD), -1);
        assert_int_equal(keep_rig.n_forgotten, i + 1);
        assert_int_equal(keeper_find(k, &ids[0]), -1);
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_files_are_told_apart), TEST(test_each_is_kept_once), TEST(test_slow_manager),
        TEST(test_manager_that_refuses), TEST(test_next_life),         TEST(test_foreign_names),
    };
    return cmocka_run_group_tests_name("keeper", tests, NULL, NULL);
}
