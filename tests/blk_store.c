// SPDX-License-Identifier: Apache-2.0
#include "tests/blk_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct store stores[STORES] = {
    [STORE_NULL] = {"null", "null=1M", false, false},
    [STORE_RAM] = {"ram", "ram=1M", true, false},
    [STORE_FILE] = {"file", "file=", true, false},
    [STORE_READ_ONLY] = {"file, read-only", "read-only file=", true, true},
};

static char image[] = "/tmp/test_blk.XXXXXX";
uint8_t store_contents[SECTORS * 512];

int store_make(void **state)
{
    (void)state;
    disk_pattern(store_contents, sizeof(store_contents), 0, 1);
    int fd = mkstemp(image);
    bool ok = fd >= 0 &&
              write(fd, store_contents, sizeof(store_contents)) == (ssize_t)sizeof(store_contents);
    close(fd);
    return ok ? 0 : -1;
}

int store_remove(void **state)
{
    (void)state;
    return unlink(image);
}

void store_open(struct disk_rig *d, const struct store *s, uint64_t features)
{
    char line[256];
    bool is_file = strstr(s->keys, "file=") != NULL;
    snprintf(line, sizeof(line), "disk d socket=/unused serial=serial %s%s", s->keys,
             is_file ? image : "");
    disk_rig_open(d, line, features);
    if (s->has_data && !is_file)
        for (uint64_t sector = 0; sector < SECTORS; sector += 512)
            assert_int_equal(disk_rig_write(d, sector, store_contents + sector * 512, 512 * 512),
                             OK);
}
