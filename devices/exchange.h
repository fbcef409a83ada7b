// SPDX-License-Identifier: Apache-2.0
// exchange.h - frames between workers: there through bounded channels, back in a chain.
//
// Each pair of lanes has a channel for frames. What finds no room in it is the sender's to drop.
// A frame has at most one way back, however many lanes have it: the last of them sends it home,
// linked to others that go the same way. So the way back has room for all, always.
//
//     exchange_send ─▶ channel ─▶ receive ─▶ deliver ─▶ frame_return ─▶ chain ─▶ free
//     └──────── home's lane ────┘└────── the other lane ─────────────┘└─ home's lane ─┘
//
// Threads  [C] opens and closes; [W] the rest, on the lane that is named.
// Memory   fixed at exchange_open(). There is one exchange, for all switches.
// Trust    it looks at no frame's contents. What a message means is its receiver's to check.
#pragma once

#include "devices/port.h"
#include "dataplane/channel.h"

#define EXCHANGE_MESSAGES 1024 // from one lane to another, at most

// A frame and where it goes: words that only the receiver understands.
struct parcel {
    struct frame *frame;
    uint64_t where;
    uint32_t whose;
};

// [W] These arrived. Each is given back once with frame_return(), now or later. Returns the pieces
// of work it was.
typedef unsigned exchange_receive(struct lane *lane, const struct parcel parcels[], unsigned n);

// [C] For one more user on @lanes; all of them have the same. 0 or -ENOMEM.
int exchange_open(const struct lane_set *lanes, exchange_receive *receive);
void exchange_close(void);

// [W] One more user on @lane, one less: messages are taken while there is one.
void exchange_join(struct lane *lane);
void exchange_part(struct lane *lane);

// [W] Hand a frame to lane @to, which is not @lane. False: there is no room.
bool exchange_send(struct lane *lane, unsigned to, const struct parcel *parcel);

// [W] Have the lanes look to which something was sent: once a batch.
void exchange_flush(struct lane *lane);

// [W] From here to exchange_end_fan() @f, of another lane, is delivered @n times on this one, for
// the one time that it was sent here.
void exchange_begin_fan(struct lane *lane, struct frame *f);
void exchange_end_fan(struct lane *lane, unsigned n);

// The index of the lane that @uring belongs to.
static inline unsigned exchange_lane_of(struct uring *uring)
{
    return container_of(uring, struct lane, uring)->index;
}
