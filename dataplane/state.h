// SPDX-License-Identifier: Apache-2.0
// state.h - what outlives this process: one file in memory, kept by the service manager.
//
// A device has a part in it, found by its name: an in-flight record for each queue, and what its
// front end said, as messages that say it again. A record belongs to one ring of one guest, which
// its key names; for any other ring it is begun anew. The file holds no pointers; descriptors are
// with a keeper. It is sparse: what nobody uses takes no memory.
//
// Threads  [C] all calls; [W] the ring that has a record writes it.
// Memory   the caller owns the state and its devices; a device's part is mapped while it is held.
// Trust    a file that comes back is checked: another version or a damaged one is refused. What
//          records say is checked where they are read, as a front end's are (inflight.h).
#pragma once

#include "dataplane/base.h"
#include "dataplane/error.h"
#include "dataplane/keeper.h"

#define STATE_DEVICES_MAX 1024
#define STATE_QUEUES_MAX  256 // of a device
#define STATE_NAME_BYTES  64  // a device's name and its end

struct state;        // the file
struct state_device; // one device's part

// What a record is of. Compared byte by byte, so it has no padding.
struct state_key {
    uint64_t device, inode; // of the file that holds the ring: another guest has another
    uint64_t features;      // negotiated
    uint64_t desc_addr, driver_addr, device_addr;
    uint64_t size; // descriptors; 0: no record
};
static_assert(sizeof(struct state_key) == 7 * sizeof(uint64_t), "no padding");

#define STATE_PAYLOAD_BYTES 40

// One message to say again.
struct state_message {
    uint32_t request;
    uint16_t n_bytes; // of payload
    uint16_t flags;   // STATE_…
    uint8_t payload[STATE_PAYLOAD_BYTES];
    struct keeper_id fd; // that came with it
};
static_assert(sizeof(struct state_message) == 64, "no padding");

#define STATE_HAS_FD  1u // there is one
#define STATE_RUNNING 2u // SET_VRING_KICK: the ring was started

// Regions of memory, a few for the session, a few for each queue.
#define STATE_MESSAGES_MAX 2560

// What is known of a device's session.
struct state_session {
    uint32_t phase;      // enum state_phase
    uint32_t n_messages; // to bring another one where it was
    struct keeper_id socket;
    struct state_message messages[STATE_MESSAGES_MAX];
};

enum state_phase {
    // There is no session; or a message may be half read or half carried out, and nobody knows
    // where
    // the stream stands.
    STATE_UNSETTLED,
    STATE_SETTLED, // the messages say it all
};

// [C] A new file, or with @fd (not taken over) the one of the life before; @keeper (borrowed) has
// the descriptors. 0, or -errno with the sentence; -EINVAL: it cannot be used.
int state_open(struct state **out, int fd, struct keeper *keeper, struct error *e);
void state_close(struct state *s); // NULL is fine
int state_fd(const struct state *s);

// [C] The part of the device @name with @n_queues. NULL with the sentence if there is no room.
struct state_device *state_hold(struct state *s, const char *name, unsigned n_queues,
                                struct error *e);
// [C] Let it go; it stays in the file for the next life. NULL is fine.
void state_release(struct state_device *d);
// [C] Likewise, but what it says is of no use any more: the device is gone.
void state_forget(struct state_device *d);
// [C] Forget the devices that nobody holds, and the descriptors that nobody took up.
void state_forget_others(struct state *s);

// [C] The record of queue @index, for a ring of @key: zeros unless it is of that very ring.
// *@bytes is its room.
void *state_record(struct state_device *d, unsigned index, const struct state_key *key,
                   size_t *bytes);
// [C] The ring of queue @index was stopped in order: its record ends here.
void state_clear(struct state_device *d, unsigned index);

// [C] To be called now and then: tell the keeper what could not be told at once.
void state_settle(struct state *s);

// [C] The session's place, and who keeps its descriptors. Whoever reads it reads a copy.
struct state_session *state_session(struct state_device *d);
struct keeper *state_keeper(const struct state_device *d);
