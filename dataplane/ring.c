// SPDX-License-Identifier: Apache-2.0
// Theory: a ring owns one slot per descriptor id. pop fills a slot and lends it to the device,
// push stages its id, publish writes all staged ids to guest memory at once and frees the slots.
// An ordered ring publishes only the prefix of its pop order that has been pushed. One mmap()
// holds everything; the parts for long chains cost memory only when a guest sends such chains.
#include "dataplane/ring_layout.h"
#include "dataplane/inflight.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

static const char *const fault_names[] = {
    [RING_OK] = "none",
    [RING_BAD_INDEX] = "bad-index",
    [RING_BAD_HEAD] = "bad-head",
    [RING_DUP_HEAD] = "duplicate-head",
    [RING_BAD_NEXT] = "bad-next",
    [RING_BAD_CHAIN] = "bad-chain",
    [RING_BAD_INDIRECT] = "bad-indirect",
    [RING_BAD_ADDR] = "bad-address",
    [RING_BAD_ORDER] = "readable-after-writable",
    [RING_ZERO_LENGTH] = "zero-length",
    [RING_TOO_LONG] = "too-long",
    [RING_UNMAPPED] = "ring-unmapped",
    [RING_BAD_RECORD] = "bad-record",
    [RING_BAD_REQUEST] = "bad-request",
    [RING_NOT_SERVED] = "not-served",
};
static_assert(ARRAY_LEN(fault_names) == RING_FAULTS, "a name for each fault");

const char *ring_fault_name(enum ring_fault fault)
{
    return fault < RING_FAULTS ? fault_names[fault] : "unknown";
}

const char *ring_layout_name(uint64_t features)
{
    return features & VIRTIO_BIT(VIRTIO_F_RING_PACKED) ? "packed" : "split";
}

void ring_fault(struct ring *r, enum ring_fault reason, uint64_t detail)
{
    if (r->fault)
        return; // the first one is the cause
    r->fault_detail = detail;
    __atomic_store_n(&r->fault, (uint8_t)reason, __ATOMIC_RELEASE); // for ring_read_fault()
    counter_add(&r->stats->n_faults[reason], 1);
}

// ---- start and stop ----------------------------------------------------------------------

static uint32_t round_up_power(uint32_t v)
{
    uint32_t p = 1;
    while (p < v)
        p *= 2;
    return p;
}

// Reserve @bytes of the block at *@used, cache-line aligned.
static void *carve(uint8_t *block, size_t *used, size_t bytes)
{
    void *p = block ? block + *used : NULL;
    *used += (bytes + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1);
    return p;
}

// Lay the arrays out in @block; with NULL only count. Returns the bytes needed.
static size_t lay_out(struct ring *r, uint8_t *block)
{
    size_t used = 0;
    r->slots = carve(block, &used, r->size * sizeof(*r->slots));
    r->staged = carve(block, &used, r->size * sizeof(*r->staged));
    r->order = carve(block, &used, (r->order_mask + 1) * sizeof(*r->order));
    r->marks = carve(block, &used, r->size * sizeof(*r->marks));
    r->replay = carve(block, &used, r->size * sizeof(*r->replay));
    r->large_free = carve(block, &used, RING_LARGE_MAX * sizeof(*r->large_free));
    r->large = carve(block, &used, sizeof(struct iovec) * RING_LARGE_MAX * RING_SEGS_MAX);
    return used;
}

static int allocate(struct ring *r)
{
    r->block_bytes = lay_out(r, NULL);
    void *block = mmap(NULL, r->block_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (block == MAP_FAILED)
        return -errno;
    r->block = block;
    lay_out(r, block);
    for (uint16_t i = 0; i < RING_LARGE_MAX; i++)
        r->large_free[i] = i;
    r->n_large_free = RING_LARGE_MAX;
    return 0;
}

static bool map_areas(struct ring *r, const struct mem *m)
{
    r->mem = m;
    r->hint = NULL;
    return r->is_packed ? ring_packed_map(r, m) : ring_split_map(r, m);
}

static int check_config(const struct ring_config *config, struct error *e)
{
    bool is_packed = config->features & VIRTIO_BIT(VIRTIO_F_RING_PACKED);
    if (config->size == 0 || config->size > RING_SIZE_MAX)
        return error_set(e, EINVAL, "ring size %u is not from 1 to %u", config->size,
                         RING_SIZE_MAX);
    if (!is_packed && !is_power_of_two(config->size)) // 2.7
        return error_set(e, EINVAL, "split ring size %u is not a power of two", config->size);
    if (config->inflight &&
        config->inflight_bytes < inflight_queue_bytes(config->features, config->size))
        return error_set(e, EINVAL, "in-flight region of %zu bytes is too small for ring size %u",
                         config->inflight_bytes, config->size);
    return 0;
}

// Neither a base nor a record tells of chains before. A ring that stands at its beginning again
// by chance, without a record, is taken for fresh.
static bool is_fresh(const struct ring *r, bool is_record_used)
{
    return !is_record_used && r->next_avail == 0 && r->next_used == 0 &&
           (!r->is_packed || (r->avail_wrap && r->used_wrap));
}

int ring_start(struct ring *r, const struct ring_config *config, const struct mem *m,
               struct dirty *log, struct ring_stats *stats, struct error *e)
{
    int err = check_config(config, e);
    if (err)
        return err;
    uint64_t features = config->features;
    *r = (struct ring){
        .size = config->size,
        .features = features,
        .is_packed = features & VIRTIO_BIT(VIRTIO_F_RING_PACKED),
        .has_event_idx = features & VIRTIO_BIT(VIRTIO_F_EVENT_IDX),
        .has_indirect = features & VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC),
        .epoch = 1,
        .is_ordered = (features & VIRTIO_BIT(VIRTIO_F_IN_ORDER)) || !config->inflight,
        .notify_once = true,
        .order_mask = round_up_power(config->size) - 1,
        .record = config->inflight,
        .stats = stats,
        .log = log,
        .desc_addr = config->desc_addr,
        .driver_addr = config->driver_addr,
        .device_addr = config->device_addr,
    };
    if (!map_areas(r, m)) {
        err = error_set(e, EFAULT,
                        "ring areas at 0x%llx, 0x%llx, 0x%llx are not in guest memory or not "
                        "aligned",
                        (unsigned long long)r->desc_addr, (unsigned long long)r->driver_addr,
                        (unsigned long long)r->device_addr);
        goto err_reset;
    }
    err = allocate(r);
    if (err) {
        error_set(e, -err, "no memory for a ring of size %u", config->size);
        goto err_reset;
    }
    bool is_record_used = r->record && inflight_is_used(r->record);
    err = r->is_packed ? ring_packed_open(r, config, e) : ring_split_open(r, config, e);
    if (err)
        goto err_free;
    r->is_fresh = is_fresh(r, is_record_used);
    ring_unpark(r);
    return 0;

err_free:
    munmap(r->block, r->block_bytes);
err_reset:
    *r = (struct ring){0};
    return err;
}

void ring_stop(struct ring *r)
{
    assert(r->n_in_flight == 0 && "a ring stops drained");
    if (r->block)
        munmap(r->block, r->block_bytes);
    *r = (struct ring){0};
}

uint32_t ring_base(const struct ring *r)
{
    return r->is_packed ? ring_packed_base(r) : ring_split_base(r);
}

void ring_set_mem(struct ring *r, const struct mem *m)
{
    if (!map_areas(r, m))
        ring_fault(r, RING_UNMAPPED, r->desc_addr);
}

void ring_set_dirty(struct ring *r, struct dirty *log)
{
    r->log = log;
}

// ---- pop ---------------------------------------------------------------------------------

static bool take_large(struct ring *r, struct chain *c)
{
    if (r->n_large_free == 0)
        return false;
    uint16_t index = r->large_free[--r->n_large_free];
    c->large = (uint16_t)(index + 1);
    c->iov = &r->large[(size_t)index * RING_SEGS_MAX];
    memcpy(c->iov, c->small, sizeof(c->small));
    return true;
}

static enum gather fault(struct ring *r, enum ring_fault reason, uint64_t detail)
{
    ring_fault(r, reason, detail);
    return GATHER_FAULT;
}

enum gather ring_gather_slow(struct ring *r, struct chain *c, uint64_t addr, uint32_t len,
                             bool is_write)
{
    if (len == 0)
        return fault(r, RING_ZERO_LENGTH, addr);
    if (!is_write && c->n_in) // 2.7.4.2
        return fault(r, RING_BAD_ORDER, addr);
    if ((uint64_t)c->out_bytes + c->in_bytes + len > UINT32_MAX) // 2.7.5.2
        return fault(r, RING_TOO_LONG, len);

    uint32_t left = len;
    while (left) {
        uint32_t n = (uint32_t)c->n_out + c->n_in;
        uint64_t run = left;
        uint8_t *host = mem_at(r->mem, &r->hint, addr, &run);
        if (!host)
            return fault(r, RING_BAD_ADDR, addr);
        if (n == RING_SEGS_MAX)
            return fault(r, RING_TOO_LONG, n);
        if (n == RING_SEGS_SMALL && !c->large && !take_large(r, c))
            return GATHER_SHORT;
        c->iov[n] = (struct iovec){host, run};
        if (is_write)
            c->n_in++;
        else
            c->n_out++;
        addr += run; // may wrap to 0 only when nothing is left, or to an address that is checked
        left -= (uint32_t)run;
    }
    if (is_write)
        c->in_bytes += len;
    else
        c->out_bytes += len;
    return GATHER_OK;
}

const void *ring_indirect(struct ring *r, uint64_t addr, uint32_t len, uint32_t *n)
{
    uint64_t run = len;
    bool is_shaped = r->has_indirect && len && len % sizeof(struct split_desc) == 0;
    if (!is_shaped) {
        ring_fault(r, RING_BAD_INDIRECT, len);
        return NULL;
    }
    const void *table = mem_at(r->mem, &r->hint, addr, &run);
    if (!table || run != len || (uintptr_t)table % _Alignof(uint64_t)) {
        ring_fault(r, RING_BAD_ADDR, addr);
        return NULL;
    }
    *n = len / (uint32_t)sizeof(struct split_desc);
    return table;
}

// What was in flight when the last daemon died comes first, oldest first.
static unsigned pop_replays(struct ring *r, struct chain *out[], unsigned max)
{
    unsigned n = 0;
    while (n < max && r->replay_next < r->n_replay) {
        uint16_t entry = r->replay[r->replay_next];
        enum gather result = r->is_packed ? ring_packed_replay(r, entry, &out[n])
                                          : ring_split_replay(r, entry, &out[n]);
        if (result != GATHER_OK)
            break;
        r->replay_next++;
        ring_hand_out(r, out[n++]);
    }
    return n;
}

unsigned ring_pop(struct ring *r, struct chain *out[], unsigned max)
{
    if (unlikely(r->fault))
        return 0;
    assert(max <= RING_BATCH_MAX);
    unsigned n;
    if (unlikely(r->replay_next < r->n_replay))
        n = pop_replays(r, out, max);
    else
        n = r->is_packed ? ring_packed_pop(r, out, max) : ring_split_pop(r, out, max);
    if (n == 0)
        return 0;

    uint64_t now = cycles_now(), bytes = 0;
    for (unsigned i = 0; i < n; i++) {
        atomic_store_explicit(&out[i]->popped_at, now, memory_order_relaxed);
        bytes += out[i]->out_bytes;
    }
    counter_add(&r->stats->n_chains, n);
    counter_add(&r->stats->n_bytes_out, bytes);
    return n;
}

void ring_unpop(struct ring *r, struct chain *const chains[], unsigned n)
{
    assert(!r->record && "what a record says is not taken back");
    uint64_t bytes = 0;
    for (unsigned i = n; i-- > 0;) {
        struct chain *c = chains[i];
        assert(c->state == CHAIN_POPPED && "a chain that was pushed is gone");
        c->state = CHAIN_FREE;
        atomic_store_explicit(&c->popped_at, 0, memory_order_relaxed);
        ring_release_large(r, c);
        bytes += c->out_bytes;
        if (r->is_packed)
            ring_packed_retreat(r, c->n_descs);
        else
            r->next_avail--;
    }
    if (r->is_ordered)
        r->order_tail -= n;
    r->n_in_flight -= n;
    counter_add(&r->stats->n_chains, -(uint64_t)n);
    counter_add(&r->stats->n_bytes_out, -bytes);
}

uint64_t ring_oldest(const struct ring *r)
{
    uint64_t oldest = 0;
    for (uint32_t id = 0; r->slots && id < r->size; id++) {
        uint64_t at = atomic_load_explicit(&r->slots[id].popped_at, memory_order_relaxed);
        if (at && (!oldest || at < oldest))
            oldest = at;
    }
    return oldest;
}

// ---- publish -----------------------------------------------------------------------------

// Ordered rings: what may be published is the pushed prefix of the pop order.
static void stage_prefix(struct ring *r)
{
    uint32_t n = 0;
    while (r->order_head != r->order_tail) {
        uint16_t id = r->order[r->order_head & r->order_mask];
        if (r->slots[id].state != CHAIN_PUSHED)
            break;
        r->staged[n++] = id;
        r->order_head++;
    }
    r->n_staged = n;
}

// The device may have written anywhere in the writable segments, whatever length it reports.
static void log_chains(struct ring *r)
{
    for (uint32_t i = 0; i < r->n_staged; i++) {
        const struct chain *c = &r->slots[r->staged[i]];
        for (uint32_t s = 0; s < c->n_in; s++)
            ring_log(r, c->iov[c->n_out + s].iov_base, c->iov[c->n_out + s].iov_len);
    }
}

void ring_count_publication(struct ring *r, uint32_t n, uint64_t bytes, bool notify)
{
    r->notify_once = false;
    counter_add(&r->stats->n_used, n);
    counter_add(&r->stats->n_bytes_in, bytes);
    counter_add(notify ? &r->stats->n_notify : &r->stats->n_suppressed, 1);
}

static bool publish_staged(struct ring *r)
{
    uint32_t n = r->n_staged;
    if (unlikely(r->log))
        log_chains(r);
    bool notify = false;
    if (likely(!r->fault))
        notify = r->is_packed ? ring_packed_publish(r) : ring_split_publish(r);

    uint64_t bytes = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct chain *c = &r->slots[r->staged[i]];
        bytes += c->used_len;
        c->state = CHAIN_FREE;
        atomic_store_explicit(&c->popped_at, 0, memory_order_relaxed);
        ring_release_large(r, c);
    }
    r->n_staged = 0;
    r->n_in_flight -= n;
    if (unlikely(r->fault))
        return false;
    notify |= r->notify_once;
    ring_count_publication(r, n, bytes, notify);
    return notify;
}

bool ring_publish(struct ring *r)
{
    bool notify = r->n_spent && ring_reveal(r); // it came first
    if (r->is_ordered)
        stage_prefix(r);
    return r->n_staged ? publish_staged(r) | notify : notify;
}

// ---- notifications by the driver ---------------------------------------------------------

bool ring_has_work(const struct ring *r)
{
    if (unlikely(r->fault))
        return false;
    if (unlikely(r->replay_next < r->n_replay))
        return true;
    return r->is_packed ? ring_packed_has_work(r) : ring_split_has_work(r);
}

static void want_kicks(struct ring *r, bool wanted)
{
    if (unlikely(r->fault)) // its areas may be gone
        return;
    if (r->is_packed)
        ring_packed_want_kicks(r, wanted);
    else
        ring_split_want_kicks(r, wanted);
}

bool ring_park(struct ring *r)
{
    want_kicks(r, true);
    full_fence(); // pair K: our request for kicks, then the driver's index; the driver stores
                  // its index, fences, then reads the request
    if (likely(!ring_has_work(r)))
        return true;
    want_kicks(r, false);
    return false;
}

void ring_unpark(struct ring *r)
{
    want_kicks(r, false);
}
