// SPDX-License-Identifier: Apache-2.0
#include "devices/net_filter.h"

#include <string.h>

#define MAC_BROADCAST UINT64_C(0xffffffffffff)

static void set32(_Atomic uint32_t *at, uint32_t v)
{
    atomic_store_explicit(at, v, memory_order_relaxed);
}

static uint32_t get32(const _Atomic uint32_t *at)
{
    return atomic_load_explicit(at, memory_order_relaxed);
}

// ---- setting -----------------------------------------------------------------------------

void net_filter_reset(struct net_filter *f, uint64_t mac, bool has_vlans)
{
    set32(&f->modes, NET_MODE_PROMISC);
    atomic_store_explicit(&f->mac, mac, memory_order_relaxed);
    set32(&f->tables[0].unicast.n, 0);
    set32(&f->tables[0].multicast.n, 0);
    set32(&f->table, 0);
    for (unsigned i = 0; i < ARRAY_LEN(f->vlans); i++)
        atomic_store_explicit(&f->vlans[i], 0, memory_order_relaxed);
    atomic_store_explicit(&f->has_vlans, has_vlans, memory_order_relaxed);
}

void net_filter_set_mode(struct net_filter *f, enum net_mode mode, bool on)
{
    uint32_t modes = get32(&f->modes);
    set32(&f->modes, on ? modes | mode : modes & ~(uint32_t)mode);
}

struct net_mac_table *net_filter_spare(struct net_filter *f)
{
    return &f->tables[!get32(&f->table)];
}

void net_filter_use_spare(struct net_filter *f)
{
    atomic_store_explicit(&f->table, !get32(&f->table), memory_order_release);
}

void net_filter_set_vlan(struct net_filter *f, unsigned vid, bool on)
{
    _Atomic uint64_t *word = &f->vlans[vid / 64];
    uint64_t bits = atomic_load_explicit(word, memory_order_relaxed);
    uint64_t bit = UINT64_C(1) << (vid % 64);
    atomic_store_explicit(word, on ? bits | bit : bits & ~bit, memory_order_relaxed);
}

// ---- looking -----------------------------------------------------------------------------

static bool has_mac(const struct net_macs *m, uint64_t mac)
{
    uint32_t n = get32(&m->n);
    if (n > NET_FILTER_MACS_MAX)
        return true;
    for (uint32_t i = 0; i < n; i++) {
        if (atomic_load_explicit(&m->macs[i], memory_order_relaxed) == mac)
            return true;
    }
    return false;
}

static bool takes_vlan(const struct net_filter *filter, unsigned vid)
{
    if (!atomic_load_explicit(&filter->has_vlans, memory_order_relaxed))
        return true;
    uint64_t bits = atomic_load_explicit(&filter->vlans[vid / 64], memory_order_relaxed);
    return bits >> (vid % 64) & 1;
}

static bool takes_unicast(const struct net_filter *filter, uint32_t modes, uint64_t mac,
                          const struct net_mac_table *table)
{
    if (modes & (NET_MODE_NOUNI | NET_MODE_ALLUNI)) // 5.1.6.5.1: NOUNI goes before ALLUNI
        return !(modes & NET_MODE_NOUNI);
    uint64_t own = atomic_load_explicit(&filter->mac, memory_order_relaxed);
    return !own || own == mac || has_mac(&table->unicast, mac);
}

static bool takes_multicast(uint32_t modes, uint64_t mac, const struct net_mac_table *table)
{
    if (modes & (NET_MODE_NOMULTI | NET_MODE_ALLMULTI)) // NOMULTI goes before ALLMULTI
        return !(modes & NET_MODE_NOMULTI);
    return has_mac(&table->multicast, mac);
}

bool net_filter_takes(const struct net_filter *filter, const struct frame *f, bool has_tag)
{
    uint32_t modes = get32(&filter->modes);
    if (modes & NET_MODE_PROMISC) // goes before everything
        return true;
    if (has_tag && !takes_vlan(filter, f->vlan & 0xfffu))
        return false;
    uint64_t mac = 0;
    memcpy(&mac, frame_destination(f), 6);
    if (mac == MAC_BROADCAST)
        return !(modes & NET_MODE_NOBCAST);
    uint32_t index = atomic_load_explicit(&filter->table, memory_order_acquire) & 1u;
    const struct net_mac_table *table = &filter->tables[index];
    return frame_is_multicast(f) ? takes_multicast(modes, mac, table)
                                 : takes_unicast(filter, modes, mac, table);
}
