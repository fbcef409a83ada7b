// SPDX-License-Identifier: Apache-2.0
//
// A line is cut into words at blanks. "…" and '…' keep blanks inside a word, anywhere in it; a
// quote of one kind holds the other kind. There are no escapes: what needs both kinds of quotes
// cannot be said, and no path is ever unescaped twice.
#include "dataplane/line.h"

#include "dataplane/line_value.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN_MAX 128 // bytes of the operator's own words in a sentence

static const char blanks[] = " \t\r\n";

// ---- sentences ---------------------------------------------------------------------------

// Begin with as much of type and name as is known.
__attribute__((format(printf, 3, 4))) static int refuse(const struct line *l, struct error *e,
                                                        const char *format, ...)
{
    char text[ERROR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (!l->schema)
        return error_set(e, EINVAL, "%s", text);
    if (!l->name)
        return error_set(e, EINVAL, "%s: %s", l->schema->type, text);
    return error_set(e, EINVAL, "%s %s: %s", l->schema->type, l->name, text);
}

struct list {
    size_t n_bytes;
    char text[ERROR_TEXT_MAX];
};

// Add "socket=" (or "read-only"); a list that is full stays as it is.
static void list_add(struct list *list, const char *name, bool has_value)
{
    size_t space = sizeof(list->text) - list->n_bytes;
    int n = snprintf(list->text + list->n_bytes, space, "%s%s%s", list->n_bytes ? ", " : "", name,
                     has_value ? "=" : "");
    if ((size_t)n < space)
        list->n_bytes += (size_t)n;
    else
        list->text[list->n_bytes] = '\0';
}

// ---- schemas -----------------------------------------------------------------------------

// Key number @i of a schema, its own keys first, then the common ones. NULL past the end.
static const struct line_key *key_at(const struct line_schema *s, unsigned i)
{
    const struct line_key *tables[] = {s->keys, s->common};
    for (size_t t = 0; t < ARRAY_LEN(tables); t++) {
        for (const struct line_key *k = tables[t]; k && k->name; k++) {
            if (i-- == 0)
                return k;
        }
    }
    return NULL;
}

static const struct line_key *key_find(const struct line_schema *s, const char *name)
{
    const struct line_key *key;
    for (unsigned i = 0; (key = key_at(s, i)); i++) {
        if (strcmp(key->name, name) == 0)
            return key;
    }
    return NULL;
}

// How the value is shown: a choice needs no word of its own.
static const char *placeholder(const struct line_key *key)
{
    return key->value ? key->value : key->kind == LINE_CHOICE ? key->choices : "";
}

static const struct line_value *value_of(const struct line *l, const struct line_key *key)
{
    for (unsigned i = 0; i < l->n_values; i++) {
        if (l->values[i].key == key)
            return &l->values[i];
    }
    return NULL;
}

// ---- words -------------------------------------------------------------------------------

// Cut the next word out of *@cursor, in place and without its quotes; NULL in *@word at the end.
static int next_word(const struct line *l, char **cursor, char **word, struct error *e)
{
    char *in = *cursor + strspn(*cursor, blanks), *out = in, quote = '\0';
    *word = *in ? in : NULL;
    for (; *in && (quote || !strchr(blanks, *in)); in++) {
        bool is_quote = quote ? *in == quote : *in == '"' || *in == '\'';
        if (is_quote)
            quote = quote ? '\0' : *in;
        else if ((unsigned char)*in < ' ' || *in == 0x7f)
            return refuse(l, e, "a control byte, 0x%02x", (unsigned char)*in);
        else
            *out++ = *in;
    }
    *cursor = *in ? in + 1 : in;
    *out = '\0';
    if (quote)
        return refuse(l, e, "a quote %c is not closed: %.*s", quote, SHOWN_MAX, *word);
    return 0;
}

static int parse_type(struct line *l, const char *word, const struct line_schema *const schemas[],
                      unsigned n, struct error *e)
{
    struct list list = {0};
    for (unsigned i = 0; i < n; i++) {
        if (word && strcmp(word, schemas[i]->type) == 0) {
            l->schema = schemas[i];
            return 0;
        }
        list_add(&list, schemas[i]->type, false);
    }
    if (!word)
        return refuse(l, e, "an empty line; it begins with one of %s", list.text);
    return refuse(l, e, "unknown type %.*s; one of %s", SHOWN_MAX, word, list.text);
}

static int parse_name(struct line *l, const char *word, struct error *e)
{
    static const char accepted[] = "letters, digits, . _ -";
    assert(l->schema && "the type comes first");
    if (!word)
        return refuse(l, e, "a name is needed: %s NAME; %s", l->schema->type, accepted);
    size_t n = strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    if (n == 0 || word[n] != '\0')
        return refuse(l, e, "bad name \"%.*s\": the name comes second and has only %s", SHOWN_MAX,
                      word, accepted);
    if (n > LINE_NAME_MAX)
        return refuse(l, e, "bad name \"%.*s\": at most %d bytes, not %zu", SHOWN_MAX, word,
                      LINE_NAME_MAX, n);
    l->name = word;
    return 0;
}

static int refuse_key(const struct line *l, const char *name, struct error *e)
{
    struct list list = {0};
    const struct line_key *key;
    for (unsigned i = 0; (key = key_at(l->schema, i)); i++)
        list_add(&list, key->name, key->kind != LINE_FLAG);
    return refuse(l, e, "unknown key %.*s; %s%s", SHOWN_MAX, name,
                  list.n_bytes ? "one of " : "it takes none", list.text);
}

static int parse_key(struct line *l, char *word, struct error *e)
{
    char *equals = strchr(word, '=');
    if (equals)
        *equals = '\0';
    const struct line_key *key = key_find(l->schema, word);
    if (!key)
        return refuse_key(l, word, e);
    if (value_of(l, key))
        return refuse(l, e, "%s is given twice", key->name);

    assert(l->n_values < LINE_VALUES_MAX && "a schema has more keys than a line holds");
    struct line_value *v = &l->values[l->n_values];
    char expected[LINE_EXPECT_MAX];
    line_value_expect(key, expected);
    if (!equals != (key->kind == LINE_FLAG))
        return refuse(l, e, "%s%s%.*s: %s", key->name, equals ? "=" : "", SHOWN_MAX,
                      equals ? equals + 1 : "", expected);
    v->key = key;
    v->text = equals ? equals + 1 : "";
    if (!line_value_parse(key, v->text, &v->number))
        return refuse(l, e, "%s=%.*s: %s", key->name, SHOWN_MAX, v->text, expected);
    l->n_values++;
    return 0;
}

// ---- what a line must have ---------------------------------------------------------------

static int check_group(const struct line *l, uint8_t group, struct error *e)
{
    struct list list = {0};
    unsigned n_given = 0;
    const struct line_key *key;
    for (unsigned i = 0; (key = key_at(l->schema, i)); i++) {
        if (key->one_of != group)
            continue;
        list_add(&list, key->name, key->kind != LINE_FLAG);
        n_given += value_of(l, key) != NULL;
    }
    if (n_given == 0)
        return refuse(l, e, "one of %s is needed", list.text);
    if (n_given > 1)
        return refuse(l, e, "only one of %s can be given", list.text);
    return 0;
}

static int check_complete(const struct line *l, struct error *e)
{
    const struct line_key *key;
    for (unsigned i = 0; (key = key_at(l->schema, i)); i++) {
        if (key->required && !value_of(l, key)) {
            char expected[LINE_EXPECT_MAX];
            line_value_expect(key, expected);
            return refuse(l, e, "%s=%s is needed: %s", key->name, placeholder(key), expected);
        }
        int err = key->one_of ? check_group(l, key->one_of, e) : 0;
        if (err)
            return err;
    }
    return 0;
}

static int parse_words(struct line *l, const struct line_schema *const schemas[], unsigned n,
                       struct error *e)
{
    char *cursor = l->words, *word;
    int err = next_word(l, &cursor, &word, e);
    if (!err)
        err = parse_type(l, word, schemas, n, e);
    if (!err)
        err = next_word(l, &cursor, &word, e);
    if (!err)
        err = parse_name(l, word, e);
    while (!err) {
        err = next_word(l, &cursor, &word, e);
        if (!err && !word)
            return check_complete(l, e);
        if (!err)
            err = parse_key(l, word, e);
    }
    return err;
}

// ---- outside -----------------------------------------------------------------------------

int line_parse(struct line **out, const char *text, const struct line_schema *const schemas[],
               unsigned n, struct error *e)
{
    text += strspn(text, blanks);
    size_t n_bytes = strlen(text);
    while (n_bytes > 0 && strchr(blanks, text[n_bytes - 1]))
        n_bytes--;
    if (n_bytes > LINE_TEXT_MAX)
        return error_set(e, EINVAL, "a line of %zu bytes; at most %d", n_bytes, LINE_TEXT_MAX);

    struct line *l = calloc(1, sizeof(*l));
    if (!l)
        return error_set(e, ENOMEM, "a line: out of memory");
    l->text = strndup(text, n_bytes);
    l->words = strndup(text, n_bytes);
    int err = l->text && l->words ? parse_words(l, schemas, n, e)
                                  : error_set(e, ENOMEM, "a line: out of memory");
    if (err) {
        line_free(l);
        return err;
    }
    *out = l;
    return 0;
}

void line_free(struct line *l)
{
    if (!l)
        return;
    free(l->words);
    free(l->text);
    free(l);
}

const struct line_value *line_get(const struct line *l, const char *key)
{
    const struct line_key *k = key_find(l->schema, key);
    assert(k && "the key must be in the schema");
    return value_of(l, k);
}

const char *line_text(const struct line *l, const char *key, const char *fallback)
{
    const struct line_value *v = line_get(l, key);
    return v ? v->text : fallback;
}

uint64_t line_number(const struct line *l, const char *key, uint64_t fallback)
{
    const struct line_value *v = line_get(l, key);
    return v ? v->number : fallback;
}

bool line_has(const struct line *l, const char *key)
{
    return line_get(l, key) != NULL;
}

bool line_knows(const struct line *l, const char *key)
{
    return key_find(l->schema, key) != NULL;
}

bool line_is_blank(const char *text)
{
    text += strspn(text, blanks);
    return *text == '\0' || *text == '#';
}

// The column in which the cursor is, and all further lines begin; the width of lines.
#define HELP_COLUMN 24
#define HELP_WIDTH  88

static void print_wrapped(FILE *f, const char *text)
{
    int column = HELP_COLUMN;
    for (int n; *text; text += n) {
        text += strspn(text, blanks);
        n = (int)strcspn(text, blanks);
        if (column + 1 + n > HELP_WIDTH)
            column = fprintf(f, "\n%*s", HELP_COLUMN, "") - 1;
        column += fprintf(f, " %.*s", n, text);
    }
    fputc('\n', f);
}

// What the first column does not say of a key's values.
static void help_add_values(const struct line_key *key, char *help, size_t n_bytes)
{
    char expected[LINE_EXPECT_MAX];
    bool is_any = key->max == 0 && key->min <= 1 && key->kind != LINE_MAC; // text or size
    bool is_plain = key->kind == LINE_FLAG || key->kind == LINE_CHOICE || is_any;
    line_value_expect(key, expected);
    if (!is_plain)
        snprintf(help, n_bytes, "; %s", expected);
}

void line_print_help(const struct line_schema *schema, void *stream)
{
    fprintf(stream, "%s NAME: %s\n", schema->type, schema->help);
    const struct line_key *key;
    for (unsigned i = 0; (key = key_at(schema, i)); i++) {
        char shown[64], values[LINE_EXPECT_MAX + 2] = "", help[sizeof(values) + ERROR_TEXT_MAX];
        bool has_value = key->kind != LINE_FLAG;
        snprintf(shown, sizeof(shown), "%s%s%s", key->name, has_value ? "=" : "", placeholder(key));
        help_add_values(key, values, sizeof(values));
        snprintf(help, sizeof(help), "%s%s%s%s", key->help, values, key->required ? "; needed" : "",
                 key->one_of ? "; exactly one of these" : "");
        fprintf(stream, "  %-*s", HELP_COLUMN - 2, shown);
        print_wrapped(stream, help);
    }
}
