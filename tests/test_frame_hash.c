// SPDX-License-Identifier: Apache-2.0
// The hash that keeps a flow's frames together and spreads flows over queues.
#include "devices/frame.h"

#include "tests/check.h"
#include "tests/packet_rig.h"

#include <string.h>

static struct packet packet;

static uint32_t hash_of(void)
{
    struct frame f;
    struct iovec iov[2];
    unsigned n = packet_cut(iov, packet.bytes, packet.n_bytes, (uint32_t[]){25}, 1);
    assert_int_equal(frame_parse(&f, iov, n, 0, NULL), DROP_NONE);
    uint32_t plain = frame_hash(&f);
    assert_int_equal(frame_parse(&f, iov, n, 0, &packet.hdr), DROP_NONE);
    assert_int_equal(frame_hash(&f), plain); // however much of it is in head[]
    packet_uncut(iov, n);
    return plain;
}

static void test_hash(void **state)
{
    (void)state;
    for (unsigned i = 0; i < n_packet_specs; i++) {
        packet_make(&packet, &packet_specs[i]);
        uint32_t first = hash_of();
        packet.bytes[packet.n_bytes - 1] ^= 1;
        packet.bytes[packet.l4 + 5] ^= 1; // sequence number, length
        assert_int_equal(hash_of(), first);
        bool has_ports = !packet_specs[i].is_v6 || !packet_specs[i].ip_extra;
        packet.bytes[packet.l4] ^= 1; // source port
        assert_int_equal(hash_of() != first, has_ports);
        packet.bytes[packet.l3 + 23] ^= 4; // an address, or options: not those
        if (packet_specs[i].is_v6)
            assert_int_not_equal(hash_of(), first);
    }
}

static void test_hash_of_fragments(void **state)
{
    (void)state;
    packet_make(&packet, packet_spec_named("csum udp4"));
    packet.hdr = (struct virtio_net_hdr){0};
    memcpy(packet.bytes + packet.l3 + 6, (uint8_t[]){0x20, 0}, 2); // the first
    uint32_t first = hash_of();
    memcpy(packet.bytes + packet.l3 + 6, (uint8_t[]){0, 7}, 2); // the last, with payload for ports
    packet.bytes[packet.l4] ^= 0x55;
    assert_int_equal(hash_of(), first);
}

// Ports that count up fill eight queues evenly.
static void test_hash_spreads(void **state)
{
    (void)state;
    unsigned n[8] = {0};
    packet_make(&packet, packet_spec_named("csum tcp4"));
    for (unsigned i = 0; i < 4096; i++) {
        packet.bytes[packet.l4] = (uint8_t)(i >> 8);
        packet.bytes[packet.l4 + 1] = (uint8_t)i;
        n[hash_of() % 8]++;
    }
    for (unsigned i = 0; i < 8; i++)
        assert_in_range(n[i], 400, 640);
}

static void test_hash_of_anything(void **state)
{
    (void)state;
    static const uint16_t types[] = {0x0800, 0x86dd, 0x0806};
    for (unsigned i = 0; i < ARRAY_LEN(types); i++) {
        for (uint32_t n_bytes = 14; n_bytes < 80; n_bytes++) { // never beyond the end: ASan
            packet_make_plain(&packet, n_bytes, 0);
            memset(packet.bytes + 14, 0x4f, n_bytes - 14);
            packet.bytes[12] = (uint8_t)(types[i] >> 8);
            packet.bytes[13] = (uint8_t)types[i];
            uint32_t first = hash_of();
            packet.bytes[6] ^= 1; // the source's address counts where there is no IP
            if (types[i] == 0x0806)
                assert_int_not_equal(hash_of(), first);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hash),
        cmocka_unit_test(test_hash_of_fragments),
        cmocka_unit_test(test_hash_spreads),
        cmocka_unit_test(test_hash_of_anything),
    };
    return cmocka_run_group_tests_name("frame_hash", tests, NULL, NULL);
}
