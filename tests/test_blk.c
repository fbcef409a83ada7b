// SPDX-License-Identifier: Apache-2.0
#include "tests/blk_store.h"

#include <string.h>

enum {
    IN = VIRTIO_BLK_T_IN,
    OUT = VIRTIO_BLK_T_OUT,
    FLUSH = VIRTIO_BLK_T_FLUSH,
    GET_ID = VIRTIO_BLK_T_GET_ID,
};

// ---- every request, in every shape, on every back end ------------------------------------

struct request_case {
    uint32_t type;
    uint64_t sector;
    uint32_t n_header, n_out, n_in;
    int status;    // expected
    uint32_t data; // bytes expected in the buffer
    uint32_t used; // length expected
};

static const struct request_case requests[] = {
    {IN, 0, 16, 0, 512, OK, 512, 513},
    {IN, 7, 16, 0, 4096, OK, 4096, 4097},
    {IN, LAST, 16, 0, 512, OK, 512, 513},
    {IN, 0, 16, 0, 0, OK, 0, 1},
    {IN, SECTORS, 16, 0, 0, OK, 0, 1},
    {IN, 3, 16, 512, 512, OK, 512, 513}, // readable bytes that a read has no use for
    // not in whole sectors (5.2.6.1)
    {IN, 0, 16, 0, 1, IOERR, 0, 0},
    {IN, 0, 16, 0, 511, IOERR, 0, 0},
    {IN, 0, 16, 0, 513, IOERR, 0, 0},
    // beyond the capacity, and where a sum wraps
    {IN, LAST, 16, 0, 1024, IOERR, 0, 0},
    {IN, SECTORS, 16, 0, 512, IOERR, 0, 0},
    {IN, SECTORS + 1, 16, 0, 0, IOERR, 0, 1},
    {IN, UINT64_MAX, 16, 0, 512, IOERR, 0, 0},
    {IN, UINT64_MAX, 16, 0, 0, IOERR, 0, 1},
    {IN, WRAPS, 16, 0, 1024, IOERR, 0, 0},
    {IN, WRAPS_TO, 16, 0, 512, IOERR, 0, 0},

    {OUT, 0, 16, 512, 0, OK, 0, 1},
    {OUT, 9, 16, 4096, 0, OK, 0, 1},
    {OUT, LAST, 16, 512, 0, OK, 0, 1},
    {OUT, 0, 16, 0, 0, OK, 0, 1},
    {OUT, 0, 16, 512, 3, OK, 0, 0}, // the status is the last byte, the three before stay
    {OUT, 0, 16, 511, 0, IOERR, 0, 1},
    {OUT, 0, 16, 513, 0, IOERR, 0, 1},
    {OUT, LAST, 16, 1024, 0, IOERR, 0, 1},
    {OUT, SECTORS, 16, 512, 0, IOERR, 0, 1},
    {OUT, UINT64_MAX, 16, 512, 0, IOERR, 0, 1},
    {OUT, WRAPS, 16, 1024, 0, IOERR, 0, 1},
    {OUT, WRAPS_TO, 16, 512, 0, IOERR, 0, 1},

    {FLUSH, 0, 16, 0, 0, OK, 0, 1},
    {FLUSH, UINT64_MAX, 16, 0, 0, OK, 0, 1}, // has no use for its sector
    {FLUSH, 0, 16, 512, 0, OK, 0, 1},
    {FLUSH, 0, 16, 0, 512, OK, 0, 0},

    {GET_ID, 0, 16, 0, 20, OK, 20, 21},
    {GET_ID, UINT64_MAX, 16, 0, 20, OK, 20, 21},
    {GET_ID, 0, 16, 0, 7, OK, 7, 8},
    {GET_ID, 0, 16, 0, 0, OK, 0, 1},
    {GET_ID, 0, 16, 0, 100, OK, 20, 20},
    {GET_ID, 0, 16, 20, 20, OK, 20, 21},

    // what was not offered, what does not exist
    {VIRTIO_BLK_T_DISCARD, 0, 16, 16, 0, UNSUPP, 0, 1},
    {VIRTIO_BLK_T_WRITE_ZEROES, 0, 16, 16, 0, UNSUPP, 0, 1},
    {VIRTIO_BLK_T_SECURE_ERASE, 0, 16, 16, 0, UNSUPP, 0, 1},
    {VIRTIO_BLK_T_GET_LIFETIME, 0, 16, 0, 6, UNSUPP, 0, 0},
    {VIRTIO_BLK_T_ZONE_APPEND, 0, 16, 512, 8, UNSUPP, 0, 0},
    {VIRTIO_BLK_T_ZONE_REPORT, 0, 16, 0, 128, UNSUPP, 0, 0},
    {VIRTIO_BLK_T_ZONE_OPEN, 0, 16, 0, 0, UNSUPP, 0, 1},
    {VIRTIO_BLK_T_ZONE_CLOSE, 0, 16, 0, 0, UNSUPP, 0, 1},
    {VIRTIO_BLK_T_ZONE_FINISH, 0, 16, 0, 0, UNSUPP, 0, 1},
    {VIRTIO_BLK_T_ZONE_RESET, 0, 16, 0, 0, UNSUPP, 0, 1},
    {VIRTIO_BLK_T_ZONE_RESET_ALL, 0, 16, 0, 0, UNSUPP, 0, 1},
    {2, 0, 16, 0, 512, UNSUPP, 0, 0},
    {UINT32_MAX, UINT64_MAX, 16, 512, 0, UNSUPP, 0, 1},

    // a header cut short
    {IN, 0, 15, 0, 512, IOERR, 0, 0},
    {OUT, 0, 8, 0, 0, IOERR, 0, 1},
    {FLUSH, 0, 1, 0, 0, IOERR, 0, 1},
    {IN, 0, 0, 0, 512, IOERR, 0, 0},
};

static void expect_data(const struct request_case *rc, const struct store *s, uint8_t *expected)
{
    memset(expected, DISK_CANARY, rc->n_in);
    if (rc->type == IN && s->has_data && rc->data)
        memcpy(expected, store_contents + rc->sector * 512, rc->data);
    if (rc->type == GET_ID) {
        memset(expected, 0, rc->data);
        memcpy(expected, "serial", MIN(rc->data, 6u));
    }
}

static void check_request(struct disk_rig *d, const struct store *s, const struct disk_shape *shape,
                          const struct request_case *rc)
{
    struct disk_call c = {.type = rc->type,
                          .sector = rc->sector,
                          .n_out = rc->n_out,
                          .n_in = rc->n_in,
                          .n_header = rc->n_header,
                          .has_status = true};
    bool is_write = rc->type == OUT || rc->type == VIRTIO_BLK_T_DISCARD ||
                    rc->type == VIRTIO_BLK_T_WRITE_ZEROES || rc->type == VIRTIO_BLK_T_SECURE_ERASE;
    bool is_refused = s->is_read_only && is_write && rc->n_header == 16;
    if (rc->type == OUT && rc->status == OK)
        c.out = store_contents + rc->sector * 512; // what is there already
    uint32_t used = rc->used;
    if (rc->type == IN && !s->has_data && rc->data)
        used = 0;
    assert_int_equal(disk_rig_run(d, shape, &c, 1), 1);

    uint8_t expected[4096];
    expect_data(rc, s, expected);
    int status = is_refused ? IOERR : rc->status;
    if (c.status != status || c.used != used || memcmp(c.in, expected, rc->n_in) != 0)
        fail_msg("%s, %s: request %u: status %d, used %u, data %s", s->name, shape->name,
                 (unsigned)(rc - requests), c.status, c.used,
                 memcmp(c.in, expected, rc->n_in) ? "differs" : "as it should be");
}

static void requests_in_every_shape(void **state)
{
    const struct store *s = *state;
    for (unsigned l = 0; l < ARRAY_LEN(rig_layouts); l++) {
        struct disk_rig d;
        store_open(&d, s, rig_layouts[l]);
        for (unsigned i = 0; i < disk_n_shapes; i++)
            for (unsigned k = 0; k < ARRAY_LEN(requests); k++)
                check_request(&d, s, &disk_shapes[i], &requests[k]);
        assert_int_equal(d.rig.queue->ring.fault, RING_OK);
        disk_rig_close(&d);
    }
}

// ---- data ---------------------------------------------------------------------------------

// What is written in one shape reads back in every other; neighbours stay.
static void written_data_reads_back(void **state)
{
    const struct store *s = *state;
    static uint8_t model[SECTORS * 512], data[8192];
    memcpy(model, store_contents, sizeof(model));
    for (unsigned l = 0; l < ARRAY_LEN(rig_layouts); l++) {
        struct disk_rig d;
        store_open(&d, s, rig_layouts[l]);
        for (unsigned i = 0; i < disk_n_shapes * 4; i++) {
            uint64_t sector = 31 * i + l;
            uint32_t bytes = 512 * (1 + i % 9);
            disk_pattern(data, bytes, sector, 2 + i);
            struct disk_call c = {.type = OUT,
                                  .sector = sector,
                                  .out = data,
                                  .n_out = bytes,
                                  .n_header = 16,
                                  .has_status = true};
            assert_int_equal(disk_rig_run(&d, &disk_shapes[i % disk_n_shapes], &c, 1), 1);
            assert_int_equal(c.status, OK);
            memcpy(model + sector * 512, data, bytes);
        }
        for (unsigned i = 0; i < disk_n_shapes; i++) {
            for (uint64_t sector = 0; sector < SECTORS; sector += 8) {
                struct disk_call c = {
                    .type = IN, .sector = sector, .n_in = 4096, .n_header = 16, .has_status = true};
                assert_int_equal(disk_rig_run(&d, &disk_shapes[i], &c, 1), 1);
                assert_int_equal(c.status, OK);
                assert_memory_equal(c.in, model + sector * 512, 4096);
            }
        }
        // The next layout's disk begins as this one did.
        for (uint64_t sector = 0; sector < SECTORS; sector += 512)
            disk_rig_write(&d, sector, store_contents + sector * 512, 512 * 512);
        memcpy(model, store_contents, sizeof(model));
        disk_rig_close(&d);
    }
}

static void a_batch_of_good_and_bad_ones(void **state)
{
    const struct store *s = *state;
    for (unsigned l = 0; l < ARRAY_LEN(rig_layouts); l++) {
        struct disk_rig d;
        store_open(&d, s, rig_layouts[l]);
        struct disk_call calls[DISK_CALLS] = {0};
        for (unsigned i = 0; i < DISK_CALLS; i++) {
            calls[i] = (struct disk_call){.type = i % 4 == 3 ? 77 : IN,
                                          .sector = i % 4 == 2 ? SECTORS : i,
                                          .n_in = 512,
                                          .n_header = 16,
                                          .has_status = true};
        }
        assert_int_equal(disk_rig_run(&d, DISK_PLAIN, calls, DISK_CALLS), DISK_CALLS);
        for (unsigned i = 0; i < DISK_CALLS; i++) {
            static const int statuses[] = {OK, OK, IOERR, UNSUPP};
            assert_int_equal(calls[i].status, statuses[i % 4]);
            if (i % 4 < 2 && s->has_data)
                assert_memory_equal(calls[i].in, store_contents + i * 512, 512);
            else
                assert_int_equal(calls[i].n_clean, 512);
        }
        disk_rig_close(&d);
    }
}

// ---- what faults -------------------------------------------------------------------------

static void without_a_status_byte_the_ring_faults(void **state)
{
    const struct store *s = *state;
    for (unsigned l = 0; l < ARRAY_LEN(rig_layouts); l++) {
        struct disk_rig d;
        store_open(&d, s, rig_layouts[l]);
        struct disk_call calls[3] = {
            {.type = OUT, .n_out = 512, .n_header = 16},
            {.type = OUT, .n_out = 512, .n_header = 16, .out = store_contents, .has_status = true},
            {.type = IN, .n_in = 512, .n_header = 16, .has_status = true},
        };
        assert_int_equal(disk_rig_run(&d, DISK_PLAIN, calls, 3), 0);
        assert_int_equal(d.rig.queue->ring.fault, RING_BAD_REQUEST);
        assert_int_equal(counter_read(&d.rig.queue->stats.n_faults[RING_BAD_REQUEST]), 1);

        device_rig_restart(&d.rig, rig_layouts[l]);
        assert_int_equal(d.rig.queue->ring.fault, RING_OK);
        assert_int_equal(disk_rig_flush(&d), OK);
        disk_rig_close(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        OVER(requests_in_every_shape, "null", STORE_NULL),
        OVER(requests_in_every_shape, "ram", STORE_RAM),
        OVER(requests_in_every_shape, "file", STORE_FILE),
        OVER(requests_in_every_shape, "read-only file", STORE_READ_ONLY),
        OVER(written_data_reads_back, "ram", STORE_RAM),
        OVER(written_data_reads_back, "file", STORE_FILE),
        OVER(a_batch_of_good_and_bad_ones, "null", STORE_NULL),
        OVER(a_batch_of_good_and_bad_ones, "ram", STORE_RAM),
        OVER(a_batch_of_good_and_bad_ones, "file", STORE_FILE),
        OVER(without_a_status_byte_the_ring_faults, "null", STORE_NULL),
        OVER(without_a_status_byte_the_ring_faults, "ram", STORE_RAM),
        OVER(without_a_status_byte_the_ring_faults, "file", STORE_FILE),
    };
    return cmocka_run_group_tests_name("blk", tests, store_make, store_remove);
}
