// SPDX-License-Identifier: Apache-2.0
// mailbox.h - what control asks of one worker, and the worker's answers.
//
// Two channels; the worker's bell and an eventfd for the answers. Each request is answered once.
// Requests beyond MAILBOX_OPEN_MAX wait on control's side, so that a worker always has room to
// answer.
//
// Threads  [C] asks and hears; [W] takes and answers.
// Memory   requests that wait are allocated by control.
#pragma once

#include "dataplane/bell.h"
#include "dataplane/channel.h"
#include "dataplane/error.h"

#define MAILBOX_OPEN_MAX 4096 // requests at the worker; those that drain stay long

struct mailbox {
    struct channel requests;
    struct channel answers;
    struct bell *bell; // the worker's
    int answer_fd;     // written by the worker with each answer

    // Control's.
    _Alignas(CACHE_LINE) unsigned n_open; // at the worker, not yet answered and heard
    struct waiting_request *first;
    struct waiting_request **last;
};

// [C] 0 or -errno.
int mailbox_open(struct mailbox *m, struct bell *bell, struct error *e);
void mailbox_close(struct mailbox *m);

// [C] Never blocks, never fails.
void mailbox_ask(struct mailbox *m, const struct channel_message *request);
// [C] The next answer, or false. Clears answer_fd when there is none.
bool mailbox_hear(struct mailbox *m, struct channel_message *answer);

// [W] The next request, or false.
static inline bool mailbox_take(struct mailbox *m, struct channel_message *request)
{
    return channel_receive(&m->requests, request);
}

// [W] One system call.
void mailbox_answer(struct mailbox *m, const struct channel_message *answer);
