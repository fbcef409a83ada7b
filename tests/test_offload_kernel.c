// SPDX-License-Identifier: Apache-2.0
//
// The pieces that we make are those that Linux makes, byte for byte: a TAP takes a frame that is
// owed segmentation, a bridge takes it to another TAP, whose reader takes none.
#include "devices/offload.h"

#include "tests/check.h"
#include "tests/packet_rig.h"
#include "tests/space.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define DEADLINE_MS 20000

static struct packet packet;
static uint8_t mine[PACKET_BYTES_MAX], theirs[PACKET_BYTES_MAX];

static int open_tap(const char *name)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int bytes = VIRTIO_NET_HDR_BYTES;
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        print_message("skipped: /dev/net/tun: %s\n", strerror(errno));
        skip();
    }
    memcpy(request.ifr_name, name, strlen(name));
    assert_int_equal(ioctl(fd, TUNSETIFF, &request), 0);
    assert_int_equal(ioctl(fd, TUNSETVNETHDRSZ, &bytes), 0);
    assert_int_equal(ioctl(fd, TUNSETOFFLOAD, 0), 0);
    return fd;
}

// The next frame that came from the rig's address; the kernel's own chatter is passed over.
static uint32_t read_piece(int fd)
{
    static const uint8_t source[] = {2, 0, 0, 0, 0, 1};
    static uint8_t bytes[VIRTIO_NET_HDR_BYTES + PACKET_BYTES_MAX];
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, DEADLINE_MS) != 1)
            fail_msg("no piece comes");
        ssize_t n = read(fd, bytes, sizeof(bytes));
        if (n < 0 && errno == EAGAIN)
            continue;
        assert_true(n >= (ssize_t)VIRTIO_NET_HDR_BYTES + FRAME_BYTES_MIN);
        if (memcmp(bytes + VIRTIO_NET_HDR_BYTES + 6, source, 6) != 0)
            continue;
        assert_int_equal(bytes[0] & VIRTIO_NET_HDR_F_NEEDS_CSUM, 0);
        assert_int_equal(bytes[1], VIRTIO_NET_HDR_GSO_NONE);
        memcpy(theirs, bytes + VIRTIO_NET_HDR_BYTES, (size_t)n - VIRTIO_NET_HDR_BYTES);
        return (uint32_t)n - VIRTIO_NET_HDR_BYTES;
    }
}

static void write_packet(int fd)
{
    struct iovec iov[] = {{&packet.hdr, VIRTIO_NET_HDR_BYTES}, {packet.bytes, packet.n_bytes}};
    ssize_t n = writev(fd, iov, 2);
    assert_int_equal(n, VIRTIO_NET_HDR_BYTES + packet.n_bytes);
}

// @piece as it is on the wire, with its tag; how many bytes.
static uint32_t join(const struct frame *f, const struct segment *piece, uint16_t tag)
{
    uint32_t tag_bytes = tag ? 4 : 0;
    memcpy(mine, piece->head, 12);
    memcpy(mine + 12, (uint8_t[]){0x81, 0, (uint8_t)(tag >> 8), (uint8_t)tag}, 4);
    memcpy(mine + 12 + tag_bytes, piece->head + 12, piece->n_head - 12u);
    frame_copy(f, piece->offset, mine + tag_bytes + piece->n_head, piece->bytes);
    return tag_bytes + piece->n_head + piece->bytes;
}

// What differs by nature: the id of IPv6 fragments, which each sender makes up.
static void forget_ids(const struct frame *f, uint32_t n_bytes)
{
    if (f->gso != FRAME_GSO_UDP || f->head[f->l3] >> 4 != 6 || n_bytes < f->csum_start + 8u)
        return;
    uint32_t at = (f->vlan ? 4u : 0) + f->csum_start + 4u;
    memset(mine + at, 0, 4);
    memset(theirs + at, 0, 4);
}

static void check_spec(const struct packet_spec *s, int in, int out)
{
    packet_make(&packet, s);
    struct frame f;
    struct iovec iov = {packet.bytes, packet.n_bytes};
    assert_int_equal(frame_parse(&f, &iov, 1, 0, &packet.hdr), DROP_NONE);
    if (f.gso == FRAME_GSO_UDP) // which leaves the last bits to the sender
        packet.hdr.gso_size = f.gso_size;
    write_packet(in);

    struct segmenter segmenter;
    struct segment piece;
    offload_begin(&segmenter, &f, 0);
    for (unsigned i = 0; offload_next(&segmenter, &piece); i++) {
        uint32_t n = join(&f, &piece, s->tag);
        uint32_t n_theirs = read_piece(out);
        forget_ids(&f, n);
        if (n_theirs != n)
            fail_msg("%s, piece %u: %u bytes, Linux has %u", s->name, i, n, n_theirs);
        for (uint32_t at = 0; at < n; at++) {
            if (mine[at] != theirs[at])
                fail_msg("%s, piece %u: byte %u is %02x, Linux has %02x", s->name, i, at, mine[at],
                         theirs[at]);
        }
    }
}

static void test_same_pieces_as_linux(void **state)
{
    (void)state;
    int space = space_open();
    int in = open_tap("in"), out = open_tap("out");
    space_run("ip link add between type bridge mcast_snooping 0 && "
              "ip link set in master between && ip link set out master between && "
              "ip link set in up && ip link set out up && ip link set between up");
    for (unsigned i = 0; i < n_packet_specs; i++) {
        const struct packet_spec *s = &packet_specs[i];
        // There Linux (6.18) counts the extension headers as fragmented: its pieces do not join.
        bool is_wrong_there = s->is_v6 && s->gso_type == VIRTIO_NET_HDR_GSO_UDP && s->ip_extra;
        if (!is_wrong_there)
            check_spec(s, in, out);
    }
    close(in);
    close(out);
    close(space);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_pieces_as_linux)};
    return cmocka_run_group_tests_name("offload_kernel", tests, NULL, NULL);
}
