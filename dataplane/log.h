// SPDX-License-Identifier: Apache-2.0
// log.h - lines for the operator, on standard error.
//
// Each is one line, cut at LOG_LINE_MAX bytes, without control bytes. When standard error is
// the journal (JOURNAL_STREAM) it starts with its <priority>.
// Callers write whole sentences that name the device: "disk vm0: …".
//
// Threads  [C] only: workers count, control reports.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define LOG_LINE_MAX 1024 // bytes

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

// Lines above @level are dropped. The default is LOG_LEVEL_INFO.
void log_set_level(enum log_level level);

void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

// A rate limit: zero it, then ask before each line of one kind. At most LOG_BURST lines
// in LOG_INTERVAL_MS; the first line after a pause is told how many were swallowed.
#define LOG_BURST       10
#define LOG_INTERVAL_MS 5000

struct log_limit {
    uint64_t window_start_ms;
    uint32_t n_lines;
    uint32_t n_swallowed;
};

// True if a line may be written at @now_ms. *@swallowed is then the number dropped before it.
bool log_allowed(struct log_limit *limit, uint64_t now_ms, uint32_t *swallowed);
