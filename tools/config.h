// SPDX-License-Identifier: Apache-2.0
// config.h - the device lines of the command line and of configuration files.
//
// It collects lines with where they came from, and checks them all without opening anything.
//
// Threads  [C].
// Memory   the config owns its copies; config_close() frees them.
#pragma once

#include "dataplane/device.h"

struct config_line {
    char *text;
    char *origin; // "/etc/sluice.conf:12" or "--add"
};

struct config {
    struct config_line *lines;
    unsigned n_lines;
};

// Add one line. 0 or -ENOMEM.
int config_add(struct config *c, const char *text, const char *origin);

// Add the lines of a file, one device a line; blank lines and # comments are left out. 0 or
// -errno with the sentence.
int config_read(struct config *c, const char *path, struct error *e);

// Parse all lines as devices of the @n types; write every mistake to stderr, with its origin.
// Returns how many there are.
unsigned config_check(const struct config *c, const struct device_type *const types[], unsigned n);

void config_close(struct config *c);
