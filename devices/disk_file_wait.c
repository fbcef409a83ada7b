// SPDX-License-Identifier: Apache-2.0
#include "devices/disk_file.h"

// ---- lists of requests -------------------------------------------------------------------

void file_list_add(struct file_queue *f, struct file_list *l, const struct disk_request *r)
{
    uint16_t number = (uint16_t)(1 + (r - r->queue->requests));
    f->requests[number - 1].next = 0;
    if (l->first)
        f->requests[l->last - 1].next = number;
    else
        l->first = number;
    l->last = number;
}

struct disk_request *file_list_take(struct disk_queue *q, struct file_list *l)
{
    if (!l->first)
        return NULL;
    unsigned index = l->first - 1u;
    l->first = file_of(q)->requests[index].next;
    return &q->requests[index];
}

// ---- what there is for requests ----------------------------------------------------------

// A hung disk keeps the helpers it has. The first of a queue does not wait for other queues.
static bool take_helper(struct file_queue *f)
{
    unsigned n = atomic_fetch_add(&f->image->n_helped, 1);
    if (f->helpers && n >= FILE_HELPERS_MAX) {
        atomic_fetch_sub(&f->image->n_helped, 1);
        return false;
    }
    f->helpers++;
    return true;
}

static enum section_entry enter_section(struct disk_request *r, struct file_request *b,
                                        uint8_t needed)
{
    struct section *s = r->queue->disk->image->section;
    enum section_entry entry = section_enter(s, r->queue->queue->index, needed == NEED_ALONE);
    if (entry == SECTION_ENTERED)
        b->has |= needed;
    return entry;
}

static enum section_entry collect(struct disk_request *r)
{
    struct file_queue *f = file_of(r->queue);
    struct file_request *b = file_beside(r);
    uint8_t missing = b->needs & ~b->has;
    if (missing & NEED_SLOT) {
        if (!f->n_free_slots)
            return SECTION_BUSY_OWN;
        b->slot = f->free_slots[--f->n_free_slots];
        b->has |= NEED_SLOT;
    }
    if (missing & NEED_HELPER) {
        if (!take_helper(f))
            return SECTION_BUSY_OWN;
        b->has |= NEED_HELPER;
    }
    missing &= NEED_SHARE | NEED_ALONE;
    return missing ? enter_section(r, b, missing) : SECTION_ENTERED;
}

// ---- who waits ---------------------------------------------------------------------------

static void look(struct disk_queue *q);

static void timed_out(struct uring_op *op, int result)
{
    (void)result;
    struct disk_request *r = container_of(op, struct disk_request, op);
    file_of(r->queue)->is_timed = false;
    look(r->queue);
}

static void set_timer(struct file_queue *f, struct disk_request *r)
{
    unsigned doubles = MIN(f->n_looks, FILE_WAIT_DOUBLES);
    f->n_looks++;
    f->timeout = (struct __kernel_timespec){.tv_nsec = (FILE_WAIT_US * 1000L) << doubles};
    f->is_timed = true;
    io_uring_prep_timeout(file_entry(r, timed_out), &f->timeout, 0, 0);
}

static void look(struct disk_queue *q)
{
    struct file_queue *f = file_of(q);
    while (f->waiting.first && !f->is_timed) {
        struct disk_request *r = &q->requests[f->waiting.first - 1];
        enum section_entry entry = collect(r);
        if (entry == SECTION_BUSY)
            set_timer(f, r);
        if (entry != SECTION_ENTERED)
            return;
        f->n_looks = 0;
        file_list_take(q, &f->waiting);
        file_step(r);
    }
}

void file_wait(struct disk_request *r, uint8_t needs)
{
    struct file_queue *f = file_of(r->queue);
    struct file_request *b = file_beside(r);
    bool is_first = !f->waiting.first;
    b->needs = needs;
    b->has = 0;
    file_list_add(f, &f->waiting, r);
    if (is_first)
        look(r->queue);
}

void file_give_back(struct disk_request *r)
{
    struct file_queue *f = file_of(r->queue);
    struct file_request *b = file_beside(r);
    if (b->has & NEED_SLOT)
        f->free_slots[f->n_free_slots++] = b->slot;
    if (b->has & NEED_HELPER) {
        f->helpers--;
        atomic_fetch_sub(&f->image->n_helped, 1);
    }
    if (b->has & (NEED_SHARE | NEED_ALONE))
        section_leave(f->image->section, r->queue->queue->index, b->has & NEED_ALONE);
    b->has = 0;
    look(r->queue);
}
