// SPDX-License-Identifier: Apache-2.0
#include "dataplane/error.h"

#include <stdarg.h>
#include <stdio.h>

int(error_set)(struct error *e, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    // NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): va_start() is above
    vsnprintf(e->text, sizeof(e->text), format, args);
    va_end(args);
    return -code;
}
