// SPDX-License-Identifier: Apache-2.0
// message.h - whole vhost-user messages, with their descriptors, over a stream socket.
//
// A reader collects one message from however many pieces it comes in, and never reads past its
// end, so that descriptors stay with the message they came with. A message is sent in one
// write. What a request means is not known here.
//
// Threads  [C] only.
// Memory   descriptors received belong to the message until message_take_fd(); the rest are
//          closed by message_drop_fds(). All are close-on-exec.
// Trust    the peer is hostile: size, version and flags are checked before the payload is read,
//          and any number of descriptors may come with any byte.
#pragma once

#include "dataplane/error.h"
#include "dataplane/vhost_user.h"

#define MESSAGE_FDS_MAX 253 // SCM_MAX_FD: what the kernel passes at once

struct message {
    struct vhost_user_header header;
    union vhost_user_payload payload;
    unsigned n_fds;
    int fds[MESSAGE_FDS_MAX]; // -1: taken
};

struct message_reader {
    struct message message;
    size_t n_bytes;   // of the message so far, header included
    uint64_t n_begun; // messages of which a byte has come: tells one partial from the next
};

enum message_result {
    MESSAGE_NONE,  // nothing whole yet: wait for input
    MESSAGE_READY, // reader->message is complete
    MESSAGE_ENDED, // the peer closed, between messages
    MESSAGE_BROKEN // the stream cannot be followed any more: the sentence is in the error
};

// [C] Go on with the message on non-blocking @fd. After MESSAGE_READY the caller uses the
// message, then calls message_reader_reset().
enum message_result message_receive(struct message_reader *r, int fd, struct error *e);

// [C] Drop the message, whole or partial, and its descriptors.
void message_reader_reset(struct message_reader *r);

// [C] Whether a message began and is not complete.
bool message_is_partial(const struct message_reader *r);

// [C] Descriptor @i of @m, which is the caller's from now on.
int message_take_fd(struct message *m, unsigned i);
void message_drop_fds(struct message *m);

// [C] Send header and payload, with descriptor @passed_fd unless it is -1, in one write that never
// waits. 0, or -errno with the sentence: -EAGAIN if the peer does not read.
int message_send(int fd, const struct vhost_user_header *header, const void *payload, int passed_fd,
                 struct error *e);
