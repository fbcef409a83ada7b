// SPDX-License-Identifier: Apache-2.0
// The JSON-RPC server with methods of our own; clients and server take turns in one thread.
#include "pollers/rpc.h"

#include "dataplane/base.h"
#include "dataplane/log.h"
#include "dataplane/socket.h"
#include "pollers/stream.h"
#include "tests/check.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DEADLINE_MS   20000
#define PENDING_MAX   4
#define RECEIVE_BYTES 65536

static char path[64];
static struct loop *loop;
static struct rpc *rpc;

// ---- methods -----------------------------------------------------------------------------

static struct rpc_call *pending[PENDING_MAX];
static unsigned n_pending, n_echoes;

static enum rpc_outcome echo(void *context, const json_t *params, struct rpc_call *call,
                             json_t **result, struct error *e)
{
    (void)call, (void)e;
    assert_ptr_equal(context, &n_echoes);
    n_echoes++;
    *result = params ? json_deep_copy(params) : json_null();
    return RPC_DONE;
}

static enum rpc_outcome later(void *context, const json_t *params, struct rpc_call *call,
                              json_t **result, struct error *e)
{
    (void)context, (void)params, (void)result, (void)e;
    assert_true(n_pending < PENDING_MAX);
    pending[n_pending++] = call;
    return RPC_LATER;
}

static enum rpc_outcome at_once(void *context, const json_t *params, struct rpc_call *call,
                                json_t **result, struct error *e)
{
    (void)context, (void)params, (void)result, (void)e;
    rpc_reply(call, json_true());
    return RPC_LATER;
}

static enum rpc_outcome refuse(void *context, const json_t *params, struct rpc_call *call,
                               json_t **result, struct error *e)
{
    (void)context, (void)params, (void)call, (void)result;
    error_set(e, 0, "no");
    return RPC_FAILED;
}

static enum rpc_outcome wrong(void *context, const json_t *params, struct rpc_call *call,
                              json_t **result, struct error *e)
{
    (void)context, (void)params, (void)call, (void)result;
    error_set(e, 0, "not these");
    return RPC_BAD_PARAMS;
}

static enum rpc_outcome large(void *context, const json_t *params, struct rpc_call *call,
                              json_t **result, struct error *e)
{
    (void)context, (void)call, (void)e;
    size_t bytes = (size_t)json_integer_value(json_object_get(params, "bytes"));
    char *text = malloc(bytes + 1);
    memset(text, 'x', bytes);
    text[bytes] = '\0';
    *result = json_string(text);
    free(text);
    return RPC_DONE;
}

static const struct rpc_method methods[] = {
    {"echo", echo},   {"later", later}, {"at-once", at_once}, {"refuse", refuse},
    {"wrong", wrong}, {"large", large}, {.name = NULL},
};

// ---- clients -----------------------------------------------------------------------------

static int open_server(void **state)
{
    (void)state;
    struct error e;
    snprintf(path, sizeof(path), "/tmp/sluice-rpc-%d", (int)getpid());
    n_pending = n_echoes = 0;
    if (loop_open(&loop) < 0)
        return -1;
    return rpc_open(&rpc, loop, path, 0600, methods, &n_echoes, &e);
}

static int close_server(void **state)
{
    (void)state;
    if (rpc)
        rpc_close(rpc);
    rpc = NULL;
    loop_close(loop);
    return access(path, F_OK) == 0 ? -1 : 0;
}

static int connect_client(void)
{
    struct error e;
    int fd = unix_connect(path, &e);
    if (fd < 0)
        fail_msg("%s", e.text);
    return fd;
}

static void turn_a_while(void)
{
    for (unsigned i = 0; i < 20; i++)
        loop_turn(loop, 0);
}

// Send all of it, while the server runs.
static void send_bytes(int fd, const char *bytes, size_t n)
{
    uint64_t deadline = loop_now_ms() + DEADLINE_MS;
    for (size_t sent = 0; sent < n;) {
        ssize_t k = send(fd, bytes + sent, n - sent, MSG_NOSIGNAL);
        if (k < 0 && errno != EAGAIN)
            return; // the server does not want more
        sent += k > 0 ? (size_t)k : 0;
        loop_turn(loop, 0);
        assert_true(loop_now_ms() < deadline);
    }
}

static void send_text(int fd, const char *text)
{
    send_bytes(fd, text, strlen(text));
}

// The next line, without its newline; NULL when the server closed. The caller frees it.
static char *receive(int fd)
{
    uint64_t deadline = loop_now_ms() + DEADLINE_MS;
    char *line = NULL, *end = NULL;
    size_t n = 0;
    while (!end) {
        line = realloc(line, n + RECEIVE_BYTES);
        ssize_t k = recv(fd, line + n, RECEIVE_BYTES, MSG_PEEK);
        if (k == 0 || (k < 0 && errno == ECONNRESET)) {
            free(line);
            return NULL;
        }
        if (k < 0) {
            loop_turn(loop, 1);
            assert_true(loop_now_ms() < deadline);
            continue;
        }
        end = memchr(line + n, '\n', (size_t)k);
        n += (size_t)recv(fd, line + n, end ? (size_t)(end - line) + 1 - n : (size_t)k, 0);
    }
    *end = '\0';
    return line;
}

static void expect(int fd, const char *answer)
{
    char *line = receive(fd);
    if (!line || strcmp(line, answer) != 0)
        fail_msg("%s, not %s", line ? line : "(closed)", answer);
    free(line);
}

static void expect_code(int fd, int code)
{
    char *line = receive(fd);
    json_t *answer = line ? json_loads(line, 0, NULL) : NULL;
    const json_t *error = json_object_get(answer, "error");
    if (json_integer_value(json_object_get(error, "code")) != code ||
        !json_string_value(json_object_get(error, "message")) ||
        strcmp(json_string_value(json_object_get(answer, "jsonrpc")), "2.0") != 0 ||
        !json_object_get(answer, "id"))
        fail_msg("%s, not code %d", line ? line : "(closed)", code);
    json_decref(answer);
    free(line);
}

static void expect_closed(int fd)
{
    char *line = receive(fd);
    if (line)
        fail_msg("%s, not the end", line);
    close(fd);
}

#define CALL(id, method) "{\"jsonrpc\":\"2.0\",\"id\":" #id ",\"method\":\"" method "\"}\n"
#define RESULT(id, r)    "{\"jsonrpc\":\"2.0\",\"result\":" r ",\"id\":" #id "}"

// ---- tests -------------------------------------------------------------------------------

static void test_answers(void **state)
{
    (void)state;
    int fd = connect_client();
    send_text(fd,
              "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"echo\",\"params\":{\"a\":[1,\"b\"]}}\n");
    expect(fd, RESULT(7, "{\"a\":[1,\"b\"]}"));
    send_text(fd, "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"at-once\"}\r\n\n\n");
    expect(fd, RESULT("x", "true"));
    send_text(fd, CALL(null, "echo")); // null is an id, if a bad one
    expect(fd, RESULT(null, "null"));
    close(fd);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        int code;
    } cases[] = {
        {"{", -32700},
        {"hello", -32700},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"method\":\"echo\"}", -32700},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}", -32700},
        {"[]", -32600},
        {"[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\"}]", -32600},
        {"{}", -32600},
        {"{\"id\":1,\"method\":\"echo\"}", -32600},
        {"{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"echo\"}", -32600},
        {"{\"jsonrpc\":2.0,\"id\":1,\"method\":\"echo\"}", -32600},
        {"{\"jsonrpc\":\"2.0\",\"id\":1}", -32600},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":3}", -32600},
        {"{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"echo\"}", -32600},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"params\":3}", -32600},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"params\":[1]}", -32600},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ech\"}", -32601},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\"}", -32601},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"wrong\"}", -32602},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"refuse\"}", -32000},
    };
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        int fd = connect_client();
        send_text(fd, cases[i].line);
        send_text(fd, "\n");
        expect_code(fd, cases[i].code);
        close(fd);
    }
    assert_int_equal(n_echoes, 0);
}

// The connection goes on after each.
static void test_goes_on_after_refusal(void **state)
{
    (void)state;
    int fd = connect_client();
    send_text(fd, "}\n" CALL(1, "nope") CALL(2, "echo"));
    expect_code(fd, -32700);
    expect_code(fd, -32601);
    expect(fd, RESULT(2, "null"));
    close(fd);
}

static void test_unknown_method_names_the_others(void **state)
{
    (void)state;
    int fd = connect_client();
    send_text(fd, CALL(1, "nope"));
    char *line = receive(fd);
    assert_non_null(line);
    assert_non_null(strstr(line, "nope"));
    assert_non_null(strstr(line, "echo later"));
    free(line);
    close(fd);
}

static void test_notification_has_no_answer(void **state)
{
    (void)state;
    int fd = connect_client();
    send_text(fd, "{\"jsonrpc\":\"2.0\",\"method\":\"echo\"}\n"
                  "{\"jsonrpc\":\"2.0\",\"method\":\"refuse\"}\n"
                  "{\"jsonrpc\":\"2.0\",\"method\":\"at-once\"}\n" CALL(5, "echo"));
    expect(fd, RESULT(5, "null"));
    assert_int_equal(n_echoes, 2);
    close(fd);
}

static void test_any_pieces(void **state)
{
    (void)state;
    const char *text = CALL(1, "echo") CALL(2, "at-once");
    int fd = connect_client();
    for (const char *p = text; *p; p++) {
        send_bytes(fd, p, 1);
        loop_turn(loop, 0);
    }
    expect(fd, RESULT(1, "null"));
    expect(fd, RESULT(2, "true"));
    close(fd);
}

static void test_line_length(void **state)
{
    (void)state;
    char *line = malloc(STREAM_LINE_MAX + 2);
    memset(line, ' ', STREAM_LINE_MAX + 2);
    int fd = connect_client();
    memcpy(line, CALL(1, "echo"), strlen(CALL(1, "echo")) - 1);
    line[STREAM_LINE_MAX] = '\n';
    send_bytes(fd, line, STREAM_LINE_MAX + 1);
    expect(fd, RESULT(1, "null"));
    line[STREAM_LINE_MAX] = ' ';
    send_bytes(fd, line, STREAM_LINE_MAX + 1);
    expect_code(fd, -32600);
    expect_closed(fd);
    free(line);
}

static void test_later_while_others_go_on(void **state)
{
    (void)state;
    int slow = connect_client(), quick = connect_client();
    send_text(slow, CALL(1, "later") CALL(2, "echo"));
    send_text(quick, CALL(3, "echo"));
    expect(quick, RESULT(3, "null"));
    expect(slow, RESULT(2, "null")); // its own next request too
    assert_int_equal(n_pending, 1);
    rpc_reply(pending[0], json_true());
    expect(slow, RESULT(1, "true"));
    close(slow);
    close(quick);
}

static void test_later_after_the_client_left(void **state)
{
    (void)state;
    int fd = connect_client();
    send_text(fd, CALL(1, "later"));
    turn_a_while();
    assert_int_equal(n_pending, 1);
    close(fd);
    turn_a_while();
    rpc_reply(pending[0], json_true());
    turn_a_while();
    fd = connect_client();
    send_text(fd, CALL(2, "echo"));
    expect(fd, RESULT(2, "null"));
    close(fd);
}

// `… | nc -U`: the end of the input is not the end of the answers.
static void test_half_closed_client_gets_its_answers(void **state)
{
    (void)state;
    int fd = connect_client();
    send_text(fd, CALL(1, "echo") CALL(2, "later"));
    shutdown(fd, SHUT_WR);
    expect(fd, RESULT(1, "null"));
    turn_a_while();
    rpc_reply(pending[0], json_true());
    expect(fd, RESULT(2, "true"));
    expect_closed(fd);
}

static void test_server_closes_with_calls_waiting(void **state)
{
    (void)state;
    int fd = connect_client();
    send_text(fd, CALL(1, "later") CALL(2, "echo"));
    expect(fd, RESULT(2, "null"));
    rpc_close(rpc);
    rpc = NULL;
    expect_closed(fd);
    rpc_reply(pending[0], json_true());
}

// What it has written when it closes still arrives.
static void test_server_closes_after_answering(void **state)
{
    (void)state;
    int fd = connect_client();
    send_text(fd, CALL(1, "later"));
    turn_a_while();
    rpc_reply(pending[0], json_true());
    rpc_close(rpc);
    rpc = NULL;
    expect(fd, RESULT(1, "true"));
    expect_closed(fd);
}

#define LARGE "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"large\",\"params\":{\"bytes\":4000000}}\n"

// Larger than any socket buffer; and while it waits, the others are served and its own next
// requests are not begun.
static void test_large_answer_and_slow_reader(void **state)
{
    (void)state;
    int slow = connect_client(), quick = connect_client();
    send_text(slow, LARGE CALL(2, "echo"));
    turn_a_while();
    assert_int_equal(n_echoes, 0);
    send_text(quick, CALL(3, "echo"));
    expect(quick, RESULT(3, "null"));
    char *line = receive(slow);
    assert_non_null(line);
    assert_int_equal(strlen(line), 4000000 + strlen(RESULT(1, "\"\"")));
    free(line);
    expect(slow, RESULT(2, "null"));
    close(slow);
    close(quick);
}

static void test_too_large_answer_ends_the_client(void **state)
{
    (void)state;
    int fd = connect_client(), other = connect_client();
    send_text(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"large\",\"params\":"
                  "{\"bytes\":20000000}}\n");
    expect_closed(fd);
    send_text(other, CALL(3, "echo"));
    expect(other, RESULT(3, "null"));
    close(other);
}

static void test_many_clients_half_a_line_each(void **state)
{
    (void)state;
    int fds[RPC_CLIENTS_MAX];
    for (unsigned i = 0; i < RPC_CLIENTS_MAX; i++) {
        fds[i] = connect_client();
        send_text(fds[i], "{\"jsonrpc\":\"2.0\",");
    }
    expect_closed(connect_client()); // one too many
    for (unsigned i = 0; i < RPC_CLIENTS_MAX; i++)
        send_text(fds[i], "\"id\":1,\"method\":\"echo\"}\n");
    for (unsigned i = 0; i < RPC_CLIENTS_MAX; i++) {
        expect(fds[i], RESULT(1, "null"));
        close(fds[i]);
    }
    turn_a_while();
    int fd = connect_client(); // there is room again
    send_text(fd, CALL(1, "echo"));
    expect(fd, RESULT(1, "null"));
    close(fd);
}

// A client that floods gets one request handled a turn.
static void test_one_request_a_turn(void **state)
{
    (void)state;
    int fd = connect_client();
    loop_turn(loop, 0); // it is accepted
    for (unsigned i = 0; i < 100; i++)
        assert_true(send(fd, CALL(1, "echo"), strlen(CALL(1, "echo")), 0) > 0);
    unsigned before = n_echoes;
    loop_turn(loop, 0);
    assert_in_range(n_echoes - before, 0, 1);
    for (unsigned i = 0; i < 100; i++)
        expect(fd, RESULT(1, "null"));
    close(fd);
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, open_server, close_server)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(test_answers),
        EACH(test_refusals),
        EACH(test_goes_on_after_refusal),
        EACH(test_unknown_method_names_the_others),
        EACH(test_notification_has_no_answer),
        EACH(test_any_pieces),
        EACH(test_line_length),
        EACH(test_later_while_others_go_on),
        EACH(test_later_after_the_client_left),
        EACH(test_half_closed_client_gets_its_answers),
        EACH(test_server_closes_with_calls_waiting),
        EACH(test_server_closes_after_answering),
        EACH(test_large_answer_and_slow_reader),
        EACH(test_too_large_answer_ends_the_client),
        EACH(test_many_clients_half_a_line_each),
        EACH(test_one_request_a_turn),
    };
    return cmocka_run_group_tests_name("rpc", tests, NULL, NULL);
}
