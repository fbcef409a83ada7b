// SPDX-License-Identifier: Apache-2.0
// keep_rig.h - somebody who keeps descriptors by name, as a service manager does, inside the test.
//
// Threads  one.
#pragma once

#include "dataplane/keeper.h"

#define KEEP_MAX 128

struct keep_rig {
    char names[KEEP_MAX][KEEPER_NAME_BYTES];
    int fds[KEEP_MAX];
    unsigned n;
    unsigned n_stored, n_forgotten; // orders so far
    int result;                     // of the next orders: 0, or they are not followed
};

// There is one; it keeps nothing at first.
extern struct keep_rig keep_rig;
extern const struct keeper_host keep_rig_host;

void keep_rig_clear(void);
// What the next process is given.
void keep_rig_hand_over(struct keeper *k);
