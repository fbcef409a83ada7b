// SPDX-License-Identifier: Apache-2.0
// write_log.h - reads what the kernel's dm-log-writes target recorded, in order.
//
// The target notes a write only when a flush that came after it is complete. So the entries
// before a mark are what a disk that lost its power there still has, at the least.
//
// Threads  one.
// Memory   write_log_open() reads nothing yet; entries point into the log's own mapping.
// Trust    the log is the kernel's, but a broken one is an error, not a crash.
#pragma once

#include "dataplane/base.h"
#include "dataplane/error.h"

enum write_log_flag {
    WRITE_LOG_FLUSH = 1,
    WRITE_LOG_FUA = 2,
    WRITE_LOG_DISCARD = 4,
    WRITE_LOG_MARK = 8,
};

struct write_log_entry {
    uint64_t flags;
    uint64_t offset, bytes; // on the device
    const uint8_t *data;    // of these bytes; NULL for a discard
    char mark[64];          // "" if it is none
};

struct write_log;

int write_log_open(struct write_log **out, const char *path, struct error *e);
void write_log_close(struct write_log *l); // NULL is fine

// 1 and the next entry, 0 at the end, or -errno with the sentence.
int write_log_next(struct write_log *l, struct write_log_entry *entry, struct error *e);
