// SPDX-License-Identifier: Apache-2.0
#include "dataplane/dirty.h"

#include <errno.h>
#include <stdlib.h>

int dirty_open(struct dirty **out, int fd, uint64_t bytes, uint64_t offset, struct error *e)
{
    struct dirty *d = calloc(1, sizeof(*d));
    if (!d)
        return error_set(e, ENOMEM, "dirty log: out of memory");
    int err = mapping_open(&d->mapping, fd, offset, bytes, &d->failed, "dirty log", e);
    if (err) {
        free(d);
        return err;
    }
    d->bits = d->mapping.at;
    d->n_bytes = bytes;
    *out = d;
    return 0;
}

void dirty_close(struct dirty *d)
{
    if (!d)
        return;
    mapping_close(&d->mapping);
    free(d);
}

// Not counter_add(): the rings of a device share the log and can be on several workers.
static void count_missed(struct dirty *d, uint64_t n_pages)
{
    atomic_fetch_add_explicit(&d->n_missed.value, n_pages, memory_order_relaxed);
}

// A release: who takes the bit sees the page's new contents.
static void set_bits(struct dirty *d, uint64_t index, unsigned mask)
{
    __atomic_fetch_or(&d->bits[index], (uint8_t)mask, __ATOMIC_RELEASE);
}

void dirty_mark(struct dirty *d, uint64_t addr, uint64_t bytes)
{
    if (bytes == 0)
        return;
    uint64_t end; // the last byte
    if (__builtin_add_overflow(addr, bytes - 1, &end))
        end = UINT64_MAX;
    uint64_t first = addr / DIRTY_PAGE_BYTES, last = end / DIRTY_PAGE_BYTES;
    uint64_t n_pages = d->n_bytes * 8;
    if (last >= n_pages) {
        count_missed(d, last - MAX(first, n_pages) + 1);
        if (first >= n_pages)
            return;
        last = n_pages - 1;
    }

    // One access a byte: eight pages at a time in the middle.
    unsigned head = 0xffu << first % 8, tail = 0xffu >> (7 - last % 8);
    uint64_t index = first / 8, last_index = last / 8;
    if (index == last_index) {
        set_bits(d, index, head & tail);
        return;
    }
    set_bits(d, index, head);
    while (++index < last_index)
        set_bits(d, index, 0xff);
    set_bits(d, last_index, tail);
}

void dirty_mark_host(struct dirty *d, const struct mem *m, const void *host, uint64_t bytes)
{
    uint64_t addr = mem_guest_addr(m, host);
    if (addr != UINT64_MAX)
        dirty_mark(d, addr, bytes);
    else
        count_missed(d, 1);
}
