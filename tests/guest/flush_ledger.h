// SPDX-License-Identifier: Apache-2.0
// flush_ledger.h - which blocks a disk must still have at each flush point.
//
// The writer runs beside the daemon: it writes self-describing blocks, and each time a flush was
// acknowledged, sets a mark in the device's write log and notes what was acknowledged before the
// flush began. The checker replays the log up to each mark and compares.
//
// Threads  one.
// Memory   nothing stays allocated.
// Trust    what the disk returns is checked.
#pragma once

#include "bench/guest_disk.h"

struct flush_ledger_options {
    const char *path;   // the ledger, a file or a device
    const char *device; // the name of the dm-log-writes device
    unsigned n_marks;
    bool is_write_through; // mark after acknowledged writes; there are no flushes
};

// Write to the whole @disk until all marks are set. 0, or -errno with the sentence.
int flush_ledger_write(struct guest_disk *disk, const struct flush_ledger_options *o,
                       struct error *e);

// Compare the write log at @log_path with the ledger. The number of marks, or -errno with the
// sentence that says what was lost.
int flush_ledger_check(const char *ledger_path, const char *log_path, struct error *e);
