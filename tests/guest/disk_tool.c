// SPDX-License-Identifier: Apache-2.0
// disk_tool: our front end as a program, for guests that run sluiced themselves.
//
//     disk_tool [--packed] try SOCKET OPERATION...       "write BLOCK COUNT GENERATION",
//                                                        "read BLOCK COUNT" or "flush"
//     disk_tool [--packed] ledger SOCKET LEDGER DEVICE MARKS [through]   see flush_ledger.h;
//                                                        "through" turns the cache off
//     disk_tool check LEDGER LOG
//
// "try" prints what became of each operation; it fails only if there was no answer.
#include "bench/stamp.h"
#include "tests/guest/flush_ledger.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define N_QUEUES      2
#define BLOCK_BYTES   4096u
#define BLOCK_SECTORS (BLOCK_BYTES / STAMP_SECTOR_BYTES)
#define REQUESTS_MAX  64
#define WAIT_SECONDS  120

static const char usage[] = "usage: disk_tool [--packed] try | ledger | check ...\n";

static int connect_disk(struct guest_disk **out, const char *path, uint64_t more, struct error *e)
{
    struct guest_disk_config c = {
        .path = path,
        .features = VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) | more,
        .protocol = GUEST_DISK_PROTOCOL,
        .n_queues = N_QUEUES,
        .ring_size = 128,
        .table_entries = 4,
        .memory = {.n_regions = 1, .region_bytes = 4 << 20, .first_addr = UINT64_C(1) << 32},
    };
    return guest_disk_open(out, &c, e);
}

// ---- single operations -------------------------------------------------------------------

struct trial {
    struct guest_disk *disk;
    struct guest_request requests[REQUESTS_MAX];
};

static int wait_all(struct trial *t, struct error *e)
{
    time_t deadline = time(NULL) + WAIT_SECONDS;
    while (driver_n_in_flight(t->disk->drivers[0])) {
        struct driver_used used;
        int n = driver_poll(t->disk->drivers[0], &used, 1, e);
        if (n < 0)
            return n;
        if (time(NULL) > deadline)
            return error_set(e, ETIMEDOUT, "no answer within %u s", WAIT_SECONDS);
        sched_yield();
    }
    return 0;
}

static struct stamp_key key_of(const struct guest_request *r, unsigned generation)
{
    return (struct stamp_key){1, generation, r->sector};
}

static int run(struct trial *t, uint32_t type, unsigned block, unsigned n, unsigned generation,
               struct error *e)
{
    for (unsigned i = 0; i < n; i++) {
        struct guest_request *r = &t->requests[i];
        uint32_t bytes = type == VIRTIO_BLK_T_FLUSH ? 0 : BLOCK_BYTES;
        guest_request_prepare(r, type, (uint64_t)(block + i) * BLOCK_SECTORS * (bytes > 0), bytes,
                              GUEST_REQUEST_INDIRECT);
        if (type == VIRTIO_BLK_T_OUT)
            stamp_write(r->data, BLOCK_BYTES, key_of(r, generation));
        if (!guest_disk_submit(t->disk, 0, r))
            return error_set(e, EAGAIN, "the ring is full");
    }
    return wait_all(t, e);
}

static void print_generations(const struct trial *t, unsigned n)
{
    unsigned n_torn = 0;
    uint32_t least = UINT32_MAX, most = 0;
    for (unsigned i = 0; i < n; i++) {
        const struct guest_request *r = &t->requests[i];
        struct error e;
        uint32_t generation = stamp_generation(r->data);
        if (*r->status != VIRTIO_BLK_S_OK)
            continue;
        least = MIN(least, generation);
        most = MAX(most, generation);
        n_torn += stamp_check(r->data, BLOCK_BYTES, key_of(r, generation), &e) < 0 && generation;
    }
    if (least <= most)
        printf(" generations=%u-%u torn=%u", least, most, n_torn);
}

static int try_one(struct trial *t, const char *text, struct error *e)
{
    unsigned block = 0, n = 1, generation = 0, n_ok = 0;
    char verb[8] = "";
    // NOLINTNEXTLINE(cert-err34-c): our own tests call this
    sscanf(text, "%7s %u %u %u", verb, &block, &n, &generation);
    uint32_t type = !strcmp(verb, "write")  ? VIRTIO_BLK_T_OUT
                    : !strcmp(verb, "read") ? VIRTIO_BLK_T_IN
                                            : VIRTIO_BLK_T_FLUSH;
    if (n > REQUESTS_MAX || (type == VIRTIO_BLK_T_FLUSH && strcmp(verb, "flush") != 0))
        return error_set(e, EINVAL, "%s: not write, read or flush of at most %u blocks", text,
                         REQUESTS_MAX);
    int rc = run(t, type, block, n, generation, e);
    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < n; i++)
        n_ok += *t->requests[i].status == VIRTIO_BLK_S_OK;
    printf("%s ok=%u failed=%u", verb, n_ok, n - n_ok);
    if (type == VIRTIO_BLK_T_IN)
        print_generations(t, n);
    printf("\n");
    return fflush(stdout) ? -errno : 0;
}

static int try_all(struct guest_disk *disk, int n, char *texts[], struct error *e)
{
    struct trial t = {.disk = disk};
    int rc = guest_request_open(t.requests, REQUESTS_MAX, disk->guest, BLOCK_BYTES, e);
    for (int i = 0; rc == 0 && i < n; i++)
        rc = try_one(&t, texts[i], e);
    guest_request_close(t.requests, REQUESTS_MAX);
    return rc;
}

// ---- commands ----------------------------------------------------------------------------

static int turn_cache_off(struct guest_disk *disk, struct error *e)
{
    const uint8_t writeback = 0;
    return frontend_set_config(disk->frontend, offsetof(struct virtio_blk_config, writeback),
                               &writeback, sizeof writeback, e);
}

static int with_disk(int argc, char *argv[], bool is_packed, struct error *e)
{
    struct guest_disk *disk = NULL;
    bool is_try = !strcmp(argv[0], "try");
    if (argc < (is_try ? 3 : 5))
        return error_set(e, EINVAL, "%s", usage);
    bool is_through = !is_try && argc > 5;
    int rc = connect_disk(&disk, argv[1],
                          (is_packed ? VIRTIO_BIT(VIRTIO_F_RING_PACKED) : 0) |
                              (is_through ? VIRTIO_BIT(VIRTIO_BLK_F_CONFIG_WCE) : 0),
                          e);
    if (rc == 0 && is_through)
        rc = turn_cache_off(disk, e);
    if (rc == 0 && is_try)
        rc = try_all(disk, argc - 2, argv + 2, e);
    if (rc == 0 && !is_try) {
        struct flush_ledger_options o = {argv[2], argv[3], (unsigned)strtoul(argv[4], NULL, 10),
                                         is_through};
        rc = flush_ledger_write(disk, &o, e);
    }
    if (rc == 0)
        rc = guest_disk_stop(disk, e);
    guest_disk_close(disk);
    return rc;
}

int main(int argc, char *argv[])
{
    struct error e = {""};
    bool is_packed = argc > 1 && !strcmp(argv[1], "--packed");
    argc -= 1 + is_packed;
    argv += 1 + is_packed;
    int rc;
    if (argc == 3 && !strcmp(argv[0], "check"))
        rc = flush_ledger_check(argv[1], argv[2], &e);
    else if (argc > 1 && (!strcmp(argv[0], "try") || !strcmp(argv[0], "ledger")))
        rc = with_disk(argc, argv, is_packed, &e);
    else
        rc = error_set(&e, EINVAL, "%s", usage);
    if (rc < 0)
        fprintf(stderr, "disk_tool: %s\n", e.text);
    else if (rc > 0)
        printf("%d marks hold\n", rc);
    return rc < 0 ? 1 : 0;
}
