// SPDX-License-Identifier: Apache-2.0
#include "tests/guest/write_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

// The format: a super block, then for each entry one block with its head (and a mark's text),
// followed by the data. Little-endian; the size of a block stands in the super block.
#define SUPER_MAGIC 0x6a736677736872ULL

struct super {
    uint64_t magic, version, n_entries;
    uint32_t block_bytes;
};

struct head {
    uint64_t block, n_blocks, flags, text_bytes;
};

struct write_log {
    const uint8_t *map;
    uint64_t bytes, at, n_left;
    uint32_t block_bytes;
};

static int open_map(struct write_log *l, const char *path, struct error *e)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        int code = errno;
        if (fd >= 0)
            close(fd);
        return error_set(e, code, "%s: %s", path, strerror(code));
    }
    l->bytes = (uint64_t)st.st_size;
    void *p = mmap(NULL, l->bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    int code = errno;
    close(fd);
    if (p == MAP_FAILED)
        return error_set(e, code, "%s: cannot map it: %s", path, strerror(code));
    l->map = p;
    return 0;
}

static int read_super(struct write_log *l, const char *path, struct error *e)
{
    struct super s = {0};
    if (l->bytes >= sizeof s)
        memcpy(&s, l->map, sizeof s);
    if (s.magic != SUPER_MAGIC || s.version != 1 || s.block_bytes < 512 || s.block_bytes > 4096)
        return error_set(e, EINVAL, "%s: not a log of dm-log-writes", path);
    l->block_bytes = s.block_bytes;
    l->n_left = s.n_entries;
    l->at = s.block_bytes;
    return 0;
}

int write_log_open(struct write_log **out, const char *path, struct error *e)
{
    struct write_log *l = calloc(1, sizeof *l);
    if (!l)
        return error_set(e, ENOMEM, "no memory for a log");
    int rc = open_map(l, path, e);
    if (rc == 0)
        rc = read_super(l, path, e);
    if (rc < 0)
        write_log_close(l);
    else
        *out = l;
    return rc;
}

void write_log_close(struct write_log *l)
{
    if (l && l->map)
        munmap((void *)l->map, l->bytes);
    free(l);
}

int write_log_next(struct write_log *l, struct write_log_entry *entry, struct error *e)
{
    struct head h;
    if (!l->n_left)
        return 0;
    if (l->at + l->block_bytes > l->bytes)
        return error_set(e, EINVAL, "the log ends within an entry");
    memcpy(&h, l->map + l->at, sizeof h);
    *entry = (struct write_log_entry){h.flags, h.block * l->block_bytes,
                                      h.n_blocks * l->block_bytes, NULL, ""};
    if (h.flags & WRITE_LOG_MARK)
        memcpy(entry->mark, l->map + l->at + sizeof h, MIN(h.text_bytes, sizeof entry->mark - 1));
    l->at += l->block_bytes;
    l->n_left--;
    if (h.flags & WRITE_LOG_DISCARD)
        return 1;
    if (entry->bytes > l->bytes - l->at)
        return error_set(e, EINVAL, "the log ends within an entry's data");
    entry->data = l->map + l->at;
    l->at += entry->bytes;
    return 1;
}
