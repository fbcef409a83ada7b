// SPDX-License-Identifier: Apache-2.0
#include "bench/options.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_ID 256 // of getopt's answers: beyond all characters

static int store_number(void *at, const struct option_spec *o, const char *text, struct error *e)
{
    static const char units[] = "KMGT";
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
    bool ok = isdigit((unsigned char)text[0]) && !errno && end[unit != NULL] == '\0' &&
              v <= UINT64_MAX >> shift;
    if (!ok || v << shift < o->min || v << shift > o->max)
        return error_set(e, EINVAL,
                         "--%s takes a number from %llu to %llu (K, M, G, T), not '%.60s'", o->name,
                         (unsigned long long)o->min, (unsigned long long)o->max, text);
    uint64_t value = v << shift;
    if (o->kind == OPTION_COUNT)
        *(unsigned *)at = (unsigned)value;
    else
        *(uint64_t *)at = value;
    return 0;
}

static int store_seconds(double *at, const struct option_spec *o, const char *text, struct error *e)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || !(v > 0 && v <= 1e6))
        return error_set(e, EINVAL, "--%s takes seconds above 0, not '%.60s'", o->name, text);
    *at = v;
    return 0;
}

static int store_choice(unsigned *at, const struct option_spec *o, const char *text,
                        struct error *e)
{
    char list[160] = "";
    for (unsigned i = 0; o->choices[i]; i++) {
        if (strcmp(text, o->choices[i]) == 0) {
            *at = i;
            return 0;
        }
        const char *joint = i == 0 ? "" : o->choices[i + 1] ? ", " : " or ";
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", joint, o->choices[i]);
    }
    return error_set(e, EINVAL, "--%s takes %s, not '%.60s'", o->name, list, text);
}

static int store(void *into, const struct option_spec *o, const char *text, struct error *e)
{
    void *at = (uint8_t *)into + o->offset;
    switch (o->kind) {
    case OPTION_FLAG:
        *(bool *)at = true;
        return 0;
    case OPTION_COUNT:
    case OPTION_NUMBER:
        return store_number(at, o, text, e);
    case OPTION_SECONDS:
        return store_seconds(at, o, text, e);
    case OPTION_CHOICE:
        return store_choice(at, o, text, e);
    case OPTION_TEXT:
        *(const char **)at = text;
        return 0;
    }
    return 0;
}

int options_parse(void *into, const struct option_spec *const tables[], int argc, char *argv[],
                  int *first, struct error *e)
{
    struct option known[OPTIONS_MAX + 1] = {0};
    const struct option_spec *specs[OPTIONS_MAX];
    int n = 0;
    for (; *tables; tables++) {
        for (const struct option_spec *o = *tables; o->name; o++, n++) {
            assert(n < OPTIONS_MAX);
            specs[n] = o;
            known[n] =
                (struct option){o->name, o->kind == OPTION_FLAG ? no_argument : required_argument,
                                NULL, FIRST_ID + n};
        }
    }
    int id;
    opterr = 0;
    optind = 0; // start afresh
    while ((id = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (id == '?')
            return error_set(e, EINVAL, "unknown option, or one without its value: %.60s",
                             argv[optind - 1]);
        int rc = store(into, specs[id - FIRST_ID], optarg, e);
        if (rc < 0)
            return rc;
    }
    *first = optind;
    return 0;
}

void options_help(const struct option_spec *const tables[], FILE *to)
{
    for (; *tables; tables++) {
        for (const struct option_spec *o = *tables; o->name; o++) {
            char left[40];
            snprintf(left, sizeof left, "--%s%s%s", o->name, o->value ? " " : "",
                     o->value ? o->value : "");
            fprintf(to, "  %-18s %s\n", left, o->help);
        }
    }
}
