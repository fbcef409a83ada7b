// SPDX-License-Identifier: Apache-2.0
// The switch on one lane: what goes where, and what is dropped.
#include "tests/switch_rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PORTS 4

static const struct hub_note *last_note(const struct hub_port *p)
{
    return &p->notes[(p->n_notes - 1) % p->n_notes_max];
}

// ---- forwarding --------------------------------------------------------------------------

static void what_is_unknown_goes_to_all_others(void **state)
{
    (void)state;
    hub_plug_many(&hub, PORTS);
    hub_send_new(hub.ports[1], 100, 101, 0);
    hub_check_goes_to(&hub, 0xdu);
    hub_send_new(hub.ports[2], HUB_ALL, 102, 0);
    hub_check_goes_to(&hub, 0xbu);
    struct hub_frame *f = hub_frame(hub.ports[0], HUB_ALL, 7, 0);
    f->frame.head[0] = 0x33, f->frame.head[1] = 0x33; // some multicast
    hub_send(hub.ports[0], f);
    hub_check_goes_to(&hub, 0xeu);
    assert_int_equal(hub_all_drops(hub.ports[0]), 0);
}

static void an_address_is_learnt_moved_and_forgotten(void **state)
{
    (void)state;
    hub_plug_many(&hub, PORTS);
    hub_introduce(&hub, 1, 101, 0);
    hub_send_new(hub.ports[0], 101, 100, 0);
    hub_check_goes_to(&hub, 1u << 1);
    hub_introduce(&hub, 2, 101, 0); // it moved
    hub_send_new(hub.ports[0], 101, 100, 0);
    hub_check_goes_to(&hub, 1u << 2);

    hub_turn(&hub, (SWITCH_AGE_S - 1) * 1000); // not quite
    hub_send_new(hub.ports[0], 101, 100, 0);
    hub_check_goes_to(&hub, 1u << 2);
    hub_turn(&hub, 3000);
    hub_send_new(hub.ports[0], 101, 100, 0);
    hub_check_goes_to(&hub, 0xeu);
    hub_send_new(hub.ports[3], 100, 103, 0); // who spoke meanwhile is known
    hub_check_goes_to(&hub, 1u << 0);

    hub_introduce(&hub, 2, 101, 0);
    hub_unplug_last(&hub);
    hub_introduce(&hub, 2, 101, 0);
    hub_send_new(hub.ports[0], 103, 100, 0);
    hub_check_goes_to(&hub, 0x6u);
}

// As long as it speaks it is known, and that costs no more than a store a second.
static void who_speaks_does_not_age(void **state)
{
    (void)state;
    hub_plug_many(&hub, PORTS);
    hub_introduce(&hub, 1, 101, 0);
    for (unsigned s = 0; s < 3 * SWITCH_AGE_S; s += SWITCH_AGE_S / 3) {
        hub_turn(&hub, SWITCH_AGE_S / 3 * 1000);
        hub_send_new(hub.ports[1], 100, 101, 0);
    }
    hub_receivers(&hub);
    hub_send_new(hub.ports[0], 101, 100, 0);
    hub_check_goes_to(&hub, 1u << 1);
}

static void nothing_goes_back_or_nowhere_unseen(void **state)
{
    (void)state;
    hub_plug_many(&hub, PORTS);
    hub_introduce(&hub, 1, 101, 0);
    hub_send_new(hub.ports[1], 101, 102, 0);
    hub_check_goes_to(&hub, 0);
    assert_int_equal(hub_drops(hub.ports[1], DROP_SAME_PORT), 1);

    atomic_store(&hub.ports[1]->port.n_receivers, 0);
    hub_send_new(hub.ports[0], 101, 100, 0);
    atomic_store(&hub.ports[1]->port.n_receivers, 1);
    hub_place(hub.ports[1], 0, NULL);
    hub_send_new(hub.ports[0], 101, 100, 0);
    hub_send_new(hub.ports[0], HUB_ALL, 100, 0);
    hub_check_goes_to(&hub, 0xcu);
    hub_place(hub.ports[1], 0, hub.lanes->lanes[0]);
    assert_int_equal(hub_drops(hub.ports[0], DROP_LINK_DOWN), 2);

    while (hub.n_ports > 1)
        hub_unplug_last(&hub);
    hub_send_new(hub.ports[0], HUB_ALL, 100, 0);
    assert_int_equal(hub_drops(hub.ports[0], DROP_NO_PORT), 1);
    assert_int_equal(hub_all_drops(hub.ports[0]), 3);
}

static void link_local_frames_stay_where_they_are(void **state)
{
    (void)state;
    static const struct {
        uint8_t mac[6];
        bool passes;
    } cases[] = {
        {{0x01, 0x80, 0xc2, 0, 0, 0x00}, false}, // spanning tree
        {{0x01, 0x80, 0xc2, 0, 0, 0x01}, false}, // pause
        {{0x01, 0x80, 0xc2, 0, 0, 0x0e}, false}, // LLDP
        {{0x01, 0x80, 0xc2, 0, 0, 0x0f}, false}, {{0x01, 0x80, 0xc2, 0, 0, 0x10}, true},
        {{0x01, 0x80, 0xc2, 0, 1, 0x01}, true},  {{0x01, 0x00, 0x5e, 0, 0, 0x01}, true},
    };
    hub_plug_many(&hub, 2);
    uint64_t n_dropped = 0;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct hub_frame *f = hub_frame(hub.ports[0], HUB_ALL, 100, 0);
        memcpy(f->frame.head, cases[i].mac, 6);
        hub_send(hub.ports[0], f);
        hub_check_goes_to(&hub, cases[i].passes ? 2u : 0u);
        n_dropped += !cases[i].passes;
        assert_int_equal(hub_drops(hub.ports[0], DROP_RESERVED), n_dropped);
    }
}

// Ports 0 and 1 take all VLANs, 2 and 3 are in 10, 4 and 5 in 20.
static void vlans_do_not_meet(void **state)
{
    (void)state;
    static const struct {
        unsigned from;
        uint16_t tag;
        uint64_t to;
        uint16_t vlan; // as received
        enum drop drop;
    } cases[] = {
        {0, 0, 0x02, 0, DROP_NONE},       {0, 10, 0x0e, 10, DROP_NONE},
        {1, 20, 0x31, 20, DROP_NONE},     {1, 30, 0x01, 30, DROP_NONE},
        {1, 0xe00a, 0x0d, 0xe00a, 0},     {2, 0, 0x0b, 10, DROP_NONE},
        {5, 0, 0x13, 20, DROP_NONE},      {5, 0x6000, 0x13, 0x6014, 0},
        {2, 10, 0, 0, DROP_BAD_VLAN},     {2, 20, 0, 0, DROP_BAD_VLAN},
        {3, 0x600a, 0, 0, DROP_BAD_VLAN}, {0, 0x4000, 0x02, 0x4000, DROP_NONE},
        {1, 4094, 0x01, 4094, DROP_NONE}, {1, 4095, 0, 0, DROP_BAD_VLAN},
    };
    static const uint16_t vlans[] = {0, 0, 10, 10, 20, 20};
    for (unsigned i = 0; i < ARRAY_LEN(vlans); i++)
        hub_plug(&hub, vlans[i], NULL);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t n_before = hub_all_drops(hub.ports[cases[i].from]);
        hub_send_new(hub.ports[cases[i].from], HUB_ALL, 100 + cases[i].from, cases[i].tag);
        for (unsigned j = 0; j < hub.n_ports; j++) {
            if (hub.ports[j]->n_notes)
                assert_int_equal(last_note(hub.ports[j])->vlan, cases[i].vlan);
        }
        hub_check_goes_to(&hub, cases[i].to);
        assert_int_equal(hub_all_drops(hub.ports[cases[i].from]) - n_before,
                         cases[i].drop != DROP_NONE);
        if (cases[i].drop)
            assert_true(hub_drops(hub.ports[cases[i].from], cases[i].drop) > 0);
    }
    // The same address in two VLANs is two.
    hub_introduce(&hub, 2, 200, 0);
    hub_introduce(&hub, 4, 200, 0);
    hub_send_new(hub.ports[0], 200, 100, 10);
    hub_check_goes_to(&hub, 1u << 2);
    hub_send_new(hub.ports[0], 200, 100, 20);
    hub_check_goes_to(&hub, 1u << 4);
    hub_send_new(hub.ports[0], 200, 100, 0);
    hub_check_goes_to(&hub, 1u << 1);
}

// What a receiver sees is what was looked up, whatever the sender writes afterwards.
static void a_sender_that_rewrites_its_frame_changes_nothing(void **state)
{
    (void)state;
    hub_plug_many(&hub, PORTS);
    hub_introduce(&hub, 1, 101, 0);
    hub_introduce(&hub, 2, 102, 0);
    struct hub_frame *f = hub_frame(hub.ports[0], 101, 100, 5);
    hub_put_mac(f->bytes, 102);
    hub_put_mac(f->bytes + 6, 102);
    f->bytes[12] = 0x55, f->bytes[15] = 9; // the tag
    hub_introduce(&hub, 1, 101, 5);
    hub_send(hub.ports[0], f);
    uint8_t want[12];
    hub_put_mac(want, 101);
    hub_put_mac(want + 6, 100);
    assert_memory_equal(last_note(hub.ports[1])->head, want, 12);
    assert_int_equal(last_note(hub.ports[1])->vlan, 5);
    hub_check_goes_to(&hub, 1u << 1);
    hub_turn(&hub, 10);
    hub_send_new(hub.ports[0], 102, 100, 0); // and nobody is where the rewritten source said
    hub_check_goes_to(&hub, 1u << 2);
}

static void frames_in_a_row_are_delivered_together(void **state)
{
    (void)state;
    hub_plug_many(&hub, 3);
    hub_introduce(&hub, 1, 101, 0);
    hub_introduce(&hub, 2, 102, 0);
    struct frame *frames[60];
    for (unsigned i = 0; i < 60; i++)
        frames[i] = &hub_frame(hub.ports[0], i < 30 ? 101 : i < 45 ? 102 : HUB_ALL, 100, 0)->frame;
    hub.ports[1]->n_deliveries = hub.ports[2]->n_deliveries = 0;
    switch_forward(&hub.ports[0]->port, hub.lanes->lanes[0], frames, 60, &hub.ports[0]->stats[0]);
    assert_int_equal(hub.ports[1]->n_notes, 45);
    assert_int_equal(hub.ports[2]->n_notes, 30);
    assert_true(hub.ports[1]->n_deliveries <= 2 && hub.ports[2]->n_deliveries <= 3);
}

static void a_frame_that_many_hold_is_freed_by_the_last(void **state)
{
    (void)state;
    hub_plug_many(&hub, PORTS);
    hub.ports[1]->holds = hub.ports[2]->holds = true;
    hub_send_new(hub.ports[0], HUB_ALL, 100, 0);
    assert_int_equal(hub_n_frames, 1);
    hub_release(hub.ports[2]);
    assert_int_equal(hub_n_frames, 1);
    hub_release(hub.ports[1]);
    assert_int_equal(hub_n_frames, 0);
}

// ---- the device --------------------------------------------------------------------------

static void a_switch_with_ports_is_not_removed(void **state)
{
    (void)state;
    struct error e;
    hub_plug(&hub, 0, NULL);
    assert_int_equal(switch_device.busy(hub.device, &e), -EBUSY);
    assert_string_equal(e.text, "switch s: 1 port uses it: p0");
    hub_plug_many(&hub, 2);
    assert_int_equal(switch_device.busy(hub.device, &e), -EBUSY);
    assert_string_equal(e.text, "switch s: 3 ports use it: p0, p1, p2");
    hub_plug_many(&hub, 60);
    assert_int_equal(switch_device.busy(hub.device, &e), -EBUSY);
    assert_int_equal(strncmp(e.text, "switch s: 63 ports use it: p0, p1", 33), 0);
    assert_null(switch_find("t"));
}

static void a_full_switch_says_so(void **state)
{
    (void)state;
    static struct hub_port *many[SWITCH_PORTS_MAX];
    struct error e;
    for (unsigned i = 0; i < SWITCH_PORTS_MAX; i++)
        many[i] = hub_add_port(&hub, "many", 1, (uint16_t)(i % 4094), NULL);
    struct hub_port *one = hub_new_port(&hub, "one", 1, 0, NULL);
    assert_int_equal(switch_attach(hub.at, &one->port, &e), -ENOSPC);
    assert_string_equal(e.text, "port one: switch s has 1024 ports, and no room for more");
    hub_remove_port(many[500]);
    check_ok(switch_attach(hub.at, &one->port, &e), &e);
    many[500] = one;
    hub_send_new(one, HUB_ALL, 1, 0);
    for (unsigned i = 0; i < SWITCH_PORTS_MAX; i++)
        hub_remove_port(many[i]);
}

static void a_hundred_thousand_frames_leave_nothing(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 16; i++)
        hub_plug(&hub, i % 4 == 3 ? 10 : 0, NULL);
    srandom(2);
    for (unsigned i = 0; i < 100000; i++) {
        static const uint16_t tags[] = {0, 0, 10, 20, 0x2000};
        struct hub_port *p = hub.ports[random() % 16];
        unsigned to = random() % 8 ? (unsigned)random() % 64 : HUB_ALL;
        hub_send_new(p, to, (unsigned)random() % 64, tags[random() % 5]);
        assert_int_equal(hub_n_frames, 0);
        if (i % 16 == 0)
            hub_turn(&hub, 5);
    }
}

#define on_a_switch(name) cmocka_unit_test_setup_teardown(name, hub_setup, hub_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        on_a_switch(what_is_unknown_goes_to_all_others),
        on_a_switch(an_address_is_learnt_moved_and_forgotten),
        on_a_switch(who_speaks_does_not_age),
        on_a_switch(nothing_goes_back_or_nowhere_unseen),
        on_a_switch(link_local_frames_stay_where_they_are),
        on_a_switch(vlans_do_not_meet),
        on_a_switch(a_sender_that_rewrites_its_frame_changes_nothing),
        on_a_switch(frames_in_a_row_are_delivered_together),
        on_a_switch(a_frame_that_many_hold_is_freed_by_the_last),
        on_a_switch(a_switch_with_ports_is_not_removed),
        on_a_switch(a_full_switch_says_so),
        on_a_switch(a_hundred_thousand_frames_leave_nothing),
    };
    return cmocka_run_group_tests_name("switch", tests, NULL, NULL);
}
