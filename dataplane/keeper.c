// SPDX-License-Identifier: Apache-2.0
#include "dataplane/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <unistd.h>

// A file that is kept, or is going to be.
struct kept {
    TAILQ_ENTRY(kept) link;
    struct keeper_id id;
    unsigned n_users;
    int fd; // adopted, else -1
};

// A message that waits to be sent.
struct order {
    STAILQ_ENTRY(order) link;
    char name[KEEPER_NAME_BYTES];
    int fd; // to store; -1: forget
};

struct keeper {
    const struct keeper_host *host;
    TAILQ_HEAD(, kept) all;
    STAILQ_HEAD(, order) orders;
    bool has_failed; // an order could not be made or was refused: not all is kept
};

// ---- names -------------------------------------------------------------------------------

#define EVENTFD_ID "eventfd-id:"

// All eventfds are of one inode; procfs tells their numbers.
static bool read_eventfd_id(int fd, uint64_t *id)
{
    char path[40], line[128];
    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
    FILE *f = fopen(path, "re");
    bool is_found = false;
    while (f && !is_found && fgets(line, sizeof(line), f)) {
        is_found = strncmp(line, EVENTFD_ID, strlen(EVENTFD_ID)) == 0;
        if (is_found)
            *id = strtoull(line + strlen(EVENTFD_ID), NULL, 10);
    }
    if (f)
        fclose(f);
    return is_found;
}

bool keeper_identify(int fd, struct keeper_id *id)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return false;
    *id = (struct keeper_id){st.st_dev, st.st_ino};
    if ((st.st_mode & S_IFMT) != 0)
        return true;
    return read_eventfd_id(fd, &id->inode); // a file of no type: an anonymous inode's
}

static void name_of(const struct keeper_id *id, char name[KEEPER_NAME_BYTES])
{
    snprintf(name, KEEPER_NAME_BYTES, "%" PRIx64 "-%" PRIx64, id->device, id->inode);
}

// ---- orders ------------------------------------------------------------------------------

static void order(struct keeper *k, const struct keeper_id *id, int fd)
{
    struct order *o = calloc(1, sizeof(*o));
    int copy = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (!o || (fd >= 0 && copy < 0)) {
        k->has_failed = true;
        free(o);
        return;
    }
    name_of(id, o->name);
    o->fd = copy;
    STAILQ_INSERT_TAIL(&k->orders, o, link);
}

static void drop_first(struct keeper *k)
{
    struct order *o = STAILQ_FIRST(&k->orders);
    STAILQ_REMOVE_HEAD(&k->orders, link);
    if (o->fd >= 0)
        close(o->fd);
    free(o);
}

bool keeper_settle(struct keeper *k)
{
    const struct order *o;
    while ((o = STAILQ_FIRST(&k->orders))) {
        int err = o->fd >= 0 ? k->host->store(o->name, o->fd) : k->host->forget(o->name);
        if (err == -EAGAIN)
            return false;
        k->has_failed |= err < 0;
        drop_first(k);
    }
    return !k->has_failed;
}

// ---- files -------------------------------------------------------------------------------

static struct kept *find(const struct keeper *k, const struct keeper_id *id)
{
    struct kept *f;
    TAILQ_FOREACH(f, &k->all, link)
    {
        if (keeper_is_same(&f->id, id))
            return f;
    }
    return NULL;
}

static struct kept *add(struct keeper *k, const struct keeper_id *id)
{
    struct kept *f = calloc(1, sizeof(*f));
    if (!f)
        return NULL;
    f->id = *id;
    f->fd = -1;
    TAILQ_INSERT_TAIL(&k->all, f, link);
    return f;
}

static void discard(struct keeper *k, struct kept *f)
{
    TAILQ_REMOVE(&k->all, f, link);
    if (f->fd >= 0)
        close(f->fd);
    free(f);
}

bool keeper_hold(struct keeper *k, const struct keeper_id *id, int fd)
{
    struct kept *f = find(k, id);
    if (!f && fd >= 0) {
        f = add(k, id);
        if (f)
            order(k, id, fd);
    }
    if (f)
        f->n_users++;
    return f;
}

void keeper_drop(struct keeper *k, const struct keeper_id *id)
{
    struct kept *f = find(k, id);
    if (!f || --f->n_users > 0)
        return;
    order(k, id, -1);
    discard(k, f);
}

bool keeper_is_held(const struct keeper *k, const struct keeper_id *id)
{
    return find(k, id);
}

// ---- the life before ---------------------------------------------------------------------

void keeper_adopt(struct keeper *k, const char *name, int fd)
{
    struct keeper_id id;
    char own[KEEPER_NAME_BYTES];
    struct kept *f = NULL;
    if (keeper_identify(fd, &id)) {
        name_of(&id, own);
        if (strcmp(own, name) == 0 && !find(k, &id))
            f = add(k, &id);
    }
    if (f) {
        f->fd = fd;
        return;
    }
    close(fd); // not one of ours
    k->host->forget(name);
}

int keeper_find(const struct keeper *k, const struct keeper_id *id)
{
    const struct kept *f = find(k, id);
    return f && f->fd >= 0 ? fcntl(f->fd, F_DUPFD_CLOEXEC, 3) : -1;
}

void keeper_forget_rest(struct keeper *k)
{
    struct kept *next;
    for (struct kept *f = TAILQ_FIRST(&k->all); f; f = next) {
        next = TAILQ_NEXT(f, link);
        if (f->fd >= 0)
            close(f->fd);
        f->fd = -1;
        if (f->n_users == 0) {
            order(k, &f->id, -1);
            discard(k, f);
        }
    }
    keeper_settle(k);
}

// ---- open and close ----------------------------------------------------------------------

struct keeper *keeper_open(const struct keeper_host *host)
{
    struct keeper *k = calloc(1, sizeof(*k));
    if (!k)
        return NULL;
    k->host = host;
    TAILQ_INIT(&k->all);
    STAILQ_INIT(&k->orders);
    return k;
}

void keeper_close(struct keeper *k)
{
    if (!k)
        return;
    keeper_settle(k);
    while (!STAILQ_EMPTY(&k->orders))
        drop_first(k);
    struct kept *next;
    for (struct kept *f = TAILQ_FIRST(&k->all); f; f = next) {
        next = TAILQ_NEXT(f, link);
        discard(k, f);
    }
    free(k);
}
