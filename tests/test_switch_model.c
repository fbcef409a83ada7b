// SPDX-License-Identifier: Apache-2.0
// The switch against one that is written down in its simplest form: random ports, VLANs, lanes and
// frames; addresses that move, ports that come and go.
#include "tests/switch_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PORTS = 10, MACS = 24, VLANS = 4, LANES = 3, ROUNDS = 40, BATCHES = 60, BATCH = 40 };

static const uint16_t vlan_ids[VLANS] = {0, 1, 77, 4094};

static struct hub_port *ports[PORTS]; // NULL: not there

// ---- the simplest form -------------------------------------------------------------------

static int table[VLANS][MACS]; // port, or -1
static int fixed[MACS];        // the port whose mac= it is, or -1

static unsigned vlan_index(unsigned id)
{
    unsigned i = 0;
    while (vlan_ids[i] != id)
        i++;
    return i;
}

static bool takes(int i, unsigned vlan)
{
    return ports[i] && (!ports[i]->port.vlan || ports[i]->port.vlan == vlan_ids[vlan]);
}

// A bit for each port that gets it.
static unsigned model_forward(int from, unsigned vlan, unsigned to)
{
    unsigned all = 0;
    for (int i = 0; i < PORTS; i++)
        all |= (unsigned)(i != from && takes(i, vlan)) << i;
    int known = to < MACS ? table[vlan][to] : -1;
    return known < 0 ? all : known == from ? 0 : 1u << known;
}

static void model_learn(int from, unsigned vlan, unsigned mac)
{
    if (fixed[mac] < 0 || fixed[mac] == from)
        table[vlan][mac] = from;
}

static void model_forget(int port)
{
    for (unsigned m = 0; m < MACS; m++) {
        for (unsigned v = 0; v < VLANS; v++)
            table[v][m] = table[v][m] == port ? -1 : table[v][m];
        fixed[m] = fixed[m] == port ? -1 : fixed[m];
    }
}

// ---- a round -----------------------------------------------------------------------------

static void remove_port(int i)
{
    hub_remove_port(ports[i]);
    ports[i] = NULL;
    model_forget(i);
}

// Sometimes with an address of its own, which then is out of the game in all VLANs.
static void add_port(int i)
{
    char name[8];
    char mac[6];
    unsigned n = 1 + (unsigned)random() % 3, m = (unsigned)random() % MACS;
    uint16_t vlan = vlan_ids[(unsigned)random() % VLANS];
    bool is_fixed = random() % 4 == 0 && vlan == 0 && fixed[m] < 0;
    for (unsigned v = 0; v < VLANS; v++)
        is_fixed &= table[v][m] < 0;
    hub_put_mac((uint8_t *)mac, m);
    snprintf(name, sizeof(name), "p%d", i);
    ports[i] = hub_add_port(&hub, name, n, vlan, is_fixed ? mac : NULL);
    for (unsigned q = 0; q < n; q++)
        hub_place(ports[i], q, hub.lanes->lanes[(unsigned)random() % hub.lanes->n]);
    if (is_fixed)
        fixed[m] = table[0][m] = i;
}

static void change_ports(void)
{
    for (int i = 0; i < PORTS; i++) {
        if (ports[i] && random() % 10 == 0)
            remove_port(i);
        else if (!ports[i] && random() % 2 == 0)
            add_port(i);
    }
}

static void all_turns(void)
{
    for (unsigned i = 0; i < 2 * hub.lanes->n; i++) {
        struct lane *lane = hub.lanes->lanes[i % hub.lanes->n];
        lane->now++;
        while (lane_has_work(lane))
            lane_poll_all(lane);
    }
    assert_int_equal(hub_n_frames, 0);
}

// A batch of one port; @owners says which port has which address in this round.
static void send_batch(int from, const int owners[MACS], bool heard[VLANS][MACS])
{
    struct hub_port *p = ports[from];
    struct frame *frames[BATCH];
    unsigned n = 0, want[PORTS] = {0};
    for (unsigned i = 0; i < PORTS; i++) {
        if (ports[i])
            ports[i]->n_notes = 0;
    }
    for (unsigned i = 0, size = 1 + (unsigned)random() % BATCH; i < size; i++) {
        unsigned mac = (unsigned)random() % MACS, to = (unsigned)random() % (MACS + 1);
        if (owners[mac] != from)
            continue;
        uint16_t tag = p->port.vlan ? 0 : vlan_ids[(unsigned)random() % VLANS];
        unsigned vlan = vlan_index(p->port.vlan ? p->port.vlan : tag);
        unsigned bits = model_forward(from, vlan, to);
        for (unsigned k = 0; k < PORTS; k++)
            want[k] += bits >> k & 1;
        heard[vlan][mac] = true;
        frames[n++] = &hub_frame(p, to < MACS ? to : HUB_ALL, mac, tag)->frame;
    }
    switch_forward(&p->port, p->queues[0].lane, frames, n, &p->stats[0]);
    all_turns();
    for (unsigned i = 0; i < PORTS; i++) {
        if (ports[i] && ports[i]->n_notes != want[i])
            fail_msg("port %u got %u frames and not %u", i, ports[i]->n_notes, want[i]);
    }
}

static void play_round(void)
{
    int owners[MACS];
    bool heard[VLANS][MACS] = {0};
    change_ports();
    for (unsigned m = 0; m < MACS; m++)
        owners[m] = fixed[m] >= 0 ? fixed[m] : (int)((unsigned)random() % PORTS);
    for (unsigned i = 0; i < BATCHES; i++) {
        int from = (int)((unsigned)random() % PORTS);
        if (ports[from])
            send_batch(from, owners, heard);
    }
    hub_turn(&hub, 10);
    for (unsigned v = 0; v < VLANS; v++) {
        for (unsigned m = 0; m < MACS; m++) {
            if (heard[v][m])
                model_learn(owners[m], v, m);
        }
    }
}

static void as_the_model_says(void **state)
{
    (void)state;
    for (unsigned n_lanes = 1; n_lanes <= LANES; n_lanes++) {
        srandom(n_lanes);
        hub_open(&hub, n_lanes);
        memset(table, -1, sizeof(table));
        memset(fixed, -1, sizeof(fixed));
        for (unsigned i = 0; i < ROUNDS; i++)
            play_round();
        for (int i = 0; i < PORTS; i++) {
            if (ports[i])
                remove_port(i);
        }
        hub_close(&hub);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_the_model_says)};
    return cmocka_run_group_tests_name("switch_model", tests, NULL, NULL);
}
