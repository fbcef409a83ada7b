// SPDX-License-Identifier: Apache-2.0
// switch.h - a virtual Ethernet switch: learns addresses, forwards, floods, keeps VLANs apart.
//
// Frames stay in their sender's memory until their receiver's worker copies them: once. A frame
// for a queue on another worker goes there through the exchange (exchange.h) and comes back.
//
// Threads  [C] creates, attaches, detaches, learns what workers report, ages. [W] forwards.
// Memory   fixed tables; nothing allocates while frames flow.
// Trust    frames are hostile, but parsed (frame.h): the switch looks at their snapshot only.
#pragma once

#include "devices/port.h"

#define SWITCH_PORTS_MAX     1024
#define SWITCH_ADDRESSES_MAX 8192 // learnt, all ports
#define SWITCH_LEARN_MAX     1024 // of one port: a flood of addresses forgets only its own
#define SWITCH_AGE_S         300  // an address not seen for so long is forgotten

extern const struct device_type switch_device;

// [C] The switch that a line named; NULL: there is none.
struct vswitch *switch_find(const char *name);
// [C] "a, b": the names that there are, as far as they fit. Returns how many switches there are.
unsigned switch_list(char *names, size_t bytes);

// [C] @p takes part from now on. 0 or -errno with the sentence.
int switch_attach(struct vswitch *s, struct port *p, struct error *e);

// [C] @p gets no new frames from here on, its addresses are forgotten. It may be freed once every
// worker has passed a turn (pool_barrier).
void switch_detach(struct port *p);

// [W] Send frames of one queue of @from where they belong. home, id and free are set; n_holders
// is the switch's. Each frame is freed when everybody has returned it, maybe before this returns.
// Drops are counted in @stats.
void switch_forward(struct port *from, struct lane *lane, struct frame *const frames[], unsigned n,
                    struct port_stats *stats);
