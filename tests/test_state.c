// SPDX-License-Identifier: Apache-2.0
// What outlives a process: whose record comes back, whose does not, and files that are not ours.
#include "dataplane/state.h"
#include "tests/check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct state_key key = {
    .device = 1,
    .inode = 2,
    .features = UINT64_C(1) << 32,
    .desc_addr = 0x7f0000001000,
    .driver_addr = 0x7f0000002000,
    .device_addr = 0x7f0000003000,
    .size = 128,
};

static struct state *open_new(void)
{
    struct state *s;
    struct error e;
    check_ok(state_open(&s, -1, NULL, &e), &e);
    return s;
}

static struct state_device *hold(struct state *s, const char *name)
{
    struct error e;
    struct state_device *d = state_hold(s, name, 4, &e);
    if (!d)
        fail_msg("%s", e.text);
    return d;
}

static char *record(struct state_device *d, unsigned index, const struct state_key *k)
{
    size_t bytes;
    char *at = state_record(d, index, k, &bytes);
    assert_true(bytes >= 1 << 20); // the largest ring's
    return at;
}

static void put(char *at, const char *text)
{
    memcpy(at, text, strlen(text) + 1);
}

// The process ends, the file stays.
static void next_life(struct state **s)
{
    struct error e;
    int fd = dup(state_fd(*s));
    state_close(*s);
    check_ok(state_open(s, fd, NULL, &e), &e);
    close(fd);
}

static uint64_t memory_of(const struct state *s)
{
    struct stat st;
    assert_int_equal(fstat(state_fd(s), &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

static void test_records_come_back(void **state)
{
    (void)state;
    struct state *s = open_new();
    struct state_device *a = hold(s, "a"), *b = hold(s, "b");
    put(record(a, 0, &key), "a0");
    put(record(a, 3, &key), "a3");
    put(record(b, 0, &key), "b0");
    assert_string_equal(record(a, 0, &key), "a0"); // also in this life
    state_release(b);
    state_release(a);
    next_life(&s);
    b = hold(s, "b");
    a = hold(s, "a");
    assert_string_equal(record(a, 0, &key), "a0");
    assert_string_equal(record(a, 1, &key), "");
    assert_string_equal(record(a, 3, &key), "a3");
    assert_string_equal(record(b, 0, &key), "b0");
    state_release(b);
    state_release(a);
    state_close(s);
}

// Whatever of the ring differs: it is another ring, and its record begins with zeros.
static void test_another_ring(void **state)
{
    (void)state;
    for (unsigned word = 0; word < sizeof(key) / 8; word++) {
        struct state *s = open_new();
        struct state_device *d = hold(s, "a");
        struct state_key other = key;
        put(record(d, 1, &key), "old");
        ((uint64_t *)(void *)&other)[word] ^= 1;
        assert_string_equal(record(d, 1, &other), "");
        put(record(d, 1, &other), "new");
        assert_string_equal(record(d, 1, &other), "new");
        assert_string_equal(record(d, 1, &key), ""); // the old one is gone
        state_release(d);
        state_close(s);
    }
}

static void test_records_end(void **state)
{
    (void)state;
    struct state *s = open_new();
    struct state_device *d = hold(s, "a"), *other = hold(s, "b");
    put(record(d, 0, &key), "stopped");
    put(record(d, 1, &key), "runs");
    state_clear(d, 0);
    state_clear(d, 0);
    assert_string_equal(record(d, 0, &key), "");
    assert_string_equal(record(d, 1, &key), "runs");
    put(record(other, 0, &key), "other");
    state_forget(d);
    state_release(other);
    next_life(&s);
    d = hold(s, "a");
    assert_string_equal(record(d, 1, &key), "");
    state_forget_others(s); // b is not there any more
    other = hold(s, "b");
    assert_string_equal(record(other, 0, &key), "");
    state_release(other);
    state_release(d);
    state_close(s);
}

// What nobody uses takes no memory, and what was used is given back.
static void test_memory(void **state)
{
    (void)state;
    struct state *s = open_new();
    struct state_device *d = hold(s, "a");
    uint64_t before = memory_of(s);
    assert_true(before <= 64 << 10);
    for (unsigned i = 0; i < 4; i++)
        memset(record(d, i, &key), 1, 1 << 20);
    assert_true(memory_of(s) >= before + (4 << 20));
    for (unsigned i = 0; i < 3; i++)
        state_clear(d, i);
    assert_true(memory_of(s) <= before + (2 << 20));
    state_forget(d);
    assert_true(memory_of(s) <= before);
    state_close(s);
}

static void test_room_for_devices(void **state)
{
    (void)state;
    struct state *s = open_new();
    struct error e;
    char name[STATE_NAME_BYTES];
    for (unsigned i = 0; i < STATE_DEVICES_MAX; i++) {
        snprintf(name, sizeof(name), "d%u", i);
        state_release(hold(s, name));
    }
    assert_null(state_hold(s, "late", 4, &e));
    assert_non_null(strstr(e.text, "has room for 1024 devices"));
    state_forget(hold(s, "d700"));
    state_release(hold(s, "late"));
    state_close(s);
}

// ---- files that are not ours -------------------------------------------------------------

static void refused(int fd, const char *why)
{
    struct state *s;
    struct error e;
    assert_int_equal(state_open(&s, fd, NULL, &e), -EINVAL);
    if (!strstr(e.text, why))
        fail_msg("\"%s\" does not say \"%s\"", e.text, why);
}

static void write_at(int fd, uint64_t offset, const void *data, size_t bytes)
{
    assert_int_equal(pwrite(fd, data, bytes, (off_t)offset), bytes);
}

// The head: magic, version, number and size of the devices.
static void test_other_files_are_refused(void **state)
{
    (void)state;
    static const struct {
        unsigned offset;
        uint8_t byte;
        const char *why;
    } cases[] = {
        {0, 'x', "is damaged"},
        {8, 2, "has version 2, not 1"},
        {13, 1, "another size"},
        {18, 1, "another size"},
        {4096 + STATE_NAME_BYTES - 1, 'x', "a name has no end"},
    };
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct state *s = open_new();
        write_at(state_fd(s), cases[i].offset, &cases[i].byte, 1);
        refused(state_fd(s), cases[i].why);
        state_close(s);
    }
    int pipes[2], memfd = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(pipe(pipes), 0);
    refused(pipes[0], "not sealed");
    refused(memfd, "not sealed");
    assert_int_equal(fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
    refused(memfd, "is damaged"); // and empty
    close(memfd);
    close(pipes[0]);
    close(pipes[1]);
}

// Nobody can shorten it under us.
static void test_it_stays_as_long(void **state)
{
    (void)state;
    struct state *s = open_new();
    assert_int_equal(ftruncate(state_fd(s), 4096), -1);
    state_close(s);
}

static void scribble(int fd, uint64_t offset, size_t bytes, unsigned *seed)
{
    for (unsigned n = 1 + (unsigned)rand_r(seed) % 40; n; n--) {
        uint8_t byte = (uint8_t)(rand_r(seed) % 3 ? rand_r(seed) : 0);
        write_at(fd, offset + (uint64_t)rand_r(seed) % bytes, &byte, 1);
    }
}

// Whatever lies in it, it is refused or used; names are found or are not.
static void test_any_contents(void **state)
{
    (void)state;
    unsigned seed = 23, n_refused = 0;
    for (unsigned round = 0; round < 500; round++) {
        struct state *s = open_new(), *next;
        struct error e;
        state_release(hold(s, "a"));
        state_release(hold(s, "b"));
        if (round % 4 == 0)
            scribble(state_fd(s), 0, 32, &seed);
        scribble(state_fd(s), 4096, 32768, &seed); // a's name and keys
        int err = state_open(&next, state_fd(s), NULL, &e);
        n_refused += err != 0;
        if (err == 0) {
            struct state_device *a = hold(next, "a"), *b = hold(next, "b");
            for (unsigned i = 0; i < 4; i++)
                assert_int_equal(*record(a, i, &key), 0);
            state_forget_others(next);
            state_release(b);
            state_forget(a);
            state_close(next);
        }
        state_close(s);
    }
    assert_in_range(n_refused, 50, 450);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records_come_back), cmocka_unit_test(test_another_ring),
        cmocka_unit_test(test_records_end),       cmocka_unit_test(test_memory),
        cmocka_unit_test(test_room_for_devices),  cmocka_unit_test(test_other_files_are_refused),
        cmocka_unit_test(test_it_stays_as_long),  cmocka_unit_test(test_any_contents),
    };
    return cmocka_run_group_tests_name("state", tests, NULL, NULL);
}
