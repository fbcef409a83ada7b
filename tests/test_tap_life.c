// SPDX-License-Identifier: Apache-2.0
//
// What may befall a TAP port: interfaces that go down or away, receivers that keep its buffers,
// lines that are wrong.
#include "devices/tap_internal.h"

#include "tests/check.h"
#include "tests/port_rig.h"
#include "tests/space.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct packet packet;

static struct tap *tap(unsigned i)
{
    return (struct tap *)port_rig.ports[i].port;
}

// Give port 0 the packet of the day.
static void send_packet(void)
{
    port_rig_send(0, &packet, NULL, 0);
}

// ---- trouble ---------------------------------------------------------------------------------

static uint64_t uplink_drops;

static bool has_dropped_more(void *context)
{
    (void)context;
    return port_rig_drops(0, DROP_UPLINK) > uplink_drops;
}

static void test_down_and_up(void **state)
{
    (void)state;
    struct packet_spec s = {"", 0, 1, 0, 0, 0, 0, 0, 0, 100};
    port_rig_add(0, "tap=tap0");
    packet_make(&packet, &s);
    send_packet(); // never was up
    assert_int_equal(port_rig_drops(0, DROP_UPLINK), 1);
    space_run("ip link set tap0 up");
    send_packet();
    assert_int_equal(port_rig_drops(0, DROP_UPLINK), 1);
    space_run("ip link set tap0 down");
    send_packet();
    assert_int_equal(port_rig_drops(0, DROP_UPLINK), 2);
    assert_int_equal(atomic_load(&tap(0)->error), 0);
    port_rig_remove(0);
}

struct hearer {
    struct describer to;
    char text[64];
};

static void hear(struct describer *to, const char *name, const char *text)
{
    assert_string_equal(name, "interface");
    struct hearer *h = container_of(to, struct hearer, to);
    snprintf(h->text, sizeof(h->text), "%s", text);
}

// The interface goes: frames for it are counted, nothing spins, and the port can be removed.
static void test_deleted(void **state)
{
    (void)state;
    struct packet_spec s = {"", 0, 1, 0, 0, 0, 0, 0, 0, 100};
    port_rig_add(0, "tap=tap0 queues=2");
    space_run("ip link set tap0 up && ip link del tap0");
    packet_make(&packet, &s);
    send_packet();
    assert_true(has_dropped_more(NULL));
    port_rig_until_asleep();
    assert_int_equal(atomic_load(&tap(0)->error), EBADFD);
    struct hearer h = {.to.text = hear};
    port_rig.ports[0].port->type->tell(port_rig.ports[0].port, &h.to);
    assert_non_null(strstr(h.text, "deleted"));
    assert_int_equal(port_rig.lane.uring.n_in_flight, 0);
    port_rig_remove(0);
}

// ---- frames that are kept --------------------------------------------------------------------

#define KEPT_MAX 1024

static struct frame *kept[KEPT_MAX];
static unsigned n_kept;

static void keep(struct port_rig *rig, unsigned from, struct frame *f)
{
    (void)rig, (void)from;
    assert_true(n_kept < KEPT_MAX);
    f->n_holders = 1;
    kept[n_kept++] = f;
}

static void give_back(void)
{
    while (n_kept)
        port_rig_return(kept[--n_kept]);
}

// A datagram socket to a neighbour behind the port.
static int open_socket(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(9)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(inet_pton(AF_INET, "10.9.0.10", &a.sin_addr), 1);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

static bool is_starved(void *context)
{
    const int *fd = context;
    (void)send(*fd, packet.bytes, 100, MSG_DONTWAIT);
    return n_kept == 128 && port_rig_is_asleep(); // all of its buffers
}

static bool has_kept_one(void *context)
{
    (void)context;
    return n_kept > 0;
}

// A receiver that keeps every buffer stops its port and nothing else; it goes on afterwards.
static void test_all_buffers_are_kept(void **state)
{
    (void)state;
    port_rig_add(0, "tap=tap0");
    space_run("ip link set tap0 up && ip addr add 10.9.0.1/24 dev tap0 && "
              "ip neigh add 10.9.0.10 lladdr 02:00:00:00:00:09 dev tap0");
    port_rig.forward = keep;
    n_kept = 0;
    int fd = open_socket();
    port_rig_until(is_starved, &fd);
    assert_int_equal(port_rig.lane.uring.n_in_flight, 0);
    give_back();
    port_rig_until(has_kept_one, NULL);
    give_back();
    port_rig.forward = keep;
    close(fd);
    // Frames that are kept hold up a queue that is to leave, and only they.
    port_rig_until_asleep();
    give_back();
    port_rig_remove(0);
}

static bool has_forwarded(void *context)
{
    return port_rig.n_forwarded >= *(unsigned *)context;
}

static void take(struct port_rig *rig, unsigned from, struct frame *f)
{
    (void)rig, (void)from;
    f->n_holders = 1;
    port_rig_return(f);
}

static void open_quiet(void)
{
    port_rig_add(0, "tap=tap0");
    space_run("ip link set tap0 up multicast off && ip addr add 10.9.0.1/24 dev tap0 && "
              "ip neigh add 10.9.0.10 lladdr 02:00:00:00:00:09 dev tap0");
    port_rig_until_asleep();
}

// Many frames are read in few turns; frames one by one leave no more than two READs armed.
static void test_reads_follow_the_load(void **state)
{
    (void)state;
    open_quiet();
    port_rig.forward = take;
    int fd = open_socket();
    for (unsigned i = 0; i < 300; i++)
        assert_int_equal(send(fd, packet.bytes, 100, 0), 100);
    uint64_t n_turns = port_rig.n_turns;
    port_rig_until(has_forwarded, &(unsigned){port_rig.n_forwarded + 300});
    assert_true(port_rig.n_turns - n_turns < 40);

    for (unsigned i = 0; i < 100; i++) {
        unsigned want = port_rig.n_forwarded + 1;
        assert_int_equal(send(fd, packet.bytes, 100, 0), 100);
        port_rig_until(has_forwarded, &want);
        port_rig_until_asleep();
    }
    assert_in_range(port_rig.lane.uring.n_in_flight, 1, 2);
    close(fd);
    port_rig_remove(0);
}

static bool is_home;

static void own_frame_is_home(struct frame *f)
{
    (void)f;
    is_home = true;
}

static bool has_settled(void *context)
{
    struct queue *q = context;
    return port_of(q)->type->settle(q);
}

// A queue leaves when its writes are done, and its frames are home; it takes no more meanwhile.
static void test_leaving_waits(void **state)
{
    (void)state;
    struct packet_spec s = {"", 0, 1, 0, 0, 0, 0, 0, 0, 100};
    struct queue *queues;
    open_quiet();
    queues = port_rig.ports[0].device.queues;
    packet_make(&packet, &s);
    struct iovec iov = {packet.bytes, packet.n_bytes};
    struct frame f = {.free = own_frame_is_home};
    assert_int_equal(frame_parse(&f, &iov, 1, 0, NULL), DROP_NONE);
    is_home = false;
    port_rig_deliver(0, &f);
    assert_false(has_settled(&queues[0]));
    port_rig_until(has_settled, &queues[0]);
    assert_true(is_home);
    port_rig_deliver(0, &f);
    assert_int_equal(port_rig_drops(0, DROP_LINK_DOWN), 1);
    assert_true(has_settled(&queues[0]));

    int fd = open_socket();
    n_kept = 0;
    port_rig.forward = keep;
    assert_int_equal(send(fd, packet.bytes, 100, 0), 100);
    port_rig_until(has_kept_one, NULL);
    port_rig.ports[0].is_attached = false; // not polled any more
    for (unsigned i = 0; i < 100; i++) {
        assert_false(has_settled(&queues[1]));
        port_rig_turn();
    }
    give_back();
    port_rig_until(has_settled, &queues[1]);
    assert_int_equal(port_rig.lane.uring.n_in_flight, 0);
    close(fd);
    port_rig_remove(0);
}

// More segments than a WRITEV takes, and more frames than can be out: dropped, and sent home.
static void test_limits(void **state)
{
    (void)state;
    static struct frame frames[600];
    static struct iovec iov[1200];
    struct packet_spec s = {"", 0, 1, 0, 0, 0, 0, 0, 0, 1200 - 42};
    open_quiet();
    packet_make(&packet, &s);
    for (unsigned i = 0; i < ARRAY_LEN(iov); i++)
        iov[i] = (struct iovec){packet.bytes + i, 1};
    struct frame f = {.free = own_frame_is_home};
    assert_int_equal(frame_parse(&f, iov, ARRAY_LEN(iov), 0, NULL), DROP_NONE);
    is_home = false;
    port_rig_deliver(0, &f);
    assert_true(is_home);
    assert_int_equal(port_rig_drops(0, DROP_UPLINK), 1);

    for (unsigned i = 0; i < ARRAY_LEN(frames); i++) {
        frames[i].free = own_frame_is_home;
        struct iovec whole = {packet.bytes, 60};
        assert_int_equal(frame_parse(&frames[i], &whole, 1, 0, NULL), DROP_NONE);
        frames[i].iov = iov; // of which nothing is read: that one has gone
        frames[i].bytes = frames[i].n_head;
        port_rig_deliver(0, &frames[i]);
    }
    assert_int_equal(port_rig_drops(0, DROP_UPLINK), 1 + 600 - 512);
    port_rig_until(has_settled, &port_rig.ports[0].device.queues[0]);
    port_rig_remove(0);
}

// ---- lines -----------------------------------------------------------------------------------

static void test_lines(void **state)
{
    (void)state;
    static const struct {
        const char *before, *line, *says;
    } cases[] = {
        {"true", "tap=a234567890123456", "1 to 15 characters"},
        {"true", "tap=a/b", "none of them / : % or blank"},
        {"true", "tap=tap%d", "none of them / : % or blank"},
        {"ip link add other type bridge", "tap=other", "of another kind"},
        {"ip link add veth type veth peer peer", "tap=veth", "of another kind"},
        {"ip tuntap add dev tun0 mode tun", "tap=tun0", "of another kind"},
        {"ip tuntap add dev one mode tap", "tap=one queues=2", "made without multi_queue"},
        {"ip tuntap add dev one mode tap", "tap=one", NULL},
        {"ip tuntap add dev more mode tap multi_queue vnet_hdr", "tap=more queues=3", NULL},
    };
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        int space = space_open();
        space_run("%s", cases[i].before);
        struct error e = {0};
        int err = port_rig_open_port(0, cases[i].line, &e);
        if (!cases[i].says) {
            check_ok(err, &e);
            port_rig_close_port(0);
        } else {
            assert_true(err < 0);
            if (!strstr(e.text, cases[i].says) || !strstr(e.text, "port p0: tap="))
                fail_msg("'%s' does not say '%s'", e.text, cases[i].says);
        }
        close(space);
    }
}

// Its only queue is taken; a user without rights.
static void test_lines_of_others(void **state)
{
    (void)state;
    struct error e;
    int space = space_open();
    space_run("ip tuntap add dev one mode tap user root");
    check_ok(port_rig_open_port(0, "tap=one", &e), &e);
    assert_true(port_rig_open_port(1, "tap=one", &e) < 0);
    assert_non_null(strstr(e.text, "port p1: tap=one: its only queue is open elsewhere"));
    port_rig_close_port(0);

    for (unsigned i = 0; i < 2; i++) { // neither another's, nor a new one
        assert_int_equal(seteuid(65534), 0);
        assert_true(port_rig_open_port(0, i ? "tap=one" : "tap=new", &e) < 0);
        assert_int_equal(seteuid(0), 0);
        if (!strstr(e.text, "not permitted") && !strstr(e.text, "Permission denied"))
            fail_msg("'%s' does not say so", e.text);
    }
    close(space);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, port_rig_setup, port_rig_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_down_and_up),
        TEST(test_deleted),
        TEST(test_all_buffers_are_kept),
        TEST(test_reads_follow_the_load),
        TEST(test_leaving_waits),
        TEST(test_limits),
        TEST(test_lines),
        TEST(test_lines_of_others),
    };
    return cmocka_run_group_tests_name("tap_life", tests, NULL, NULL);
}
