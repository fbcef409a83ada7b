// SPDX-License-Identifier: Apache-2.0
// disk_null.c - a disk that stores nothing and touches no data: the cost of everything else.
//
// n_done stays 0: a read writes nothing to the guest, and its used length must not claim that
// it did (2.7.8.2, 2.8.5: at least that many bytes were written). Drivers for block devices
// look at the status byte, not at the length.
#include "devices/disk.h"

#define RANGE_BYTES_MAX (1u << 31)
#define RANGES_MAX      64

#include <errno.h>

static int null_open(struct disk *d, const struct line *l, struct error *e)
{
    (void)e;
    d->bytes = line_number(l, "null", 0);
    d->logical_bytes = DISK_SECTOR_BYTES;
    d->physical_bytes = DISK_SECTOR_BYTES;
    d->range_bytes = RANGE_BYTES_MAX;
    d->n_ranges = RANGES_MAX;
    d->can_erase = true; // nothing was kept
    return 0;
}

static void null_close(struct disk *d)
{
    (void)d;
}

static void null_submit(struct disk_queue *q, struct disk_request *const batch[], unsigned n)
{
    (void)q;
    for (unsigned i = 0; i < n; i++)
        batch[i]->result = DISK_OK;
}

static int null_grow(struct disk *d, uint64_t *bytes, struct error *e)
{
    if (*bytes)
        return 0;
    return error_set(e, EINVAL, "disk %s: a null= disk is not measured: name the size", d->name);
}

const struct disk_type disk_null = {
    .key = "null",
    .open = null_open,
    .close = null_close,
    .submit = null_submit,
    .grow = null_grow,
};
