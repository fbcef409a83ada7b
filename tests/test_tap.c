// SPDX-License-Identifier: Apache-2.0
// TAP ports between the kernels of two namespaces: streams, datagrams, queues.
#include "tests/check.h"
#include "tests/packet_rig.h"
#include "tests/space.h"
#include "tests/port_rig.h"

#include "devices/offload.h"
#include "devices/tap_internal.h"
#include "dataplane/describe.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define STREAM_BYTES (4u << 20)

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

static struct packet packet;
static uint8_t bytes[PACKET_BYTES_MAX];

static struct tap *tap(unsigned i)
{
    return (struct tap *)port_rig.ports[i].port;
}

// The kernel's helper threads count as ours.
static unsigned count_threads(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/task");
    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

// ---- sockets of the kernel on both sides ---------------------------------------------------

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

// Port @i is 10.9.0.i+1 and fd09::i+1.
static union address address_of(unsigned i, bool is_v6, uint16_t number)
{
    union address a = {0};
    char text[32];
    if (is_v6) {
        a.v6.sin6_family = AF_INET6;
        a.v6.sin6_port = htons(number);
        snprintf(text, sizeof(text), "fd09::%u", i + 1);
        assert_int_equal(inet_pton(AF_INET6, text, &a.v6.sin6_addr), 1);
    } else {
        a.v4.sin_family = AF_INET;
        a.v4.sin_port = htons(number);
        snprintf(text, sizeof(text), "10.9.0.%u", i + 1);
        assert_int_equal(inet_pton(AF_INET, text, &a.v4.sin_addr), 1);
    }
    return a;
}

static void add_address(unsigned i)
{
    space_run("ip link set tap%u up mtu 1500 && ip addr add 10.9.0.%u/24 dev tap%u && "
              "ip addr add fd09::%u/64 dev tap%u nodad",
              i, i + 1, i, i + 1, i);
}

static void add_two(const char *keys)
{
    char line[64];
    for (unsigned i = 0; i < 2; i++) {
        snprintf(line, sizeof(line), "tap=tap%u %s", i, keys);
        port_rig_add(i, line);
        add_address(i);
    }
}

static void remove_two(void)
{
    port_rig_remove(0);
    port_rig_remove(1);
}

static int open_socket(unsigned i, bool is_v6, int type)
{
    space_enter(port_rig.ports[i].space);
    int fd = socket(is_v6 ? AF_INET6 : AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    return fd;
}

static int bind_socket(unsigned i, bool is_v6, int type, uint16_t number)
{
    int fd = open_socket(i, is_v6, type);
    union address a = address_of(i, is_v6, number);
    assert_int_equal(bind(fd, &a.any, sizeof(a)), 0);
    return fd;
}

// ---- TCP from one kernel to the other --------------------------------------------------------

static struct {
    unsigned n_csum, n_segmented, n_large; // frames as the kernel gave them
} seen;

// What the kernel sends is what it says: a begun checksum, or a whole one.
static void look_and_forward(struct port_rig *rig, unsigned from, struct frame *f)
{
    (void)rig;
    uint8_t proto = 0;
    frame_copy(f, 0, bytes, f->bytes);
    if (f->l3)
        proto = bytes[14] >> 4 == 4 ? bytes[23] : bytes[20];
    if (proto == 6 || proto == 17)
        packet_read(bytes, f->bytes, f->needs_csum);
    seen.n_csum += f->needs_csum;
    seen.n_segmented += f->gso != FRAME_GSO_NONE;
    seen.n_large += f->bytes > 8000;
    port_rig_deliver(1 - from, f);
}

struct stream {
    int listener, server, client;
    size_t n_sent, n_received;
    bool is_wrong;
};

static uint8_t stream_byte(size_t at)
{
    return (uint8_t)(at ^ at >> 8 ^ at >> 16);
}

static void send_some(struct stream *s)
{
    uint8_t data[65536];
    size_t n = MIN(sizeof(data), STREAM_BYTES - s->n_sent);
    for (size_t i = 0; i < n; i++)
        data[i] = stream_byte(s->n_sent + i);
    ssize_t done = n ? send(s->client, data, n, MSG_NOSIGNAL) : 0;
    s->n_sent += done > 0 ? (size_t)done : 0;
}

static void receive_some(struct stream *s)
{
    uint8_t data[65536];
    ssize_t n = recv(s->server, data, sizeof(data), 0);
    for (ssize_t i = 0; i < n; i++)
        s->is_wrong |= data[i] != stream_byte(s->n_received + (size_t)i);
    s->n_received += n > 0 ? (size_t)n : 0;
}

static bool is_stream_done(void *context)
{
    struct stream *s = context;
    if (s->server < 0)
        s->server = accept4(s->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    send_some(s);
    if (s->server >= 0)
        receive_some(s);
    return s->n_received == STREAM_BYTES;
}

static void run_stream_until(bool is_v6, bool (*is_done)(void *context))
{
    static uint16_t number = 4000; // another one each time: the last one lingers
    struct stream s = {.server = -1};
    s.listener = bind_socket(1, is_v6, SOCK_STREAM, ++number);
    assert_int_equal(listen(s.listener, 1), 0);
    s.client = open_socket(0, is_v6, SOCK_STREAM);
    union address a = address_of(1, is_v6, number);
    assert_int_equal(connect(s.client, &a.any, sizeof(a)), -1);
    assert_int_equal(errno, EINPROGRESS);
    port_rig_until(is_done, &s);
    assert_false(s.is_wrong);
    close(s.client);
    close(s.server);
    close(s.listener);
}

static void run_stream(bool is_v6)
{
    run_stream_until(is_v6, is_stream_done);
}

static uint64_t n_cut(unsigned i)
{
    return counter_read(&port_rig.ports[i].port->stats[0].n_segmented);
}

// Large frames cross whole; what the other side does not take is made up for in software, and its
// kernel believes the checksums.
static void test_tcp(void **state)
{
    (void)state;
    static const unsigned offloads[] = {UINT32_MAX, OFFLOAD_CSUM | OFFLOAD_ECN, 0};
    unsigned n_threads = count_threads();
    add_two("");
    port_rig.forward = look_and_forward;
    for (unsigned i = 0; i < ARRAY_LEN(offloads); i++) {
        for (unsigned is_v6 = 0; is_v6 < 2; is_v6++) {
            memset(&seen, 0, sizeof(seen));
            uint64_t n_before = n_cut(1);
            tap(1)->offloads &= offloads[i];
            run_stream(is_v6);
            assert_true(seen.n_csum > 0 && seen.n_segmented > 0 && seen.n_large > 0);
            assert_int_equal(n_cut(1) > n_before, offloads[i] != UINT32_MAX);
        }
    }
    assert_int_equal(count_threads(), n_threads); // no READ or WRITE goes to a helper
    remove_two();
}

// ---- queues that rest ------------------------------------------------------------------------

// Frames until the kernel has nothing more to say of its own (neighbour discovery).
static void quieten(void)
{
    for (unsigned i = 0; i < 2; i++) {
        space_enter(port_rig.ports[i].space);
        space_run("ip link set tap%u mtu 1500 multicast off", i);
    }
    port_rig_until_asleep();
}

static void test_a_quiet_port_costs_nothing(void **state)
{
    (void)state;
    add_two("");
    quieten();
    assert_true(port_rig.lane.uring.n_in_flight >= 2); // a READ of each is armed
    run_stream(false);                                 // and wakes its queue
    port_rig_until_asleep();
    remove_two();
}

// ---- datagrams -------------------------------------------------------------------------------

struct datagrams {
    int fd;
    uint32_t n_bytes, n, want;
};

static bool are_received(void *context)
{
    struct datagrams *d = context;
    ssize_t n = recv(d->fd, bytes + d->n_bytes, sizeof(bytes) - d->n_bytes, 0);
    if (n >= 0) {
        d->n++;
        d->n_bytes += (uint32_t)n;
    }
    return d->n_bytes >= d->want;
}

// Frames of UDP in segments, as a kernel that has USO sends them.
static void test_uso(void **state)
{
    (void)state;
    add_two("");
    port_rig.forward = look_and_forward;
    bool has_uso = tap(0)->offloads & OFFLOAD_USO4;
    for (unsigned is_v6 = 0; is_v6 < 2; is_v6++) {
        for (unsigned is_cut = 0; is_cut < 2; is_cut++) {
            tap(1)->offloads = is_cut ? 0 : tap(0)->offloads;
            memset(&seen, 0, sizeof(seen));
            struct datagrams d = {.fd = bind_socket(1, is_v6, SOCK_DGRAM, 4001), .want = 12000};
            int from = open_socket(0, is_v6, SOCK_DGRAM);
            int size = 1200;
            union address a = address_of(1, is_v6, 4001);
            uint8_t data[12000];
            for (unsigned i = 0; i < sizeof(data); i++)
                data[i] = stream_byte(i);
            assert_int_equal(setsockopt(from, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof(size)), 0);
            assert_int_equal(sendto(from, data, sizeof(data), 0, &a.any, sizeof(a)), 12000);
            port_rig_until(are_received, &d);
            assert_int_equal(d.n, 10);
            assert_memory_equal(bytes, data, sizeof(data));
            assert_int_equal(seen.n_segmented, has_uso);
            close(d.fd);
            close(from);
        }
    }
    remove_two();
}

// What a guest may send and a kernel does not: fragments, options, extension headers. Whoever
// cuts it up, the kernel's sockets get all of it.
static void test_guests_datagrams(void **state)
{
    (void)state;
    port_rig_add(0, "tap=tap0");
    space_run("ip link set tap0 address 02:00:00:00:00:02 up mtu 1500 && "
              "ip addr add 10.0.0.2/24 dev tap0 && ip addr add fd00::2/64 dev tap0 nodad");
    unsigned all = tap(0)->offloads;
    const unsigned offloads[] = {all, OFFLOAD_CSUM, 0};
    int fds[2];
    for (unsigned is_v6 = 0; is_v6 < 2; is_v6++) {
        union address a = {0};
        a.any.sa_family = is_v6 ? AF_INET6 : AF_INET;
        a.v4.sin_port = htons(40002); // where IPv6's is as well
        fds[is_v6] = open_socket(0, is_v6, SOCK_DGRAM);
        int one = 1; // not IPv4's port as well
        if (is_v6)
            setsockopt(fds[1], IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
        assert_int_equal(bind(fds[is_v6], &a.any, sizeof(a)), 0);
    }
    for (unsigned i = 0; i < n_packet_specs; i++) {
        for (unsigned j = 0; j < ARRAY_LEN(offloads); j++) {
            struct packet_spec s = packet_specs[i];
            if (!s.is_udp)
                continue;
            s.tag = 0;
            packet_make(&packet, &s);
            tap(0)->offloads = offloads[j];
            port_rig_send(0, &packet, (uint32_t[]){13, 40, 41, 700, 701, 5000}, 6);
            bool is_uso = s.gso_type == VIRTIO_NET_HDR_GSO_UDP_L4;
            struct datagrams d = {.fd = fds[s.is_v6], .want = s.payload};
            do
                port_rig_until(are_received, &d);
            while (d.n == 0); // an empty one
            assert_int_equal(d.n, is_uso ? (s.payload + s.gso_size - 1) / s.gso_size : 1);
            assert_int_equal(d.n_bytes, s.payload);
            assert_memory_equal(bytes, packet.bytes + packet.payload, s.payload);
        }
    }
    assert_int_equal(port_rig_drops(0, DROP_UPLINK), 0);
    close(fds[0]);
    close(fds[1]);
    port_rig_remove(0);
}

// ---- queues that move, many queues -----------------------------------------------------------

// Moved while frames come: none is read twice, none of the stream is lost for good.
static bool is_moved_and_done(void *context)
{
    static unsigned n;
    if (++n % 64 == 0) {
        port_rig_detach(n / 64 % 2);
        port_rig_attach(n / 64 % 2);
    }
    return is_stream_done(context);
}

static void test_queues_leave_and_come_back(void **state)
{
    (void)state;
    add_two("");
    run_stream_until(false, is_moved_and_done);
    remove_two();
}

static void test_many_queues(void **state)
{
    (void)state;
    add_two("queues=4");
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(atomic_load(&port_rig.ports[i].port->n_receivers), 4);
    run_stream(false);
    run_stream(true);
    remove_two();
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, port_rig_setup, port_rig_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_tcp),
        TEST(test_a_quiet_port_costs_nothing),
        TEST(test_uso),
        TEST(test_guests_datagrams),
        TEST(test_queues_leave_and_come_back),
        TEST(test_many_queues),
    };
    return cmocka_run_group_tests_name("tap", tests, NULL, NULL);
}
