// SPDX-License-Identifier: Apache-2.0
#include "pollers/mailbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct waiting_request {
    struct waiting_request *next;
    struct channel_message message;
};

int mailbox_open(struct mailbox *m, struct bell *bell, struct error *e)
{
    *m = (struct mailbox){.bell = bell, .last = &m->first};
    int err = channel_open(&m->requests, MAILBOX_OPEN_MAX);
    if (err)
        goto err_none;
    err = channel_open(&m->answers, MAILBOX_OPEN_MAX);
    if (err)
        goto err_requests;
    m->answer_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (m->answer_fd < 0) {
        err = -errno;
        goto err_answers;
    }
    return 0;

err_answers:
    channel_close(&m->answers);
err_requests:
    channel_close(&m->requests);
err_none:
    return error_set(e, -err, "a worker's mailbox: %s", strerror(-err));
}

void mailbox_close(struct mailbox *m)
{
    assert(!m->first);
    close(m->answer_fd);
    channel_close(&m->answers);
    channel_close(&m->requests);
}

static void signal_fd(int fd)
{
    // Only a full counter fails, and that wakes as well.
    (void)!eventfd_write(fd, 1);
}

static void send_request(struct mailbox *m, const struct channel_message *request)
{
    bool is_sent = channel_send(&m->requests, request);
    assert(is_sent && "no more requests than messages");
    m->n_open++;
    if (bell_is_due(m->bell))
        bell_ring(m->bell);
}

void mailbox_ask(struct mailbox *m, const struct channel_message *request)
{
    if (m->n_open < MAILBOX_OPEN_MAX) {
        send_request(m, request);
        return;
    }
    struct waiting_request *waiting = malloc(sizeof(*waiting));
    assert(waiting && "control goes on only with memory");
    *waiting = (struct waiting_request){.message = *request};
    *m->last = waiting;
    m->last = &waiting->next;
}

static void send_waiting(struct mailbox *m)
{
    struct waiting_request *waiting = m->first;
    if (!waiting)
        return;
    m->first = waiting->next;
    if (!m->first)
        m->last = &m->first;
    send_request(m, &waiting->message);
    free(waiting);
}

bool mailbox_hear(struct mailbox *m, struct channel_message *answer)
{
    if (!channel_receive(&m->answers, answer)) {
        // Clear first, then look again: an answer in between signals anew or is seen.
        eventfd_t n;
        (void)!eventfd_read(m->answer_fd, &n);
        if (!channel_receive(&m->answers, answer))
            return false;
    }
    m->n_open--;
    send_waiting(m);
    return true;
}

void mailbox_answer(struct mailbox *m, const struct channel_message *answer)
{
    bool is_sent = channel_send(&m->answers, answer);
    assert(is_sent && "no more answers than requests");
    signal_fd(m->answer_fd);
}
