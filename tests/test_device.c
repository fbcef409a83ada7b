// SPDX-License-Identifier: Apache-2.0
#include "dataplane/device.h"
#include "tests/check.h"

#include <errno.h>
#include <string.h>

static uint16_t n_queues;
static int open_result;
static unsigned n_open;

static int fake_open(struct device *d, const struct line *l, struct error *e)
{
    assert_string_equal(d->name, "vm0");
    assert_ptr_equal(d->line, l);
    if (open_result)
        return error_set(e, -open_result, "no luck today");
    d->n_queues = n_queues;
    d->features = 42;
    n_open++;
    return 0;
}

static void fake_close(struct device *d)
{
    assert_int_equal(d->features, 42);
    n_open--;
}

static unsigned fake_poll(struct queue *q, unsigned budget)
{
    (void)q, (void)budget;
    return 0;
}

static const struct line_key no_keys[] = {{.name = NULL}};

static const struct device_type type = {
    .line = {.type = "fake", .help = "nothing", .keys = no_keys, .common = device_socket_keys},
    .queues_max = DEVICE_QUEUES_MAX,
    .open = fake_open,
    .close = fake_close,
    .poll = fake_poll,
};

static int parse(struct line **l, const char *text, struct error *e)
{
    const struct line_schema *schemas[] = {&type.line};
    return line_parse(l, text, schemas, 1, e);
}

static void device_opens_with_its_queues(void **state)
{
    (void)state;
    static const uint16_t counts[] = {1, 4, DEVICE_QUEUES_MAX};
    for (unsigned c = 0; c < ARRAY_LEN(counts); c++) {
        struct line *l;
        struct device *d;
        struct error e;
        check_ok(parse(&l, "fake vm0 socket=/run/vm0", &e), &e);
        n_queues = counts[c];
        check_ok(device_open(&d, &type, l, NULL, &e), &e);
        assert_int_equal(n_open, 1);
        assert_ptr_equal(d->type, &type);
        for (unsigned i = 0; i < n_queues; i++) {
            const struct queue *q = &d->queues[i];
            assert_ptr_equal(q->device, d);
            assert_int_equal(q->index, i);
            assert_int_equal(q->kick_fd, -1);
            assert_int_equal(q->call_fd, -1);
            assert_null(q->lane);
            assert_null(q->seat);
            assert_false(ring_is_started(&q->ring));
        }
        device_close(d);
        assert_int_equal(n_open, 0);
    }
}

static void refusal_leaves_the_line(void **state)
{
    (void)state;
    struct line *l;
    struct device *d = NULL;
    struct error e;
    check_ok(parse(&l, "fake vm0 socket=/run/vm0", &e), &e);
    open_result = -EBUSY;
    assert_int_equal(device_open(&d, &type, l, NULL, &e), -EBUSY);
    open_result = 0;
    assert_null(d);
    assert_string_equal(e.text, "no luck today");
    assert_string_equal(l->name, "vm0");
    line_free(l);
}

struct socket_line {
    const char *text;
    const char *socket; // NULL: refused, and the sentence names…
    unsigned mode, socket_mode;
    const char *named;
};

#define PATH_107                                                                                   \
    "/0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890" \
    "123456789012345"
static_assert(sizeof(PATH_107) == 108, "the longest path of a socket, with its end");

static const struct socket_line socket_lines[] = {
    {"fake vm0 socket=/a", "/a", 0, 0660, NULL},
    {"fake vm0 socket=/a mode=server", "/a", 0, 0660, NULL},
    {"fake vm0 socket=/a mode=client socket-mode=0600", "/a", 1, 0600, NULL},
    {"fake vm0 socket=/a socket-mode=777", "/a", 0, 0777, NULL},
    {"fake vm0 socket=" PATH_107, PATH_107, 0, 0660, NULL},
    {"fake vm0 socket=" PATH_107 "x", NULL, 0, 0, "socket"},
    {"fake vm0", NULL, 0, 0, "socket"},
    {"fake vm0 socket=/a mode=peer", NULL, 0, 0, "client"},
    {"fake vm0 socket=/a socket-mode=1777", NULL, 0, 0, "socket-mode"},
    {"fake vm0 socket=/a socket-mode=rw", NULL, 0, 0, "socket-mode"},
};

static void socket_keys_are_checked(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(socket_lines); i++) {
        const struct socket_line *s = &socket_lines[i];
        struct line *l;
        struct error e = {""};
        int err = parse(&l, s->text, &e);
        if (!s->socket) {
            if (err != -EINVAL || !strstr(e.text, s->named))
                fail_msg("%s: %d '%s'", s->text, err, e.text);
            continue;
        }
        check_ok(err, &e);
        assert_string_equal(line_text(l, "socket", NULL), s->socket);
        assert_int_equal(line_number(l, "mode", 0), s->mode);
        assert_int_equal(line_number(l, "socket-mode", 0660), s->socket_mode);
        line_free(l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(device_opens_with_its_queues),
        cmocka_unit_test(refusal_leaves_the_line),
        cmocka_unit_test(socket_keys_are_checked),
    };
    return cmocka_run_group_tests_name("device", tests, NULL, NULL);
}
