// SPDX-License-Identifier: Apache-2.0
// sighting.h - what one worker tells control of one switch: addresses where it did not know them.
//
// A worker that sees a new address sees it again in the next frame, long before control has put it
// into the table. So it remembers what it told since control last listened, and what finds no room
// is not told: it will be seen again.
//
// Threads  [W] tells; [C] hears.
// Memory   fixed at sightings_open().
// Trust    guests choose addresses: a flood of them fills the channel and nothing else.
#pragma once

#include "dataplane/channel.h"

#define SIGHTINGS_MAX    256 // not heard yet
#define SIGHTINGS_RECENT 64  // remembered

struct sighting {
    uint64_t key; // fdb_key()
    unsigned port;
};

struct sightings {
    struct channel channel;
    struct {
        struct sighting what;
        uint32_t tick;
    } recent[SIGHTINGS_RECENT];
    counter n_lost; // [W] for want of room
};

// [C] 0 or -ENOMEM.
int sightings_open(struct sightings *s);
void sightings_close(struct sightings *s);

// [W] @tick: a number that control changes when it has listened, never 0.
void sightings_tell(struct sightings *s, uint32_t tick, const struct sighting *what);

// [C] The next, or false.
bool sightings_hear(struct sightings *s, struct sighting *out);
