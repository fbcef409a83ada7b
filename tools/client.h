// SPDX-License-Identifier: Apache-2.0
// client.h - one connection to a daemon's control socket, from the asking side.
//
// Threads  one.
// Memory   the caller frees the client and the results.
#pragma once

#include "dataplane/error.h"

#include <jansson.h>

struct client {
    int fd;
    char *in; // read and not yet used
    size_t n_in;
};

// Connect to @path. 0, or -errno with a sentence that says how to start a daemon.
int client_open(struct client *c, const char *path, struct error *e);
void client_close(struct client *c);

// Call @method and wait for its answer; @params (may be NULL) is taken over. The result, or NULL
// with the daemon's sentence.
json_t *client_call(struct client *c, const char *method, json_t *params, struct error *e);
