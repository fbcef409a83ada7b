// SPDX-License-Identifier: Apache-2.0
// What a front end shares: guest memory, the in-flight region, the dirty log.
#include "bench/frontend.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LOG_PAGE_BYTES 4096 // vhost-user: "log page size"

// ---- guest memory ------------------------------------------------------------------------

static struct vhost_user_region describe(const struct guest_region *r)
{
    return (struct vhost_user_region){r->guest_addr, r->bytes, r->user_addr, r->file_offset};
}

static int send_region(struct frontend *f, uint32_t request, unsigned region, bool with_fd,
                       struct error *e)
{
    const struct guest_region *r = &f->guest->regions[region];
    struct wire_message m = {.request = request,
                             .bytes = sizeof m.payload.region,
                             .payload.region.region = describe(r),
                             .n_fds = with_fd,
                             .fds = {r->fd}};
    return frontend_request(f, &m, e);
}

int frontend_add_region(struct frontend *f, unsigned region, struct error *e)
{
    return send_region(f, VHOST_USER_ADD_MEM_REG, region, true, e);
}

int frontend_remove_region(struct frontend *f, unsigned region, struct error *e)
{
    return send_region(f, VHOST_USER_REM_MEM_REG, region, false, e);
}

static int send_table(struct frontend *f, struct error *e)
{
    const struct guest *g = f->guest;
    struct wire_message m = {.request = VHOST_USER_SET_MEM_TABLE};
    if (g->n_regions > VHOST_USER_TABLE_MAX)
        return error_set(e, EINVAL, "a memory table has %u regions, the guest has %u",
                         VHOST_USER_TABLE_MAX, g->n_regions);
    struct vhost_user_memory *table = &m.payload.memory;
    for (unsigned i = 0; i < g->n_regions; i++) {
        table->regions[i] = describe(&g->regions[i]);
        m.fds[i] = g->regions[i].fd;
    }
    table->n_regions = m.n_fds = g->n_regions;
    m.bytes = (uint32_t)(offsetof(struct vhost_user_memory, regions) +
                         g->n_regions * sizeof table->regions[0]);
    return frontend_request(f, &m, e);
}

int frontend_share_memory(struct frontend *f, struct error *e)
{
    if (!(f->protocol_features & VIRTIO_BIT(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS)))
        return send_table(f, e);
    if (f->guest->n_regions > f->n_slots)
        return error_set(e, EPROTO, "the back end takes %u memory regions, the guest has %u",
                         f->n_slots, f->guest->n_regions);
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < f->guest->n_regions; i++)
        rc = frontend_add_region(f, i, e);
    return rc;
}

// ---- in-flight region --------------------------------------------------------------------

int frontend_send_inflight(struct frontend *f, struct error *e)
{
    struct wire_message m = {.request = VHOST_USER_SET_INFLIGHT_FD,
                             .bytes = sizeof m.payload.inflight,
                             .payload.inflight = f->inflight,
                             .n_fds = 1,
                             .fds = {f->inflight_fd}};
    return frontend_request(f, &m, e);
}

int frontend_open_inflight(struct frontend *f, unsigned n_queues, unsigned size, struct error *e)
{
    struct wire_message m = {
        .request = VHOST_USER_GET_INFLIGHT_FD,
        .bytes = sizeof m.payload.inflight,
        .payload.inflight = {.num_queues = (uint16_t)n_queues, .queue_size = (uint16_t)size}};
    int rc = frontend_query(f, &m, e);
    if (rc < 0)
        return rc;
    if (m.bytes < VHOST_USER_INFLIGHT_BYTES || m.n_fds != 1 || !m.payload.inflight.mmap_size) {
        rc = error_set(e, EPROTO, "GET_INFLIGHT_FD was answered with %u bytes, %u descriptors",
                       m.bytes, m.n_fds);
        wire_close_fds(&m);
        return rc;
    }
    if (f->inflight_fd >= 0)
        close(f->inflight_fd);
    f->inflight_fd = m.fds[0];
    f->inflight = m.payload.inflight;
    f->inflight.num_queues = (uint16_t)n_queues;
    f->inflight.queue_size = (uint16_t)size;
    return frontend_send_inflight(f, e);
}

// ---- dirty log ---------------------------------------------------------------------------

static int log_open(struct frontend *f, struct error *e)
{
    const struct guest_region *last = &f->guest->regions[f->guest->n_regions - 1];
    uint64_t pages = (last->guest_addr + last->bytes + LOG_PAGE_BYTES - 1) / LOG_PAGE_BYTES;
    f->log_bytes = (pages / 8 + LOG_PAGE_BYTES) / LOG_PAGE_BYTES * LOG_PAGE_BYTES;
    f->log_fd = memfd_create("dirty-log", MFD_CLOEXEC);
    if (f->log_fd < 0 || ftruncate(f->log_fd, (off_t)f->log_bytes) < 0)
        return error_set(e, errno, "cannot make a dirty log: %s", strerror(errno));
    void *p = mmap(NULL, f->log_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, f->log_fd, 0);
    if (p == MAP_FAILED)
        return error_set(e, errno, "cannot map the dirty log: %s", strerror(errno));
    f->log = p;
    return 0;
}

// With LOG_SHMFD this request has an answer, whatever its payload.
int frontend_send_log(struct frontend *f, struct error *e)
{
    struct wire_message m = {.request = VHOST_USER_SET_LOG_BASE,
                             .bytes = sizeof m.payload.log,
                             .payload.log.size = f->log_bytes,
                             .n_fds = 1,
                             .fds = {f->log_fd}};
    return frontend_query(f, &m, e);
}

// Tell the addresses of started rings again, for their log flag.
static int send_addresses(struct frontend *f, struct error *e)
{
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < FRONTEND_RINGS_MAX; i++) {
        if (f->rings[i].driver)
            rc = frontend_set_ring_addr(f, i, f->rings[i].driver, e);
    }
    return rc;
}

int frontend_start_log(struct frontend *f, struct error *e)
{
    int rc = f->log ? 0 : log_open(f, e);
    if (rc == 0)
        rc = frontend_send_log(f, e);
    if (rc < 0)
        return rc;
    f->is_logging = true;
    rc = frontend_send_features(f, e);
    return rc < 0 ? rc : send_addresses(f, e);
}

int frontend_stop_log(struct frontend *f, struct error *e)
{
    f->is_logging = false;
    int rc = frontend_send_features(f, e);
    return rc < 0 ? rc : send_addresses(f, e);
}

bool frontend_is_logged(const struct frontend *f, uint64_t addr)
{
    uint64_t page = addr / LOG_PAGE_BYTES;
    uint8_t bits = __atomic_load_n(&f->log[page / 8], __ATOMIC_RELAXED);
    return bits >> (page % 8) & 1;
}
