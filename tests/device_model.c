// SPDX-License-Identifier: Apache-2.0
#include "tests/device_model.h"
#include "tests/check.h"

#include <string.h>

void model_open(struct model *m, struct guest *g, const struct driver *d, uint64_t features)
{
    struct driver_areas a;
    driver_describe(d, &a);
    *m = (struct model){
        .guest = g,
        .desc = guest_host(g, a.desc),
        .driver = guest_host(g, a.driver),
        .device = guest_host(g, a.device),
        .size = driver_size(d),
        .is_packed = features & VIRTIO_BIT(VIRTIO_F_RING_PACKED),
        .has_event_idx = features & VIRTIO_BIT(VIRTIO_F_EVENT_IDX),
        .avail_wrap = true,
        .used_wrap = true,
    };
    assert_int_equal(a.desc % 16, 0); // 2.7, 2.8.10.1
    assert_int_equal(a.driver % 4, 0);
    assert_int_equal(a.device % 4, 0);
}

static uint16_t get16(const uint8_t *p)
{
    return *(const uint16_t *)(const void *)p;
}

static void put16(uint8_t *p, unsigned v)
{
    *(uint16_t *)(void *)p = (uint16_t)v;
}

static void add_segment(struct model_chain *c, uint64_t addr, uint32_t bytes, bool is_in)
{
    assert_true(c->n_out + c->n_in < MODEL_SEGMENTS_MAX);
    assert_true(is_in || !c->n_in); // 2.7.4.2: readable before writable
    c->segments[c->n_out + c->n_in] = (struct driver_segment){addr, bytes};
    if (is_in)
        c->n_in++;
    else
        c->n_out++;
}

// ---- split -------------------------------------------------------------------------------

static void split_table(struct model *m, const struct split_desc *d, struct model_chain *c)
{
    assert_false(d->flags & SPLIT_DESC_NEXT); // 2.7.5.3.1
    assert_int_equal(d->len % sizeof *d, 0);
    const struct split_desc *table = guest_host(m->guest, d->addr);
    unsigned at = 0;
    for (;;) {
        assert_true(at < d->len / sizeof *d);
        assert_false(table[at].flags & SPLIT_DESC_INDIRECT);
        add_segment(c, table[at].addr, table[at].len, table[at].flags & SPLIT_DESC_WRITE);
        if (!(table[at].flags & SPLIT_DESC_NEXT))
            break;
        at = table[at].next;
    }
}

static bool split_pop(struct model *m, struct model_chain *c)
{
    if (get16(m->driver + 2) == m->next_avail)
        return false;
    const struct split_desc *desc = (const void *)m->desc;
    unsigned at = get16(m->driver + 4 + 2 * (m->next_avail++ % m->size));
    *c = (struct model_chain){.id = (uint16_t)at};
    for (;;) {
        assert_true(at < m->size);
        assert_true(c->n_descs++ < m->size);
        if (desc[at].flags & SPLIT_DESC_INDIRECT)
            split_table(m, &desc[at], c);
        else
            add_segment(c, desc[at].addr, desc[at].len, desc[at].flags & SPLIT_DESC_WRITE);
        if (!(desc[at].flags & SPLIT_DESC_NEXT))
            return true;
        at = desc[at].next;
    }
}

static bool split_push(struct model *m, unsigned n, uint16_t id, uint32_t len)
{
    struct split_used *used = (void *)m->device;
    used->ring[m->next_used % m->size] = (struct split_used_elem){id, len};
    uint16_t old = m->next_used, event = get16(m->driver + 4 + 2 * m->size);
    m->next_used = (uint16_t)(old + n);
    used->idx = m->next_used;
    if (!m->has_event_idx)
        return !(get16(m->driver) & SPLIT_AVAIL_NO_INTERRUPT);
    assert_int_equal(get16(m->driver), 0); // 2.7.7.1: flags stay 0
    for (uint16_t i = old; i != m->next_used; i++) {
        if (i == event) // 2.7.7.2
            return true;
    }
    return false;
}

// ---- packed ------------------------------------------------------------------------------

static bool packed_is_avail(const struct model *m)
{
    const struct packed_desc *desc = (const void *)m->desc;
    unsigned flags = desc[m->next_avail].flags;
    bool avail = flags & PACKED_DESC_AVAIL, used = flags & PACKED_DESC_USED;
    return avail == m->avail_wrap && used != m->avail_wrap;
}

static void packed_table(struct model *m, const struct packed_desc *d, struct model_chain *c)
{
    assert_int_equal(d->len % sizeof *d, 0);
    assert_int_equal(c->n_descs, 1); // 2.8.5: no mixed lists
    const struct packed_desc *table = guest_host(m->guest, d->addr);
    for (unsigned i = 0; i < d->len / sizeof *d; i++) {
        assert_int_equal(table[i].flags & ~PACKED_DESC_WRITE, 0); // 2.8.19
        add_segment(c, table[i].addr, table[i].len, table[i].flags & PACKED_DESC_WRITE);
    }
}

static void packed_step(const struct model *m, uint16_t *at, bool *wrap, unsigned n)
{
    *at = (uint16_t)(*at + n);
    if (*at >= m->size) {
        *at = (uint16_t)(*at - m->size);
        *wrap = !*wrap;
    }
}

static bool packed_pop(struct model *m, struct model_chain *c)
{
    if (!packed_is_avail(m))
        return false;
    const struct packed_desc *desc = (const void *)m->desc;
    *c = (struct model_chain){0};
    for (;;) {
        const struct packed_desc *d = &desc[m->next_avail];
        assert_true(packed_is_avail(m)); // 2.8.6: the whole list at once
        assert_true(c->n_descs++ < m->size);
        if (d->flags & PACKED_DESC_INDIRECT)
            packed_table(m, d, c);
        else
            add_segment(c, d->addr, d->len, d->flags & PACKED_DESC_WRITE);
        c->id = d->id;
        packed_step(m, &m->next_avail, &m->avail_wrap, 1);
        if (!(d->flags & PACKED_DESC_NEXT))
            return true;
    }
}

static bool packed_push(struct model *m, unsigned n_descs, uint16_t id, uint32_t len)
{
    struct packed_desc *d = (struct packed_desc *)(void *)m->desc + m->next_used;
    // 2.8.4: the length counts only with the WRITE flag.
    unsigned flags = len ? PACKED_DESC_WRITE : 0;
    *d = (struct packed_desc){0, len ? len : 0xdddddddd, id, 0};
    d->flags = (uint16_t)(flags | (m->used_wrap ? PACKED_DESC_AVAIL | PACKED_DESC_USED : 0));
    unsigned off_wrap = get16(m->driver), want = get16(m->driver + 2);
    bool passed = false;
    for (unsigned i = 0; i < n_descs; i++) {
        passed |= (off_wrap & 0x7fff) == m->next_used && off_wrap >> 15 == m->used_wrap;
        packed_step(m, &m->next_used, &m->used_wrap, 1);
    }
    assert_true(want <= PACKED_EVENT_DESC);
    assert_true(want != PACKED_EVENT_DESC || m->has_event_idx); // 2.8.10
    return want == PACKED_EVENT_ENABLE || (want == PACKED_EVENT_DESC && passed);
}

// ---- both --------------------------------------------------------------------------------

bool model_pop(struct model *m, struct model_chain *out)
{
    return m->is_packed ? packed_pop(m, out) : split_pop(m, out);
}

bool model_push_batch(struct model *m, unsigned n, unsigned n_descs, uint16_t id, uint32_t len)
{
    return m->is_packed ? packed_push(m, n_descs, id, len) : split_push(m, n, id, len);
}

void model_want_no_kicks(struct model *m)
{
    if (m->is_packed)
        put16(m->device + 2, PACKED_EVENT_DISABLE);
    else if (m->has_event_idx)
        put16(m->device + 4 + 8 * m->size, m->next_avail + 0x8000u);
    else
        put16(m->device, SPLIT_USED_NO_NOTIFY);
}

void model_want_kicks(struct model *m)
{
    if (m->is_packed)
        put16(m->device + 2, PACKED_EVENT_ENABLE);
    else if (m->has_event_idx)
        model_want_kick_at(m, 0);
    else
        put16(m->device, 0);
}

void model_want_kick_at(struct model *m, unsigned ahead)
{
    assert_true(m->has_event_idx);
    if (m->is_packed) {
        uint16_t at = m->next_avail;
        bool wrap = m->avail_wrap;
        packed_step(m, &at, &wrap, ahead);
        put16(m->device, at | (unsigned)wrap << 15);
        put16(m->device + 2, PACKED_EVENT_DESC);
    } else {
        put16(m->device + 4 + 8 * m->size, m->next_avail + ahead);
    }
}

uint32_t model_base(const struct model *m)
{
    if (!m->is_packed)
        return m->next_avail;
    return m->next_avail | (uint32_t)m->avail_wrap << 15 | (uint32_t)m->next_used << 16 |
           (uint32_t)m->used_wrap << 31;
}
