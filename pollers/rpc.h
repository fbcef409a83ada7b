// SPDX-License-Identifier: Apache-2.0
// rpc.h - a JSON-RPC 2.0 server on a Unix socket, one object a line.
//
// It reads requests of many clients, calls the method in its table, and writes the replies; a
// method may reply later, while other requests go on. It knows no method itself.
//
// Threads  [C] only. Nothing waits for a client.
// Memory   the server owns clients and calls; results become the server's.
// Trust    clients may run the methods (the socket's permissions say who connects), but they make
//          mistakes: lines, replies and the number of clients are bounded (stream.h).
#pragma once

#include "dataplane/error.h"
#include "pollers/loop.h"

#include <jansson.h>
#include <sys/types.h>

#define RPC_CLIENTS_MAX 256

struct rpc;
struct rpc_call; // a request that is being answered

enum rpc_outcome {
    RPC_DONE,       // *result is the reply
    RPC_LATER,      // rpc_reply() will be, or was, called
    RPC_FAILED,     // the sentence is in @e
    RPC_BAD_PARAMS, // likewise, and the parameters are to blame
};

struct rpc_method {
    const char *name; // NULL ends a table
    enum rpc_outcome (*call)(void *context, const json_t *params, struct rpc_call *call,
                             json_t **result, struct error *e);
};

// [C] Serve @methods on @path. 0 or -errno with the sentence.
int rpc_open(struct rpc **out, struct loop *l, const char *path, mode_t mode,
             const struct rpc_method methods[], void *context, struct error *e);

// [C] Write what is due without waiting, and end all clients. Calls that wait are forgotten by
// their clients, not freed: rpc_reply() still does that.
void rpc_close(struct rpc *r);

// [C] Answer a call that was RPC_LATER; @result is taken over. The client may have gone.
void rpc_reply(struct rpc_call *call, json_t *result);
