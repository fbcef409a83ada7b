// SPDX-License-Identifier: Apache-2.0
// options.h - the command line of sluiced.
//
// Threads  [C].
#pragma once

#include "pollers/worker.h"
#include "tools/config.h"

#include <stdbool.h>

struct options {
    struct config config;
    const char *control; // path of the control socket
    bool is_control_default;
    const char *workers;
    enum worker_poll poll;
    bool only_check; // --check-config
};

// What to do next: OPTIONS_RUN, or end the program with this status.
#define OPTIONS_RUN (-1)

// Read the command line; --help and --version print, mistakes go to stderr.
int options_parse(struct options *o, int argc, char *argv[]);
void options_close(struct options *o);
