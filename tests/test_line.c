// SPDX-License-Identifier: Apache-2.0
// Lines: what they say, and what a bad one is told.
#include "dataplane/line.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct line_key socket_keys[] = {
    {.name = "socket",
     .kind = LINE_TEXT,
     .required = true,
     .max = 20,
     .value = "PATH",
     .help = "s"},
    {.name = "mode", .kind = LINE_CHOICE, .choices = "server|client", .help = "listen or connect"},
    {.name = "socket-mode", .kind = LINE_OCTAL, .max = 0777, .value = "MODE", .help = "bits"},
    {.name = NULL},
};
static const struct line_key disk_keys[] = {
    {.name = "file", .kind = LINE_TEXT, .one_of = 1, .value = "PATH", .help = "an image"},
    {.name = "ram", .kind = LINE_SIZE, .one_of = 1, .min = 512, .value = "SIZE", .help = "memory"},
    {.name = "zero", .kind = LINE_FLAG, .one_of = 1, .help = "nothing"},
    {.name = "queues", .kind = LINE_NUMBER, .min = 1, .max = 256, .value = "N", .help = "queues"},
    {.name = "cap",
     .kind = LINE_SIZE,
     .min = 1024,
     .max = 1ull << 42,
     .value = "SIZE",
     .help = "c"},
    {.name = "any", .kind = LINE_NUMBER, .value = "N", .help = "a"},
    {.name = "read-only", .kind = LINE_FLAG, .help = "refuse writes"},
    {.name = NULL},
};
static const struct line_key no_keys[] = {{.name = NULL}};
static const struct line_key card_keys[] = {
    {.name = "mac", .kind = LINE_MAC, .value = "MAC", .help = "an address"},
    {.name = NULL},
};

static const struct line_schema disk = {"disk", "a block device", disk_keys, socket_keys};
static const struct line_schema hub = {"switch", "a switch", no_keys, NULL};
static const struct line_schema card = {"card", "a card", card_keys, NULL};
static const struct line_schema *const schemas[] = {&disk, &hub, &card};

static struct line *parse(const char *text)
{
    struct line *l = NULL;
    struct error e = {""};
    if (line_parse(&l, text, schemas, ARRAY_LEN(schemas), &e) != 0)
        fail_msg("%s", e.text);
    return l;
}

// The sentence that refuses @text.
static const char *refusal(const char *text)
{
    static struct error e;
    struct line *l = (void *)&e;
    e.text[0] = '\0';
    if (line_parse(&l, text, schemas, ARRAY_LEN(schemas), &e) != -EINVAL)
        fail_msg("accepted: %s", text);
    assert_ptr_equal(l, &e);
    return e.text;
}

static void a_line_is_read(void **state)
{
    (void)state;
    struct line *l = parse("  disk  vm0\tsocket=/run/a.sock ram=4G queues=8 read-only mode=client"
                           " socket-mode=0660 \r\n");
    assert_ptr_equal(l->schema, &disk);
    assert_string_equal(l->name, "vm0");
    assert_string_equal(l->text, "disk  vm0\tsocket=/run/a.sock ram=4G queues=8 read-only "
                                 "mode=client socket-mode=0660");
    assert_int_equal(l->n_values, 6);
    assert_string_equal(line_text(l, "socket", NULL), "/run/a.sock");
    assert_int_equal(line_number(l, "ram", 0), 4ull << 30);
    assert_string_equal(line_text(l, "ram", NULL), "4G");
    assert_int_equal(line_number(l, "queues", 1), 8);
    assert_int_equal(line_number(l, "mode", 0), 1);
    assert_int_equal(line_number(l, "socket-mode", 0), 0660);
    assert_true(line_has(l, "read-only"));
    assert_string_equal(line_get(l, "read-only")->text, "");
    assert_null(line_get(l, "file"));
    assert_false(line_has(l, "zero"));
    assert_int_equal(line_number(l, "any", 77), 77);
    assert_string_equal(line_text(l, "file", "none"), "none");
    line_free(l);
    line_free(parse("switch s"));
    line_free(NULL);
}

static void quotes_keep_blanks(void **state)
{
    (void)state;
    static const struct {
        const char *word, *value;
    } cases[] = {
        {"file=/a", "/a"},
        {"file=\"/a b\"", "/a b"},
        {"file='/a  b'", "/a  b"},
        {"file=\"it's\"", "it's"},
        {"file='a \"b\"'", "a \"b\""},
        {"'file=/a b'", "/a b"},
        {"file=/a\" \"b' 'c", "/a b c"},
        {"file=/a=b", "/a=b"},
        {"file=/a#b", "/a#b"},
        {"file=/a\\", "/a\\"},
        {"file=/\xc3\xa4", "/\xc3\xa4"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[128];
        snprintf(text, sizeof(text), "disk d %s socket=/s", cases[i].word);
        struct line *l = parse(text);
        assert_string_equal(line_text(l, "file", NULL), cases[i].value);
        assert_string_equal(line_text(l, "socket", NULL), "/s");
        assert_string_equal(l->text, text);
        line_free(l);
    }
}

static void numbers_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *key, *text;
        uint64_t number;
    } cases[] = {
        {"ram", "512", 512},
        {"ram", "1K", 1024},
        {"ram", "3M", 3 << 20},
        {"ram", "0512", 512},
        {"ram", "16777215T", 16777215ull << 40},
        {"ram", "18446744073709551615", UINT64_MAX},
        {"cap", "1K", 1024},
        {"cap", "4T", 1ull << 42},
        {"queues", "1", 1},
        {"queues", "256", 256},
        {"any", "0", 0},
        {"any", "18446744073709551615", UINT64_MAX},
        {"socket-mode", "777", 0777},
        {"socket-mode", "0", 0},
        {"mode", "server", 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[128];
        snprintf(text, sizeof(text), "disk d %s=%s socket=/s %s", cases[i].key, cases[i].text,
                 strcmp(cases[i].key, "ram") == 0 ? "" : "zero");
        struct line *l = parse(text);
        assert_int_equal(line_number(l, cases[i].key, 1), cases[i].number);
        line_free(l);
    }
}

#define ALL_KEYS                                                                                   \
    "one of file=, ram=, zero, queues=, cap=, any=, read-only, socket=, mode=, socket-mode="
#define RAM    "a size (K, M, G, T) of at least 512"
#define CAP    "a size (K, M, G, T) from 1K to 4T"
#define QUEUES "a number from 1 to 256"

static void macs_are_read(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "01:00:5e:00:00:01",   "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "52:54:00:12:34",
        "52:54:00:12:34:56:7", "52-54-00-12-34-56", "5g:54:00:12:34:56", "52:54:00:12:34:5",
        "52:54:00:12:34:5x",   "525400123456",      "52:54:0:12:34:567",
    };
    struct line *l = parse("card c mac=52:54:00:aB:Cd:0f");
    assert_int_equal(line_number(l, "mac", 0), 0x0fcdab005452);
    line_free(l);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char text[128], says[256];
        snprintf(text, sizeof(text), "card c mac=%s", bad[i]);
        snprintf(says, sizeof(says),
                 "card c: mac=%s: a MAC address such as 52:54:00:12:34:56, not of a group", bad[i]);
        assert_string_equal(refusal(text), says);
    }
}

// Each sentence: type, name, key, value, choices.
static void bad_lines_are_told(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "an empty line; it begins with one of disk, switch, card"},
        {"dsk d", "unknown type dsk; one of disk, switch, card"},
        {"# disk d", "unknown type #; one of disk, switch, card"},
        {"disk", "disk: a name is needed: disk NAME; letters, digits, . _ -"},
        {"disk a/b zero", "disk: bad name \"a/b\": the name comes second and has only letters, "
                          "digits, . _ -"},
        {"disk socket=/s", "disk: bad name \"socket=/s\": the name comes second and has only "
                           "letters, digits, . _ -"},
        {"disk \"\" zero", "disk: bad name \"\": the name comes second and has only letters, "
                           "digits, . _ -"},
        {"disk d sockt=/s", "disk d: unknown key sockt; " ALL_KEYS},
        {"disk d =5", "disk d: unknown key ; " ALL_KEYS},
        {"disk d Zero", "disk d: unknown key Zero; " ALL_KEYS},
        {"switch s queues=1", "switch s: unknown key queues; it takes none"},
        {"disk d zero zero", "disk d: zero is given twice"},
        {"disk d socket=/a socket=/a", "disk d: socket is given twice"},
        {"disk d zero=1", "disk d: zero=1: a flag, without a value"},
        {"disk d zero=", "disk d: zero=: a flag, without a value"},
        {"disk d socket", "disk d: socket: a text of 1 to 20 bytes"},
        {"disk d socket=", "disk d: socket=: a text of 1 to 20 bytes"},
        {"disk d socket=''", "disk d: socket=: a text of 1 to 20 bytes"},
        {"disk d socket=/23456789012345678901",
         "disk d: socket=/23456789012345678901: a text of 1 to 20 bytes"},
        {"disk d file=", "disk d: file=: a text of at least 1 byte"},
        {"disk d queues=0", "disk d: queues=0: " QUEUES},
        {"disk d queues=257", "disk d: queues=257: " QUEUES},
        {"disk d queues=-1", "disk d: queues=-1: " QUEUES},
        {"disk d queues=+1", "disk d: queues=+1: " QUEUES},
        {"disk d queues=' 1'", "disk d: queues= 1: " QUEUES},
        {"disk d queues=1K", "disk d: queues=1K: " QUEUES},
        {"disk d queues=0x1", "disk d: queues=0x1: " QUEUES},
        {"disk d queues=", "disk d: queues=: " QUEUES},
        {"disk d queues=18446744073709551617", "disk d: queues=18446744073709551617: " QUEUES},
        {"disk d any=18446744073709551616", "disk d: any=18446744073709551616: a number"},
        {"disk d any=99999999999999999999", "disk d: any=99999999999999999999: a number"},
        {"disk d ram=16777217T", "disk d: ram=16777217T: " RAM}, // would wrap to 1T
        {"disk d ram=511", "disk d: ram=511: " RAM},
        {"disk d ram=K", "disk d: ram=K: " RAM},
        {"disk d ram=1KB", "disk d: ram=1KB: " RAM},
        {"disk d ram=1k", "disk d: ram=1k: " RAM},
        {"disk d ram=1.5G", "disk d: ram=1.5G: " RAM},
        {"disk d ram=16777216T", "disk d: ram=16777216T: " RAM},
        {"disk d ram=18446744073709551616", "disk d: ram=18446744073709551616: " RAM},
        {"disk d cap=1023", "disk d: cap=1023: " CAP},
        {"disk d cap=4097G", "disk d: cap=4097G: " CAP},
        {"disk d mode=serve", "disk d: mode=serve: one of server, client"},
        {"disk d mode=server|client", "disk d: mode=server|client: one of server, client"},
        {"disk d mode=", "disk d: mode=: one of server, client"},
        {"disk d socket-mode=0680", "disk d: socket-mode=0680: an octal number from 0 to 0777"},
        {"disk d socket-mode=1000", "disk d: socket-mode=1000: an octal number from 0 to 0777"},
        {"disk d zero", "disk d: socket=PATH is needed: a text of 1 to 20 bytes"},
        {"disk d socket=/s", "disk d: one of file=, ram=, zero is needed"},
        {"disk d socket=/s ram=1K zero", "disk d: only one of file=, ram=, zero can be given"},
        {"disk d socket=\"/s", "disk d: a quote \" is not closed: socket=/s"},
        {"disk d file=/it's", "disk d: a quote ' is not closed: file=/its"},
        {"disk d file=/a\001", "disk d: a control byte, 0x01"},
        {"disk d file=\"a\tb\"", "disk d: a control byte, 0x09"},
        {"disk d file=\"a\nb\"", "disk d: a control byte, 0x0a"},
        {"disk d file=/a\177", "disk d: a control byte, 0x7f"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_string_equal(refusal(cases[i].text), cases[i].says);
}

static void long_lines_are_bounded(void **state)
{
    (void)state;
    char name[LINE_NAME_MAX + 2], text[LINE_TEXT_MAX + 64];
    memset(name, 'n', sizeof(name));
    name[LINE_NAME_MAX + 1] = '\0';
    snprintf(text, sizeof(text), "switch %s", name);
    assert_non_null(strstr(refusal(text), "at most 63 bytes, not 64"));
    snprintf(text, sizeof(text), "switch %s", name + 1);
    line_free(parse(text));

    int n = snprintf(text, sizeof(text), "disk d socket=/s file=");
    memset(text + n, 'a', sizeof(text) - (size_t)n);
    text[LINE_TEXT_MAX] = '\0';
    line_free(parse(text));
    text[LINE_TEXT_MAX] = 'a';
    text[LINE_TEXT_MAX + 1] = '\0';
    assert_string_equal(refusal(text), "a line of 4097 bytes; at most 4096");

    // Long words are cut in sentences, so that the choices can still be seen.
    memset(text, 'k', 1000);
    memcpy(text, "disk d ", 7);
    text[1000] = '\0';
    assert_non_null(strstr(refusal(text), ALL_KEYS));
}

static void blank_lines_are_known(void **state)
{
    (void)state;
    static const char *const blank[] = {"", "  ", "\t\r\n", "#", " # disk d"};
    static const char *const full[] = {"disk", " d", "a # b"};
    for (size_t i = 0; i < ARRAY_LEN(blank); i++)
        assert_true(line_is_blank(blank[i]));
    for (size_t i = 0; i < ARRAY_LEN(full); i++)
        assert_false(line_is_blank(full[i]));
}

static void help_shows_every_key(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "disk NAME: a block device\n",
        "\n  file=PATH              an image; exactly one of these\n",
        "\n  read-only              refuse writes\n",
        "\n  queues=N               queues; " QUEUES "\n",
        "\n  mode=server|client     listen or connect\n",
        "\n  socket=PATH            s; a text of 1 to 20 bytes; needed\n",
        ("\n  ram=SIZE               memory; a size (K, M, G, T) of at least 512; exactly one of"
         "\n                         these\n"),
    };
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    line_print_help(&disk, f);
    fclose(f);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (!strstr(text, rows[i]))
            fail_msg("no %s in\n%s", rows[i], text);
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_read),        cmocka_unit_test(quotes_keep_blanks),
        cmocka_unit_test(numbers_are_read),      cmocka_unit_test(macs_are_read),
        cmocka_unit_test(bad_lines_are_told),    cmocka_unit_test(long_lines_are_bounded),
        cmocka_unit_test(blank_lines_are_known), cmocka_unit_test(help_shows_every_key),
    };
    return cmocka_run_group_tests_name("line", tests, NULL, NULL);
}
