// SPDX-License-Identifier: Apache-2.0
#include "pollers/control.h"

#include <errno.h>

static int find_worker(const struct control *c, unsigned index, struct pool_worker **out,
                       struct error *e)
{
    const struct pool *pool = control_pool(c);
    unsigned n = pool_n_workers(pool);
    if (index < n) {
        *out = pool_worker_at(pool, index);
        return 0;
    }
    if (n == 1)
        return error_set(e, EINVAL, "worker %u: there is only worker 0", index);
    return error_set(e, EINVAL, "worker %u: the workers are 0 to %u", index, n - 1);
}

static int find_device(const struct control *c, const char *name, struct endpoint **out,
                       struct error *e)
{
    *out = control_find(c, name);
    if (!*out)
        return error_set(e, ENOENT, "%s: there is no such device", name);
    if ((*out)->is_leaving)
        return error_set(e, EBUSY, "%s %s: it is being removed", (*out)->device->type->line.type,
                         name);
    return 0;
}

static int check_queue(const struct endpoint *p, unsigned index, struct error *e)
{
    const struct device *d = p->device;
    const char *type = d->type->line.type;
    if (index >= d->n_queues)
        return error_set(e, EINVAL, "%s %s: queue %u: it has %u, the first is 0", type, d->name,
                         index, d->n_queues);
    if (!p->leases[index].at)
        return error_set(e, ESRCH, "%s %s: queue %u is not running", type, d->name, index);
    if (p->leases[index].is_ending)
        return error_set(e, EBUSY, "%s %s: queue %u is stopping, and drains where it is", type,
                         d->name, index);
    return 0;
}

// Those that drain do so where they are; all start there from now on.
static unsigned move_all(struct endpoint *p, struct pool_worker *to)
{
    unsigned n = 0;
    pool_change_home(&p->home, to);
    for (unsigned i = 0; i < p->device->n_queues; i++) {
        struct lease *lease = &p->leases[i];
        n += lease->at && !lease->is_ending;
        pool_move(lease, to);
    }
    return n;
}

int control_move(struct control *c, const char *name, int queue, unsigned worker, unsigned *n_moved,
                 struct error *e)
{
    struct endpoint *p;
    struct pool_worker *to = NULL;
    int err = find_device(c, name, &p, e);
    if (!err)
        err = find_worker(c, worker, &to, e);
    if (!err && queue >= 0)
        err = check_queue(p, (unsigned)queue, e);
    if (err)
        return err;
    if (queue < 0) {
        *n_moved = move_all(p, to);
    } else {
        pool_move(&p->leases[queue], to);
        *n_moved = 1;
    }
    return 0;
}
