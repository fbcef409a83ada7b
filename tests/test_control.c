// SPDX-License-Identifier: Apache-2.0
// What waits for whom when devices are removed and front ends come and go.
#include "dataplane/socket.h"
#include "tests/control_rig.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

// ---- tests -------------------------------------------------------------------------------

static void test_remove_waits_for_requests_and_nobody_else(void **state)
{
    (void)state;
    struct guest_request r;
    rig_run();
    rig_add("a");
    struct guest_disk *d = rig_connect_busy("a", &r);
    int fd = rig_ask("remove", "{\"name\":\"a\"}");
    rig_until(strcmp(rig_show("a", "state"), "draining") == 0);
    rig_add("b"); // control goes on
    assert_int_not_equal(access(rig_path_of("a"), F_OK), 0);
    json_t *again = rig_answer(rig_ask("remove", "{\"name\":\"a\"}"));
    assert_non_null(json_object_get(again, "error"));
    json_decref(again);
    assert_false(rig_is_answered(fd));
    assert_int_equal(rig_n_open, 2);
    rig_open_gate();
    json_decref(rig_answer(fd));
    assert_int_equal(rig_n_open, 1);
    assert_string_equal(rig_show("a", "state"), "gone");
    rig_leave(d, &r);
}

static void test_remover_may_leave(void **state)
{
    (void)state;
    struct guest_request r;
    rig_run();
    rig_add("a");
    struct guest_disk *d = rig_connect_busy("a", &r);
    int fd = rig_ask("remove", "{\"name\":\"a\"}");
    rig_until(strcmp(rig_show("a", "state"), "draining") == 0);
    close(fd);
    rig_open_gate();
    rig_until(strcmp(rig_show("a", "state"), "gone") == 0);
    rig_leave(d, &r);
}

// The next front end waits until the first one's requests are back, and is then served.
static void test_next_front_end_waits_for_the_last(void **state)
{
    (void)state;
    struct guest_request r;
    struct error e;
    rig_run();
    rig_add("a");
    rig_leave(rig_connect_busy("a", &r), &r);
    rig_until(strcmp(rig_show("a", "state"), "draining") == 0);
    int next = unix_connect(rig_path_of("a"), &e);
    assert_true(next >= 0);
    for (unsigned i = 0; i < 20; i++) // it is neither served nor refused
        assert_string_equal(rig_show("a", "state"), "draining");
    assert_false(rig_is_answered(next));
    rig_open_gate();
    rig_until(strcmp(rig_show("a", "state"), "connected") == 0);
    assert_false(rig_is_answered(next));
    close(next);
    rig_until(strcmp(rig_show("a", "state"), "waiting") == 0);
    struct guest_disk *d = rig_connect_disk("a");
    guest_disk_close(d);
}

// Queues come back from their workers and go out again, many times.
static void test_many_lives(void **state)
{
    (void)state;
    rig_run();
    rig_add("a");
    for (unsigned i = 0; i < 50; i++) {
        struct guest_disk *d = rig_connect_disk("a");
        struct error e;
        check_ok(guest_disk_stop(d, &e), &e);
        check_ok(guest_disk_start(d, &e), &e);
        guest_disk_close(d);
    }
    rig_until(strcmp(rig_show("a", "state"), "waiting") == 0);
    json_t *stats = rig_call("stats", "{}");
    const json_t *w = json_array_get(json_object_get(stats, "workers"), 0);
    assert_int_equal(json_integer_value(json_object_get(w, "queues")), 0);
    json_decref(stats);
}

// What a worker did stays counted when its queue is gone.
static void test_requests_stay_counted(void **state)
{
    (void)state;
    struct guest_request r;
    rig_run();
    rig_add("a");
    for (unsigned i = 0; i < 3; i++) {
        struct guest_disk *d = rig_connect_busy("a", &r);
        rig_open_gate();
        rig_leave(d, &r);
        rig_until(strcmp(rig_show("a", "state"), "waiting") == 0);
    }
    json_t *stats = rig_call("stats", "{}");
    long long n = 0;
    size_t i;
    json_t *w;
    json_array_foreach(json_object_get(stats, "workers"), i, w) n +=
        json_integer_value(json_object_get(w, "requests"));
    assert_int_equal(n, 3);
    json_decref(stats);
}

// A queue that came back weighs nothing any more.
static void test_placing(void **state)
{
    (void)state;
    rig_run();
    rig_add("a");
    rig_add("b");
    for (unsigned i = 0; i < 3; i++) {
        struct guest_disk *d = rig_connect_queues("a", 1);
        rig_until(rig_of_queue("a", 0, "worker") == 0);
        guest_disk_close(d);
        rig_until(strcmp(rig_show("a", "state"), "waiting") == 0);
    }
    struct guest_disk *a = rig_connect_disk("a"), *b = rig_connect_queues("b", 1);
    rig_until(rig_of_queue("b", 0, "worker") == 0);
    assert_int_equal(rig_of_queue("a", 0, "worker"), 0);
    assert_int_equal(rig_of_queue("a", 1, "worker"), rig_n_workers - 1);
    guest_disk_close(a);
    guest_disk_close(b);
}

static void test_states_of_a_queue(void **state)
{
    (void)state;
    struct guest_request r;
    rig_run();
    rig_add("a");
    struct guest_disk *d = rig_connect_disk("a");
    rig_until(strcmp(rig_queue_state("a", 0), "parked") == 0); // nothing to do
    rig_submit(d, &r);
    rig_until(rig_of_queue("a", 0, "in_flight") == 1);
    int fd = rig_ask("remove", "{\"name\":\"a\"}");
    rig_until(strcmp(rig_queue_state("a", 0), "draining") == 0);
    rig_open_gate();
    json_decref(rig_answer(fd));
    rig_leave(d, &r);
    rig_add("a");
    d = rig_connect_queues("a", 1);
    guest_disk_close(d);
    rig_until(strcmp(rig_queue_state("a", 0), "none") == 0); // never used
}

// A number of the first device.
static long long listed(const char *what)
{
    json_t *list = rig_call("list", "{}");
    const json_t *device = json_array_get(json_object_get(list, "devices"), 0);
    long long n = json_integer_value(json_object_get(device, what));
    json_decref(list);
    return n;
}

// How long something waits is told: a request, then the front end that left.
static void test_ages(void **state)
{
    (void)state;
    struct guest_request r;
    rig_run();
    rig_add("a");
    struct guest_disk *d = rig_connect_busy("a", &r);
    rig_until(rig_of_queue("a", 0, "oldest_ms") >= 2);
    assert_true(rig_of_queue("a", 0, "oldest_ms") < RIG_DEADLINE_MS);
    assert_int_equal(listed("waiting_ms"), 0);
    rig_leave(d, &r);
    rig_until(listed("waiting_ms") >= 2);
    assert_true(listed("waiting_ms") < RIG_DEADLINE_MS);
    rig_open_gate();
    rig_until(strcmp(rig_show("a", "state"), "waiting") == 0);
    assert_int_equal(listed("waiting_ms"), 0);
    assert_int_equal(rig_of_queue("a", 0, "oldest_ms"), 0);
}

static void test_signal_drains(void **state)
{
    (void)state;
    struct guest_request r;
    rig_run();
    rig_add("a");
    rig_add("b");
    struct guest_disk *d = rig_connect_busy("a", &r);
    kill(getpid(), SIGTERM);
    rig_until(strcmp(rig_show("a", "state"), "draining") == 0); // control still answers
    rig_until(strcmp(rig_show("b", "state"), "gone") == 0);
    json_t *refused = rig_answer(rig_ask("add", "{\"line\":\"slow c socket=/nowhere\"}"));
    assert_non_null(json_object_get(refused, "error"));
    json_decref(refused);
    rig_open_gate();
    assert_int_equal(rig_join(), 0);
    rig_leave(d, &r);
}

static void test_deadline(void **state)
{
    (void)state;
    struct guest_request r;
    rig_drain_ms = 100;
    rig_run();
    rig_add("a");
    struct guest_disk *d = rig_connect_busy("a", &r);
    kill(getpid(), SIGTERM);
    assert_int_equal(rig_join(), -ETIMEDOUT);
    rig_leave(d, &r);
}

static void test_second_signal(void **state)
{
    (void)state;
    struct guest_request r;
    rig_run();
    rig_add("a");
    struct guest_disk *d = rig_connect_busy("a", &r);
    kill(getpid(), SIGTERM);
    rig_until(strcmp(rig_show("a", "state"), "draining") == 0);
    kill(getpid(), SIGTERM);
    assert_int_equal(rig_join(), -EINTR);
    rig_leave(d, &r);
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(test_remove_waits_for_requests_and_nobody_else),
        EACH(test_remover_may_leave),
        EACH(test_next_front_end_waits_for_the_last),
        EACH(test_many_lives),
        EACH(test_requests_stay_counted),
        EACH(test_placing),
        EACH(test_states_of_a_queue),
        EACH(test_ages),
        EACH(test_signal_drains),
        EACH(test_deadline),
        EACH(test_second_signal),
    };
    return cmocka_run_group_tests_name("control", tests, NULL, NULL);
}
