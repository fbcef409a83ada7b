// SPDX-License-Identifier: Apache-2.0
// line.h - one line is one device: "disk vm0 socket=/run/vm0.sock file=/img/vm0 queues=4".
//
// The same text on the command line, in the configuration file and in sluicectl. A schema is
// the table of keys of one type; parsing checks the text against it, so that who opens the
// device reads checked values. A bad line is refused with the key, the value and the choices.
//
// Threads  [C] only.
// Memory   a parsed line owns its copy of the text; line_free() gives it back.
// Trust    the text is an operator's: mistakes, not attacks; still bounded.
#pragma once

#include "dataplane/base.h"
#include "dataplane/error.h"

#define LINE_TEXT_MAX   4096 // bytes in a line
#define LINE_NAME_MAX   63   // bytes in a device's name: letters, digits, . _ -
#define LINE_VALUES_MAX 32   // keys in a line

enum line_kind {
    LINE_FLAG,   // no value: "read-only"
    LINE_TEXT,   // any text, not empty
    LINE_SIZE,   // bytes, with K, M, G, T (powers of 1024)
    LINE_NUMBER, // decimal
    LINE_OCTAL,  // 0660
    LINE_CHOICE, // one of choices
    LINE_MAC,    // of one station, not of a group: 52:54:00:12:34:56
};

struct line_key {
    const char *name; // NULL ends a table
    enum line_kind kind;
    bool required;
    uint8_t one_of;      // keys of a schema with the same number ≠ 0: exactly one must be given
    uint64_t min, max;   // for sizes and numbers; max 0 means no limit. For text: bytes
    const char *choices; // LINE_CHOICE: "server|client"
    const char *value;   // how help shows it: "PATH"
    const char *help;    // one short phrase
};

struct line_schema {
    const char *type; // the first word
    const char *help;
    const struct line_key *keys;
    const struct line_key *common; // keys shared by several types, or NULL
};

struct line_value {
    const struct line_key *key;
    const char *text; // as written, without quotes; "" for a flag
    uint64_t number;  // sizes (bytes), numbers, octal; a choice's index; a MAC, first octet lowest
};

struct line {
    const struct line_schema *schema;
    char *text; // the line as given, blanks trimmed: what `save` and `list` print
    const char *name;
    unsigned n_values;
    struct line_value values[LINE_VALUES_MAX];
    char *words; // backing store of name and values
};

// [C] Parse @text against the @n schemas. 0, or -EINVAL with a sentence that names the key, the
// value and the choices ("disk d: queues=0: a number from 1 to 256"). @out is untouched then.
int line_parse(struct line **out, const char *text, const struct line_schema *const schemas[],
               unsigned n, struct error *e);
void line_free(struct line *l);

// [C] The value of @key, or NULL if the line has none. @key must be in the schema.
const struct line_value *line_get(const struct line *l, const char *key);
const char *line_text(const struct line *l, const char *key, const char *fallback);
uint64_t line_number(const struct line *l, const char *key, uint64_t fallback);
bool line_has(const struct line *l, const char *key);

// [C] Whether lines of its type may have @key.
bool line_knows(const struct line *l, const char *key);

// [C] True for an empty line or a comment: nothing to parse.
bool line_is_blank(const char *text);

// [C] Help on every key of @schema, one a row, written to @stream (a FILE *).
void line_print_help(const struct line_schema *schema, void *stream);
