// SPDX-License-Identifier: Apache-2.0
// wire.h - one vhost-user message on a socket, as the front end sends and receives it.
//
// Threads  one thread a socket.
// Memory   received descriptors belong to the caller.
// Trust    a message that is not what the specification allows is an error with a sentence.
#pragma once

#include "dataplane/base.h"
#include "dataplane/error.h"
#include "dataplane/vhost_user.h"

#define WIRE_FDS_MAX 8

struct wire_message {
    uint32_t request;
    uint32_t flags;
    uint32_t bytes; // of payload
    union vhost_user_payload payload;
    unsigned n_fds;
    int fds[WIRE_FDS_MAX];
};

// "SET_VRING_NUM", for sentences.
const char *wire_name(uint32_t request);

// Send @m with its flags as they are. 0, or -errno with the sentence.
int wire_send(int fd, const struct wire_message *m, struct error *e);

// Receive one whole message. 0; -ETIMEDOUT if the socket's time limit passes, -ECONNRESET if
// the peer closed, else another -errno.
int wire_receive(int fd, struct wire_message *m, struct error *e);

void wire_close_fds(struct wire_message *m);
