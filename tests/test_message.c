// SPDX-License-Identifier: Apache-2.0
#include "dataplane/message.h"
#include "tests/check.h"
#include "tests/session_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define V VHOST_USER_VERSION

// ---- a pair of sockets and a reader ------------------------------------------------------

struct pair {
    int peer, ours;
    struct message_reader reader;
    struct error error;
    unsigned n_fds_before;
};

static int setup(void **state)
{
    static struct pair p;
    int fds[2];
    p = (struct pair){.n_fds_before = front_count_fds()};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    p.peer = fds[0];
    p.ours = fds[1];
    *state = &p;
    return 0;
}

// Nothing may be open that was not before.
static int teardown(void **state)
{
    struct pair *p = *state;
    message_reader_reset(&p->reader);
    if (p->peer >= 0)
        close(p->peer);
    close(p->ours);
    assert_int_equal(front_count_fds(), p->n_fds_before);
    return 0;
}

static void send_bytes(struct pair *p, const void *bytes, size_t n, unsigned n_fds)
{
    int fds[MESSAGE_FDS_MAX];
    for (unsigned i = 0; i < n_fds; i++)
        fds[i] = STDERR_FILENO;
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(fds))] = {0};
    struct iovec iov = {(void *)(uintptr_t)bytes, n};
    struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
    if (n_fds) {
        h.msg_control = control;
        h.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&h);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
    }
    assert_int_equal(sendmsg(p->peer, &h, 0), n);
}

static enum message_result receive(struct pair *p)
{
    p->error.text[0] = '\0';
    return message_receive(&p->reader, p->ours, &p->error);
}

struct wire {
    struct vhost_user_header header;
    uint32_t payload[2];
};
static_assert(sizeof(struct wire) == 20, "no gap: it is sent as it is");

static const struct wire hello = {{VHOST_USER_SET_FEATURES, V, 8}, {0x55667788, 0x11223344}};

// ---- receiving ---------------------------------------------------------------------------

static void test_whole(void **state)
{
    struct pair *p = *state;
    assert_int_equal(receive(p), MESSAGE_NONE);
    send_bytes(p, &hello, 20, 0);
    assert_int_equal(receive(p), MESSAGE_READY);
    assert_memory_equal(&p->reader.message.header, &hello.header, 12);
    assert_int_equal(p->reader.message.payload.u64, 0x1122334455667788);
    message_reader_reset(&p->reader);
    assert_int_equal(receive(p), MESSAGE_NONE);
}

static void test_byte_by_byte(void **state)
{
    struct pair *p = *state;
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(receive(p), MESSAGE_NONE);
        assert_int_equal(message_is_partial(&p->reader), i > 0);
        send_bytes(p, (const char *)&hello + i, 1, 1);
    }
    assert_int_equal(receive(p), MESSAGE_READY);
    assert_false(message_is_partial(&p->reader));
    assert_int_equal(p->reader.n_begun, 1);
    assert_int_equal(p->reader.message.payload.u64, 0x1122334455667788);
    assert_int_equal(p->reader.message.n_fds, 20);
}

// A reader that looks past a message's end takes the next one's descriptors.
static void test_two_in_the_socket(void **state)
{
    struct pair *p = *state;
    send_bytes(p, &hello, 20, 1);
    send_bytes(p, &hello, 20, 2);
    for (unsigned n = 1; n <= 2; n++) {
        assert_int_equal(receive(p), MESSAGE_READY);
        assert_int_equal(p->reader.message.n_fds, n);
        assert_int_equal(p->reader.n_begun, n);
        message_reader_reset(&p->reader);
    }
}

static void test_header(void **state)
{
    static const struct {
        struct vhost_user_header header;
        enum message_result result;
    } cases[] = {
        {{1, V, 0}, MESSAGE_READY},
        {{1, V | VHOST_USER_NEED_REPLY, 0}, MESSAGE_READY},
        {{UINT32_MAX, V, 0}, MESSAGE_READY}, // who handles requests knows which there are
        {{1, V, sizeof(union vhost_user_payload)}, MESSAGE_NONE},
        {{1, V, sizeof(union vhost_user_payload) + 1}, MESSAGE_BROKEN},
        {{1, V, UINT32_MAX}, MESSAGE_BROKEN},
        {{1, V, UINT32_MAX - 11}, MESSAGE_BROKEN},
        {{1, 0, 0}, MESSAGE_BROKEN}, // versions
        {{1, 2, 0}, MESSAGE_BROKEN},
        {{1, 3, 0}, MESSAGE_BROKEN},
        {{1, V | VHOST_USER_REPLY, 0}, MESSAGE_BROKEN},
        {{1, V | 0x10, 0}, MESSAGE_BROKEN},
        {{1, V | 0x80000000, 0}, MESSAGE_BROKEN},
    };
    struct pair *p = *state;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        send_bytes(p, &cases[i].header, 12, 3);
        assert_int_equal(receive(p), cases[i].result);
        assert_int_equal(p->error.text[0] != '\0', cases[i].result == MESSAGE_BROKEN);
        message_reader_reset(&p->reader);
    }
}

static void test_descriptors(void **state)
{
    static const unsigned counts[] = {0, 1, 8, 9, MESSAGE_FDS_MAX};
    struct pair *p = *state;
    for (unsigned i = 0; i < ARRAY_LEN(counts); i++) {
        send_bytes(p, &hello, 20, counts[i]);
        assert_int_equal(receive(p), MESSAGE_READY);
        struct message *m = &p->reader.message;
        assert_int_equal(m->n_fds, counts[i]);
        for (unsigned k = 0; k < m->n_fds; k++)
            assert_true(fcntl(m->fds[k], F_GETFD) & FD_CLOEXEC);
        if (m->n_fds) {
            int taken = message_take_fd(m, 0);
            message_reader_reset(&p->reader);
            assert_true(fcntl(taken, F_GETFD) >= 0);
            close(taken);
        }
        message_reader_reset(&p->reader);
    }
}

// They can come in two lots, one with the header and one with the payload.
static void test_too_many_descriptors(void **state)
{
    struct pair *p = *state;
    send_bytes(p, &hello, 12, MESSAGE_FDS_MAX);
    assert_int_equal(receive(p), MESSAGE_NONE);
    send_bytes(p, (const char *)&hello + 12, 8, 100);
    assert_int_equal(receive(p), MESSAGE_BROKEN);
    assert_int_equal(p->reader.message.n_fds, MESSAGE_FDS_MAX);
}

static void test_no_descriptors_left(void **state)
{
    struct pair *p = *state;
    struct rlimit old, few;
    getrlimit(RLIMIT_NOFILE, &old);
    few = (struct rlimit){front_count_fds() + 5, old.rlim_max};
    send_bytes(p, &hello, 20, 100);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    enum message_result result = receive(p);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(result, MESSAGE_BROKEN);
    assert_true(p->reader.message.n_fds > 0);
    assert_true(p->reader.message.n_fds < 100);
}

static void test_end_of_stream(void **state)
{
    static const struct {
        unsigned n_bytes;
        enum message_result result;
    } cases[] = {{0, MESSAGE_ENDED},   {1, MESSAGE_BROKEN},  {11, MESSAGE_BROKEN},
                 {12, MESSAGE_BROKEN}, {19, MESSAGE_BROKEN}, {20, MESSAGE_ENDED}};
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct pair *p = *state;
        send_bytes(p, &hello, cases[i].n_bytes, 0);
        shutdown(p->peer, SHUT_WR);
        enum message_result result = receive(p);
        if (cases[i].n_bytes == 20) {
            assert_int_equal(result, MESSAGE_READY);
            message_reader_reset(&p->reader);
            result = receive(p);
        }
        assert_int_equal(result, cases[i].result);
        assert_int_equal(teardown(state), 0);
        assert_int_equal(setup(state), 0);
    }
}

// ---- sending -----------------------------------------------------------------------------

// A datagram socket keeps writes apart: a message is one.
static void test_send_is_one_write(void **state)
{
    (void)state;
    int fds[2];
    struct error e;
    char bytes[64];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), 0);
    check_ok(message_send(fds[0], &hello.header, hello.payload, -1, &e), &e);
    assert_int_equal(recv(fds[1], bytes, sizeof(bytes), MSG_DONTWAIT), 20);
    assert_memory_equal(bytes, &hello, 20);
    close(fds[0]);
    close(fds[1]);
}

static void test_send_with_descriptor(void **state)
{
    struct pair *p = *state;
    check_ok(message_send(p->peer, &hello.header, hello.payload, STDERR_FILENO, &p->error),
             &p->error);
    assert_int_equal(receive(p), MESSAGE_READY);
    assert_int_equal(p->reader.message.n_fds, 1);
}

static void test_send_never_waits(void **state)
{
    struct pair *p = *state;
    int err = 0;
    for (unsigned i = 0; !err && i < 100000; i++)
        err = message_send(p->ours, &hello.header, hello.payload, -1, &p->error);
    assert_int_equal(err, -EAGAIN);
}

static void test_send_to_nobody(void **state)
{
    struct pair *p = *state;
    close(p->peer);
    p->peer = -1;
    assert_int_equal(message_send(p->ours, &hello.header, hello.payload, -1, &p->error), -EPIPE);
    assert_non_null(strstr(p->error.text, "Broken pipe"));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_whole),
        TEST(test_byte_by_byte),
        TEST(test_two_in_the_socket),
        TEST(test_header),
        TEST(test_descriptors),
        TEST(test_too_many_descriptors),
        TEST(test_no_descriptors_left),
        TEST(test_end_of_stream),
        TEST(test_send_is_one_write),
        TEST(test_send_with_descriptor),
        TEST(test_send_never_waits),
        TEST(test_send_to_nobody),
    };
    return cmocka_run_group_tests_name("message", tests, NULL, NULL);
}
