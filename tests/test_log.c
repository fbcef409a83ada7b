// SPDX-License-Identifier: Apache-2.0
// The log: what reaches standard error.
#include "dataplane/log.h"

#include "dataplane/base.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define PREFIX "test_log: "

static int stderr_pipe[2], stderr_saved;

static int take_stderr(void **state)
{
    (void)state;
    unsetenv("JOURNAL_STREAM");
    program_invocation_short_name = (char *)(uintptr_t) "test_log";
    stderr_saved = dup(STDERR_FILENO);
    if (pipe(stderr_pipe) < 0)
        return -1;
    return dup2(stderr_pipe[1], STDERR_FILENO) < 0 ? -1 : 0;
}

static int give_stderr_back(void **state)
{
    (void)state;
    dup2(stderr_saved, STDERR_FILENO);
    close(stderr_saved);
    close(stderr_pipe[0]);
    close(stderr_pipe[1]);
    log_set_level(LOG_LEVEL_INFO);
    return 0;
}

// All that was written since the last call. A mark is written first, so that this never waits.
static const char *written(void)
{
    static char text[4 * LOG_LINE_MAX];
    if (write(stderr_pipe[1], "|", 1) != 1)
        return NULL;
    ssize_t n = read(stderr_pipe[0], text, sizeof(text) - 1);
    text[n - 1] = '\0';
    return text;
}

static void lines_name_program_and_level(void **state)
{
    (void)state;
    log_error("disk %s: %d", "vm0", 5);
    assert_string_equal(written(), PREFIX "error: disk vm0: 5\n");
    log_warning("w");
    assert_string_equal(written(), PREFIX "warning: w\n");
    log_info("i");
    assert_string_equal(written(), PREFIX "info: i\n");
    log_debug("d");
    assert_string_equal(written(), "");
}

static void levels_drop_what_is_above(void **state)
{
    (void)state;
    static const char *const expected[] = {
        [LOG_LEVEL_ERROR] = PREFIX "error: e\n",
        [LOG_LEVEL_WARNING] = PREFIX "error: e\n" PREFIX "warning: w\n",
        [LOG_LEVEL_INFO] = PREFIX "error: e\n" PREFIX "warning: w\n" PREFIX "info: i\n",
        [LOG_LEVEL_DEBUG] =
            PREFIX "error: e\n" PREFIX "warning: w\n" PREFIX "info: i\n" PREFIX "debug: d\n",
    };
    for (unsigned level = 0; level < ARRAY_LEN(expected); level++) {
        log_set_level((enum log_level)level);
        log_error("e");
        log_warning("w");
        log_info("i");
        log_debug("d");
        assert_string_equal(written(), expected[level]);
    }
}

static void journal_gets_priorities(void **state)
{
    (void)state;
    struct stat st;
    char stream[64];
    assert_int_equal(fstat(STDERR_FILENO, &st), 0);
    snprintf(stream, sizeof(stream), "%lu:%lu", st.st_dev, st.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    log_set_level(LOG_LEVEL_DEBUG);
    log_error("e");
    log_warning("w");
    log_info("i");
    log_debug("d");
    assert_string_equal(written(), "<3>e\n<4>w\n<6>i\n<7>d\n");

    // Inherited, and standard error is another file.
    char other_dev[64], other_ino[64];
    snprintf(other_dev, sizeof(other_dev), "%lu:%lu", st.st_dev + 1, st.st_ino);
    snprintf(other_ino, sizeof(other_ino), "%lu:%lu", st.st_dev, st.st_ino + 1);
    const char *const foreign[] = {other_dev, other_ino, "", "x", "5"};
    for (size_t i = 0; i < ARRAY_LEN(foreign); i++) {
        setenv("JOURNAL_STREAM", foreign[i], 1);
        log_error("e");
        assert_string_equal(written(), PREFIX "error: e\n");
    }
    unsetenv("JOURNAL_STREAM");
}

static void one_call_is_one_line(void **state)
{
    (void)state;
    log_error("%s", "a\nb\033[2J\177\xc3\xa4");
    assert_string_equal(written(), PREFIX "error: a?b?[2J?\xc3\xa4\n");

    char text[2 * LOG_LINE_MAX];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    log_error("%s", text);
    const char *line = written();
    assert_int_equal(strlen(line), strlen(PREFIX "error: ") + LOG_LINE_MAX);
    assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
}

static void repeated_lines_are_limited(void **state)
{
    (void)state;
    static const struct {
        uint64_t now_ms;
        unsigned n_asked, n_allowed;
        uint32_t first_swallowed; // what the first line of the step is told
    } steps[] = {
        {100000, LOG_BURST, LOG_BURST, 0},
        {100000 + LOG_INTERVAL_MS - 1, 7, 0, 0},
        {100000 + LOG_INTERVAL_MS, 1, 1, 7},
        {100000 + LOG_INTERVAL_MS, LOG_BURST + 2, LOG_BURST - 1, 0},
        {900000, LOG_BURST + 1, LOG_BURST, 3},
        {900000 + 3 * LOG_INTERVAL_MS, 1, 1, 1},
    };
    struct log_limit limit = {0};
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        unsigned n_allowed = 0;
        for (unsigned j = 0; j < steps[i].n_asked; j++) {
            uint32_t swallowed = 99;
            n_allowed += log_allowed(&limit, steps[i].now_ms, &swallowed);
            assert_int_equal(swallowed, j == 0 ? steps[i].first_swallowed : 0);
        }
        assert_int_equal(n_allowed, steps[i].n_allowed);
    }
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, take_stderr, give_stderr_back)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(lines_name_program_and_level), TEST(levels_drop_what_is_above),
        TEST(journal_gets_priorities),      TEST(one_call_is_one_line),
        TEST(repeated_lines_are_limited),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
