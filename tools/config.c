// SPDX-License-Identifier: Apache-2.0
#include "tools/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int config_add(struct config *c, const char *text, const char *origin)
{
    struct config_line *grown = realloc(c->lines, (c->n_lines + 1) * sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    c->lines = grown;
    struct config_line *l = &grown[c->n_lines];
    l->text = strdup(text);
    l->origin = strdup(origin);
    if (!l->text || !l->origin) {
        free(l->text);
        free(l->origin);
        return -ENOMEM;
    }
    c->n_lines++;
    return 0;
}

static int read_line(struct config *c, const char *path, unsigned number, char *text, size_t bytes,
                     struct error *e)
{
    char origin[ERROR_TEXT_MAX];
    snprintf(origin, sizeof(origin), "%s:%u", path, number);
    if (strlen(text) != bytes)
        return error_set(e, EINVAL, "%s: the line holds a zero byte", origin);
    text[strcspn(text, "\n")] = '\0';
    if (line_is_blank(text))
        return 0;
    return config_add(c, text, origin) ? error_set(e, ENOMEM, "%s: out of memory", origin) : 0;
}

int config_read(struct config *c, const char *path, struct error *e)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return error_set(e, errno, "%s: %s", path, strerror(errno));
    char *text = NULL;
    size_t space = 0;
    ssize_t bytes;
    int err = 0;
    for (unsigned number = 1; !err && (bytes = getline(&text, &space, f)) >= 0; number++)
        err = read_line(c, path, number, text, (size_t)bytes, e);
    if (!err && ferror(f))
        err = error_set(e, EIO, "%s: cannot be read", path);
    free(text);
    fclose(f);
    return err;
}

static bool has_same_socket(const struct line *l, const struct line *other)
{
    const char *path = device_socket(l), *its = device_socket(other);
    return path && its && strcmp(path, its) == 0;
}

// Names and sockets that an earlier line has already taken.
static bool is_taken(const struct config *c, struct line *const parsed[], unsigned i)
{
    const struct line *l = parsed[i];
    for (unsigned k = 0; k < i; k++) {
        const struct line *other = parsed[k];
        const char *clash = NULL;
        if (!other)
            continue;
        if (strcmp(l->name, other->name) == 0)
            clash = "name";
        else if (has_same_socket(l, other))
            clash = "socket";
        if (clash) {
            fprintf(stderr, "%s: %s %s: %s has the same %s\n", c->lines[i].origin, l->schema->type,
                    l->name, c->lines[k].origin, clash);
            return true;
        }
    }
    return false;
}

static unsigned check_lines(const struct config *c, struct line *parsed[],
                            const struct line_schema *const schemas[], unsigned n)
{
    unsigned n_bad = 0;
    for (unsigned i = 0; i < c->n_lines; i++) {
        struct error e;
        if (line_parse(&parsed[i], c->lines[i].text, schemas, n, &e) < 0) {
            fprintf(stderr, "%s: %s\n", c->lines[i].origin, e.text);
            n_bad++;
        } else if (is_taken(c, parsed, i)) {
            n_bad++;
        }
    }
    return n_bad;
}

unsigned config_check(const struct config *c, const struct device_type *const types[], unsigned n)
{
    unsigned n_bad = 1;
    struct line **parsed = calloc(c->n_lines + 1, sizeof(parsed[0]));
    const struct line_schema **schemas = calloc(n, sizeof(schemas[0]));
    if (parsed && schemas) {
        for (unsigned i = 0; i < n; i++)
            schemas[i] = &types[i]->line;
        n_bad = check_lines(c, parsed, schemas, n);
    } else {
        fprintf(stderr, "sluiced: out of memory\n");
    }
    for (unsigned i = 0; parsed && i < c->n_lines; i++) {
        if (parsed[i])
            line_free(parsed[i]);
    }
    free(schemas);
    free(parsed);
    return n_bad;
}

void config_close(struct config *c)
{
    for (unsigned i = 0; i < c->n_lines; i++) {
        free(c->lines[i].text);
        free(c->lines[i].origin);
    }
    free(c->lines);
    *c = (struct config){0};
}
