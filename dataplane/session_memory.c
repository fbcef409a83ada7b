// SPDX-License-Identifier: Apache-2.0
#include "dataplane/session_internal.h"

#include <errno.h>
#include <inttypes.h>

static bool is_same_memory(const struct mem *a, const struct mem *b)
{
    return a && a->n_regions == b->n_regions && mem_keeps_all(a, b) && mem_keeps_all(b, a);
}

void session_tell_memory(struct session *s, const struct mem *m)
{
    if (s->device->type->memory)
        s->device->type->memory(s->device, m);
}

static int apply_memory(struct session *s, struct error *e)
{
    (void)e;
    s->old_mem = s->mem;
    s->mem = s->next_mem;
    s->next_mem = NULL;
    session_tell_memory(s, s->mem);
    return 0;
}

static void tell_memory(struct queue *q, void *m) // [W]
{
    ring_set_mem(&q->ring, m);
}

static void free_old_memory(struct session *s)
{
    mem_free(s->old_mem);
    s->old_mem = NULL;
}

// Additions are just published. If a mapping goes, everything drains first: requests in flight
// use it.
static int install(struct session *s, struct mem *new)
{
    if (is_same_memory(s->mem, new)) {
        mem_free(new);
        return 0;
    }
    if (!mem_keeps_all(new, s->mem))
        session_stop_all(s);
    s->next_mem = new;
    return session_change(s, &(struct session_change){.apply = apply_memory,
                                                      .live = tell_memory,
                                                      .argument = new,
                                                      .after = free_old_memory});
}

static struct mem_desc describe(const struct vhost_user_region *r)
{
    return (struct mem_desc){.guest_addr = r->guest_addr,
                             .size = r->size,
                             .user_addr = r->user_addr,
                             .mmap_offset = r->mmap_offset};
}

int session_set_mem_table(struct session *s, struct message *m, struct error *e)
{
    const struct vhost_user_memory *table = &m->payload.memory;
    uint32_t n = table->n_regions;
    // "The size and ordering of the fds matches the number and ordering of memory regions." A
    // message with more than VHOST_USER_TABLE_MAX of them does not come this far.
    size_t bytes = offsetof(struct vhost_user_memory, regions) + n * sizeof(table->regions[0]);
    if (m->n_fds != n || m->header.size != bytes)
        return error_set(e, EPROTO, "%" PRIu32 " regions in %u bytes with %u descriptors", n,
                         m->header.size, m->n_fds);
    struct mem_desc descs[VHOST_USER_TABLE_MAX];
    for (uint32_t i = 0; i < n; i++)
        descs[i] = describe(&table->regions[i]);
    struct mem *new;
    int err = mem_set(&new, s->mem, descs, m->fds, n, e);
    return err ? err : install(s, new);
}

int session_get_max_mem_slots(struct session *s, struct message *m, struct error *e)
{
    (void)s;
    (void)e;
    m->payload.u64 = MEM_REGIONS_MAX;
    m->header.size = sizeof(m->payload.u64);
    return 0;
}

int session_add_mem_reg(struct session *s, struct message *m, struct error *e)
{
    struct mem_desc desc = describe(&m->payload.region.region);
    struct mem *new;
    int err = mem_add(&new, s->mem, &desc, m->fds[0], e);
    return err ? err : install(s, new);
}

int session_rem_mem_reg(struct session *s, struct message *m, struct error *e)
{
    struct mem_desc desc = describe(&m->payload.region.region);
    struct mem *new;
    int err = mem_remove(&new, s->mem, &desc, e);
    return err ? err : install(s, new);
}
