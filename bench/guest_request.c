// SPDX-License-Identifier: Apache-2.0
#include "bench/guest_request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// Header and status share a line, as in a driver's request structure; the lines lie side by
// side, since at equal offsets in their pages they would share few cache sets.
int guest_request_open(struct guest_request requests[], unsigned n, struct guest *g,
                       uint32_t capacity, struct error *e)
{
    memset(requests, 0, n * sizeof requests[0]);
    uint8_t *lines = guest_alloc(g, (uint64_t)n * CACHE_LINE, CACHE_LINE);
    for (unsigned i = 0; i < n; i++) {
        struct guest_request *r = &requests[i];
        r->data = guest_alloc(g, capacity, 4096);
        if (!lines || !r->data)
            return error_set(e, ENOMEM, "no room in guest memory for %u requests of %u bytes", n,
                             capacity);
        r->capacity = capacity;
        r->header = (struct virtio_blk_req_header *)(void *)(lines + (size_t)i * CACHE_LINE);
        r->status = (uint8_t *)r->header + sizeof *r->header;
        r->header_addr = guest_addr(g, r->header);
        r->data_addr = guest_addr(g, r->data);
        r->status_addr = guest_addr(g, r->status);
    }
    return 0;
}

int guest_request_open_joined(struct guest_request *r, struct guest *g, uint32_t capacity,
                              struct error *e)
{
    uint8_t *p = guest_alloc(g, sizeof *r->header + capacity + 1, CACHE_LINE);
    if (!p)
        return error_set(e, ENOMEM, "no room in guest memory for a request of %u bytes", capacity);
    *r = (struct guest_request){.capacity = capacity, .is_joined = true};
    r->header = (struct virtio_blk_req_header *)(void *)p;
    r->data = p + sizeof *r->header;
    r->header_addr = guest_addr(g, r->header);
    r->data_addr = guest_addr(g, r->data);
    return 0;
}

void guest_request_close(struct guest_request requests[], unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        free(requests[i].shredded);
}

static void set_form(struct guest_request *r, enum guest_request_form form)
{
    unsigned n = r->chain.n_out + r->chain.n_in;
    r->chain.n_direct = (uint16_t)(form == GUEST_REQUEST_DIRECT  ? n
                                   : form == GUEST_REQUEST_MIXED ? n / 2
                                                                 : 0);
}

static void plain_segments(struct guest_request *r, bool is_read)
{
    unsigned n = 0;
    r->plain[n++] = (struct driver_segment){r->header_addr, sizeof *r->header};
    if (r->bytes)
        r->plain[n++] = (struct driver_segment){r->data_addr, r->bytes};
    r->plain[n++] = (struct driver_segment){r->status_addr, 1};
    r->chain.n_in = (uint16_t)(is_read && r->bytes ? 2 : 1);
    r->chain.n_out = (uint16_t)(n - r->chain.n_in);
}

static void joined_segments(struct guest_request *r, bool is_read)
{
    uint32_t n_out = (uint32_t)sizeof *r->header + (is_read ? 0 : r->bytes);
    r->status = r->data + r->bytes;
    r->status_addr = r->data_addr + r->bytes;
    r->plain[0] = (struct driver_segment){r->header_addr, n_out};
    r->plain[1] = (struct driver_segment){r->header_addr + n_out, is_read ? r->bytes + 1 : 1};
    r->chain.n_out = r->chain.n_in = 1;
}

void guest_request_prepare(struct guest_request *r, uint32_t type, uint64_t sector, uint32_t bytes,
                           enum guest_request_form form)
{
    assert(bytes <= r->capacity);
    bool is_read = guest_request_is_read(type);
    r->type = type;
    r->sector = sector;
    r->bytes = bytes;
    r->chain.segments = r->plain;
    r->chain.in_bytes = is_read ? bytes + 1 : 1;
    if (r->is_joined)
        joined_segments(r, is_read);
    else
        plain_segments(r, is_read);
    *r->header = (struct virtio_blk_req_header){type, 0, sector};
    *r->status = GUEST_REQUEST_STATUS_UNSET;
    set_form(r, form);
}

// Cut one segment of at least two bytes in two.
static void cut(struct guest_request *r, unsigned at, uint32_t bytes)
{
    unsigned n = r->chain.n_out + r->chain.n_in;
    struct driver_segment *s = &r->shredded[at];
    memmove(s + 1, s, (n - at) * sizeof *s);
    s[0].bytes = bytes;
    s[1].addr += bytes;
    s[1].bytes -= bytes;
    if (at < r->chain.n_out)
        r->chain.n_out++;
    else
        r->chain.n_in++;
}

void guest_request_shred(struct guest_request *r, unsigned n_max, enum guest_request_form form,
                         uint64_t *seed)
{
    n_max = MIN(n_max, GUEST_REQUEST_SEGMENTS_MAX);
    if (!r->shredded)
        r->shredded = calloc(GUEST_REQUEST_SEGMENTS_MAX, sizeof r->shredded[0]);
    assert(r->shredded);
    memcpy(r->shredded, r->plain, sizeof r->plain);
    r->chain.segments = r->shredded;
    for (unsigned tries = 0; tries < 4 * n_max; tries++) {
        unsigned n = r->chain.n_out + r->chain.n_in;
        unsigned at = (unsigned)random_below(seed, n);
        if (n < n_max && r->shredded[at].bytes > 1)
            cut(r, at, 1 + (uint32_t)random_below(seed, r->shredded[at].bytes - 1));
    }
    set_form(r, form);
}
