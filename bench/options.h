// SPDX-License-Identifier: Apache-2.0
// options.h - a command line read by tables: name, kind, limits, where the value goes, help.
//
// Threads  one. Memory: values are stored in the caller's struct; strings are not copied.
// Trust    the text is the user's: a bad value is an error that names the option and the choices.
#pragma once

#include "dataplane/base.h"
#include "dataplane/error.h"

#include <stdio.h>

enum option_kind {
    OPTION_FLAG,    // bool
    OPTION_COUNT,   // unsigned
    OPTION_NUMBER,  // uint64_t, K, M, G, T: powers of 1024
    OPTION_SECONDS, // double, above 0
    OPTION_CHOICE,  // unsigned: index of one of the choices
    OPTION_TEXT,    // const char *
};

struct option_spec {
    const char *name; // NULL ends a table
    enum option_kind kind;
    size_t offset;              // in the caller's struct
    uint64_t min, max;          // COUNT, NUMBER
    const char *const *choices; // CHOICE: NULL ends them
    const char *value;          // in the help: "SIZE"
    const char *help;
};

#define OPTIONS_MAX 64

// Store what @argv says into @into; @tables ends with NULL. Arguments that are no options are
// moved behind them, from argv[*first] on. 0, or -EINVAL with the sentence.
int options_parse(void *into, const struct option_spec *const tables[], int argc, char *argv[],
                  int *first, struct error *e);

void options_help(const struct option_spec *const tables[], FILE *to);
