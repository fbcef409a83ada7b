// SPDX-License-Identifier: Apache-2.0
#include "tests/keep_rig.h"
#include "tests/check.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

struct keep_rig keep_rig;

static int store(const char *name, int fd)
{
    if (keep_rig.result)
        return keep_rig.result;
    keep_rig.n_stored++;
    assert_true(keep_rig.n < KEEP_MAX);
    memcpy(keep_rig.names[keep_rig.n], name, strlen(name) + 1);
    keep_rig.fds[keep_rig.n] = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    assert_true(keep_rig.fds[keep_rig.n++] >= 0);
    return 0;
}

static int forget(const char *name)
{
    unsigned n = 0;
    if (keep_rig.result)
        return keep_rig.result;
    keep_rig.n_forgotten++;
    for (unsigned i = 0; i < keep_rig.n; i++) {
        if (strcmp(keep_rig.names[i], name) == 0) {
            close(keep_rig.fds[i]);
            continue;
        }
        memmove(keep_rig.names[n], keep_rig.names[i], KEEPER_NAME_BYTES);
        keep_rig.fds[n++] = keep_rig.fds[i];
    }
    keep_rig.n = n;
    return 0;
}

const struct keeper_host keep_rig_host = {.store = store, .forget = forget};

void keep_rig_clear(void)
{
    for (unsigned i = 0; i < keep_rig.n; i++)
        close(keep_rig.fds[i]);
    memset(&keep_rig, 0, sizeof(keep_rig));
}

void keep_rig_hand_over(struct keeper *k)
{
    for (unsigned i = 0; i < keep_rig.n; i++)
        keeper_adopt(k, keep_rig.names[i], fcntl(keep_rig.fds[i], F_DUPFD_CLOEXEC, 3));
}
