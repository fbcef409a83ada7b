// SPDX-License-Identifier: Apache-2.0
// disk_ram.c - a disk in this process's memory: one copy a request, nothing survives.
//
// Pages are taken when they are first written; a page never written reads as zeros.
#include "devices/disk.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

static int ram_open(struct disk *d, const struct line *l, struct error *e)
{
    d->bytes = line_number(l, "ram", 0);
    d->logical_bytes = DISK_SECTOR_BYTES;
    d->physical_bytes = DISK_SECTOR_BYTES;
    void *memory = mmap(NULL, d->bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return error_set(e, errno, "disk %s: ram=%s: %s", d->name, line_text(l, "ram", ""),
                         strerror(errno));
    d->memory = memory;
    return 0;
}

static void ram_close(struct disk *d)
{
    munmap(d->memory, d->bytes);
}

static void ram_read(struct disk_request *r, const uint8_t *from)
{
    for (unsigned i = 0; i < r->n_iov; i++) {
        memcpy(r->iov[i].iov_base, from, r->iov[i].iov_len);
        from += r->iov[i].iov_len;
    }
    r->n_done = r->bytes;
}

static void ram_write(struct disk_request *r, uint8_t *to)
{
    for (unsigned i = 0; i < r->n_iov; i++) {
        memcpy(to, r->iov[i].iov_base, r->iov[i].iov_len);
        to += r->iov[i].iov_len;
    }
    r->n_done = r->bytes;
}

static void ram_submit(struct disk_queue *q, struct disk_request *const batch[], unsigned n)
{
    uint8_t *memory = q->disk->memory;
    for (unsigned i = 0; i < n; i++) {
        struct disk_request *r = batch[i];
        if (r->operation == DISK_READ)
            ram_read(r, memory + r->offset);
        else if (r->operation == DISK_WRITE)
            ram_write(r, memory + r->offset);
        r->result = DISK_OK;
    }
}

const struct disk_type disk_ram = {
    .key = "ram",
    .open = ram_open,
    .close = ram_close,
    .submit = ram_submit,
};
