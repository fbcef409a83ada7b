// SPDX-License-Identifier: Apache-2.0
#include "dataplane/state.h"

#include "dataplane/inflight.h"
#include "dataplane/mapping.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define STATE_MAGIC   UINT64_C(0x3165746174736c73) // "slstate1"
#define STATE_VERSION 1                            // of all that lies in the file
#define PAGE_BYTES    4096

struct file_head {
    uint64_t magic;
    uint32_t version;
    uint32_t n_devices;
    uint64_t device_bytes;
};

// The beginning of a device's part; its records follow, one after the other.
struct part {
    char name[STATE_NAME_BYTES]; // empty: nobody's
    struct state_key keys[STATE_QUEUES_MAX];
    struct state_session session;
};

// Room for any record, in whole pages, so that each can be given back.
#define RECORD_BYTES ((INFLIGHT_QUEUE_BYTES_MAX + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES)

#define PART_BYTES   ((sizeof(struct part) + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES)
#define DEVICE_BYTES (PART_BYTES + STATE_QUEUES_MAX * RECORD_BYTES)
#define FILE_BYTES   (PAGE_BYTES + STATE_DEVICES_MAX * DEVICE_BYTES)

struct state_device {
    struct state *state;
    unsigned slot;
    struct mapping mapping;
    atomic_bool failed; // never: the file is sealed
    struct part *part;  // in the mapping
};

struct state {
    int fd;
    struct keeper *keeper;
    bool is_held[STATE_DEVICES_MAX];
    char names[STATE_DEVICES_MAX][STATE_NAME_BYTES]; // as in the file
};

static uint64_t offset_of(unsigned slot)
{
    return PAGE_BYTES + slot * (uint64_t)DEVICE_BYTES;
}

// ---- the file ----------------------------------------------------------------------------

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static int make_file(struct error *e)
{
    const struct file_head head = {STATE_MAGIC, STATE_VERSION, STATE_DEVICES_MAX, DEVICE_BYTES};
    int fd = memfd_create("sluice-state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return error_set(e, errno, "the state: %s", strerror(errno));
    if (ftruncate(fd, (off_t)FILE_BYTES) < 0 || fcntl(fd, F_ADD_SEALS, SEALS) < 0 ||
        pwrite(fd, &head, sizeof(head), 0) != sizeof(head)) {
        int code = errno;
        close(fd);
        return error_set(e, code, "the state: %s", strerror(code));
    }
    return fd;
}

static int check_file(int fd, struct error *e)
{
    struct file_head head;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & SEALS) != SEALS)
        return error_set(e, EINVAL, "the state that was kept is not ours: it is not sealed");
    if (pread(fd, &head, sizeof(head), 0) != sizeof(head) || head.magic != STATE_MAGIC)
        return error_set(e, EINVAL, "the state that was kept is damaged");
    if (head.version != STATE_VERSION)
        return error_set(e, EINVAL, "the state that was kept has version %" PRIu32 ", not %d",
                         head.version, STATE_VERSION);
    if (head.n_devices != STATE_DEVICES_MAX || head.device_bytes != DEVICE_BYTES ||
        lseek(fd, 0, SEEK_END) != (off_t)FILE_BYTES)
        return error_set(e, EINVAL, "the state that was kept is damaged: it has another size");
    return 0;
}

static int read_names(struct state *s, struct error *e)
{
    for (unsigned i = 0; i < STATE_DEVICES_MAX; i++) {
        if (pread(s->fd, s->names[i], STATE_NAME_BYTES, (off_t)offset_of(i)) != STATE_NAME_BYTES)
            return error_set(e, EIO, "the state that was kept cannot be read");
        if (s->names[i][STATE_NAME_BYTES - 1])
            return error_set(e, EINVAL, "the state that was kept is damaged: a name has no end");
    }
    return 0;
}

int state_open(struct state **out, int fd, struct keeper *keeper, struct error *e)
{
    struct state *s = calloc(1, sizeof(*s));
    if (!s)
        return error_set(e, ENOMEM, "the state: out of memory");
    int err = fd < 0 ? 0 : check_file(fd, e);
    if (err)
        goto err_free;
    s->fd = fd < 0 ? make_file(e) : fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (s->fd < 0) {
        err = fd < 0 ? s->fd : error_set(e, errno, "the state: %s", strerror(errno));
        goto err_free;
    }
    err = read_names(s, e);
    if (err)
        goto err_close;
    s->keeper = keeper;
    *out = s;
    return 0;

err_close:
    close(s->fd);
err_free:
    free(s);
    return err;
}

void state_close(struct state *s)
{
    if (!s)
        return;
    close(s->fd);
    free(s);
}

int state_fd(const struct state *s)
{
    return s->fd;
}

// ---- devices -----------------------------------------------------------------------------

// Give the pages back: they read as zeros then.
static void punch(const struct state *s, uint64_t offset, uint64_t bytes)
{
    fallocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)bytes);
}

static void forget_slot(struct state *s, unsigned slot)
{
    punch(s, offset_of(slot), DEVICE_BYTES);
    s->names[slot][0] = '\0';
}

// The slot of @name, else a free one, else STATE_DEVICES_MAX.
static unsigned find_slot(const struct state *s, const char *name)
{
    unsigned free_slot = STATE_DEVICES_MAX;
    for (unsigned i = 0; i < STATE_DEVICES_MAX; i++) {
        if (s->is_held[i])
            continue;
        if (strcmp(s->names[i], name) == 0)
            return i;
        if (free_slot == STATE_DEVICES_MAX && !s->names[i][0])
            free_slot = i;
    }
    return free_slot;
}

static int map_part(struct state_device *d, unsigned n_queues, struct error *e)
{
    uint64_t bytes = PART_BYTES + n_queues * (uint64_t)RECORD_BYTES;
    int err = mapping_open(&d->mapping, d->state->fd, offset_of(d->slot), bytes, &d->failed,
                           "the state", e);
    d->part = (struct part *)(void *)d->mapping.at;
    return err;
}

struct state_device *state_hold(struct state *s, const char *name, unsigned n_queues,
                                struct error *e)
{
    assert(n_queues <= STATE_QUEUES_MAX && strlen(name) < STATE_NAME_BYTES);
    struct state_device *d = calloc(1, sizeof(*d));
    if (!d) {
        error_set(e, ENOMEM, "the state: out of memory");
        return NULL;
    }
    d->state = s;
    d->slot = find_slot(s, name);
    if (d->slot == STATE_DEVICES_MAX)
        error_set(e, ENOSPC, "the state has room for %d devices", STATE_DEVICES_MAX);
    if (d->slot == STATE_DEVICES_MAX || map_part(d, n_queues, e) < 0) {
        free(d);
        return NULL;
    }
    s->is_held[d->slot] = true;
    memcpy(s->names[d->slot], name, strlen(name) + 1);
    memcpy(d->part->name, name, strlen(name) + 1);
    return d;
}

void state_release(struct state_device *d)
{
    if (!d)
        return;
    d->state->is_held[d->slot] = false;
    mapping_close(&d->mapping);
    free(d);
}

void state_forget(struct state_device *d)
{
    if (!d)
        return;
    forget_slot(d->state, d->slot);
    state_release(d);
}

void state_forget_others(struct state *s)
{
    for (unsigned i = 0; i < STATE_DEVICES_MAX; i++)
        if (!s->is_held[i] && s->names[i][0])
            forget_slot(s, i);
    if (s->keeper)
        keeper_forget_rest(s->keeper);
}

void state_settle(struct state *s)
{
    if (s->keeper)
        keeper_settle(s->keeper);
}

struct state_session *state_session(struct state_device *d)
{
    return &d->part->session;
}

struct keeper *state_keeper(const struct state_device *d)
{
    return d->state->keeper;
}

// ---- records -----------------------------------------------------------------------------

void *state_record(struct state_device *d, unsigned index, const struct state_key *key,
                   size_t *bytes)
{
    struct state_key *kept = &d->part->keys[index];
    if (memcmp(kept, key, sizeof(*key)) != 0) {
        state_clear(d, index);
        *kept = *key;
    }
    *bytes = RECORD_BYTES;
    return d->mapping.at + PART_BYTES + index * RECORD_BYTES;
}

// The key goes first: a record without one is nobody's, however much of it is left.
void state_clear(struct state_device *d, unsigned index)
{
    struct state_key *kept = &d->part->keys[index];
    if (kept->size == 0)
        return;
    __atomic_store_n(&kept->size, 0, __ATOMIC_RELAXED);
    inflight_step();
    punch(d->state, offset_of(d->slot) + PART_BYTES + index * (uint64_t)RECORD_BYTES, RECORD_BYTES);
}
