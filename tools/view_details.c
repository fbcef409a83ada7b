// SPDX-License-Identifier: Apache-2.0
// What device types say of their devices, whatever it is: values one a row, lists as tables.
#include "tools/table.h"
#include "tools/view.h"

#include <ctype.h>
#include <string.h>

#define TITLES_MAX 256

static void add_value(struct table *t, const json_t *value)
{
    if (json_is_string(value) && *json_string_value(value))
        table_add(t, "%s", json_string_value(value));
    else if (json_is_integer(value))
        table_add(t, "%lld", (long long)json_integer_value(value));
    else
        table_add(t, "-");
}

// The names of the members of a row, as titles.
static void titles_of(json_t *row, char titles[TITLES_MAX])
{
    const char *name;
    json_t *value;
    size_t n = 0;
    json_object_foreach(row, name, value)
    {
        for (const char *c = name; *c && n + 2 < TITLES_MAX; c++)
            titles[n++] = *c == '_' ? '-' : (char)toupper((unsigned char)*c);
        titles[n++] = ' ';
    }
    titles[n ? n - 1 : 0] = '\0';
}

static void print_list(const json_t *list)
{
    struct table t;
    char titles[TITLES_MAX];
    size_t i;
    const char *name;
    json_t *row, *value;
    if (json_array_size(list) == 0)
        return;
    titles_of(json_array_get(list, 0), titles);
    printf("\n");
    table_open(&t, titles);
    json_array_foreach(list, i, row)
    {
        json_object_foreach(row, name, value) add_value(&t, value);
    }
    table_print(&t, stdout);
}

void view_details(const json_t *details)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)details, name, value)
    {
        if (json_is_integer(value))
            printf("%-12s %lld\n", name, (long long)json_integer_value(value));
        else if (json_is_string(value))
            printf("%-12s %s\n", name, json_string_value(value));
    }
    json_object_foreach((json_t *)details, name, value)
    {
        if (json_is_array(value))
            print_list(value);
    }
}
