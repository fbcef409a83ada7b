// SPDX-License-Identifier: Apache-2.0
// device.h - the contract between a virtio device type and everything that runs it.
//
// A device type is a table of functions. open() reads the line and fills in features and
// config space; a session serves those to the front end; workers call poll() on each queue,
// which pops chains, acts, and gives each back with queue_push(). The worker publishes and
// notifies: a device cannot forget to.
//
//     open ─▶ queue_start ─▶ poll, poll, poll … ─▶ queue_stop ─▶ close
//              └────────────── once a start of a queue ─┘
//
// Threads  each call says [C] or [W]. queue_start and queue_stop run on [C] while no worker
//          owns the queue; poll and completions run on the worker that owns it.
// Memory   control owns devices. A queue's priv belongs to the device type.
#pragma once

#include "dataplane/base.h"
#include "dataplane/describe.h"
#include "dataplane/error.h"
#include "dataplane/lane.h"
#include "dataplane/line.h"
#include "dataplane/ring.h"

#define DEVICE_CONFIG_MAX 256 // bytes of config space a front end can read
#define DEVICE_QUEUES_MAX 256 // rings are numbered in 8 bits (vhost-user: VRING_KICK)
#define DEVICE_TICK_MS    10

struct device;
struct state_device;

// One virtqueue of a device. Some devices also lend queues whose ring is never started, to have
// their worker do something for them (a port that is no virtqueue).
struct queue {
    struct ring ring;      // the owner's: a worker's while attached, else control's
    struct device *device; // [C] writes, constant
    uint16_t index;        // [C] writes, constant
    bool is_touched;       // [W]
    bool is_roused;        // [W]
    struct lane *lane;     // the owner's; NULL while no worker owns it
    // &lane->uring, for those who do not own the queue: the home of its requests. [W] writes
    struct uring *_Atomic uring;
    void *priv;                 // the device type's, from queue_start to queue_stop
    struct queue *touched_next; // [W]
    struct queue *roused_next;  // [W]
    void *seat;                 // the worker's bookkeeping, NULL while no worker owns it
    void *trail;                // the workers': what its moves left behind

    // The front end's eventfds, [C] writes while no worker owns the queue; -1: none.
    int kick_fd; // none: the ring is polled and never parks
    int call_fd; // none: the driver is never interrupted
    // [W] Set inside a called function that replaced call_fd while the worker owns the queue:
    // the worker, which runs the function, looks at it afterwards, renews what it holds of
    // call_fd, and clears it, all before it answers.
    bool call_changed;

    struct ring_stats stats; // counted by the owner, read by control
    counter n_kicks;         // wake-ups by the driver
    counter n_calls;         // interrupts written
    atomic_bool is_parked;   // [W] writes, for reports: a kick has to come first

    char padding[CACHE_LINE]; // the next queue may be another worker's
};

// What a queue without work does, as far as the worker's poll mode lets it.
enum queue_rest {
    QUEUE_PARKS,  // until the driver kicks: its ring is looked at once more. No kick: it stays
    QUEUE_SLEEPS, // until queue_rouse(); the driver is not asked for kicks
    QUEUE_STAYS,  // polled on
};

// What a front end tells a device beside its rings.
enum device_event {
    DEVICE_MTU,  // NET_SET_MTU: bytes, 68 to 65535
    DEVICE_RARP, // SEND_RARP: announce the MAC address in the low 48 bits, first octet lowest
};

struct device_type {
    struct line_schema line; // the type's word, its keys, help
    uint16_t virtio_id;
    uint16_t queues_max;        // over all of its queues, at most DEVICE_QUEUES_MAX
    uint16_t rings_per_queue;   // what GET_QUEUE_NUM counts as one; 0: each ring
    uint64_t protocol_features; // of vhost-user, beyond those that every session offers

    // [C] Read the line; fill in features, config and n_queues; claim files. 0, or -errno with
    // the sentence in @e and nothing left behind.
    int (*open)(struct device *d, const struct line *l, struct error *e);

    // [C] Give back what open took. No queue is started.
    void (*close)(struct device *d);

    // [W] Pop at most @budget chains of @q, act on them, give finished ones to queue_push().
    // Returns how many were popped.
    unsigned (*poll)(struct queue *q, unsigned budget);

    // [C] Optional; default: nothing. The ring is started; allocate q->priv. 0 or -errno;
    // -EWOULDBLOCK: not now (an image is locked), it is asked again soon.
    int (*queue_start)(struct queue *q, struct error *e);
    // [C] Optional; default: nothing. Drained: no chain is out.
    void (*queue_stop)(struct queue *q);
    // [W] Optional; default: nothing. The queue came to, or leaves, its lane: files in the
    // lane's file table are put there and taken out here. 0 or -errno (the queue then faults).
    int (*lane_enter)(struct queue *q);
    void (*lane_leave)(struct queue *q);
    // [W] Optional; default: true. The queue is to leave its lane, and is not polled any more:
    // cancel what waits for others, take back what other lanes have. True when nothing is out
    // but operations with a home (uring.h); asked again in each turn until then.
    bool (*settle)(struct queue *q);
    // [W] Optional; default: QUEUE_PARKS. It has had nothing to do for a while.
    enum queue_rest (*rest)(struct queue *q);
    // [C] Optional; default: refused. The driver wrote @bytes of config space at @offset.
    int (*config_write)(struct device *d, uint32_t offset, const void *data, uint32_t bytes);
    // [C] Optional; default: refused. Queues may run. What the device stores grows to *@bytes, or
    // (0) is measured again; config space then says so. 0 with the size in *@bytes, or -errno
    // with the sentence and nothing changed.
    int (*resize)(struct device *d, uint64_t *bytes, struct error *e);
    // [C] Optional; default: nothing. Queues may run. 0, or -errno with the sentence.
    int (*notify)(struct device *d, enum device_event event, uint64_t value, struct error *e);
    // [W] Optional; default: nothing. notify() succeeded; once for each queue that runs.
    void (*queue_notify)(struct queue *q, enum device_event event, uint64_t value);
    // [C] Optional; default: nothing. The guest's memory is @m from now on; NULL: it has gone.
    // Queues may run, if all of what was there stays. Who wants it for longer copies the snapshot.
    void (*memory)(struct device *d, const struct mem *m);
    // [C] Optional; default: nothing. Config space is about to be read: bring it up to date.
    void (*config_read)(struct device *d);
    // [C] Optional; default: nothing. Queues may run. What is counted of @q beside its ring.
    void (*tell_queue)(const struct queue *q, struct describer *to);
    // [C] Optional; default: nothing. No queue is started, none will be: from now on workers find
    // the device nowhere. It is closed when each of them has passed a turn.
    void (*leave)(struct device *d);
    // [C] Optional; default: 0. Whether the device may be removed: 0, or -EBUSY with the sentence.
    // When all devices are removed it is asked again after each of them.
    int (*busy)(const struct device *d, struct error *e);
    // [W] Optional; default: nothing. On each lane: the device was opened, later ones have no queue
    // there yet; it has left, and may be closed after that.
    void (*lane_join)(struct device *d, struct lane *lane);
    void (*lane_part)(struct device *d, struct lane *lane);
    // [C] Optional; default: nothing. Every DEVICE_TICK_MS, or somewhat later, if it wants_tick.
    void (*tick)(struct device *d, uint64_t now_ms);
    // [C] Optional; default: nothing. Queues may run. What is to be said of it beside its queues.
    void (*tell)(const struct device *d, struct describer *to);
};

struct device {
    const struct device_type *type;
    struct line *line;            // owned; name and keys
    const char *name;             // in line
    const struct lane_set *lanes; // of all workers; there before open(), constant

    // Filled in by open().
    uint64_t features; // the type's bits; transport and ring bits are added by the session
    uint8_t config[DEVICE_CONFIG_MAX];
    uint16_t config_bytes;
    atomic_bool has_new_config; // the front end is to be told (VIRTIO 2.5); it was: false
    uint16_t n_queues;          // the most that a front end may use
    bool wants_tick;
    void *priv;

    struct queue *queues;       // n_queues
    struct state_device *state; // [C] what outlives this process; NULL: nothing does
    void *owner;                // [C] who runs it: the way back from a worker's answer
};

// The keys of every device that has a vhost-user socket.
extern const struct line_key device_socket_keys[];

// [C] The vhost-user socket of a line; NULL: its device has none.
const char *device_socket(const struct line *l);

// [C] Open the device that @l describes, for queues on @lanes; takes @l over when it succeeds.
int device_open(struct device **out, const struct device_type *type, struct line *l,
                const struct lane_set *lanes, struct error *e);
void device_close(struct device *d);

// [W] Something of @q is to be published at the end of the step.
static inline void queue_touch(struct queue *q)
{
    if (q->is_touched)
        return;
    struct lane *lane = q->lane;
    assert(lane && "a worker owns the queue");
    q->is_touched = true;
    q->touched_next = lane->touched;
    lane->touched = q;
}

// [W] Give @c back to the driver. The worker publishes it at the end of its step.
static inline void queue_push(struct queue *q, struct chain *c, uint32_t used_len)
{
    ring_push(&q->ring, c, used_len);
    queue_touch(q);
}

// [W] A queue that sleeps is polled again from this turn or the next on.
static inline void queue_rouse(struct queue *q)
{
    if (!q->is_roused) {
        q->is_roused = true;
        q->roused_next = q->lane->roused;
        q->lane->roused = q;
    }
}
