// SPDX-License-Identifier: Apache-2.0
// keeper.h - descriptors that somebody holds for us while we are dead, each of them once.
//
// A service manager keeps descriptors by name, and keeps none twice; but one file may be needed by
// many (the memory of a guest with several disks). So they are named by what they refer to, and
// counted here. What is to be sent waits in order when the other side is slow.
//
// Threads  [C].
// Memory   the caller's descriptors stay the caller's.
// Trust    who keeps them started us: an operator.
#pragma once

#include "dataplane/base.h"

#define KEEPER_NAME_BYTES 40

// Which file a descriptor refers to, in the whole system and while somebody has it open.
struct keeper_id {
    uint64_t device, inode; // both 0: none
};

struct keeper;

// How to reach who keeps them. 0 or -errno; -EAGAIN: ask again later.
struct keeper_host {
    int (*store)(const char *name, int fd);
    int (*forget)(const char *name);
};

// NULL: out of memory.
struct keeper *keeper_open(const struct keeper_host *host);
void keeper_close(struct keeper *k); // NULL is fine; what is kept stays kept

// What @fd refers to; false if it cannot be told.
bool keeper_identify(int fd, struct keeper_id *id);
static inline bool keeper_is_same(const struct keeper_id *a, const struct keeper_id *b)
{
    return a->device == b->device && a->inode == b->inode;
}

// It has @fd, taken over, as @name from the life before.
void keeper_adopt(struct keeper *k, const char *name, int fd);
// What was adopted of @id and is wanted again: a descriptor of the caller's, or -1.
int keeper_find(const struct keeper *k, const struct keeper_id *id);
// Forget what was adopted and nobody held since.
void keeper_forget_rest(struct keeper *k);

// One more user of the file @id that @fd (-1: it is held or adopted already) refers to. False if
// it cannot be kept.
bool keeper_hold(struct keeper *k, const struct keeper_id *id, int fd);
// One user less.
void keeper_drop(struct keeper *k, const struct keeper_id *id);
bool keeper_is_held(const struct keeper *k, const struct keeper_id *id);

// Send what waits. True if all is sent, and what should be kept is.
bool keeper_settle(struct keeper *k);
