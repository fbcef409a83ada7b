// SPDX-License-Identifier: Apache-2.0
#include "dataplane/session_internal.h"

#include "dataplane/inflight.h"
#include "dataplane/state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// A new file of @bytes zeros whose size nobody changes. A descriptor or -errno.
static int make_file(uint64_t bytes, struct error *e)
{
    int fd = memfd_create("vhost-user-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return error_set(e, errno, "the in-flight region: %s", strerror(errno));
    if (ftruncate(fd, (off_t)bytes) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        int code = errno;
        close(fd);
        return error_set(e, code, "the in-flight region of %" PRIu64 " bytes: %s", bytes,
                         strerror(code));
    }
    return fd;
}

static int check_sizes(const struct session *s, const struct vhost_user_inflight *i,
                       struct error *e)
{
    if (i->num_queues == 0 || i->num_queues > s->device->n_queues)
        return error_set(e, EINVAL, "%u queues, not 1 to %u", i->num_queues, s->device->n_queues);
    if (i->queue_size == 0 || i->queue_size > RING_SIZE_MAX)
        return error_set(e, EINVAL, "a queue size of %u, not 1 to %d", i->queue_size,
                         RING_SIZE_MAX);
    return 0;
}

// The region goes to the front end, which gives it back with SET_INFLIGHT_FD. What it is for
// depends on the features, which come before.
int session_get_inflight_fd(struct session *s, struct message *m, struct error *e)
{
    struct vhost_user_inflight *i = &m->payload.inflight;
    int err = check_sizes(s, i, e);
    if (err)
        return err;
    uint64_t bytes = inflight_queue_bytes(s->features, i->queue_size) * (uint64_t)i->num_queues;
    int fd = make_file(bytes, e);
    if (fd < 0)
        return fd;
    s->reply_fd = fd;
    i->mmap_size = bytes;
    i->mmap_offset = 0;
    return 0;
}

// It comes before ring sizes and memory, and maybe before other features: what a queue needs
// of it is checked when its ring starts.
int session_set_inflight_fd(struct session *s, struct message *m, struct error *e)
{
    const struct vhost_user_inflight *i = &m->payload.inflight;
    struct mapping mapping;
    int err = check_sizes(s, i, e);
    if (err)
        return err;
    if (session_is_attached(s))
        return error_set(e, EBUSY, "a queue is running");
    // The records have 64-bit words.
    if (i->mmap_offset % INFLIGHT_ALIGN)
        return error_set(e, EINVAL, "offset 0x%" PRIx64 " is not aligned to %d", i->mmap_offset,
                         INFLIGHT_ALIGN);
    session_inflight_drop(s);
    err = mapping_open(&mapping, m->fds[0], i->mmap_offset, i->mmap_size, &s->inflight.failed,
                       "in-flight region", e);
    if (err)
        return err;
    s->inflight.mapping = mapping;
    s->inflight.n_bytes = i->mmap_size;
    s->inflight.n_queues = i->num_queues;
    s->inflight.queue_size = i->queue_size;
    return 0;
}

static int part_of_region(const struct session *s, unsigned index, struct ring_config *config,
                          struct error *e)
{
    const struct session_inflight *i = &s->inflight;
    size_t one = inflight_queue_bytes(s->features, i->queue_size);
    if (index >= i->n_queues || (index + (uint64_t)1) * one > i->n_bytes)
        return error_set(e, EINVAL,
                         "queue %u has no room in an in-flight region of 0x%" PRIx64
                         " bytes for %u queues of %u",
                         index, i->n_bytes, i->n_queues, i->queue_size);
    config->inflight = i->mapping.at + index * one;
    config->inflight_bytes = one;
    return 0;
}

// A type whose front ends have no such region pops in ring order, so that positions tell all.
static bool keeps_records(const struct session *s)
{
    return s->device->state &&
           s->device->type->protocol_features & VIRTIO_BIT(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD);
}

static void take_own_record(const struct session *s, unsigned index, struct ring_config *config)
{
    struct state_key key = {
        .features = config->features,
        .desc_addr = config->desc_addr,
        .driver_addr = config->driver_addr,
        .device_addr = config->device_addr,
        .size = config->size,
    };
    if (!mem_identify(s->mem, key.desc_addr, &key.device, &key.inode))
        return; // the ring does not start either
    config->inflight = state_record(s->device->state, index, &key, &config->inflight_bytes);
    config->record_is_own = true;
}

int session_inflight_part(const struct session *s, const struct session_queue *sq,
                          struct ring_config *config, struct error *e)
{
    if (s->inflight.mapping.at) {
        session_inflight_forget(s, sq->queue->index);
        return part_of_region(s, sq->queue->index, config, e);
    }
    if (keeps_records(s))
        take_own_record(s, sq->queue->index, config);
    return 0;
}

void session_inflight_forget(const struct session *s, unsigned index)
{
    if (s->device->state)
        state_clear(s->device->state, index);
}

void session_inflight_drop(struct session *s)
{
    if (s->inflight.mapping.at)
        mapping_close(&s->inflight.mapping);
    s->inflight.n_bytes = 0;
    atomic_store_explicit(&s->inflight.failed, false, memory_order_relaxed);
}
