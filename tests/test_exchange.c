// SPDX-License-Identifier: Apache-2.0
// Frames between lanes, through a switch: one thread that is all lanes in turn, so that everything
// can happen in between; then two threads at once, with ports that come and go.
#include "devices/exchange.h"
#include "tests/switch_rig.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LANES 3

static struct hub_port *ports[LANES]; // each on the lane with its number

static struct lane *lane(unsigned i)
{
    return hub.lanes->lanes[i];
}

// A turn of one lane.
static unsigned turn(unsigned i)
{
    lane(i)->now++;
    return lane_poll_all(lane(i));
}

static int open_rig(void **state)
{
    (void)state;
    hub_open(&hub, LANES);
    for (unsigned i = 0; i < LANES; i++) {
        char name[8];
        snprintf(name, sizeof(name), "p%u", i);
        ports[i] = hub_add_port(&hub, name, 1, 0, NULL);
        hub_place(ports[i], 0, lane(i));
        hub_send_new(ports[i], HUB_ALL, 100 + i, 0);
    }
    for (unsigned i = 0; i < 3; i++)
        hub_turn(&hub, 10); // everybody is known
    for (unsigned i = 0; i < LANES; i++)
        ports[i]->n_notes = 0;
    assert_int_equal(hub_n_frames, 0);
    return 0;
}

static int close_rig(void **state)
{
    (void)state;
    for (unsigned i = 0; i < LANES; i++) {
        if (ports[i])
            hub_remove_port(ports[i]);
    }
    hub_close(&hub);
    return 0;
}

static void there_and_back(void **state)
{
    (void)state;
    hub_send_new(ports[0], 101, 100, 0);
    assert_true(lane_has_work(lane(1)) && !lane_has_work(lane(0)) && !lane_has_work(lane(2)));
    assert_int_equal(ports[1]->n_notes, 0);
    assert_int_equal(turn(1), 1);
    assert_int_equal(ports[1]->n_notes, 1);
    assert_int_equal(hub_n_frames, 1);
    assert_true(lane_has_work(lane(0)) && !lane_has_work(lane(1)));
    assert_int_equal(turn(0), 1);
    assert_int_equal(hub_n_frames, 0);
    assert_false(lane_has_work(lane(0)));
}

static void who_keeps_a_frame_gives_it_back_later(void **state)
{
    (void)state;
    ports[1]->holds = true;
    hub_send_new(ports[0], 101, 100, 0);
    turn(1), turn(0);
    assert_int_equal(hub_n_frames, 1);
    assert_false(lane_has_work(lane(0)));
    hub_release(ports[1]);
    assert_true(lane_has_work(lane(1))); // to be sent home
    turn(1), turn(0);
    assert_int_equal(hub_n_frames, 0);
}

static void what_finds_no_room_is_dropped(void **state)
{
    (void)state;
    for (unsigned i = 0; i < EXCHANGE_MESSAGES + 10; i++)
        hub_send_new(ports[0], 101, 100, 0);
    assert_int_equal(hub_n_frames, EXCHANGE_MESSAGES);
    assert_int_equal(hub_drops(ports[0], DROP_CHANNEL_FULL), 10);
    hub_send_new(ports[2], 101, 102, 0); // another sender has room
    hub_send_new(ports[0], 102, 100, 0); // and so has another receiver
    assert_int_equal(hub_drops(ports[2], DROP_CHANNEL_FULL), 0);
    assert_int_equal(hub_drops(ports[0], DROP_CHANNEL_FULL), 10);
    hub_send_new(ports[0], HUB_ALL, 100, 0); // to one of two
    assert_int_equal(hub_drops(ports[0], DROP_CHANNEL_FULL), 11);

    unsigned n_turns = 0;
    for (; lane_has_work(lane(1)); n_turns++)
        assert_true(turn(1) <= LANE_BUDGET + 64); // its own queues have a turn as well
    assert_true(n_turns > EXCHANGE_MESSAGES / (LANE_BUDGET + 64));
    assert_int_equal(ports[1]->n_notes, EXCHANGE_MESSAGES + 1);
    while (lane_has_work(lane(2)))
        turn(2);
    assert_int_equal(ports[2]->n_notes, 2);
    turn(0), turn(2);
    assert_int_equal(hub_n_frames, 0);
    hub_send_new(ports[0], 101, 100, 0); // there is room again
    assert_int_equal(hub_drops(ports[0], DROP_CHANNEL_FULL), 11);
    turn(1), turn(0);
}

static void all_get_a_flood_once(void **state)
{
    (void)state;
    struct hub_port *more[LANES];
    for (unsigned i = 0; i < LANES; i++) {
        more[i] = hub_add_port(&hub, "more", 1, 0, NULL);
        hub_place(more[i], 0, lane(i));
    }
    // By nobody kept, by one, by two on the same lane, by the sender's own lane as well.
    static const unsigned keepers[] = {0, 1 << 1, 1 << 1 | 1 << 4, 0x3e};
    for (unsigned k = 0; k < ARRAY_LEN(keepers); k++) {
        for (unsigned i = 0; i < 2 * LANES; i++) {
            struct hub_port *p = i < LANES ? ports[i] : more[i - LANES];
            p->holds = keepers[k] >> i & 1;
            p->n_notes = 0;
        }
        hub_send_new(ports[0], HUB_ALL, 100, 0);
        for (unsigned i = 0; i < LANES; i++)
            turn((i + 1) % LANES);
        for (unsigned i = 0; i < LANES; i++) {
            assert_int_equal(ports[i]->n_notes, i != 0);
            assert_int_equal(more[i]->n_notes, 1);
        }
        assert_int_equal(hub_n_frames, keepers[k] != 0);
        for (unsigned i = 0; i < LANES; i++) {
            hub_release(more[i]);
            hub_release(ports[i]);
            turn(i);
        }
        turn(0);
        assert_int_equal(hub_n_frames, 0);
    }
    for (unsigned i = 0; i < LANES; i++)
        hub_remove_port(more[i]);
}

// What was under way to a queue that is gone when it arrives comes back.
static void a_receiver_that_left_gets_nothing(void **state)
{
    (void)state;
    for (unsigned how = 0; how < 4; how++) {
        ports[1]->n_notes = 0;
        for (unsigned i = 0; i < 100; i++) {
            hub_send_new(ports[0], 101, 100, 0);
            hub_send_new(ports[0], HUB_ALL, 100, 0);
        }
        switch (how) {
        case 0: // its queue is nobody's
            hub_place(ports[1], 0, NULL);
            break;
        case 1: // or on another lane
            hub_place(ports[1], 0, lane(2));
            break;
        case 2: // it left the switch
            hub_remove_port(ports[1]);
            ports[1] = NULL;
            break;
        default: // and another one has its place
            hub_remove_port(ports[1]);
            ports[1] = hub_add_port(&hub, "new", 1, 0, NULL);
            hub_place(ports[1], 0, NULL);
            break;
        }
        while (lane_has_work(lane(1)))
            turn(1);
        turn(0);
        if (ports[1])
            assert_int_equal(ports[1]->n_notes, 0);
        else
            ports[1] = hub_add_port(&hub, "new", 1, 0, NULL);
        hub_place(ports[1], 0, lane(1));
        while (lane_has_work(lane(2)))
            turn(2);
        turn(0);
        assert_int_equal(hub_n_frames, 0);
        hub_send_new(ports[1], HUB_ALL, 101, 0);
        hub_turn(&hub, 10), hub_turn(&hub, 10);
    }
}

// The switch itself may leave while its frames are under way only when its ports have left, and
// these when their frames are home. A message that comes too late anyway is taken for what it is.
static void a_frame_of_no_switch_comes_back(void **state)
{
    (void)state;
    struct frame *f = &hub_frame(ports[0], 101, 100, 0)->frame;
    f->n_holders = 1;
    f->n_away = 1;
    assert_true(exchange_send(lane(0), 1, &(struct parcel){f, ports[1]->port.index, 12345}));
    exchange_flush(lane(0));
    turn(1), turn(0);
    assert_int_equal(hub_n_frames, 0);
    assert_int_equal(ports[1]->n_notes, 0);
}

// More lanes than bits in the word that says who sent something.
static void lanes_beyond_64(void **state)
{
    (void)state;
    enum { N = 130 };
    static struct hub_port *many[N];
    hub_open(&hub, N);
    for (unsigned i = 0; i < N; i++) {
        many[i] = hub_add_port(&hub, "many", 1, 0, NULL);
        hub_place(many[i], 0, lane(i));
        hub_send_new(many[i], HUB_ALL, i, 0);
        for (unsigned j = 0; j < 3; j++)
            hub_turn(&hub, 10);
        assert_int_equal(hub_n_frames, 0);
    }
    for (unsigned i = 0; i < N; i++)
        many[i]->n_notes = 0;
    for (unsigned i = 0; i < N; i++)
        hub_send_new(many[i], (i + 65) % N, i, 0);
    for (unsigned j = 0; j < 3; j++)
        hub_turn(&hub, 10);
    for (unsigned i = 0; i < N; i++)
        assert_int_equal(many[i]->n_notes, 1);
    for (unsigned i = 0; i < N; i++)
        hub_remove_port(many[i]);
    hub_close(&hub);
}

// ---- two threads -------------------------------------------------------------------------

enum { WORKERS = 2, EACH = 3, REPLACED = 24, FRAMES = 2000 };

struct fake_worker {
    pthread_t thread;
    unsigned index;
    _Atomic unsigned n_sent, n_wanted;
    struct hub_port *_Atomic own[EACH];
    _Atomic uint64_t n_turns;
    atomic_bool is_ending;
};

static struct fake_worker workers[WORKERS];

static void send_some(struct fake_worker *w, unsigned *seed)
{
    struct hub_port *p = w->own[(unsigned)rand_r(seed) % 2]; // the third only receives
    struct frame *frames[32];
    for (unsigned i = 0; i < 32; i++) {
        unsigned to = (unsigned)rand_r(seed) % 10;
        frames[i] = &hub_frame(p, to < 9 ? to : HUB_ALL, p->port.index & 3, 0)->frame;
    }
    switch_forward(&p->port, lane(w->index), frames, 32, &p->stats[0]);
    w->n_sent += 32;
}

static void *work(void *argument)
{
    struct fake_worker *w = argument;
    unsigned seed = w->index;
    while (!w->is_ending || hub_n_frames) {
        w->n_turns++;
        turn(w->index);
        if (w->n_sent < w->n_wanted && !w->is_ending)
            send_some(w, &seed);
        else
            sched_yield();
    }
    return NULL;
}

static void pass_turns(void)
{
    for (unsigned i = 0; i < WORKERS; i++) {
        uint64_t before = workers[i].n_turns;
        while (workers[i].n_turns < before + 2)
            sched_yield();
    }
}

static void send_more(void)
{
    for (unsigned i = 0; i < WORKERS; i++)
        workers[i].n_wanted = workers[i].n_sent + FRAMES;
    for (unsigned i = 0; i < WORKERS; i++) {
        while (workers[i].n_sent < workers[i].n_wanted)
            sched_yield();
    }
}

static struct hub_port *add_on(unsigned index, const char *mac)
{
    struct error e;
    struct hub_port *p = hub_new_port(&hub, "p", 1, 0, mac);
    hub_place(p, 0, lane(index));
    check_ok(switch_attach(hub.at, &p->port, &e), &e);
    return p;
}

static void two_workers_and_ports_that_come_and_go(void **state)
{
    (void)state;
    uint64_t n_received = 0, n_dropped = 0;
    hub_open(&hub, WORKERS);
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = (struct fake_worker){.index = i};
        for (unsigned j = 0; j < EACH; j++)
            workers[i].own[j] = add_on(i, NULL);
    }
    for (unsigned i = 0; i < WORKERS; i++)
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    for (unsigned i = 0; i < REPLACED; i++) {
        struct fake_worker *w = &workers[i % WORKERS];
        send_more();
        struct hub_port *old = w->own[EACH - 1];
        switch_detach(&old->port);
        pass_turns();
        n_received += old->n_notes;
        hub_free_port(old);
        w->own[EACH - 1] = add_on(w->index, NULL);
        hub.now_ms += 10;
        switch_device.tick(hub.device, hub.now_ms);
    }
    for (unsigned i = 0; i < WORKERS; i++)
        workers[i].is_ending = true;
    for (unsigned i = 0; i < WORKERS; i++)
        pthread_join(workers[i].thread, NULL);
    assert_int_equal(hub_n_frames, 0);
    for (unsigned i = 0; i < WORKERS; i++) {
        for (unsigned j = 0; j < EACH; j++) {
            n_received += workers[i].own[j]->n_notes;
            n_dropped += hub_all_drops(workers[i].own[j]);
            hub_remove_port(workers[i].own[j]);
        }
    }
    assert_true(n_received > 0);
    printf("# %u frames, %llu received, %llu dropped\n", workers[0].n_sent + workers[1].n_sent,
           (unsigned long long)n_received, (unsigned long long)n_dropped);
    hub_close(&hub);
}

#define on_a_switch(name) cmocka_unit_test_setup_teardown(name, open_rig, close_rig)

int main(void)
{
    const struct CMUnitTest tests[] = {
        on_a_switch(there_and_back),
        on_a_switch(who_keeps_a_frame_gives_it_back_later),
        on_a_switch(what_finds_no_room_is_dropped),
        on_a_switch(all_get_a_flood_once),
        on_a_switch(a_receiver_that_left_gets_nothing),
        on_a_switch(a_frame_of_no_switch_comes_back),
        cmocka_unit_test(lanes_beyond_64),
        cmocka_unit_test(two_workers_and_ports_that_come_and_go),
    };
    return cmocka_run_group_tests_name("exchange", tests, NULL, NULL);
}
