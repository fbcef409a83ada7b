// SPDX-License-Identifier: Apache-2.0
// The switch on one lane: what goes where, what is learnt and forgotten, and what floods cost.
#include "devices/flood.h"
#include "tests/switch_rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PORTS 4

static struct switch_rig rig;
static struct rig_port *ports[64];
static unsigned n_ports;

static int open_rig(void **state)
{
    (void)state;
    rig_open(&rig, 1);
    n_ports = 0;
    return 0;
}

static int close_rig(void **state)
{
    (void)state;
    while (n_ports) {
        rig_release(ports[n_ports - 1]);
        rig_remove_port(ports[--n_ports]);
    }
    rig_close(&rig);
    return 0;
}

static struct rig_port *add(uint16_t vlan, const char *mac)
{
    char name[16];
    snprintf(name, sizeof(name), "p%u", n_ports);
    return ports[n_ports++] = rig_add_port(&rig, name, 1, vlan, mac);
}

static void add_ports(unsigned n)
{
    while (n--)
        add(0, NULL);
}

// Who got something since the last time: a bit each.
static uint64_t receivers(void)
{
    static const struct rig_note none;
    uint64_t bits = 0;
    for (unsigned i = 0; i < n_ports; i++) {
        bits |= (uint64_t)(ports[i]->n_notes > 0) << i;
        ports[i]->n_notes = 0;
        ports[i]->notes[0] = none;
    }
    return bits;
}

#define check_goes_to(bits) assert_true(receivers() == (bits))

// @mac says something through port @i, and control hears of it.
static void introduce(unsigned i, unsigned mac, uint16_t tag)
{
    rig_send_new(ports[i], RIG_ALL, mac, tag);
    rig_turn(&rig, 10);
    receivers();
}

static const struct rig_note *last_note(const struct rig_port *p)
{
    return &p->notes[(p->n_notes - 1) % p->n_notes_max];
}

// ---- forwarding --------------------------------------------------------------------------

static void what_is_unknown_goes_to_all_others(void **state)
{
    (void)state;
    add_ports(PORTS);
    rig_send_new(ports[1], 100, 101, 0);
    check_goes_to(0xdu);
    rig_send_new(ports[2], RIG_ALL, 102, 0);
    check_goes_to(0xbu);
    struct rig_frame *f = rig_frame(ports[0], RIG_ALL, 7, 0);
    f->frame.head[0] = 0x33, f->frame.head[1] = 0x33; // some multicast
    rig_send(ports[0], f);
    check_goes_to(0xeu);
    assert_int_equal(rig_all_drops(ports[0]), 0);
}

static void an_address_is_learnt_moved_and_forgotten(void **state)
{
    (void)state;
    add_ports(PORTS);
    introduce(1, 101, 0);
    rig_send_new(ports[0], 101, 100, 0);
    check_goes_to(1u << 1);
    introduce(2, 101, 0); // it moved
    rig_send_new(ports[0], 101, 100, 0);
    check_goes_to(1u << 2);

    rig_turn(&rig, (SWITCH_AGE_S - 1) * 1000); // not quite
    rig_send_new(ports[0], 101, 100, 0);
    check_goes_to(1u << 2);
    rig_turn(&rig, 3000);
    rig_send_new(ports[0], 101, 100, 0);
    check_goes_to(0xeu);
    rig_send_new(ports[3], 100, 103, 0); // who spoke meanwhile is known
    check_goes_to(1u << 0);

    introduce(2, 101, 0);
    rig_remove_port(ports[3]);
    n_ports--;
    introduce(2, 101, 0);
    rig_send_new(ports[0], 103, 100, 0);
    check_goes_to(0x6u);
}

// As long as it speaks it is known, and that costs no more than a store a second.
static void who_speaks_does_not_age(void **state)
{
    (void)state;
    add_ports(PORTS);
    introduce(1, 101, 0);
    for (unsigned s = 0; s < 3 * SWITCH_AGE_S; s += SWITCH_AGE_S / 3) {
        rig_turn(&rig, SWITCH_AGE_S / 3 * 1000);
        rig_send_new(ports[1], 100, 101, 0);
    }
    receivers();
    rig_send_new(ports[0], 101, 100, 0);
    check_goes_to(1u << 1);
}

static void nothing_goes_back_or_nowhere_unseen(void **state)
{
    (void)state;
    add_ports(PORTS);
    introduce(1, 101, 0);
    rig_send_new(ports[1], 101, 102, 0);
    check_goes_to(0);
    assert_int_equal(rig_drops(ports[1], DROP_SAME_PORT), 1);

    atomic_store(&ports[1]->port.n_receivers, 0);
    rig_send_new(ports[0], 101, 100, 0);
    atomic_store(&ports[1]->port.n_receivers, 1);
    rig_place(ports[1], 0, NULL);
    rig_send_new(ports[0], 101, 100, 0);
    rig_send_new(ports[0], RIG_ALL, 100, 0);
    check_goes_to(0xcu);
    rig_place(ports[1], 0, rig.lanes->lanes[0]);
    assert_int_equal(rig_drops(ports[0], DROP_LINK_DOWN), 2);

    while (n_ports > 1)
        rig_remove_port(ports[--n_ports]);
    rig_send_new(ports[0], RIG_ALL, 100, 0);
    assert_int_equal(rig_drops(ports[0], DROP_NO_PORT), 1);
    assert_int_equal(rig_all_drops(ports[0]), 3);
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
    add_ports(2);
    uint64_t n_dropped = 0;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct rig_frame *f = rig_frame(ports[0], RIG_ALL, 100, 0);
        memcpy(f->frame.head, cases[i].mac, 6);
        rig_send(ports[0], f);
        check_goes_to(cases[i].passes ? 2u : 0u);
        n_dropped += !cases[i].passes;
        assert_int_equal(rig_drops(ports[0], DROP_RESERVED), n_dropped);
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
        {1, 4094, 0x01, 4094, DROP_NONE},
    };
    static const uint16_t vlans[] = {0, 0, 10, 10, 20, 20};
    for (unsigned i = 0; i < ARRAY_LEN(vlans); i++)
        add(vlans[i], NULL);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t n_before = rig_all_drops(ports[cases[i].from]);
        rig_send_new(ports[cases[i].from], RIG_ALL, 100 + cases[i].from, cases[i].tag);
        for (unsigned j = 0; j < n_ports; j++) {
            if (ports[j]->n_notes)
                assert_int_equal(last_note(ports[j])->vlan, cases[i].vlan);
        }
        check_goes_to(cases[i].to);
        assert_int_equal(rig_all_drops(ports[cases[i].from]) - n_before,
                         cases[i].drop != DROP_NONE);
        if (cases[i].drop)
            assert_true(rig_drops(ports[cases[i].from], cases[i].drop) > 0);
    }
    // The same address in two VLANs is two.
    introduce(2, 200, 0);
    introduce(4, 200, 0);
    rig_send_new(ports[0], 200, 100, 10);
    check_goes_to(1u << 2);
    rig_send_new(ports[0], 200, 100, 20);
    check_goes_to(1u << 4);
    rig_send_new(ports[0], 200, 100, 0);
    check_goes_to(1u << 1);
}

// What a receiver sees is what was looked up, whatever the sender writes afterwards.
static void a_sender_that_rewrites_its_frame_changes_nothing(void **state)
{
    (void)state;
    add_ports(PORTS);
    introduce(1, 101, 0);
    introduce(2, 102, 0);
    struct rig_frame *f = rig_frame(ports[0], 101, 100, 5);
    rig_put_mac(f->bytes, 102);
    rig_put_mac(f->bytes + 6, 102);
    f->bytes[12] = 0x55, f->bytes[15] = 9; // the tag
    introduce(1, 101, 5);
    rig_send(ports[0], f);
    uint8_t want[12];
    rig_put_mac(want, 101);
    rig_put_mac(want + 6, 100);
    assert_memory_equal(last_note(ports[1])->head, want, 12);
    assert_int_equal(last_note(ports[1])->vlan, 5);
    check_goes_to(1u << 1);
    rig_turn(&rig, 10);
    rig_send_new(ports[0], 102, 100, 0); // and nobody is where the rewritten source said
    check_goes_to(1u << 2);
}

static void frames_in_a_row_are_delivered_together(void **state)
{
    (void)state;
    add_ports(3);
    introduce(1, 101, 0);
    introduce(2, 102, 0);
    struct frame *frames[60];
    for (unsigned i = 0; i < 60; i++)
        frames[i] = &rig_frame(ports[0], i < 30 ? 101 : i < 45 ? 102 : RIG_ALL, 100, 0)->frame;
    ports[1]->n_deliveries = ports[2]->n_deliveries = 0;
    switch_forward(&ports[0]->port, rig.lanes->lanes[0], frames, 60, &ports[0]->stats[0]);
    assert_int_equal(ports[1]->n_notes, 45);
    assert_int_equal(ports[2]->n_notes, 30);
    assert_true(ports[1]->n_deliveries <= 2 && ports[2]->n_deliveries <= 3);
}

static void a_frame_that_many_hold_is_freed_by_the_last(void **state)
{
    (void)state;
    add_ports(PORTS);
    ports[1]->holds = ports[2]->holds = true;
    rig_send_new(ports[0], RIG_ALL, 100, 0);
    assert_int_equal(rig_n_frames, 1);
    rig_release(ports[2]);
    assert_int_equal(rig_n_frames, 1);
    rig_release(ports[1]);
    assert_int_equal(rig_n_frames, 0);
}

// ---- addresses ---------------------------------------------------------------------------

static void an_address_of_the_line_is_not_stolen(void **state)
{
    (void)state;
    char mac[6], other[6];
    struct error e;
    rig_put_mac((uint8_t *)mac, 500);
    rig_put_mac((uint8_t *)other, 600);
    add_ports(2);
    introduce(1, 500, 0); // learnt before its owner comes
    add(0, mac);
    add(10, other);
    rig_send_new(ports[0], 500, 100, 0); // known before it spoke
    check_goes_to(1u << 2);
    introduce(1, 500, 0);
    introduce(1, 500, 10); // nor in another VLAN, since its port takes all
    introduce(1, 600, 10);
    rig_send_new(ports[0], 500, 100, 0);
    check_goes_to(1u << 2);
    rig_send_new(ports[0], 500, 100, 10);
    check_goes_to(0xeu);
    rig_send_new(ports[0], 600, 100, 10);
    check_goes_to(1u << 3);
    rig_turn(&rig, 2 * SWITCH_AGE_S * 1000);
    rig_send_new(ports[0], 500, 100, 0); // nor forgotten
    check_goes_to(1u << 2);

    struct rig_port *twin = rig_new_port(&rig, "twin", 1, 0, mac);
    assert_int_equal(switch_attach(rig.at, &twin->port, &e), -EEXIST);
    assert_string_equal(e.text, "port twin: port p2 has that mac");
    rig_remove_port(ports[2]);
    ports[2] = ports[3], n_ports--;
    check_ok(switch_attach(rig.at, &twin->port, &e), &e);
    rig_remove_port(twin);
}

// Port @i says that it has @n addresses from @first on; control listens now and then.
static void claim(unsigned i, unsigned first, unsigned n)
{
    for (unsigned k = 0; k < n; k++) {
        rig_send_new(ports[i], 9, first + k, 0);
        if (k % 100 == 99)
            rig_turn(&rig, 10);
    }
    rig_turn(&rig, 10);
}

static unsigned count_known(unsigned first, unsigned n, uint64_t where)
{
    unsigned n_known = 0;
    receivers();
    for (unsigned k = 0; k < n; k++) {
        rig_send_new(ports[0], first + k, 8, 0);
        n_known += receivers() == where;
        if (k % 100 == 99)
            rig_turn(&rig, 1);
    }
    return n_known;
}

static void a_flood_of_addresses_fills_its_own_share(void **state)
{
    (void)state;
    add_ports(3);
    introduce(0, 8, 0);
    introduce(0, 9, 0);
    introduce(2, 7, 0);
    claim(1, 1000, SWITCH_LEARN_MAX + 500);
    assert_int_equal(count_known(1000, SWITCH_LEARN_MAX + 500, 1u << 1), SWITCH_LEARN_MAX);
    rig_send_new(ports[0], 7, 8, 0);
    check_goes_to(1u << 2);
    claim(2, 5000, 10); // others learn on
    assert_int_equal(count_known(5000, 10, 1u << 2), 10);
    // What is old makes room.
    rig_turn(&rig, (SWITCH_AGE_S + 2) * 1000);
    introduce(0, 9, 0);
    claim(1, 20000, 100);
    assert_int_equal(count_known(20000, 100, 1u << 1), 100);
}

static void all_ports_together_fill_the_table(void **state)
{
    (void)state;
    enum { N = SWITCH_ADDRESSES_MAX / SWITCH_LEARN_MAX };
    add_ports(N + 2);
    introduce(0, 9, 0);
    for (unsigned i = 1; i <= N; i++)
        claim(i, i * 2000, i < N ? SWITCH_LEARN_MAX : SWITCH_LEARN_MAX - 1);
    claim(N + 1, 30000, 1); // the last
    claim(N + 1, 31000, 5);
    assert_int_equal(count_known(31000, 5, 1ull << (N + 1)), 0);
    assert_int_equal(count_known(2000, 10, 1u << 1), 10);
    rig_remove_port(ports[1]); // takes its own along
    ports[1] = ports[--n_ports];
    claim(1, 31000, 5);
    assert_int_equal(count_known(31000, 5, 1u << 1), 5);
}

// Each move counts for the one port and no more for the other.
static void moving_fills_no_share(void **state)
{
    (void)state;
    add_ports(3);
    for (unsigned i = 0; i < 2 * SWITCH_LEARN_MAX + 10; i++) {
        rig_send_new(ports[1 + i % 2], 9, 500, 0);
        rig_turn(&rig, 10);
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
    switch_device.tell(rig.device, &t.describer);
    return t;
}

// The port is gone when control hears where its address was seen.
static void who_left_is_not_learnt(void **state)
{
    (void)state;
    add_ports(2);
    rig_send_new(ports[1], 9, 101, 0);
    rig_remove_port(ports[1]);
    n_ports--;
    rig_turn(&rig, 10);
    assert_int_equal(ask().n_objects, 1); // port 0, and no address
    add_ports(1);
    introduce(1, 101, 0);
    struct told t = ask();
    assert_int_equal(t.n_objects, 3);
    assert_int_equal(t.n_learnt, 2);
    assert_string_equal(t.last_port, "p1");
}

// Whoever still knows the number of a port that left does not find its successor.
static void a_successor_gets_nothing_of_its_predecessor(void **state)
{
    (void)state;
    add_ports(2);
    unsigned number = ports[1]->port.index;
    rig_remove_port(ports[1]);
    ports[1] = rig_add_port(&rig, "p1", 1, 0, NULL);
    assert_int_not_equal(ports[1]->port.index, number);
}

// ---- floods ------------------------------------------------------------------------------

static void one_port_that_floods_leaves_others_their_share(void **state)
{
    (void)state;
    enum { N = 64 };
    add_ports(N);
    struct frame *frames[256];
    for (unsigned turn = 0; turn < 20; turn++) {
        for (unsigned i = 0; i < 256; i++)
            frames[i] = &rig_frame(ports[0], RIG_ALL, 100, 0)->frame;
        switch_forward(&ports[0]->port, rig.lanes->lanes[0], frames, 256, &ports[0]->stats[0]);
        receivers();
        // The others, after it: each a broadcast in a turn.
        rig_send_new(ports[1 + turn], RIG_ALL, 101, 0);
        assert_int_equal(receivers(), 0xffffffffffffffffull & ~(1ull << (1 + turn)));
        rig_turn(&rig, 1);
    }
    uint64_t n_dropped = rig_drops(ports[0], DROP_FLOOD);
    assert_true(n_dropped > 0);
    // Bounded: what it got through is no more than a turn may cost.
    assert_true((20 * 256 - n_dropped) * (N - 1) <= 20 * FLOOD_TURN_MAX);
    // Unicast is never limited.
    introduce(1, 7, 0);
    uint64_t n_before = rig_all_drops(ports[2]);
    for (unsigned i = 0; i < 10000; i++)
        rig_send_new(ports[2], 7, 102, 0);
    assert_int_equal(ports[1]->n_notes, 10000);
    assert_int_equal(rig_all_drops(ports[2]), n_before);
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

// ---- the device --------------------------------------------------------------------------

static void a_switch_with_ports_is_not_removed(void **state)
{
    (void)state;
    struct error e;
    add(0, NULL);
    assert_int_equal(switch_device.busy(rig.device, &e), -EBUSY);
    assert_string_equal(e.text, "switch s: 1 port uses it: p0");
    add_ports(2);
    assert_int_equal(switch_device.busy(rig.device, &e), -EBUSY);
    assert_string_equal(e.text, "switch s: 3 ports use it: p0, p1, p2");
    add_ports(60);
    assert_int_equal(switch_device.busy(rig.device, &e), -EBUSY);
    assert_int_equal(strncmp(e.text, "switch s: 63 ports use it: p0, p1", 33), 0);
    assert_null(switch_find("t"));
}

static void a_full_switch_says_so(void **state)
{
    (void)state;
    static struct rig_port *many[SWITCH_PORTS_MAX];
    struct error e;
    for (unsigned i = 0; i < SWITCH_PORTS_MAX; i++)
        many[i] = rig_add_port(&rig, "many", 1, (uint16_t)(i % 4094), NULL);
    struct rig_port *one = rig_new_port(&rig, "one", 1, 0, NULL);
    assert_int_equal(switch_attach(rig.at, &one->port, &e), -ENOSPC);
    assert_string_equal(e.text, "port one: switch s has 1024 ports, and no room for more");
    rig_remove_port(many[500]);
    check_ok(switch_attach(rig.at, &one->port, &e), &e);
    many[500] = one;
    rig_send_new(one, RIG_ALL, 1, 0);
    for (unsigned i = 0; i < SWITCH_PORTS_MAX; i++)
        rig_remove_port(many[i]);
}

static void a_hundred_thousand_frames_leave_nothing(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 16; i++)
        add(i % 4 == 3 ? 10 : 0, NULL);
    srandom(2);
    for (unsigned i = 0; i < 100000; i++) {
        static const uint16_t tags[] = {0, 0, 10, 20, 0x2000};
        struct rig_port *p = ports[random() % 16];
        unsigned to = random() % 8 ? (unsigned)random() % 64 : RIG_ALL;
        rig_send_new(p, to, (unsigned)random() % 64, tags[random() % 5]);
        assert_int_equal(rig_n_frames, 0);
        if (i % 16 == 0)
            rig_turn(&rig, 5);
    }
}

#define on_a_switch(name) cmocka_unit_test_setup_teardown(name, open_rig, close_rig)

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
        on_a_switch(an_address_of_the_line_is_not_stolen),
        on_a_switch(a_flood_of_addresses_fills_its_own_share),
        on_a_switch(all_ports_together_fill_the_table),
        on_a_switch(moving_fills_no_share),
        on_a_switch(who_left_is_not_learnt),
        on_a_switch(a_successor_gets_nothing_of_its_predecessor),
        on_a_switch(one_port_that_floods_leaves_others_their_share),
        cmocka_unit_test(a_thousand_ports_flood_in_turn),
        on_a_switch(a_switch_with_ports_is_not_removed),
        on_a_switch(a_full_switch_says_so),
        on_a_switch(a_hundred_thousand_frames_leave_nothing),
    };
    return cmocka_run_group_tests_name("switch", tests, NULL, NULL);
}
