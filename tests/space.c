// SPDX-License-Identifier: Apache-2.0
#include "tests/space.h"

#include "tests/check.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int space_open(void)
{
    if (unshare(CLONE_NEWNET)) {
        print_message("skipped: no network namespace: %s (root can make one)\n", strerror(errno));
        skip();
    }
    int space = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    assert_true(space >= 0);
    return space;
}

void space_enter(int space)
{
    assert_int_equal(setns(space, CLONE_NEWNET), 0);
}

void space_run(const char *format, ...)
{
    char command[512];
    va_list args;
    va_start(args, format);
    vsnprintf(command, sizeof(command), format, args);
    va_end(args);
    if (system(command)) // NOLINT(cert-env33-c): a test's own words
        fail_msg("failed: %s", command);
}
