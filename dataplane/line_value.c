// SPDX-License-Identifier: Apache-2.0
#include "dataplane/line_value.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char units[] = "KMGT"; // powers of 1024

// ---- parsing -----------------------------------------------------------------------------

// The digits at @text in @base. Returns what follows them, NULL if there are none or too many.
static const char *parse_digits(const char *text, unsigned base, uint64_t *number)
{
    const char *p = text;
    *number = 0;
    for (; *p >= '0' && (unsigned)(*p - '0') < base; p++) {
        if (__builtin_mul_overflow(*number, base, number) ||
            __builtin_add_overflow(*number, (unsigned)(*p - '0'), number))
            return NULL;
    }
    return p > text ? p : NULL;
}

static bool parse_size(const char *text, uint64_t *bytes)
{
    const char *rest = parse_digits(text, 10, bytes);
    if (!rest)
        return false;
    const char *unit = *rest ? strchr(units, *rest) : NULL;
    if (!unit)
        return *rest == '\0';
    uint64_t factor = 1ull << (10 * (unit - units + 1));
    return rest[1] == '\0' && !__builtin_mul_overflow(*bytes, factor, bytes);
}

static bool parse_number(const char *text, unsigned base, uint64_t *number)
{
    const char *rest = parse_digits(text, base, number);
    return rest && *rest == '\0';
}

// The index of @text in @choices ("a|b|c").
static bool parse_choice(const char *choices, const char *text, uint64_t *index)
{
    size_t n = strlen(text);
    *index = 0;
    for (const char *p = choices;; p++, (*index)++) {
        size_t n_choice = strcspn(p, "|");
        if (n_choice == n && memcmp(p, text, n) == 0)
            return true;
        p += n_choice;
        if (*p == '\0')
            return false;
    }
}

static int digit_of(char c)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    const char *p = c ? strchr(digits, c) : NULL;
    return p ? (int)((p - digits) % 16) : -1;
}

// Six octets of two digits each.
static bool parse_mac(const char *text, uint64_t *mac)
{
    if (strlen(text) != 17)
        return false;
    for (unsigned i = 0; i < 6; i++, text += 3) {
        int high = digit_of(text[0]), low = digit_of(text[1]);
        if (high < 0 || low < 0 || text[2] != (i < 5 ? ':' : '\0'))
            return false;
        *mac |= (uint64_t)(high << 4 | low) << 8 * i;
    }
    return *mac != 0 && !(*mac & 1);
}

static bool is_in_range(const struct line_key *key, uint64_t v)
{
    return v >= key->min && (key->max == 0 || v <= key->max);
}

bool line_value_parse(const struct line_key *key, const char *text, uint64_t *number)
{
    *number = 0;
    switch (key->kind) {
    case LINE_FLAG:
        return text[0] == '\0';
    case LINE_TEXT:
        return text[0] != '\0' && is_in_range(key, strlen(text));
    case LINE_SIZE:
        return parse_size(text, number) && is_in_range(key, *number);
    case LINE_NUMBER:
        return parse_number(text, 10, number) && is_in_range(key, *number);
    case LINE_OCTAL:
        return parse_number(text, 8, number) && is_in_range(key, *number);
    case LINE_CHOICE:
        return parse_choice(key->choices, text, number);
    case LINE_MAC:
        return parse_mac(text, number);
    }
    assert(false && "every kind has a case");
    return false;
}

// ---- describing --------------------------------------------------------------------------

#define NUMBER_TEXT_MAX 32

// @v as it would be typed.
static void format_bound(enum line_kind kind, uint64_t v, char out[NUMBER_TEXT_MAX])
{
    if (kind == LINE_OCTAL) {
        snprintf(out, NUMBER_TEXT_MAX, "%#" PRIo64, v);
        return;
    }
    unsigned n_units = 0;
    while (kind == LINE_SIZE && v != 0 && v % 1024 == 0 && n_units < strlen(units)) {
        v /= 1024;
        n_units++;
    }
    char unit[2] = {n_units ? units[n_units - 1] : '\0', '\0'};
    snprintf(out, NUMBER_TEXT_MAX, "%" PRIu64 "%s", v, unit);
}

// "@what from 1 to 5", or as much of it as the key limits.
static void expect_range(const struct line_key *key, const char *what, char out[LINE_EXPECT_MAX])
{
    char min[NUMBER_TEXT_MAX], max[NUMBER_TEXT_MAX];
    format_bound(key->kind, key->min, min);
    format_bound(key->kind, key->max, max);
    if (key->max)
        snprintf(out, LINE_EXPECT_MAX, "%s from %s to %s", what, min, max);
    else if (key->min)
        snprintf(out, LINE_EXPECT_MAX, "%s of at least %s", what, min);
    else
        snprintf(out, LINE_EXPECT_MAX, "%s", what);
}

static void expect_text(const struct line_key *key, char out[LINE_EXPECT_MAX])
{
    uint64_t min = MAX(key->min, 1);
    if (key->max)
        snprintf(out, LINE_EXPECT_MAX, "a text of %" PRIu64 " to %" PRIu64 " bytes", min, key->max);
    else
        snprintf(out, LINE_EXPECT_MAX, "a text of at least %" PRIu64 " byte%s", min,
                 min == 1 ? "" : "s");
}

static void expect_choice(const struct line_key *key, char out[LINE_EXPECT_MAX])
{
    int n = snprintf(out, LINE_EXPECT_MAX, "one of ");
    for (const char *p = key->choices; *p && n < LINE_EXPECT_MAX - 2; p++) {
        out[n++] = *p == '|' ? ',' : *p;
        if (*p == '|')
            out[n++] = ' ';
    }
    out[n] = '\0';
}

void line_value_expect(const struct line_key *key, char out[LINE_EXPECT_MAX])
{
    switch (key->kind) {
    case LINE_FLAG:
        snprintf(out, LINE_EXPECT_MAX, "a flag, without a value");
        break;
    case LINE_TEXT:
        expect_text(key, out);
        break;
    case LINE_SIZE:
        expect_range(key, "a size (K, M, G, T)", out);
        break;
    case LINE_NUMBER:
        expect_range(key, "a number", out);
        break;
    case LINE_OCTAL:
        expect_range(key, "an octal number", out);
        break;
    case LINE_CHOICE:
        expect_choice(key, out);
        break;
    case LINE_MAC:
        snprintf(out, LINE_EXPECT_MAX, "a MAC address such as 52:54:00:12:34:56, not of a group");
        break;
    }
}
