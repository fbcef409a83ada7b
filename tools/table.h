// SPDX-License-Identifier: Apache-2.0
// table.h - rows of text in columns that are as wide as they must be.
//
// Threads  one.
// Memory   the table copies cells; table_print() frees them.
#pragma once

#include <stdio.h>

#define TABLE_COLUMNS_MAX 16

struct table {
    unsigned n_columns;
    unsigned n_cells;
    char **cells; // row by row, the titles first
};

// Begin a table; @titles has blanks between them. A column of numbers is aligned right.
void table_open(struct table *t, const char *titles);

// Add the next cell of the row, or of the next row when this one is full.
void table_add(struct table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Print and free it.
void table_print(struct table *t, FILE *stream);
