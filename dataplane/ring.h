// SPDX-License-Identifier: Apache-2.0
// ring.h - one virtqueue, seen from the device.
//
// A ring turns guest descriptor chains into iovecs (pop) and hands them back (push, then
// publish). It does what a device could forget: validation, the in-flight record, the dirty
// log, notification suppression, the drain count and sticky faults. It knows no sockets, no
// threads and no device types; the two layouts are in ring_split.c and ring_packed.c.
//
// Threads  [W] the worker that owns the ring, no other.
//          [C] the control thread, only while no worker owns it.
// Memory   ring_start() allocates one slot per descriptor id; nothing allocates after it. A
//          popped chain belongs to the device until it is pushed, exactly once.
// Trust    Guest memory is hostile. Words are read once and checked; what the spec forbids
//          goes to ring_fault(), never to assert(). A faulted ring pops nothing and publishes
//          nothing until it is started again; chains still come back, to be counted.
#pragma once

#include "dataplane/base.h"
#include "dataplane/dirty.h"
#include "dataplane/error.h"
#include "dataplane/mem.h"
#include "dataplane/virtio.h"

#include <sys/uio.h>

#define RING_SIZE_MAX   32768 // descriptors
#define RING_BATCH_MAX  64    // chains in one pop
#define RING_SEGS_MAX   1026  // iovecs in one chain: IOV_MAX data segments, header, status
#define RING_SEGS_SMALL 5     // iovecs inside the slot; a longer chain takes one of…
#define RING_LARGE_MAX  64    // …so many large slots; none left: the chain waits in the ring

// Feature bits that rings implement, to be offered by every device.
#define RING_FEATURES                                                                              \
    (VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) | VIRTIO_BIT(VIRTIO_F_EVENT_IDX) |                         \
     VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_F_RING_PACKED) |                           \
     VIRTIO_BIT(VIRTIO_F_IN_ORDER))

// Why a ring stopped. Sticky until the next ring_start().
enum ring_fault {
    RING_OK,
    RING_BAD_INDEX,    // available index more than a ring ahead (2.7.13.3)
    RING_BAD_HEAD,     // head or buffer id not below the size
    RING_DUP_HEAD,     // offered again while in flight
    RING_BAD_NEXT,     // next out of range (2.7.5)
    RING_BAD_CHAIN,    // longer than the ring or table that holds it: a loop
    RING_BAD_INDIRECT, // nested, chained on, empty or a broken length (2.7.5.3, 2.8.7)
    RING_BAD_ADDR,     // not in guest memory
    RING_BAD_ORDER,    // device-readable after device-writable (2.7.4.2)
    RING_ZERO_LENGTH,  // an element of no bytes
    RING_TOO_LONG,     // 2^32 bytes or more (2.7.5.2), or over RING_SEGS_MAX
    RING_UNMAPPED,     // the ring itself left guest memory
    RING_BAD_RECORD,   // the in-flight record contradicts the ring
    RING_BAD_REQUEST,  // what the device type forbids (a request without a status byte)
    RING_NOT_SERVED,   // not the driver's fault: its worker could not take it; detail: errno
    RING_FAULTS,
};

const char *ring_fault_name(enum ring_fault fault); // "bad-index"

// The name of the layout that @features choose, for people.
const char *ring_layout_name(uint64_t features);

// A popped descriptor chain. The device reads it and hands it back with its used length.
struct chain {
    struct iovec *iov; // n_out device-readable segments, then n_in device-writable ones
    uint16_t n_out, n_in;
    uint16_t id;        // of the slot: head index or buffer id; below the ring's size
    uint16_t n_descs;   // ring entries the chain occupies
    uint32_t out_bytes; // sum of the readable segments
    uint32_t in_bytes;  // sum of the writable segments
    uint32_t used_len;  // [ring] what push was told
    uint16_t large;     // [ring] 1 + index of its large slot; 0: none
    uint16_t state;     // [ring] enum chain_state
    uint16_t record;    // [ring] its first and last entry in the in-flight record
    uint16_t record_last;
    _Atomic uint64_t popped_at; // cycles_now() of its batch; 0: not out
    struct iovec small[RING_SEGS_SMALL];
};
static_assert(sizeof(struct chain) == 2ul * CACHE_LINE, "two lines a slot");

// Counters of one queue. They outlive the ring's starts and stops: they are the queue's.
struct ring_stats {
    counter n_chains;     // popped
    counter n_bytes_out;  // device-readable bytes popped
    counter n_bytes_in;   // bytes reported as written
    counter n_used;       // published
    counter n_notify;     // publications that the guest wanted to hear of
    counter n_suppressed; // publications that it did not
    counter n_full;       // pops cut short for want of a large slot
    counter n_faults[RING_FAULTS];
};

struct ring_config {
    uint64_t features; // negotiated
    uint32_t size;     // descriptors
    uint32_t base;     // as VHOST_USER_SET_VRING_BASE carries it
    // Front-end (user) addresses of the three parts, in VRING_ADDR's order.
    uint64_t desc_addr;   // descriptor area
    uint64_t driver_addr; // driver area
    uint64_t device_addr; // device area
    void *inflight;       // this queue's part of the in-flight region, or NULL
    size_t inflight_bytes;
    // The record is kept by us, not by the front end: a ring that bears no mark of a device was
    // set up anew since, and the record is begun anew too.
    bool record_is_own;
    // Nobody but this ring's driver and device were at work since the record was written. Without a
    // record it goes on behind what was used: it was ordered.
    bool is_resumed;
};

struct ring; // below the calls, since the hot path inlines it

// [C] Check the configuration and make the ring ready to pop. @stats outlives the ring.
// 0, or -errno with the sentence; the ring is then stopped as before.
int ring_start(struct ring *r, const struct ring_config *config, const struct mem *m,
               struct dirty *log, struct ring_stats *stats, struct error *e);

// [C] Free what start allocated. Nothing may be in flight. A stopped ring stops again freely.
void ring_stop(struct ring *r);

static inline bool ring_is_started(const struct ring *r);

// [C] Whether another process could take this ring up while it runs: from its record, or because
// guest memory tells the position.
static inline bool ring_can_resume(const struct ring *r);

// [C] or [W], as owner: what VHOST_USER_GET_VRING_BASE answers.
uint32_t ring_base(const struct ring *r);

// [W] or [C], as owner: go on with another snapshot of memory, which has everything that
// chains in flight use. Rings that are not in it fault.
void ring_set_mem(struct ring *r, const struct mem *m);

// [W] or [C], as owner: start, change or (NULL) stop dirty logging.
void ring_set_dirty(struct ring *r, struct dirty *log);

// [W] Take up to @max (at most RING_BATCH_MAX) chains; returns how many. 0 also when faulted.
unsigned ring_pop(struct ring *r, struct chain *out[], unsigned max);

// [W] Hand @c back with @used_len bytes written to its writable segments. Staged until
// ring_publish(). Never touches guest memory.
static inline void ring_push(struct ring *r, struct chain *c, uint32_t used_len);

// A chain as plain as can be: one descriptor of the ring, in one region.
struct ring_plain {
    uint8_t *at;
    uint32_t bytes;
    uint16_t id;
};

// [W] The next chains as long as they are plain, at most @max (RING_BATCH_MAX): all writable or all
// readable. They are only looked at. 0 also whenever ring_pop() has to be asked: the next chain is
// not plain or wrong, something is in flight, a record or a log is kept. For devices that are done
// with a chain before they look at the next: no slot is touched.
unsigned ring_peek(struct ring *r, struct ring_plain out[], unsigned max, bool is_writable);

// [W] The first @n chains that ring_peek() returned are used, with these lengths (NULL: 0): as if
// popped and pushed. ring_publish() makes it visible.
void ring_spend(struct ring *r, const struct ring_plain plain[], const uint32_t lengths[],
                unsigned n);

// [W] As if the last @n chains had not been popped: @chains has them in pop order, and none was
// pushed. Only for rings without an in-flight record.
void ring_unpop(struct ring *r, struct chain *const chains[], unsigned n);

// [W] Make what was pushed visible to the driver. True if the driver must be notified.
bool ring_publish(struct ring *r);

// [W] Whether the driver has offered something: one guest load.
bool ring_has_work(const struct ring *r);

// [W] Ask the driver for notifications, then look again: true if the ring is empty and the
// caller may sleep; false if there is work (notifications are off again).
bool ring_park(struct ring *r);

// [W] Tell the driver to stop notifying: this ring is polled.
void ring_unpark(struct ring *r);

// [W] Stop the ring for @reason. @detail is the offending value, for the report.
void ring_fault(struct ring *r, enum ring_fault reason, uint64_t detail);

// [C] Also while a worker owns it: the fault, and its detail.
static inline enum ring_fault ring_read_fault(const struct ring *r, uint64_t *detail);

// [C] Also while a worker owns it: when the oldest chain that is out was popped, in
// cycles_now(); 0: none is out.
uint64_t ring_oldest(const struct ring *r);

// ---- the structure -----------------------------------------------------------------------

enum chain_state {
    CHAIN_FREE,   // the driver's
    CHAIN_POPPED, // the device's
    CHAIN_PUSHED, // staged or waiting for its turn (ordered rings)
};

struct ring {
    // Read by every pop and publish; only the owner writes.
    struct chain *slots; // by id; NULL while stopped
    const struct mem *mem;
    const struct mem_region *hint; // the last region that mem_at() found
    void *desc;                    // descriptor area, our address
    void *driver;                  // driver area
    void *device;                  // device area
    struct dirty *log;             // NULL: not migrating
    void *record;                  // in-flight record, or NULL

    uint32_t size;
    uint16_t next_avail; // split: free running; packed: position
    uint16_t next_used;  // likewise
    bool avail_wrap;     // packed: wrap counters
    bool used_wrap;
    bool is_packed;
    bool has_event_idx;
    bool has_indirect;
    bool is_ordered;  // IN_ORDER, or no in-flight record: used in pop order
    bool is_fresh;    // started at its beginning: the driver has had nothing from it
    bool notify_once; // after a start, whatever the suppression says
    uint8_t fault;    // enum ring_fault

    uint16_t *staged; // ids pushed and not yet published, in push order
    uint32_t n_staged;
    uint32_t n_in_flight; // popped and not yet published: the drain count
    struct ring_stats *stats;

    uint16_t *order; // ordered rings: ids in pop order, a circle
    uint32_t order_mask;
    uint32_t order_head, order_tail; // free running: oldest popped, next popped

    // Used by ring_spend(), not visible yet.
    uint32_t n_spent;
    uint32_t epoch;       // of marks: since ring_publish()
    uint32_t *marks;      // by id: the epoch in which it was spent
    uint64_t spent_bytes; // sum of the lengths
    uint64_t spent_word;  // packed: what the first descriptor gets last

    uint64_t counter;     // pops so far, for the in-flight record
    uint16_t record_free; // packed: first free entry of the record
    uint16_t n_large_free;
    uint16_t *large_free; // stack of free large slots
    struct iovec *large;  // RING_LARGE_MAX blocks of RING_SEGS_MAX
    uint16_t *replay;     // to be popped before the ring: in flight in the life before
    uint32_t n_replay, replay_next;
    uint64_t fault_detail;
    uint64_t features; // negotiated: for a device that acts on its own bits
    uint64_t desc_addr, driver_addr, device_addr; // front-end addresses, to map again
    void *block;                                  // the one allocation
    size_t block_bytes;
};

static inline enum ring_fault ring_read_fault(const struct ring *r, uint64_t *detail)
{
    uint8_t fault = __atomic_load_n(&r->fault, __ATOMIC_ACQUIRE);
    *detail = fault ? r->fault_detail : 0;
    return (enum ring_fault)fault;
}

static inline bool ring_is_started(const struct ring *r)
{
    return r->slots != NULL;
}

static inline bool ring_can_resume(const struct ring *r)
{
    return r->record || !r->is_packed;
}

static inline void ring_push(struct ring *r, struct chain *c, uint32_t used_len)
{
    assert(c->state == CHAIN_POPPED && "a chain is pushed once");
    c->state = CHAIN_PUSHED;
    c->used_len = used_len;
    r->staged[r->n_staged++] = c->id;
}
