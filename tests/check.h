// SPDX-License-Identifier: Apache-2.0
// check.h - cmocka with the headers it needs, and a check that prints the sentence.
#pragma once

#include "dataplane/error.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

// @result is 0; otherwise the sentence in @e says why not.
#define check_ok(result, e)                                                                        \
    do {                                                                                           \
        if ((result) != 0)                                                                         \
            fail_msg("%s: %s", #result, (e)->text);                                                \
    } while (0)
