// SPDX-License-Identifier: Apache-2.0
// disk_ram.c - a disk in this process's memory: one copy a request, nothing survives.
//
// Pages are taken when they are first written; a page never written reads as zeros. Addresses
// are reserved for RAM_GROWTH times the size, so that a disk grows where it is, while workers use
// it. Discarded pages go back to the kernel.
#include "devices/disk.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RAM_GROWTH      8
#define RANGE_BYTES_MAX (8u << 20) // one to a request: the worker itself clears it

// As many times @bytes of addresses as there are; nobody can touch them yet.
static void *reserve(uint64_t bytes, uint64_t *reserved)
{
    for (unsigned times = RAM_GROWTH; times; times /= 2) {
        if (__builtin_mul_overflow(bytes, times, reserved))
            continue;
        void *memory =
            mmap(NULL, *reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory != MAP_FAILED)
            return memory;
    }
    return NULL;
}

static int ram_open(struct disk *d, const struct line *l, struct error *e)
{
    d->bytes = line_number(l, "ram", 0);
    d->logical_bytes = DISK_SECTOR_BYTES;
    d->physical_bytes = DISK_SECTOR_BYTES;
    d->range_bytes = RANGE_BYTES_MAX;
    d->n_ranges = 1;
    d->can_unmap = true;
    d->can_erase = true;
    d->memory = reserve(d->bytes, &d->reserved_bytes);
    if (!d->memory)
        return error_set(e, ENOMEM, "disk %s: ram=%s: %s", d->name, line_text(l, "ram", ""),
                         strerror(ENOMEM));
    if (mprotect(d->memory, d->bytes, PROT_READ | PROT_WRITE) == 0)
        return 0;
    int code = errno;
    munmap(d->memory, d->reserved_bytes);
    return error_set(e, code, "disk %s: ram=%s: %s", d->name, line_text(l, "ram", ""),
                     strerror(code));
}

static void ram_close(struct disk *d)
{
    munmap(d->memory, d->reserved_bytes);
}

static int ram_grow(struct disk *d, uint64_t *bytes, struct error *e)
{
    if (!*bytes)
        return error_set(e, EINVAL, "disk %s: a ram= disk is not measured: name the size", d->name);
    if (*bytes > d->reserved_bytes)
        return error_set(e, ENOMEM,
                         "disk %s: %llu bytes: this ram= disk can grow to %llu bytes; a larger one "
                         "is a new disk",
                         d->name, (unsigned long long)*bytes,
                         (unsigned long long)d->reserved_bytes);
    if (mprotect(d->memory, *bytes, PROT_READ | PROT_WRITE) == 0)
        return 0;
    int code = errno;
    return error_set(e, code, "disk %s: %llu bytes: %s", d->name, (unsigned long long)*bytes,
                     strerror(code));
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

// Zeros from @from to @to, by giving back the pages that lie wholly inside.
static void unmap(uint8_t *from, uint8_t *to)
{
    size_t page = (size_t)getpagesize();
    uint8_t *first = (uint8_t *)(((uintptr_t)from + page - 1) & ~(page - 1));
    uint8_t *end = (uint8_t *)((uintptr_t)to & ~(page - 1));
    if (first >= end || madvise(first, (size_t)(end - first), MADV_DONTNEED)) {
        memset(from, 0, (size_t)(to - from));
        return;
    }
    memset(from, 0, (size_t)(first - from));
    memset(end, 0, (size_t)(to - end));
}

static __attribute__((noinline)) void ram_clear(const struct disk_request *r, uint8_t *memory)
{
    if (r->operation == DISK_FLUSH) // which has no offset
        return;
    uint8_t *from = memory + r->offset;
    if (r->operation == DISK_ZERO || r->operation == DISK_ERASE)
        memset(from, 0, r->bytes);
    else
        unmap(from, from + r->bytes);
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
        else
            ram_clear(r, memory);
        r->result = DISK_OK;
    }
}

const struct disk_type disk_ram = {
    .key = "ram",
    .open = ram_open,
    .close = ram_close,
    .submit = ram_submit,
    .grow = ram_grow,
};
