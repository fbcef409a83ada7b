// SPDX-License-Identifier: Apache-2.0
//
// DPDK's own software devices stand for a NIC here: af_packet on a veth, files for pcap. They need
// neither huge pages nor rights beyond a namespace's.
#include "tests/check.h"
#include "tests/packet_rig.h"
#include "tests/port_rig.h"
#include "tests/space.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct packet packet;
static uint8_t bytes[PACKET_BYTES_MAX];

static bool has_plugin;

// What DPDK must not touch, as it was before it started.
static const int signals[] = {SIGBUS, SIGTERM, SIGINT, SIGPIPE, SIGHUP, SIGCHLD};
static struct sigaction handlers[ARRAY_LEN(signals)];
static cpu_set_t cpus;

// The first line finds out whether the plug-in was built.
static int setup(void **state)
{
    port_rig_setup(state);
    struct error e;
    if (!has_plugin) {
        sched_getaffinity(0, sizeof(cpus), &cpus);
        for (unsigned i = 0; i < ARRAY_LEN(signals); i++)
            sigaction(signals[i], NULL, &handlers[i]);
    }
    if (!has_plugin && port_rig_open_port(0, "dpdk=net_null9", &e) == 0) {
        port_rig_close_port(0);
        has_plugin = true;
    }
    if (!has_plugin && !strstr(e.text, "dpdk-dev"))
        fail_msg("%s", e.text);
    return 0;
}

static void need_plugin(void)
{
    if (has_plugin)
        return;
    print_message("skipped: the plug-in was not built (package dpdk-dev)\n");
    skip();
}

// ---- frames of the test ------------------------------------------------------------------

// Give port 0 the packet, cut in descriptors of at most @step bytes.
static void deliver_packet(uint32_t step)
{
    uint32_t cuts[PORT_RIG_CUTS_MAX];
    uint64_t n_turns = port_rig.n_turns;
    for (unsigned i = 0; i < ARRAY_LEN(cuts); i++)
        cuts[i] = (i + 1) * step;
    port_rig_send(0, &packet, cuts, ARRAY_LEN(cuts));
    assert_int_equal(port_rig.n_turns, n_turns); // sent, and the bytes are the sender's again
}

static unsigned n_seen;

// Keeps what came from the switch's side of the port, from the rig's address, in bytes[].
static void look(struct port_rig *rig, unsigned from, struct frame *f)
{
    (void)rig, (void)from;
    if (memcmp(frame_source(f), (uint8_t[]){2, 0, 0, 0, 0, 1}, 6) == 0) {
        frame_copy(f, 0, bytes, f->bytes);
        assert_int_equal(f->bytes, packet.n_bytes);
        assert_memory_equal(bytes, packet.bytes, packet.n_bytes);
        n_seen++;
    }
    f->n_holders = 1;
    port_rig_return(f);
}

static bool have_seen(void *context)
{
    return n_seen >= *(unsigned *)context;
}

// ---- af_packet over a veth ---------------------------------------------------------------

static int open_packet_socket(void)
{
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(ETH_P_ALL));
    struct sockaddr_ll a = {.sll_family = AF_PACKET,
                            .sll_protocol = htons(ETH_P_ALL),
                            .sll_ifindex = (int)if_nametoindex("far")};
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

// A veth whose one end is "near", for DPDK, and the other a packet socket.
static int open_wire(void)
{
    port_rig.ports[0].space = space_open();
    space_run("ip link add near type veth peer name far && ip link set near up mtu 1500 && "
              "ip link set far up mtu 1500");
    return open_packet_socket();
}

static void add_near(const char *keys)
{
    struct error e;
    char line[128];
    snprintf(line, sizeof(line), "dpdk=net_af_packet0,iface=near%s", keys);
    check_ok(port_rig_open_port(0, line, &e), &e);
    port_rig_attach(0);
}

struct wire {
    int fd;
    uint32_t n_bytes;
};

static bool has_arrived(void *context)
{
    struct wire *w = context;
    ssize_t n = recv(w->fd, bytes, sizeof(bytes), 0);
    w->n_bytes = n > 0 ? (uint32_t)n : 0;
    return n > 14 && memcmp(bytes + 6, (uint8_t[]){2, 0, 0, 0, 0, 1}, 6) == 0;
}

// Whatever is owed, the wire has whole frames with good checksums, in order.
static void check_wire(int fd, const struct packet_spec *s)
{
    struct wire w = {.fd = fd};
    bool is_ufo = s->gso_type == VIRTIO_NET_HDR_GSO_UDP;
    uint32_t whole = packet.n_bytes - (is_ufo ? packet.l4 : packet.payload), done = 0;
    do {
        port_rig_until(has_arrived, &w);
        struct packet_view v = packet_read(bytes, w.n_bytes, false);
        uint32_t here = w.n_bytes - v.payload;
        if (!is_ufo)
            assert_memory_equal(bytes + v.payload, packet.bytes + packet.payload + done, here);
        done += here;
    } while (done < whole);
    assert_int_equal(done, whole);
}

static void test_to_the_wire(void **state)
{
    (void)state;
    need_plugin();
    int fd = open_wire();
    add_near("");
    static const uint32_t steps[] = {4096, 100, 11}; // the last in more parts than are attached
    for (unsigned i = 0; i < n_packet_specs; i++) {
        struct packet_spec s = packet_specs[i];
        s.payload = MIN(s.payload, 20000); // what the socket holds
        s.tag = 0;                         // a packet socket does not show them
        for (unsigned j = 0; j < ARRAY_LEN(steps); j++) {
            s.gso_size =
                (uint16_t)MIN(s.gso_size, j ? 200 : 1400); // many pieces, which are many batches
            packet_make(&packet, &s);
            deliver_packet(steps[j]);
            check_wire(fd, &s);
        }
    }
    assert_int_equal(port_rig_drops(0, DROP_UPLINK), 0);
    close(fd);
    port_rig_remove(0);
}

static void test_from_the_wire(void **state)
{
    (void)state;
    need_plugin();
    int fd = open_wire();
    add_near("");
    port_rig.forward = look;
    n_seen = 0;
    struct packet_spec s = {"", 0, 1, 0, 0, 0, 0, 0, 0, 0};
    for (unsigned want = 1; want < 1400; want++) {
        s.payload = 18 + want;
        packet_make(&packet, &s);
        assert_int_equal(send(fd, packet.bytes, packet.n_bytes, 0), packet.n_bytes);
        port_rig_until(have_seen, &want);
    }
    assert_false(port_rig_is_asleep()); // nobody would wake it
    close(fd);
    port_rig_remove(0);
}

static void test_too_long(void **state)
{
    (void)state;
    need_plugin();
    int fd = open_wire();
    add_near("");
    struct packet_spec s = {"", 0, 1, 0, 0, 0, 0, 0, 0, 1472};
    for (unsigned more = 0; more < 2; more++, s.payload++) {
        packet_make(&packet, &s);
        deliver_packet(500);
        assert_int_equal(port_rig_drops(0, DROP_MTU), more);
    }
    close(fd);
    port_rig_remove(0);
}

static unsigned n_kept;
static struct frame *kept[4096];

static void keep(struct port_rig *rig, unsigned from, struct frame *f)
{
    (void)rig, (void)from;
    assert_true(n_kept < ARRAY_LEN(kept));
    f->n_holders = 1;
    kept[n_kept++] = f;
}

static bool has_kept_all(void *context)
{
    const int *fd = context;
    (void)send(*fd, packet.bytes, packet.n_bytes, 0);
    return n_kept == 1024;
}

// A receiver that keeps frames uses up its port's, and loses none of them.
static void test_all_buffers_are_kept(void **state)
{
    (void)state;
    need_plugin();
    struct packet_spec s = {"", 0, 1, 0, 0, 0, 0, 0, 0, 100};
    int fd = open_wire();
    add_near("");
    packet_make(&packet, &s);
    port_rig.forward = keep;
    for (unsigned round = 0; round < 3; round++) {
        n_kept = 0;
        port_rig_until(has_kept_all, &fd);
        for (unsigned i = 0; i < 100; i++)
            port_rig_turn();
        assert_int_equal(n_kept, 1024);
        while (n_kept)
            port_rig_return(kept[--n_kept]);
    }
    port_rig.forward = look;
    close(fd);
    port_rig_remove(0);
}

static void test_queues(void **state)
{
    (void)state;
    need_plugin();
    int fd = open_wire();
    add_near(",qpairs=2 queues=2");
    assert_int_equal(atomic_load(&port_rig.ports[0].port->n_receivers), 2);
    for (unsigned i = 0; i < 20; i++) {
        packet_make(&packet, &packet_specs[0]);
        packet.bytes[packet.l4] = (uint8_t)i; // another flow
        deliver_packet(4096);
    }
    uint64_t n[2];
    for (unsigned i = 0; i < 2; i++)
        n[i] = counter_read(&port_rig.ports[0].port->stats[2ul * i].n_frames);
    assert_true(n[0] && n[1]);
    assert_int_equal(n[0] + n[1], 20 * 7);
    close(fd);
    port_rig_remove(0);
}

// ---- pcap --------------------------------------------------------------------------------

// What one port writes to a file another one reads from it.
static void test_pcap_files(void **state)
{
    (void)state;
    need_plugin();
    char path[] = "/tmp/test_dpdk_XXXXXX", line[128];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    struct error e;
    struct packet_spec s = {"", 1, 1, 0, 0, 0, 0, 0, 0, 333};
    port_rig.ports[0].space = space_open();
    snprintf(line, sizeof(line), "dpdk=net_pcap0,tx_pcap=%s", path);
    check_ok(port_rig_open_port(0, line, &e), &e);
    port_rig_attach(0);
    packet_make(&packet, &s);
    for (unsigned i = 0; i < 10; i++)
        deliver_packet(60);
    port_rig_remove(0);

    // The checksum was finished on the way.
    uint8_t *field = packet.bytes + packet.l4 + 6;
    uint16_t sum = (uint16_t)~packet_sum(packet.bytes + packet.l4, packet.n_bytes - packet.l4, 0);
    field[0] = (uint8_t)(sum >> 8);
    field[1] = (uint8_t)sum;
    port_rig.ports[0].space = space_open();
    snprintf(line, sizeof(line), "dpdk=net_pcap1,rx_pcap=%s", path);
    check_ok(port_rig_open_port(0, line, &e), &e);
    n_seen = 0;
    port_rig.forward = look;
    port_rig_attach(0);
    port_rig_until(have_seen, &(unsigned){10});
    port_rig_remove(0);
    unlink(path);
}

// ---- lines -------------------------------------------------------------------------------

static void expect(const char *line, const char *says)
{
    struct error e;
    assert_true(port_rig_open_port(1, line, &e) < 0);
    if (!strstr(e.text, says) || !strstr(e.text, "port p1: dpdk="))
        fail_msg("'%s' does not say '%s'", e.text, says);
}

static void test_lines(void **state)
{
    (void)state;
    need_plugin();
    struct error e;
    expect("dpdk=net_none0", "no such device for DPDK");
    expect("dpdk=0000:ff:1f.7", "no such device for DPDK");
    expect("dpdk=net_af_packet0,iface=absent", "no such device for DPDK");
    expect("dpdk=net_af_packet0", "no such device for DPDK");
    expect("dpdk=net_null0 queues=5000", "the device has");
    check_ok(port_rig_open_port(0, "dpdk=net_null0", &e), &e);
    expect("dpdk=net_null0", "another port has this device");
    port_rig_close_port(0);
    check_ok(port_rig_open_port(0, "dpdk=net_null0", &e), &e); // and again
    port_rig_close_port(0);
}

// DPDK is a guest in this process: what is not its business is as it was.
static void test_leaves_the_process_alone(void **state)
{
    (void)state;
    need_plugin();
    cpu_set_t cpus_now;
    sched_getaffinity(0, sizeof(cpus_now), &cpus_now);
    assert_true(CPU_EQUAL(&cpus, &cpus_now));
    for (unsigned i = 0; i < ARRAY_LEN(signals); i++) {
        struct sigaction now;
        sigaction(signals[i], NULL, &now);
        assert_ptr_equal(now.sa_handler, handlers[i].sa_handler);
    }
    char path[64];
    snprintf(path, sizeof(path), "/var/run/dpdk/sluice-%d", (int)getpid());
    assert_int_equal(access(path, F_OK), -1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, port_rig_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_to_the_wire), TEST(test_from_the_wire),
        TEST(test_too_long),    TEST(test_all_buffers_are_kept),
        TEST(test_queues),      TEST(test_pcap_files),
        TEST(test_lines),       TEST(test_leaves_the_process_alone),
    };
    return cmocka_run_group_tests_name("dpdk", tests, NULL, NULL);
}
