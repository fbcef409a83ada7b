// SPDX-License-Identifier: Apache-2.0
#include "dataplane/log.h"

#include "dataplane/base.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct {
    const char *name;
    char priority; // of sd-daemon(3)
} levels[] = {
    [LOG_LEVEL_ERROR] = {"error", '3'},
    [LOG_LEVEL_WARNING] = {"warning", '4'},
    [LOG_LEVEL_INFO] = {"info", '6'},
    [LOG_LEVEL_DEBUG] = {"debug", '7'},
};

static enum log_level max_level = LOG_LEVEL_INFO;

void log_set_level(enum log_level level)
{
    max_level = level;
}

// The variable says which file the journal gave us; standard error may be another by now.
static bool is_journal(void)
{
    const char *text = getenv("JOURNAL_STREAM");
    char own[64];
    struct stat st;
    if (!text || fstat(STDERR_FILENO, &st) < 0)
        return false;
    snprintf(own, sizeof(own), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    return strcmp(text, own) == 0;
}

// Text from outside (a key, a path) must not begin a line of its own or drive a terminal.
static void clean(char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = '?';
    }
}

__attribute__((format(printf, 2, 0))) static void write_line(enum log_level level,
                                                             const char *format, va_list args)
{
    if (level > max_level)
        return;
    char text[LOG_LINE_MAX];
    vsnprintf(text, sizeof(text), format, args);
    clean(text);

    // One write, so that lines of several processes on one file do not mix.
    char line[LOG_LINE_MAX + 64];
    int n = is_journal() ? snprintf(line, sizeof(line), "<%c>%s\n", levels[level].priority, text)
                         : snprintf(line, sizeof(line), "%.32s: %s: %s\n",
                                    program_invocation_short_name, levels[level].name, text);
    ssize_t written = write(STDERR_FILENO, line, MIN((size_t)n, sizeof(line) - 1));
    (void)written; // there is no one left to tell
}

#define DEFINE_LOG(function, level)                                                                \
    void function(const char *format, ...)                                                         \
    {                                                                                              \
        va_list args;                                                                              \
        va_start(args, format);                                                                    \
        write_line(level, format, args);                                                           \
        va_end(args);                                                                              \
    }

DEFINE_LOG(log_error, LOG_LEVEL_ERROR)
DEFINE_LOG(log_warning, LOG_LEVEL_WARNING)
DEFINE_LOG(log_info, LOG_LEVEL_INFO)
DEFINE_LOG(log_debug, LOG_LEVEL_DEBUG)

bool log_allowed(struct log_limit *limit, uint64_t now_ms, uint32_t *swallowed)
{
    *swallowed = 0;
    if (now_ms - limit->window_start_ms >= LOG_INTERVAL_MS) {
        limit->window_start_ms = now_ms;
        limit->n_lines = 0;
    }
    if (limit->n_lines >= LOG_BURST) {
        limit->n_swallowed++;
        return false;
    }
    limit->n_lines++;
    *swallowed = limit->n_swallowed;
    limit->n_swallowed = 0;
    return true;
}
