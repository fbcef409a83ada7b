// SPDX-License-Identifier: Apache-2.0
// Single frames through a TAP port: tags, headers, the MTU.
#include "tests/check.h"
#include "tests/packet_rig.h"
#include "tests/port_rig.h"
#include "tests/space.h"

#include "devices/tap_internal.h"

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static struct packet packet;
static uint8_t bytes[PACKET_BYTES_MAX];

// Give port 0 the packet, cut at a few places.
static void send_packet(void)
{
    port_rig_send(0, &packet, (uint32_t[]){13, 40, 41, 700, 701, 5000}, 6);
}

// ---- VLANs ---------------------------------------------------------------------------------

static int open_packet_socket(unsigned i)
{
    space_enter(port_rig.ports[i].space);
    int one = 1, fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(ETH_P_ALL));
    struct sockaddr_ll a = {.sll_family = AF_PACKET,
                            .sll_protocol = htons(ETH_P_ALL),
                            .sll_ifindex = (int)if_nametoindex("tap0")};
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &one, sizeof(one)), 0);
    return fd;
}

static uint16_t seen_vlan;

static void look_at_vlan(struct port_rig *rig, unsigned from, struct frame *f)
{
    (void)rig, (void)from;
    if (frame_source(f)[5] == 0x77)
        seen_vlan = f->vlan;
    f->n_holders = 1;
    port_rig_return(f);
}

static bool has_seen_vlan(void *context)
{
    (void)context;
    return seen_vlan;
}

// What a packet socket got: the tag that the kernel took off, which is not in the bytes.
struct tagged {
    int fd;
    uint16_t tag;
};

static bool is_tagged_one_received(void *context)
{
    struct tagged *t = context;
    union {
        char bytes[CMSG_SPACE(sizeof(struct tpacket_auxdata))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {bytes, sizeof(bytes)};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof(control.bytes)};
    if (recvmsg(t->fd, &m, 0) < 42 || bytes[11] != 1 || bytes[6] != 2)
        return false;
    struct tpacket_auxdata aux;
    const struct cmsghdr *header = CMSG_FIRSTHDR(&m);
    if (!header)
        return false;
    memcpy(&aux, CMSG_DATA(header), sizeof(aux));
    t->tag = aux.tp_vlan_tci;
    return true;
}

// Tags are numbers inside and tags outside; a port with vlan= shows none.
static void test_vlan(void **state)
{
    (void)state;
    static const uint8_t tagged[60] = {2, 0, 0,    0,    0, 0x66, 2, 0,    0,
                                       0, 0, 0x77, 0x81, 0, 0x20, 5, 0x88, 0xb5};
    port_rig_add(0, "tap=tap0");
    space_run("ip link set tap0 up");
    struct tagged t = {.fd = open_packet_socket(0)};
    port_rig.forward = look_at_vlan;
    seen_vlan = 0;
    assert_int_equal(send(t.fd, tagged, sizeof(tagged), 0), sizeof(tagged));
    port_rig_until(has_seen_vlan, NULL);
    assert_int_equal(seen_vlan, 0x2005);

    struct packet_spec s = {"", 0, 1, 0, 0, 0, 0x6007, 0, 0, 100};
    packet_make(&packet, &s);
    send_packet();
    port_rig_until(is_tagged_one_received, &t);
    assert_int_equal(t.tag, 0x6007);
    packet_read(bytes, 142, true);
    port_rig.ports[0].port->vlan = 7;
    send_packet();
    port_rig_until(is_tagged_one_received, &t);
    assert_int_equal(t.tag, 0);
    close(t.fd);
    port_rig_remove(0);
}

// ---- headers -------------------------------------------------------------------------------

// A socket in the place of port 0's interface, which shows what is written.
struct wire {
    int fd, interface, space;
};

static struct wire wire_open(const char *keys)
{
    struct error e;
    int ends[2], space = space_open();
    check_ok(port_rig_open_port(0, keys, &e), &e);
    const struct tap *tap = (const struct tap *)port_rig.ports[0].port;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends), 0);
    assert_int_equal(dup2(ends[0], tap->fds[0]), tap->fds[0]);
    port_rig_attach(0);
    return (struct wire){.fd = ends[1], .interface = ends[0], .space = space};
}

static void wire_close(const struct wire *w)
{
    port_rig_detach(0);
    port_rig_close_port(0);
    close(w->interface);
    close(w->fd);
    close(w->space);
}

// The header says what was found in the frame, and nothing else that a guest wrote.
static void test_headers(void **state)
{
    (void)state;
    struct wire w = wire_open("tap=tap0");
    for (unsigned i = 0; i < n_packet_specs; i++) {
        struct packet_spec s = packet_specs[i];
        s.tag &= 0xefff; // the DEI is not kept
        if (s.payload > 20000)
            continue; // more than a socket takes
        packet_make(&packet, &s);
        struct virtio_net_hdr want = packet.hdr, got;
        if (!s.gso_type)
            want.hdr_len = 0;
        else if (s.gso_type == VIRTIO_NET_HDR_GSO_UDP)
            want.gso_size &= 0xfff8;
        packet.hdr.flags = 0xff;
        packet.hdr.hdr_len = 0x5555;
        packet.hdr.num_buffers = 0x5555;
        send_packet();
        struct iovec iov[] = {{&got, VIRTIO_NET_HDR_BYTES}, {bytes, sizeof(bytes)}};
        assert_int_equal(readv(w.fd, iov, 2), VIRTIO_NET_HDR_BYTES + packet.n_bytes);
        assert_memory_equal(&got, &want, VIRTIO_NET_HDR_BYTES);
        assert_memory_equal(bytes, packet.bytes, packet.n_bytes);
    }
    wire_close(&w);
}

static struct frame last_seen; // its head

static void look_at_last(struct port_rig *rig, unsigned from, struct frame *f)
{
    (void)rig, (void)from;
    last_seen = *f;
    f->n_holders = 1;
    port_rig_return(f);
}

static bool is_judged(void *context)
{
    const unsigned *want = context;
    uint64_t n = port_rig.n_forwarded;
    for (enum drop i = DROP_NONE; i < DROPS; i++)
        n += port_rig_drops(0, i);
    return n == *want;
}

// And back: what the kernel would say of a frame is checked as well.
static void test_headers_from_the_kernel(void **state)
{
    (void)state;
    static const struct {
        struct virtio_net_hdr hdr;
        uint32_t bytes; // header included
        enum drop want;
    } cases[] = {
        {{0}, 100, DROP_NONE},
        {{.flags = VIRTIO_NET_HDR_F_DATA_VALID}, 100, DROP_NONE},
        {{.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 34}, 100, DROP_NONE},
        {{.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 99}, 100, DROP_BAD_HEADER},
        {{0}, 11, DROP_RUNT},
        {{0}, 25, DROP_RUNT},
        {{0}, 12 + 1014, DROP_NONE},
        {{0}, 12 + 1015, DROP_GIANT},
    };
    struct wire w = wire_open("tap=tap0 mtu=1000");
    port_rig.forward = look_at_last;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t n_before = port_rig_drops(0, cases[i].want);
        memset(bytes, 0, sizeof(bytes));
        memcpy(bytes, &cases[i].hdr, VIRTIO_NET_HDR_BYTES);
        assert_int_equal(send(w.fd, bytes, cases[i].bytes, 0), cases[i].bytes);
        port_rig_until(is_judged, &(unsigned){i + 1});
        if (cases[i].want) {
            assert_int_equal(port_rig_drops(0, cases[i].want), n_before + 1);
            continue;
        }
        assert_int_equal(last_seen.is_csum_good, cases[i].hdr.flags / 2);
        assert_int_equal(last_seen.needs_csum, cases[i].hdr.flags % 2);
        assert_int_equal(last_seen.bytes, cases[i].bytes - 12);
    }
    wire_close(&w);
}

static void test_mtu(void **state)
{
    (void)state;
    port_rig_add(0, "tap=tap0 mtu=1000");
    space_run("ip link set tap0 up");
    struct packet_spec s = {"", 0, 1, 0, 0, 0, 0, 0, 0, 972};
    for (unsigned more = 0; more < 2; more++, s.payload++) {
        packet_make(&packet, &s);
        send_packet();
        assert_int_equal(port_rig_drops(0, DROP_MTU), more);
    }
    port_rig_remove(0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, port_rig_setup, port_rig_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_vlan),
        TEST(test_headers),
        TEST(test_headers_from_the_kernel),
        TEST(test_mtu),
    };
    return cmocka_run_group_tests_name("tap_frame", tests, NULL, NULL);
}
