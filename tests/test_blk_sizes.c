// SPDX-License-Identifier: Apache-2.0
// Requests of 1 to 1024 segments on rings of 2 to 1024 descriptors, and fewer or more queues than
// the line has, against the running daemon.
#include "tests/check.h"
#include "tests/daemon.h"

#include <string.h>

#define SEGMENTS_MAX  1024u
#define SEGMENT_BYTES 512u
#define DATA_BYTES    (SEGMENTS_MAX * SEGMENT_BYTES)
#define INDIRECT      VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC)
#define PACKED        VIRTIO_BIT(VIRTIO_F_RING_PACKED)

static struct daemon daemon_;

static int start(void **state)
{
    (void)state;
    daemon_open(&daemon_);
    daemon_add_disk(&daemon_, "d", "ram=16M queues=4");
    daemon_start(&daemon_);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    daemon_stop(&daemon_);
    daemon_close(&daemon_);
    return 0;
}

static int connect_disk(struct guest_disk **out, uint64_t features, unsigned n_queues,
                        uint32_t ring_size, struct error *e)
{
    char socket[CHILD_PATH_MAX];
    daemon_socket(&daemon_, socket, "d");
    struct guest_disk_config c = {
        .path = socket,
        .features = features,
        .protocol = GUEST_DISK_PROTOCOL,
        .n_queues = n_queues,
        .ring_size = ring_size,
        .table_entries = features & INDIRECT ? SEGMENTS_MAX + 2 : 0,
        .memory = {.n_regions = 1, .region_bytes = 32 << 20, .first_addr = UINT64_C(1) << 32},
    };
    return guest_disk_open(out, &c, e);
}

// ---- segments ----------------------------------------------------------------------------

// Each segment of data stands alone, in an order that no memory has.
static void scatter(struct guest_request *r, struct driver_segment segments[], unsigned n,
                    bool is_indirect)
{
    unsigned step = n % 7 ? 7 : 1;
    segments[0] = r->plain[0];
    for (unsigned i = 0; i < n; i++)
        segments[1 + i] = (struct driver_segment){
            r->data_addr + (uint64_t)(i * step % n) * SEGMENT_BYTES, SEGMENT_BYTES};
    segments[1 + n] = r->plain[2];
    bool is_read = guest_request_is_read(r->type);
    r->chain.segments = segments;
    r->chain.n_in = (uint16_t)(is_read ? n + 1 : 1);
    r->chain.n_out = (uint16_t)(n + 2 - r->chain.n_in);
    r->chain.n_direct = is_indirect ? 0 : (uint16_t)(n + 2);
}

static void run(struct guest_disk *d, struct guest_request *r, uint32_t used)
{
    struct error e;
    int64_t n = guest_disk_run(d, 0, r, &e);
    if (n < 0)
        fail_msg("%u bytes: %s", r->bytes, e.text);
    assert_int_equal(*r->status, VIRTIO_BLK_S_OK);
    assert_int_equal(n, used);
}

static void write_and_read(struct guest_disk *d, struct guest_request *r, unsigned n,
                           bool is_indirect)
{
    static struct driver_segment segments[SEGMENTS_MAX + 2];
    static uint8_t pattern[DATA_BYTES];
    static uint64_t seed = 7;
    uint32_t bytes = n * SEGMENT_BYTES;
    uint64_t sector = random_below(&seed, 16384 - n);
    for (uint32_t i = 0; i < bytes; i += 8)
        *(uint64_t *)(void *)(pattern + i) = random_next(&seed);
    memcpy(r->data, pattern, bytes);
    guest_request_prepare(r, VIRTIO_BLK_T_OUT, sector, bytes, GUEST_REQUEST_DIRECT);
    scatter(r, segments, n, is_indirect);
    run(d, r, 1);
    memset(r->data, 0, bytes);
    guest_request_prepare(r, VIRTIO_BLK_T_IN, sector, bytes, GUEST_REQUEST_DIRECT);
    scatter(r, segments, n, is_indirect);
    run(d, r, bytes + 1);
    assert_memory_equal(r->data, pattern, bytes);
}

static void use_ring(uint64_t features, uint32_t ring_size)
{
    static const unsigned counts[] = {1,  2,   3,   4,   5,   6,   7,   8,    62,   63,
                                      64, 126, 127, 128, 254, 255, 510, 1022, 1023, 1024};
    struct error e;
    struct guest_disk *d;
    struct guest_request r;
    check_ok(connect_disk(&d, features, 1, ring_size, &e), &e);
    check_ok(guest_request_open(&r, 1, d->guest, DATA_BYTES, &e), &e);
    for (unsigned i = 0; i < ARRAY_LEN(counts); i++) {
        if (counts[i] + 2 <= ring_size)
            write_and_read(d, &r, counts[i], false);
        if (features & INDIRECT) // a table may be longer than the ring, as Linux makes it
            write_and_read(d, &r, counts[i], true);
    }
    check_ok(guest_disk_stop(d, &e), &e);
    guest_request_close(&r, 1);
    guest_disk_close(d);
}

static void segments_and_rings_of_all_sizes(void **state)
{
    (void)state;
    static const uint64_t features[] = {0, INDIRECT, PACKED, PACKED | INDIRECT};
    static const uint32_t odd[] = {3, 5, 129, 1000};
    for (unsigned i = 0; i < ARRAY_LEN(features); i++)
        for (uint32_t size = 2; size <= 1024; size *= 2)
            use_ring(features[i], size);
    for (unsigned i = 0; i < ARRAY_LEN(odd); i++)
        use_ring(PACKED | INDIRECT, odd[i]);
}

// ---- queues ------------------------------------------------------------------------------

// As many as the line has, or fewer; the front end hears how many there are, and nobody hangs.
static void queues_up_to_the_line(void **state)
{
    (void)state;
    struct error e;
    struct guest_disk *d;
    for (unsigned n = 1; n <= 4; n++) {
        struct guest_request r[4];
        check_ok(connect_disk(&d, INDIRECT, n, 64, &e), &e);
        assert_int_equal(d->space.num_queues, 4);
        check_ok(guest_request_open(r, n, d->guest, 4096, &e), &e);
        for (unsigned q = 0; q < n; q++) {
            guest_request_prepare(&r[q], VIRTIO_BLK_T_IN, 8 * q, 4096, GUEST_REQUEST_DIRECT);
            assert_int_equal(guest_disk_run(d, q, &r[q], &e), 4097);
        }
        check_ok(guest_disk_stop(d, &e), &e);
        guest_request_close(r, n);
        guest_disk_close(d);
    }
    assert_true(connect_disk(&d, INDIRECT, 5, 64, &e) < 0);
    assert_non_null(strstr(e.text, "has 4 queues, not 5"));
    check_ok(connect_disk(&d, INDIRECT, 4, 64, &e), &e); // that front end left nothing behind
    guest_disk_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(segments_and_rings_of_all_sizes),
        cmocka_unit_test(queues_up_to_the_line),
    };
    return cmocka_run_group_tests_name("blk_sizes", tests, start, stop);
}
