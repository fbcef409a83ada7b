// SPDX-License-Identifier: Apache-2.0
// Queues that are moved by command, while their front end works and does not know.
#include "tests/control_rig.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// Queues that moved.
static long long move(const char *params)
{
    json_t *moved = rig_call("move", params);
    long long n = json_integer_value(json_object_get(moved, "queues"));
    json_decref(moved);
    return n;
}

static void assert_refused(const char *params, const char *sentence)
{
    json_t *object = rig_answer(rig_ask("move", params));
    const json_t *error = json_object_get(object, "error");
    const char *said = json_string_value(json_object_get(error, "message"));
    if (!said || !strstr(said, sentence))
        fail_msg("%s: \"%s\", not \"%s\"", params, said ? said : "accepted", sentence);
    json_decref(object);
}

static bool has_two_workers(void)
{
    if (rig_n_workers == 2)
        return true;
    print_message("skipped: there is one CPU, so one worker\n");
    return false;
}

static void test_mistakes_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *params, *sentence;
    } cases[] = {
        {"{}", "the parameters are"},
        {"{\"name\":\"a\"}", "the parameters are"},
        {"{\"name\":\"a\",\"worker\":\"x\"}", "the parameters are"},
        {"{\"name\":\"a\",\"worker\":-1}", "the parameters are"},
        {"{\"name\":\"a\",\"worker\":0,\"queue\":\"\"}", "the parameters are"},
        {"{\"name\":\"a\",\"worker\":0,\"more\":0}", "the parameters are"},
        {"{\"name\":\"b\",\"worker\":0}", "b: there is no such device"},
        {"{\"name\":\"a\",\"worker\":2}", "worker 2: the"},
        {"{\"name\":\"a\",\"worker\":0,\"queue\":2}", "slow a: queue 2: it has 2, the first is 0"},
        {"{\"name\":\"a\",\"worker\":0,\"queue\":1}", "slow a: queue 1 is not running"},
    };
    rig_run();
    rig_add("a");
    struct guest_disk *d = rig_connect_queues("a", 1);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++)
        assert_refused(cases[i].params, cases[i].sentence);
    if (rig_n_workers == 2)
        assert_refused("{\"name\":\"a\",\"worker\":7}", "worker 7: the workers are 0 to 1");
    guest_disk_close(d);
}

// At once, with a request out, to and fro; the request is answered where the queue is then, and
// every worker is credited with what came while it had the queue.
static void test_queue_moves_with_a_request_out(void **state)
{
    (void)state;
    struct guest_request r;
    rig_run();
    if (!has_two_workers())
        return;
    rig_add("a");
    struct guest_disk *d = rig_connect_busy("a", &r);
    for (unsigned i = 0; i < 200; i++) {
        assert_int_equal(move(i & 1 ? "{\"name\":\"a\",\"queue\":0,\"worker\":0}"
                                    : "{\"name\":\"a\",\"queue\":0,\"worker\":1}"),
                         1);
        assert_int_equal(rig_of_queue("a", 0, "worker"), !(i & 1));
    }
    assert_int_equal(move("{\"name\":\"a\",\"queue\":0,\"worker\":0}"), 1); // where it is
    assert_int_equal(move("{\"name\":\"a\",\"queue\":0,\"worker\":1}"), 1);
    rig_until(strcmp(rig_queue_state("a", 0), "moving") != 0);
    assert_int_equal(rig_of_queue("a", 0, "in_flight"), 1);
    assert_int_equal(rig_of_queue("a", 1, "worker"), 1); // the other stayed
    rig_open_gate();
    rig_until(rig_of_queue("a", 0, "in_flight") == 0);
    rig_leave(d, &r);
    rig_until(strcmp(rig_show("a", "state"), "waiting") == 0);
    json_t *stats = rig_call("stats", "{}");
    long long n = 0;
    size_t i;
    json_t *w;
    json_array_foreach(json_object_get(stats, "workers"), i, w)
    {
        n += json_integer_value(json_object_get(w, "requests"));
        assert_int_equal(json_integer_value(json_object_get(w, "queues")), 0);
    }
    assert_int_equal(n, 1);
    json_decref(stats);
}

// The whole device: also queues that start later, and later front ends.
static void test_device_moves_for_good(void **state)
{
    (void)state;
    rig_run();
    if (!has_two_workers())
        return;
    rig_add("a");
    assert_int_equal(move("{\"name\":\"a\",\"worker\":1}"), 0);
    for (unsigned to = 0; to < 2; to++) {
        struct guest_disk *d = rig_connect_disk("a");
        rig_until(rig_of_queue("a", 1, "worker") == !to && rig_of_queue("a", 0, "worker") == !to);
        char params[64];
        snprintf(params, sizeof(params), "{\"name\":\"a\",\"worker\":%u}", to);
        assert_int_equal(move(params), 2);
        struct error e;
        check_ok(guest_disk_stop(d, &e), &e);
        check_ok(guest_disk_start(d, &e), &e);
        for (unsigned i = 0; i < 2; i++)
            rig_until(rig_of_queue("a", i, "worker") == to);
        guest_disk_close(d);
        rig_until(strcmp(rig_show("a", "state"), "waiting") == 0);
        if (to == 0)
            assert_int_equal(move("{\"name\":\"a\",\"worker\":0}"), 0);
    }
}

// What stops drains where it is; what is removed goes nowhere.
static void test_leaving_queues_stay(void **state)
{
    (void)state;
    struct guest_request r;
    rig_run();
    rig_add("a");
    rig_leave(rig_connect_busy("a", &r), &r);
    rig_until(strcmp(rig_queue_state("a", 0), "draining") == 0);
    assert_refused("{\"name\":\"a\",\"worker\":0,\"queue\":0}",
                   "slow a: queue 0 is stopping, and drains where it is");
    rig_until(strcmp(rig_queue_state("a", 1), "none") == 0); // back, and never used
    assert_int_equal(move("{\"name\":\"a\",\"worker\":0}"), 0);
    rig_open_gate();
    rig_until(strcmp(rig_show("a", "state"), "waiting") == 0);

    struct guest_disk *d = rig_connect_busy("a", &r);
    int fd = rig_ask("remove", "{\"name\":\"a\"}");
    rig_until(strcmp(rig_show("a", "state"), "draining") == 0);
    assert_refused("{\"name\":\"a\",\"worker\":0}", "slow a: it is being removed");
    rig_open_gate();
    json_decref(rig_answer(fd));
    rig_leave(d, &r);
}

// ---- a front end that does not know ------------------------------------------------------

static atomic_bool is_over;

static void *keep_moving(void *argument)
{
    (void)argument;
    for (unsigned i = 0; !is_over; i++) {
        char params[64];
        snprintf(params, sizeof(params), "{\"name\":\"a\",\"queue\":%u,\"worker\":%u}", i / 3 & 1,
                 i & 1);
        json_decref(rig_answer(rig_ask("move", params))); // not running now and then
    }
    return NULL;
}

static bool is_back(struct guest_disk *d)
{
    struct driver_used used;
    struct error e;
    int n = driver_poll(d->drivers[0], &used, 1, &e);
    assert_true(n >= 0);
    return n == 1;
}

// Queues stop, start and are told new eventfds while they move, with requests out or not.
static void test_session_does_not_notice(void **state)
{
    (void)state;
    rig_run();
    if (!has_two_workers())
        return;
    rig_add("a");
    pthread_t mover;
    is_over = false;
    assert_int_equal(pthread_create(&mover, NULL, keep_moving, NULL), 0);
    struct guest_disk *d = rig_connect_disk("a");
    for (unsigned i = 0; i < 100; i++) {
        struct guest_request r;
        struct error e;
        rig_submit(d, &r);
        if (i & 1)
            rig_until(rig_of_queue("a", 0, "in_flight") == 1);
        rig_open_gate();
        rig_until(is_back(d));
        check_ok(guest_disk_stop(d, &e), &e);
        check_ok(guest_disk_start(d, &e), &e);
        guest_request_close(&r, 1);
    }
    is_over = true;
    pthread_join(mover, NULL);
    guest_disk_close(d);
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(test_mistakes_are_named),      EACH(test_queue_moves_with_a_request_out),
        EACH(test_device_moves_for_good),   EACH(test_leaving_queues_stay),
        EACH(test_session_does_not_notice),
    };
    return cmocka_run_group_tests_name("control_move", tests, NULL, NULL);
}
