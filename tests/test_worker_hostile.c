// SPDX-License-Identifier: Apache-2.0
// Rings that fault, and eventfds whose other holder means ill: a worker serves its other queues.
#include "tests/crew.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

static struct crew crew;

// ---- hostile rings -----------------------------------------------------------------------

// Make the chain that was offered last available once more.
static void offer_again(struct crew_queue *s, bool is_packed)
{
    struct driver_areas areas;
    driver_describe(s->driver, &areas);
    if (is_packed) {
        struct packed_desc *ring = guest_host(crew.guest, areas.desc);
        struct packed_desc copy = ring[2];
        ring[3] = (struct packed_desc){copy.addr, copy.len, copy.id, 0};
        guest_store16_release(&ring[3].flags, copy.flags);
    } else {
        struct split_avail *avail = guest_host(crew.guest, areas.driver);
        avail->ring[3] = avail->ring[2];
        guest_store16_release(&avail->idx, 4);
    }
    eventfd_write(s->q->kick_fd, 1);
}

// The device has it still. Its queue faults, what it holds comes back, and others are served.
static void same_head_while_it_is_held(void **state)
{
    (void)state;
    for (unsigned l = 0; l < CREW_LAYOUTS; l++) {
        crew_open(&crew, 2, crew_layouts[l]);
        struct crew_queue *s = &crew.queues[0];
        s->is_slow = true;
        struct worker *w = crew_worker(0, WORKER_ADAPTIVE);
        crew_attach(&crew, w, 0);
        crew_attach(&crew, w, 1);
        crew_offer(s, 3);
        crew_until(s->n_popped == 3);
        offer_again(s, crew_layouts[l] & CREW_PACKED);
        uint64_t detail;
        crew_until(ring_read_fault(&s->q->ring, &detail) == RING_DUP_HEAD);
        crew_await(&crew.queues[1], crew_offer(&crew.queues[1], 8));
        assert_int_equal(s->n_popped, 3);
        crew_release(s);
        crew_detach(&crew, w, 0); // answered when all of them are back
        assert_int_equal(s->q->ring.n_in_flight, 0);
        assert_int_equal(crew_collect(s), 0);
        crew_await(&crew.queues[1], crew_offer(&crew.queues[1], 8));
        crew_detach(&crew, w, 1);
        crew_dismiss(w);
        crew_close(&crew);
    }
}

// ---- hostile eventfds --------------------------------------------------------------------

static void fill(int fd)
{
    eventfd_t value;
    eventfd_read(fd, &value);
    eventfd_write(fd, UINT64_MAX - 1);
}

// @is_blocking: the peer took the flag back that the session had set.
static void saturated_call(bool is_blocking)
{
    crew_open(&crew, 2, 0);
    struct crew_queue *s = &crew.queues[0];
    struct worker *w = crew_worker(0, WORKER_ADAPTIVE);
    if (is_blocking) {
        close(s->q->call_fd);
        s->q->call_fd = eventfd(UINT32_MAX, 0);
        eventfd_write(s->q->call_fd, UINT64_MAX - 1 - UINT32_MAX);
    } else {
        fill(s->q->call_fd);
    }
    crew_attach(&crew, w, 0); // wants to call at once
    crew_attach(&crew, w, 1);
    for (unsigned i = 0; i < 100; i++) {
        driver_arm(s->driver);
        crew_await(s, crew_offer(s, 4));
        driver_arm(crew.queues[1].driver);
        crew_await_interrupt(&crew.queues[1], crew_offer(&crew.queues[1], 4));
    }
    assert_int_equal(counter_read(&s->q->n_calls), 1); // one is out, one is wanted

    // Room again: both come.
    eventfd_t value;
    eventfd_read(s->q->call_fd, &value);
    crew_until(counter_read(&s->q->n_calls) == 2);
    crew_call(w, s->q, crew_do_nothing, NULL);

    // It leaves while one is out, and one is wanted.
    if (is_blocking)
        eventfd_write(s->q->call_fd, 1); // never empty: the read below must not wait
    eventfd_read(s->q->call_fd, &value);
    eventfd_write(s->q->call_fd, UINT64_MAX - 1);
    for (unsigned i = 0; i < 3; i++) {
        driver_arm(s->driver);
        crew_await(s, crew_offer(s, 4));
    }
    crew_detach(&crew, w, 0);
    crew_detach(&crew, w, 1);
    crew_dismiss(w);
    crew_close(&crew);
}

static void saturated_call_harms_nobody(void **state)
{
    (void)state;
    saturated_call(false);
    saturated_call(true);
}

static void change_call(struct queue *q, void *argument)
{
    q->call_fd = *(int *)argument;
    q->call_changed = true;
}

static void call_is_replaced(void **state)
{
    (void)state;
    for (unsigned is_full = 0; is_full < 2; is_full++) {
        crew_open(&crew, 1, 0);
        struct crew_queue *s = &crew.queues[0];
        struct worker *w = crew_worker(0, WORKER_INTERRUPT);
        int old = s->q->call_fd, new = eventfd(0, EFD_NONBLOCK), none = -1;
        if (is_full)
            fill(old);
        crew_attach(&crew, w, 0);
        crew_call(w, s->q, change_call, &new);
        assert_false(s->q->call_changed);
        close(old);
        eventfd_t value;
        crew_until(eventfd_read(new, &value) == 0); // notified once
        crew_await_interrupt(s, crew_offer(s, 4));

        crew_call(w, s->q, change_call, &none);
        uint64_t calls = counter_read(&s->q->n_calls);
        driver_arm(s->driver);
        crew_await(s, crew_offer(s, 4));
        assert_int_equal(counter_read(&s->q->n_calls), calls);
        crew_call(w, s->q, change_call, &new);
        crew_until(eventfd_read(new, &value) == 0);
        crew_detach(&crew, w, 0);
        crew_dismiss(w);
        crew_close(&crew);
    }
}

// A descriptor whose READ fails: no kick can come, so the queue stays polled.
static void unreadable_kick_is_not_waited_for(void **state)
{
    (void)state;
    crew_open(&crew, 1, 0);
    struct crew_queue *s = &crew.queues[0];
    close(s->q->kick_fd);
    s->q->kick_fd = open("/dev/null", O_WRONLY);
    struct worker *w = crew_worker(0, WORKER_INTERRUPT);
    crew_attach(&crew, w, 0);
    crew_offer(s, 4);
    crew_await(s, 4);
    uint64_t polls = s->n_polls;
    crew_until(s->n_polls > polls + 10);
    polls = s->n_polls;
    uint64_t enters = crew_stats(w).n_enters;
    crew_until(s->n_polls > polls + 1000);
    assert_int_equal(crew_stats(w).n_enters, enters);
    assert_int_equal(counter_read(&s->q->n_kicks), 0);
    crew_detach(&crew, w, 0);
    crew_dismiss(w);
    crew_close(&crew);
}

// ---- faults ------------------------------------------------------------------------------

static void fault(struct queue *q, void *argument)
{
    (void)argument;
    ring_fault(&q->ring, RING_BAD_HEAD, 1);
}

// Each call takes a turn of its own, so a queue that is still polled is polled between them.
static uint64_t polls_during_calls(struct worker *w, struct crew_queue *s, unsigned n)
{
    uint64_t before = s->n_polls;
    crew_turns_during_calls(w, s->q, n);
    return s->n_polls - before;
}

static void leave_faulted_alone(enum worker_poll mode, bool has_kick)
{
    crew_open(&crew, 1, 0);
    struct crew_queue *s = &crew.queues[0];
    if (!has_kick) {
        close(s->q->kick_fd);
        s->q->kick_fd = -1;
    }
    struct worker *w = crew_worker(0, mode);
    crew_attach(&crew, w, 0);
    crew_call(w, s->q, fault, NULL);
    if (has_kick)
        eventfd_write(s->q->kick_fd, 1);
    crew_until(polls_during_calls(w, s, 3) == 0);
    crew_until(crew_turns_during_calls(w, s->q, 10) < 100);
    assert_int_equal(polls_during_calls(w, s, 100), 0);
    assert_true(crew_turns_during_calls(w, s->q, 100) < 1000);
    crew_detach(&crew, w, 0);
    crew_dismiss(w);
    crew_close(&crew);
}

static void faulted_queue_is_left_alone(void **state)
{
    (void)state;
    for (unsigned m = 0; m < CREW_MODES; m++)
        for (unsigned has_kick = 0; has_kick < 2; has_kick++)
            leave_faulted_alone(crew_modes[m], has_kick);
}

static void faulted_queue_drains(void **state)
{
    (void)state;
    crew_open(&crew, 1, CREW_PACKED);
    struct crew_queue *s = &crew.queues[0];
    s->is_slow = true;
    struct worker *w = crew_worker(0, WORKER_ADAPTIVE);
    crew_attach(&crew, w, 0);
    crew_offer(s, 10);
    crew_until(s->n_popped == 10);
    crew_call(w, s->q, fault, NULL);
    worker_detach(w, s->q);
    crew_release(s);
    assert_ptr_equal(crew_answer(w), s->q);
    assert_int_equal(s->q->ring.n_in_flight, 0);
    crew_dismiss(w);
    crew_close(&crew);
}

static void queue_that_cannot_be_taken_faults(void **state)
{
    (void)state;
    crew_open(&crew, 1, 0);
    struct crew_queue *s = &crew.queues[0];
    s->enter_result = -ENFILE;
    struct worker *w = crew_worker(0, WORKER_BUSY);
    crew_attach(&crew, w, 0);
    crew_detach(&crew, w, 0);
    assert_int_equal(s->q->ring.fault, RING_NOT_SERVED);
    assert_int_equal(s->q->ring.fault_detail, ENFILE);
    assert_int_equal(s->n_leaves, 0);
    crew_dismiss(w);
    crew_close(&crew);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_head_while_it_is_held),
        cmocka_unit_test(saturated_call_harms_nobody),
        cmocka_unit_test(call_is_replaced),
        cmocka_unit_test(unreadable_kick_is_not_waited_for),
        cmocka_unit_test(faulted_queue_is_left_alone),
        cmocka_unit_test(faulted_queue_drains),
        cmocka_unit_test(queue_that_cannot_be_taken_faults),
    };
    return cmocka_run_group_tests_name("worker_hostile", tests, NULL, NULL);
}
