// SPDX-License-Identifier: Apache-2.0
// check.h - cmocka with the headers it needs, and a check that prints the sentence.
#pragma once

#include "dataplane/error.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

// For the few cases that TSan's runtime cannot take: signals raised inside of it.
#ifdef __has_feature
#define UNDER_TSAN __has_feature(thread_sanitizer)
#else
#define UNDER_TSAN 0
#endif

// @result is 0; otherwise the sentence in @e says why not.
#define check_ok(result, e)                                                                        \
    do {                                                                                           \
        if ((result) != 0)                                                                         \
            fail_msg("%s: %s", #result, (e)->text);                                                \
    } while (0)
