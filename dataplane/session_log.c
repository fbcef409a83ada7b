// SPDX-License-Identifier: Apache-2.0
#include "dataplane/session_internal.h"

// "Migration": a log is shared with SET_LOG_BASE and used while LOG_ALL is among the features.
// Both come and go under running rings, whose positions stay.
struct dirty *session_log_of(const struct session *s, uint64_t features)
{
    return features & VIRTIO_BIT(VHOST_F_LOG_ALL) ? s->log : NULL;
}

void session_tell_log(struct queue *q, void *log)
{
    ring_set_dirty(&q->ring, log);
}

static int apply_log(struct session *s, struct error *e)
{
    (void)e;
    s->old_log = s->log;
    s->log = s->next_log;
    s->next_log = NULL;
    return 0;
}

static void close_old_log(struct session *s)
{
    dirty_close(s->old_log);
    s->old_log = NULL;
}

int session_set_log_base(struct session *s, struct message *m, struct error *e)
{
    struct vhost_user_log log = m->payload.log;
    int err = dirty_open(&s->next_log, m->fds[0], log.size, log.offset, e);
    if (err)
        return err;
    // The answer: front ends wait for one, with or without REPLY_ACK.
    m->payload.u64 = 0;
    m->header.size = sizeof(m->payload.u64);
    bool is_logging = s->features & VIRTIO_BIT(VHOST_F_LOG_ALL);
    return session_change(s, &(struct session_change){.apply = apply_log,
                                                      .live = session_tell_log,
                                                      .argument = is_logging ? s->next_log : NULL,
                                                      .after = close_old_log});
}

// "it may be used to inform the front-end that the log has been modified": it is not.
int session_set_log_fd(struct session *s, struct message *m, struct error *e)
{
    (void)s;
    return session_check_eventfd(m->fds[0], e);
}
