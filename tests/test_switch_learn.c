// SPDX-License-Identifier: Apache-2.0
// What a switch learns, forgets and refuses, and what floods cost it.
#include "devices/flood.h"
#include "tests/switch_rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void an_address_of_the_line_is_not_stolen(void **state)
{
    (void)state;
    char mac[6], other[6];
    struct error e;
    hub_put_mac((uint8_t *)mac, 500);
    hub_put_mac((uint8_t *)other, 600);
    hub_plug_many(&hub, 2);
    hub_introduce(&hub, 1, 500, 0); // learnt before its owner comes
    hub_plug(&hub, 0, mac);
    hub_plug(&hub, 10, other);
    hub_send_new(hub.ports[0], 500, 100, 0); // known before it spoke
    hub_check_goes_to(&hub, 1u << 2);
    hub_introduce(&hub, 1, 500, 0);
    hub_introduce(&hub, 1, 500, 10); // nor in another VLAN, since its port takes all
    hub_introduce(&hub, 1, 600, 10);
    hub_send_new(hub.ports[0], 500, 100, 0);
    hub_check_goes_to(&hub, 1u << 2);
    hub_send_new(hub.ports[0], 500, 100, 10);
    hub_check_goes_to(&hub, 0xeu);
    hub_send_new(hub.ports[0], 600, 100, 10);
    hub_check_goes_to(&hub, 1u << 3);
    hub_turn(&hub, 2 * SWITCH_AGE_S * 1000);
    hub_send_new(hub.ports[0], 500, 100, 0); // nor forgotten
    hub_check_goes_to(&hub, 1u << 2);

    struct hub_port *twin = hub_new_port(&hub, "twin", 1, 0, mac);
    assert_int_equal(switch_attach(hub.at, &twin->port, &e), -EEXIST);
    assert_string_equal(e.text, "port twin: port p2 has that mac");
    hub_remove_port(hub.ports[2]);
    hub.ports[2] = hub.ports[3], hub.n_ports--;
    check_ok(switch_attach(hub.at, &twin->port, &e), &e);
    hub_remove_port(twin);
}

// Port @i says that it has @n addresses from @first on; control listens now and then.
static void claim(unsigned i, unsigned first, unsigned n)
{
    for (unsigned k = 0; k < n; k++) {
        hub_send_new(hub.ports[i], 9, first + k, 0);
        if (k % 100 == 99)
            hub_turn(&hub, 10);
    }
    hub_turn(&hub, 10);
}

static unsigned count_known(unsigned first, unsigned n, uint64_t where)
{
    unsigned n_known = 0;
    hub_receivers(&hub);
    for (unsigned k = 0; k < n; k++) {
        hub_send_new(hub.ports[0], first + k, 8, 0);
        n_known += hub_receivers(&hub) == where;
        if (k % 100 == 99)
            hub_turn(&hub, 1);
    }
    return n_known;
}

static void a_flood_of_addresses_fills_its_own_share(void **state)
{
    (void)state;
    hub_plug_many(&hub, 3);
    hub_introduce(&hub, 0, 8, 0);
    hub_introduce(&hub, 0, 9, 0);
    hub_introduce(&hub, 2, 7, 0);
    claim(1, 1000, SWITCH_LEARN_MAX + 500);
    assert_int_equal(count_known(1000, SWITCH_LEARN_MAX + 500, 1u << 1), SWITCH_LEARN_MAX);
    hub_send_new(hub.ports[0], 7, 8, 0);
    hub_check_goes_to(&hub, 1u << 2);
    claim(2, 5000, 10); // others learn on
    assert_int_equal(count_known(5000, 10, 1u << 2), 10);
    // What is old makes room.
    hub_turn(&hub, (SWITCH_AGE_S + 2) * 1000);
    hub_introduce(&hub, 0, 9, 0);
    claim(1, 20000, 100);
    assert_int_equal(count_known(20000, 100, 1u << 1), 100);
}

static void all_ports_together_fill_the_table(void **state)
{
    (void)state;
    enum { N = SWITCH_ADDRESSES_MAX / SWITCH_LEARN_MAX };
    hub_plug_many(&hub, N + 2);
    hub_introduce(&hub, 0, 9, 0);
    for (unsigned i = 1; i <= N; i++)
        claim(i, i * 2000, i < N ? SWITCH_LEARN_MAX : SWITCH_LEARN_MAX - 1);
    claim(N + 1, 30000, 1); // the last
    claim(N + 1, 31000, 5);
    assert_int_equal(count_known(31000, 5, 1ull << (N + 1)), 0);
    assert_int_equal(count_known(2000, 10, 1u << 1), 10);
    hub_remove_port(hub.ports[1]); // takes its own along
    hub.ports[1] = hub.ports[--hub.n_ports];
    claim(1, 31000, 5);
    assert_int_equal(count_known(31000, 5, 1u << 1), 5);
}

// Each move counts for the one port and no more for the other.
static void moving_fills_no_share(void **state)
{
    (void)state;
    hub_plug_many(&hub, 3);
    for (unsigned i = 0; i < 2 * SWITCH_LEARN_MAX + 10; i++) {
        hub_send_new(hub.ports[1 + i % 2], 9, 500, 0);
        hub_turn(&hub, 10);
    }
    claim(1, 1000, 1);
    claim(2, 2000, 1);
    assert_int_equal(count_known(1000, 1, 1u << 1), 1);
    assert_int_equal(count_known(2000, 1, 1u << 2), 1);
}

// What a switch says of itself, as far as the tests want to know.
struct told {
    struct describer describer;
    unsigned n_objects;
    uint64_t n_learnt; // of the switch, then of each port
    char last_port[16];
};

static void told_number(struct describer *to, const char *name, uint64_t value)
{
    struct told *t = container_of(to, struct told, describer);
    if (strcmp(name, "learnt") == 0)
        t->n_learnt += value;
}

static void told_text(struct describer *to, const char *name, const char *text)
{
    struct told *t = container_of(to, struct told, describer);
    if (strcmp(name, "port") == 0)
        snprintf(t->last_port, sizeof(t->last_port), "%s", text);
}

static void told_object(struct describer *to, const char *name)
{
    assert_null(name);
    container_of(to, struct told, describer)->n_objects++;
}

static void told_list(struct describer *to, const char *name)
{
    (void)to;
    assert_non_null(name);
}

static void told_close(struct describer *to)
{
    (void)to;
}

static struct told ask(void)
{
    struct told t = {{told_number, told_text, told_object, told_list, told_close}, 0, 0, ""};
    switch_device.tell(hub.device, &t.describer);
    return t;
}

// The port is gone when control hears where its address was seen.
static void who_left_is_not_learnt(void **state)
{
    (void)state;
    hub_plug_many(&hub, 2);
    hub_send_new(hub.ports[1], 9, 101, 0);
    hub_unplug_last(&hub);
    hub_turn(&hub, 10);
    assert_int_equal(ask().n_objects, 1); // port 0, and no address
    hub_plug_many(&hub, 1);
    hub_introduce(&hub, 1, 101, 0);
    struct told t = ask();
    assert_int_equal(t.n_objects, 3);
    assert_int_equal(t.n_learnt, 2);
    assert_string_equal(t.last_port, "p1");
}

// Whoever still knows the number of a port that left does not find its successor.
static void a_successor_gets_nothing_of_its_predecessor(void **state)
{
    (void)state;
    hub_plug_many(&hub, 2);
    unsigned number = hub.ports[1]->port.index;
    hub_remove_port(hub.ports[1]);
    hub.ports[1] = hub_add_port(&hub, "p1", 1, 0, NULL);
    assert_int_not_equal(hub.ports[1]->port.index, number);
}

// ---- floods ------------------------------------------------------------------------------

static void one_port_that_floods_leaves_others_their_share(void **state)
{
    (void)state;
    enum { N = 64 };
    hub_plug_many(&hub, N);
    struct frame *frames[256];
    for (unsigned turn = 0; turn < 20; turn++) {
        for (unsigned i = 0; i < 256; i++)
            frames[i] = &hub_frame(hub.ports[0], HUB_ALL, 100, 0)->frame;
        switch_forward(&hub.ports[0]->port, hub.lanes->lanes[0], frames, 256,
                       &hub.ports[0]->stats[0]);
        hub_receivers(&hub);
        // The others, after it: each a broadcast in a turn.
        hub_send_new(hub.ports[1 + turn], HUB_ALL, 101, 0);
        assert_int_equal(hub_receivers(&hub), 0xffffffffffffffffull & ~(1ull << (1 + turn)));
        hub_turn(&hub, 1);
    }
    uint64_t n_dropped = hub_drops(hub.ports[0], DROP_FLOOD);
    assert_true(n_dropped > 0);
    // Bounded: what it got through is no more than a turn may cost.
    assert_true((20 * 256 - n_dropped) * (N - 1) <= 20 * FLOOD_TURN_MAX);
    // Unicast is never limited.
    hub_introduce(&hub, 1, 7, 0);
    uint64_t n_before = hub_all_drops(hub.ports[2]);
    for (unsigned i = 0; i < 10000; i++)
        hub_send_new(hub.ports[2], 7, 102, 0);
    assert_int_equal(hub.ports[1]->n_notes, 10000);
    assert_int_equal(hub_all_drops(hub.ports[2]), n_before);
}

static void a_thousand_ports_flood_in_turn(void **state)
{
    (void)state;
    struct flood f = {0};
    uint64_t n_allowed[FLOOD_PORTS_MAX] = {0};
    for (uint64_t turn = 1; turn <= 3000; turn++) {
        uint32_t n = 0;
        for (unsigned i = 0; i < 1024; i++) {
            for (unsigned j = 0; j < 3; j++) {
                bool is_allowed = flood_allows(&f, turn, i, 1024, 1023);
                n_allowed[i] += is_allowed;
                n += is_allowed ? 1023 : 0;
            }
        }
        assert_true(n <= FLOOD_TURN_MAX);
    }
    for (unsigned i = 0; i < 1024; i++)
        assert_true(n_allowed[i] >= 3);
}

#define on_a_switch(name) cmocka_unit_test_setup_teardown(name, hub_setup, hub_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        on_a_switch(an_address_of_the_line_is_not_stolen),
        on_a_switch(a_flood_of_addresses_fills_its_own_share),
        on_a_switch(all_ports_together_fill_the_table),
        on_a_switch(moving_fills_no_share),
        on_a_switch(who_left_is_not_learnt),
        on_a_switch(a_successor_gets_nothing_of_its_predecessor),
        on_a_switch(one_port_that_floods_leaves_others_their_share),
        cmocka_unit_test(a_thousand_ports_flood_in_turn),
    };
    return cmocka_run_group_tests_name("switch_learn", tests, NULL, NULL);
}
