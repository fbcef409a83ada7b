// SPDX-License-Identifier: Apache-2.0
#include "tools/table.h"

#include <assert.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

// A table that does not fit into memory is no reason to go on.
static void *must(void *p)
{
    if (!p) {
        fprintf(stderr, "sluicectl: out of memory\n");
        exit(EXIT_FAILURE);
    }
    return p;
}

static void add_cell(struct table *t, char *cell)
{
    t->cells = must(realloc(t->cells, (t->n_cells + 1) * sizeof(t->cells[0])));
    t->cells[t->n_cells++] = cell;
}

void table_open(struct table *t, const char *titles)
{
    *t = (struct table){0};
    char *copy = must(strdup(titles)), *save = NULL;
    for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
        add_cell(t, must(strdup(word)));
    t->n_columns = t->n_cells;
    assert(t->n_columns > 0 && t->n_columns <= TABLE_COLUMNS_MAX);
    free(copy);
}

void table_add(struct table *t, const char *format, ...)
{
    char *cell;
    va_list args;
    va_start(args, format);
    int n = vasprintf(&cell, format, args);
    va_end(args);
    add_cell(t, must(n < 0 ? NULL : cell));
}

static bool is_numeric(const char *cell)
{
    bool is_number = cell[0] && cell[strspn(cell, "0123456789.")] == '\0';
    return is_number || strcmp(cell, "-") == 0;
}

static void measure(const struct table *t, unsigned column, int *width, bool *is_right)
{
    *width = 0;
    *is_right = t->n_cells > t->n_columns;
    for (unsigned i = column; i < t->n_cells; i += t->n_columns) {
        int length = (int)strlen(t->cells[i]);
        if (length > *width)
            *width = length;
        if (i >= t->n_columns && !is_numeric(t->cells[i]))
            *is_right = false;
    }
}

void table_print(struct table *t, FILE *stream)
{
    int width[TABLE_COLUMNS_MAX];
    bool is_right[TABLE_COLUMNS_MAX];
    assert(t->n_columns > 0);
    for (unsigned i = 0; i < t->n_columns; i++)
        measure(t, i, &width[i], &is_right[i]);
    for (unsigned i = 0; i < t->n_cells; i++) {
        unsigned column = i % t->n_columns;
        bool is_last = column == t->n_columns - 1;
        fprintf(stream, "%*s%s",
                is_right[column] ? width[column]
                : is_last        ? 0
                                 : -width[column],
                t->cells[i], is_last ? "\n" : "  ");
        free(t->cells[i]);
    }
    free(t->cells);
}
