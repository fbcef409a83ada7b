// SPDX-License-Identifier: Apache-2.0
#include "devices/blk_parts.h"

bool blk_parts_find_scattered(struct disk_request *r, const struct chain *c, struct blk_parts *p)
{
    const struct iovec *last = &c->iov[c->n_out + c->n_in - 1];
    r->status = (uint8_t *)last->iov_base + last->iov_len - 1;
    p->back = last->iov_len > 1;

    size_t copied = 0, n = 0;
    uint16_t i = 0;
    for (; i < c->n_out && copied < BLK_HEADER_BYTES; i++) {
        n = MIN(c->iov[i].iov_len, BLK_HEADER_BYTES - copied);
        blk_copy((uint8_t *)&p->header + copied, c->iov[i].iov_base, n);
        copied += n;
    }
    if (copied < BLK_HEADER_BYTES)
        return false;
    bool is_shared = n < c->iov[i - 1].iov_len;
    p->out_first = is_shared ? (uint16_t)(i - 1) : i;
    p->front = is_shared ? (uint8_t)n : 0;
    return true;
}

void blk_parts_restore(struct disk_request *r)
{
    if (r->front_trim) {
        r->iov[0].iov_base = (uint8_t *)r->iov[0].iov_base - r->front_trim;
        r->iov[0].iov_len += r->front_trim;
    }
    if (r->back_trim)
        r->iov[r->n_iov - 1].iov_len += r->back_trim;
}

// The next piece, of at most @left bytes.
static struct iovec next_piece(struct blk_place *p, size_t left)
{
    while (p->skip >= p->iov->iov_len)
        p->skip -= p->iov++->iov_len;
    size_t n = MIN(p->iov->iov_len - p->skip, left);
    struct iovec piece = {(uint8_t *)p->iov->iov_base + p->skip, n};
    p->skip += n;
    return piece;
}

void blk_read(struct blk_place *p, void *to, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        struct iovec v = next_piece(p, bytes - done);
        blk_copy((uint8_t *)to + done, v.iov_base, v.iov_len);
        done += v.iov_len;
    }
}

void blk_write(struct blk_place *p, const void *from, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        struct iovec v = next_piece(p, bytes - done);
        memcpy(v.iov_base, (const uint8_t *)from + done, v.iov_len);
        done += v.iov_len;
    }
}
