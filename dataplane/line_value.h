// SPDX-License-Identifier: Apache-2.0
// line_value.h - one value of a line: its syntax, and the words that describe it.
//
// Threads  [C] only.
// Memory   nothing is kept.
// Trust    the text is an operator's: every number is checked for overflow and range.
#pragma once

#include "dataplane/line.h"

#define LINE_EXPECT_MAX 256 // bytes of a description, with the NUL

// [C] Whether @text is a value of @key; *@number is then what line_value.number says.
bool line_value_parse(const struct line_key *key, const char *text, uint64_t *number);

// [C] What values of @key look like: "a number from 1 to 256", "one of server, client".
void line_value_expect(const struct line_key *key, char out[LINE_EXPECT_MAX]);
