// SPDX-License-Identifier: Apache-2.0
// error.h - one sentence that says what went wrong, for the person who asked.
//
// The function that knows the cause writes the sentence, once; callers pass it on.
//
// Threads  [C] only.
// Memory   the caller owns the struct, usually on its stack.
#pragma once

#define ERROR_TEXT_MAX 512

struct error {
    char text[ERROR_TEXT_MAX]; // no newline at the end
};

// Write the sentence and return -@code, so that a function can `return error_set(e, EINVAL, …)`.
int error_set(struct error *e, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#ifdef __clang_analyzer__ // which looks at one file at a time: what error_set() returns is never 0
#define error_set(e, code, ...) (error_set(e, code, __VA_ARGS__), -1)
#endif
