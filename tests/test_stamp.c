// SPDX-License-Identifier: Apache-2.0
#include "bench/stamp.h"
#include "tests/check.h"

#include <string.h>

#define BYTES 2048

static _Alignas(8) uint8_t data[BYTES];
static const struct stamp_key key = {3, 7, 1000};

static void expect(int offset, const char *says)
{
    struct error e;
    if (stamp_check(data, BYTES, key, &e) == 0)
        fail_msg("a change at byte %d was not noticed", offset);
    if (!strstr(e.text, says))
        fail_msg("'%s' does not say '%s'", e.text, says);
}

static void test_each_byte_counts(void **state)
{
    (void)state;
    struct error e;
    stamp_write(data, BYTES, key);
    check_ok(stamp_check(data, BYTES, key, &e), &e);
    for (int i = 0; i < BYTES; i++) {
        data[i] ^= 0x10;
        expect(i, i % STAMP_SECTOR_BYTES < 24 ? "holds no stamp" : "is torn");
        data[i] ^= 0x10;
    }
}

static void test_says_what_is_there(void **state)
{
    (void)state;
    static const struct {
        struct stamp_key there;
        const char *says;
    } cases[] = {
        {{3, 6, 1000}, "holds sector 1000 of disk 3, generation 6"}, // old
        {{3, 7, 1008}, "holds sector 1008 of disk 3, generation 7"}, // of elsewhere
        {{4, 7, 1000}, "holds sector 1000 of disk 4, generation 7"}, // of another disk
    };
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        stamp_write(data, BYTES, cases[i].there);
        expect(-1, cases[i].says);
    }
    // Half old, half new.
    stamp_write(data, BYTES, key);
    stamp_write(data + 1024, BYTES - 1024, (struct stamp_key){3, 6, 1002});
    expect(1024, "sector 1002 of disk 3 (generation 7) holds sector 1002 of disk 3, generation 6");
    memset(data, 0, BYTES);
    expect(0, "holds no stamp");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_byte_counts),
        cmocka_unit_test(test_says_what_is_there),
    };
    return cmocka_run_group_tests_name("stamp", tests, NULL, NULL);
}
