// SPDX-License-Identifier: Apache-2.0
// The memory table and the mappings under it.
#include "dataplane/mem.h"

#include "dataplane/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define PAGE       0x1000ull
#define FILE_BYTES (16 * PAGE)
#define USER       0x7f0000000000ull // user_addr - guest_addr in these tests
#define NAME       "sluice-test-mem"

// Byte i of page p is p * 16 + i % 16.
static int file_open(void)
{
    int fd = memfd_create(NAME, MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, FILE_BYTES), 0);
    for (unsigned i = 0; i < FILE_BYTES; i++) {
        uint8_t byte = (uint8_t)(i / PAGE * 16 + i % 16);
        assert_int_equal(pwrite(fd, &byte, 1, i), 1);
    }
    return fd;
}

static int the_file; // for tests that leave it as it is

static int set_up(void **state)
{
    (void)state;
    the_file = file_open();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return close(the_file);
}

static struct mem_desc region(uint64_t guest_addr, uint64_t size, uint64_t offset)
{
    return (struct mem_desc){guest_addr, size, guest_addr + USER, offset};
}

static struct mem *set(const struct mem *old, const struct mem_desc descs[], unsigned n, int fd)
{
    int fds[MEM_REGIONS_MAX];
    struct mem *m = NULL;
    struct error e = {""};
    for (unsigned i = 0; i < n; i++)
        fds[i] = fd;
    if (mem_set(&m, old, descs, fds, n, &e) != 0)
        fail_msg("%s", e.text);
    return m;
}

// Pages of our files that are mapped now. (Not mappings: the kernel merges neighbours.)
static unsigned count_pages(void)
{
    char line[512];
    unsigned long long start, end, n_bytes = 0;
    FILE *f = fopen("/proc/self/maps", "r");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f)) {
        if (strstr(line, NAME) && sscanf(line, "%llx-%llx", &start, &end) == 2)
            n_bytes += end - start;
    }
    fclose(f);
    return (unsigned)(n_bytes / PAGE);
}

// ---- refusals ------------------------------------------------------------------------------

static void bad_regions_are_refused(void **state)
{
    (void)state;
    static const struct {
        struct mem_desc descs[2];
        unsigned n;
        const char *says;
    } cases[] = {
        {{{0, 0, 0, 0}}, 1, "size is 0"},
        {{{UINT64_MAX - PAGE + 2, PAGE, 0, 0}}, 1, "wraps"},
        {{{0, PAGE, UINT64_MAX - PAGE + 2, 0}}, 1, "wraps"},
        {{{0, PAGE, 0, UINT64_MAX - PAGE + 2}}, 1, "wraps"},
        {{{1, UINT64_MAX, 0, 0}}, 1, "wraps"},
        {{{0, UINT64_MAX, 0, 0}}, 1, "not in a file of 0x10000"},
        {{{0, FILE_BYTES + 1, 0, 0}}, 1, "not in a file of 0x10000"},
        {{{0, PAGE, 0, FILE_BYTES - PAGE + 1}}, 1, "not in a file of 0x10000"},
        {{{0, PAGE, 0, INT64_MAX}}, 1, "not in a file of 0x10000"},
        {{{0, 2 * PAGE, 0, 0}, {PAGE, PAGE, 0, 0}}, 2, "0x1000 overlaps"},
        {{{PAGE, PAGE, 0, 0}, {0, PAGE + 1, 0, 0}}, 2, "0x0 overlaps"},
        {{{PAGE, PAGE, 0, 0}, {PAGE, PAGE, 0, 0}}, 2, "0x1000 overlaps"},
        {{{0, 4 * PAGE, 0, 0}, {PAGE, PAGE, 0, 0}}, 2, "0x1000 overlaps"},
        {{{PAGE, PAGE, 0, 0}, {0, 4 * PAGE, 0, 0}}, 2, "0x0 overlaps"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct mem *m = (void *)&cases;
        struct error e = {""};
        int fds[] = {the_file, the_file};
        assert_int_equal(mem_set(&m, NULL, cases[i].descs, fds, cases[i].n, &e), -EINVAL);
        assert_ptr_equal(m, &cases);
        if (!strstr(e.text, cases[i].says))
            fail_msg("case %zu says: %s", i, e.text);
        assert_int_equal(count_pages(), 0);
    }
}

static int open_pipe(void)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    close(fds[1]);
    return fds[0];
}

static int open_socket(void)
{
    return socket(AF_UNIX, SOCK_STREAM, 0);
}

static int open_eventfd(void)
{
    return eventfd(0, 0);
}

static int open_procfs(void)
{
    return open("/proc/self/status", O_RDONLY);
}

// On a tmpfs (devtmpfs), yet no file of it.
static int open_device(void)
{
    return open("/dev/zero", O_RDWR);
}

static int open_read_only(void)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", the_file);
    return open(path, O_RDONLY);
}

static int open_sealed(void)
{
    int fd = memfd_create(NAME, MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(fd, (off_t)PAGE), 0);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
    return fd;
}

static int open_none(void)
{
    return -1;
}

static void bad_descriptors_are_refused(void **state)
{
    (void)state;
    static const struct {
        int (*open)(void);
        int err;
        const char *says;
    } cases[] = {
        {open_pipe, -EINVAL, "a pipe; only tmpfs, memfd and hugetlbfs"},
        {open_socket, -EINVAL, "a socket; only tmpfs, memfd and hugetlbfs"},
        {open_eventfd, -EINVAL, "no file; only tmpfs, memfd and hugetlbfs"},
        {open_procfs, -EINVAL, "procfs; only tmpfs, memfd and hugetlbfs"},
        {open_device, -EINVAL, "not a regular file"},
        {open_read_only, -EACCES, "cannot map"},
        {open_sealed, -EPERM, "cannot map"},
        {open_none, -EBADF, "Bad file descriptor"},
    };
    struct mem_desc desc = region(0, PAGE, 0);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct mem *m = NULL;
        struct error e = {""};
        int fd = cases[i].open();
        assert_int_equal(mem_set(&m, NULL, &desc, &fd, 1, &e), cases[i].err);
        assert_null(m);
        if (!strstr(e.text, cases[i].says))
            fail_msg("case %zu says: %s", i, e.text);
        if (fd >= 0)
            close(fd);
    }
}

static void number_of_regions_is_limited(void **state)
{
    (void)state;
    struct mem_desc descs[MEM_REGIONS_MAX + 1];
    int fds[MEM_REGIONS_MAX + 1];
    for (unsigned i = 0; i < ARRAY_LEN(descs); i++) {
        descs[i] = region((MEM_REGIONS_MAX - i) * 2 * PAGE, PAGE, 0);
        fds[i] = the_file;
    }
    struct mem *m = NULL, *more = NULL;
    struct error e;
    assert_int_equal(mem_set(&m, NULL, descs, fds, MEM_REGIONS_MAX + 1, &e), -EINVAL);
    m = set(NULL, descs, MEM_REGIONS_MAX, the_file);
    assert_int_equal(m->n_regions, MEM_REGIONS_MAX);
    for (unsigned i = 1; i < m->n_regions; i++)
        assert_true(m->regions[i - 1].guest_addr < m->regions[i].guest_addr);
    assert_int_equal(mem_add(&more, m, &descs[MEM_REGIONS_MAX], the_file, &e), -ENOSPC);
    assert_non_null(strstr(e.text, "509 regions already"));
    assert_int_equal(mem_add(&more, m, &descs[3], the_file, &e), 0); // there already
    mem_free(more);
    mem_free(m);
    assert_int_equal(count_pages(), 0);
}

// ---- look-ups ------------------------------------------------------------------------------

#define HIGH (UINT64_MAX - 2 * PAGE + 1) // a region up to the last address but one page

static void addresses_are_found(void **state)
{
    (void)state;
    // A hole at 0x3000; 0x4000 and 0x5000 touch; file pages 1, 2 | 5 | 3 | 7.
    const struct mem_desc descs[] = {
        region(5 * PAGE, PAGE, 3 * PAGE),
        region(1 * PAGE, 2 * PAGE, 1 * PAGE),
        {HIGH, PAGE, 0x123000, 7 * PAGE},
        region(4 * PAGE, PAGE, 5 * PAGE),
    };
    static const struct {
        uint64_t addr, wanted, got; // got 0: not found
        int page;                   // of the file
    } cases[] = {
        {1 * PAGE, 1, 1, 1},
        {1 * PAGE - 1, 1, 0, 0},
        {1 * PAGE + 8, 2 * PAGE - 8, 2 * PAGE - 8, 1},
        {1 * PAGE + 8, 2 * PAGE, 2 * PAGE - 8, 1},
        {1 * PAGE, UINT64_MAX, 2 * PAGE, 1},
        {3 * PAGE - 1, 16, 1, 2},
        {3 * PAGE, 1, 0, 0},
        {4 * PAGE - 1, 1, 0, 0},
        {4 * PAGE, 2 * PAGE, PAGE, 5}, // the next region is no neighbour in our space
        {5 * PAGE, 16, 16, 3},
        {6 * PAGE, 1, 0, 0},
        {0, 1, 0, 0},
        {HIGH - 1, 1, 0, 0},
        {HIGH, UINT64_MAX, PAGE, 7},
        {HIGH + PAGE, 1, 0, 0},
        {UINT64_MAX, 1, 0, 0},
    };
    struct mem *m = set(NULL, descs, ARRAY_LEN(descs), the_file);
    const struct mem_region *hint = NULL;
    for (size_t i = 0; i < 2 * ARRAY_LEN(cases); i++) {
        size_t c = i < ARRAY_LEN(cases) ? i : 2 * ARRAY_LEN(cases) - 1 - i;
        uint64_t bytes = cases[c].wanted;
        uint8_t *p = mem_at(m, &hint, cases[c].addr, &bytes);
        if (!cases[c].got) {
            assert_null(p);
            continue;
        }
        assert_non_null(p);
        assert_ptr_equal(hint, mem_find(m, cases[c].addr));
        assert_int_equal(bytes, cases[c].got);
        assert_int_equal(*p, cases[c].page * 16 + cases[c].addr % 16);
        assert_int_equal(mem_guest_addr(m, p), cases[c].addr);
    }
    uint64_t bytes = 0;
    assert_null(mem_at(m, &hint, 3 * PAGE, &bytes)); // no bytes at a bad address are bad, too
    assert_non_null(mem_at(m, &hint, 4 * PAGE, &bytes));
    assert_int_equal(bytes, 0);
    mem_free(m);
}

static void user_addresses_are_found_in_one_region(void **state)
{
    (void)state;
    const struct mem_desc descs[] = {
        {0, 2 * PAGE, 10 * PAGE, 0},
        {8 * PAGE, PAGE, 12 * PAGE, 4 * PAGE},
        {4 * PAGE, PAGE, UINT64_MAX - PAGE, 5 * PAGE},
    };
    static const struct {
        uint64_t addr, bytes, guest_addr; // UINT64_MAX: not found
    } cases[] = {
        {10 * PAGE, 2 * PAGE, 0},
        {10 * PAGE, 2 * PAGE + 1, UINT64_MAX},
        {11 * PAGE, 2 * PAGE, UINT64_MAX}, // two regions
        {12 * PAGE, PAGE, 8 * PAGE},
        {12 * PAGE + 16, 16, 8 * PAGE + 16},
        {13 * PAGE, 1, UINT64_MAX},
        {10 * PAGE - 1, 1, UINT64_MAX},
        {12 * PAGE, UINT64_MAX, UINT64_MAX},
        {UINT64_MAX - PAGE, PAGE, 4 * PAGE},
        {UINT64_MAX - PAGE + 1, PAGE, UINT64_MAX}, // wraps
        {UINT64_MAX, 1, UINT64_MAX},
    };
    struct mem *m = set(NULL, descs, ARRAY_LEN(descs), the_file);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        void *p = mem_at_user(m, cases[i].addr, cases[i].bytes);
        assert_int_equal(p ? mem_guest_addr(m, p) : UINT64_MAX, cases[i].guest_addr);
    }
    assert_int_equal(mem_guest_addr(m, cases), UINT64_MAX);
    assert_int_equal(mem_guest_addr(m, NULL), UINT64_MAX);
    mem_free(m);
}

// Front ends may put a region anywhere in a file.
static void offset_need_not_be_a_page(void **state)
{
    (void)state;
    struct mem_desc desc = region(0x10000, 0x1800, 2 * PAGE + 0x803);
    struct mem *m = set(NULL, &desc, 1, the_file);
    for (uint64_t i = 0; i < desc.size; i++) {
        const struct mem_region *hint = NULL;
        uint64_t bytes = 1, at = desc.mmap_offset + i;
        assert_int_equal(*mem_at(m, &hint, desc.guest_addr + i, &bytes), at / PAGE * 16 + at % 16);
    }
    mem_free(m);
    assert_int_equal(count_pages(), 0);
}

// Huge pages are mapped whole, and zero pages over them as well: this needs none to be reserved,
// since a fault without one is a SIGBUS like any other.
static void huge_pages_are_mapped_whole(void **state)
{
    (void)state;
    assert_int_equal(guard_install(), 0);
    const uint64_t huge = 2 << 20;
    struct mem_desc desc = region(0, huge, PAGE);
    int fd = memfd_create(NAME, MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB);
    if (fd < 0)
        skip(); // a kernel without them
    assert_int_equal(ftruncate(fd, (off_t)(2 * huge)), 0);
    struct mem *m = set(NULL, &desc, 1, fd);
    assert_int_equal(count_pages(), 2 * huge / PAGE);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(*(volatile uint8_t *)&m->regions[0].host[huge - 1], 0);
    assert_true(mem_is_failed(m));
    assert_int_equal(count_pages(), 0); // nothing of the file is left
    mem_free(m);
    close(fd);
}

static void writes_reach_the_file(void **state)
{
    (void)state;
    struct mem_desc desc = region(0, PAGE, 0);
    int fd = file_open();
    struct mem *m = set(NULL, &desc, 1, fd);
    uint8_t byte = 0;
    m->regions[0].host[100] = 0x5a;
    assert_int_equal(pread(fd, &byte, 1, 100), 1);
    assert_int_equal(byte, 0x5a);
    mem_free(m);
    close(fd);
}

static void empty_table_finds_nothing(void **state)
{
    (void)state;
    struct mem *m = set(NULL, NULL, 0, -1);
    const struct mem_region *hint = NULL;
    uint64_t bytes = 1;
    assert_null(mem_at(m, &hint, 0, &bytes));
    assert_null(mem_at_user(m, 0, 0));
    assert_int_equal(mem_guest_addr(m, &m), UINT64_MAX);
    assert_false(mem_is_failed(m));
    mem_free(m);
    mem_free(NULL);
}

// ---- changes -------------------------------------------------------------------------------

static void same_regions_share_their_mapping(void **state)
{
    (void)state;
    const struct mem_desc descs[] = {region(0, PAGE, 0), region(2 * PAGE, PAGE, 2 * PAGE)};
    const struct {
        struct mem_desc desc;
        bool is_shared;
    } cases[] = {
        {descs[1], true},
        {{2 * PAGE, PAGE, 2 * PAGE + USER, 3 * PAGE}, false}, // other offset
        {{2 * PAGE, PAGE, 3 * PAGE + USER, 2 * PAGE}, false}, // other user address
        {{2 * PAGE, PAGE / 2, 2 * PAGE + USER, 2 * PAGE}, false},
        {{4 * PAGE, PAGE, 2 * PAGE + USER, 2 * PAGE}, false},
        {{2 * PAGE + 16, PAGE - 16, 2 * PAGE + USER + 16, 2 * PAGE + 16}, false},
    };
    int same_file = dup(the_file), other_file = file_open();
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct mem *old = set(NULL, descs, 2, the_file);
        struct mem *new = set(old, &cases[i].desc, 1, same_file);
        assert_int_equal(new->regions[0].host == old->regions[1].host, cases[i].is_shared);
        assert_int_equal(count_pages(), cases[i].is_shared ? 2 : 3);
        assert_false(mem_keeps_all(new, old));
        assert_int_equal(mem_keeps_all(old, new), cases[i].is_shared);
        mem_free(old);
        assert_int_equal(new->regions[0].host[0], cases[i].desc.mmap_offset / PAGE * 16);
        mem_free(new);
        assert_int_equal(count_pages(), 0);
    }
    struct mem *old = set(NULL, descs, 2, the_file);
    struct mem *new = set(old, descs, 2, other_file);
    assert_false(mem_keeps_all(new, old));
    assert_int_equal(count_pages(), 4);
    mem_free(new);
    mem_free(old);
    close(same_file);
    close(other_file);
}

static void failed_set_leaves_the_old_snapshot(void **state)
{
    (void)state;
    const struct mem_desc descs[] = {region(0, PAGE, 0), region(2 * PAGE, PAGE, 2 * PAGE)};
    const struct mem_desc bad[] = {descs[0], descs[1], region(3 * PAGE, PAGE, 0), {0, 0, 0, 0}};
    int fds[] = {the_file, the_file, the_file, the_file};
    struct mem *old = set(NULL, descs, 2, the_file), *new = NULL;
    struct error e;
    assert_int_equal(mem_set(&new, old, bad, fds, 4, &e), -EINVAL);
    assert_null(new);
    assert_int_equal(count_pages(), 2);
    assert_int_equal(old->regions[1].host[0], 0x20);
    mem_free(old);
    assert_int_equal(count_pages(), 0);
}

static void regions_come_and_go(void **state)
{
    (void)state;
    const struct mem_desc low = region(0, PAGE, 0), high = region(4 * PAGE, PAGE, PAGE);
    const struct mem_desc across = region(3 * PAGE, 2 * PAGE, 0);
    struct mem_desc other_user = high;
    other_user.user_addr += PAGE;
    struct error e;
    struct mem *a = NULL, *b = NULL, *twice = NULL, *c = NULL, *none = NULL, *bad = NULL;

    assert_int_equal(mem_add(&a, NULL, &high, the_file, &e), 0);
    assert_int_equal(mem_add(&b, a, &low, the_file, &e), 0);
    assert_int_equal(b->n_regions, 2);
    assert_int_equal(b->regions[0].guest_addr, 0);
    assert_true(mem_keeps_all(b, a));
    assert_true(mem_keeps_all(b, NULL));
    assert_false(mem_keeps_all(NULL, b));

    assert_int_equal(mem_add(&twice, b, &high, the_file, &e), 0);
    assert_int_equal(twice->n_regions, 2);
    assert_true(mem_keeps_all(twice, b) && mem_keeps_all(b, twice));
    assert_int_equal(mem_add(&bad, b, &across, the_file, &e), -EINVAL);
    assert_non_null(strstr(e.text, "overlaps"));
    assert_int_equal(mem_add(&bad, b, &other_user, the_file, &e), -EINVAL);
    assert_null(bad);

    assert_int_equal(mem_remove(&c, b, &high, &e), 0);
    assert_int_equal(c->n_regions, 1);
    assert_int_equal(c->regions[0].guest_addr, 0);
    assert_false(mem_keeps_all(c, b));
    mem_free(a);
    mem_free(b);
    assert_int_equal(count_pages(), 2); // twice still has both
    mem_free(twice);
    assert_int_equal(count_pages(), 1);

    const struct mem_desc absent[] = {high, other_user, {0, 2 * PAGE, USER, 0}, {0, PAGE, 0, 0}};
    for (size_t i = 0; i < ARRAY_LEN(absent); i++) {
        struct mem *same = NULL;
        assert_int_equal(mem_remove(&same, c, &absent[i], &e), 0);
        assert_int_equal(same->n_regions, 1);
        mem_free(same);
    }
    assert_int_equal(mem_remove(&none, NULL, &low, &e), 0);
    assert_int_equal(none->n_regions, 0);
    mem_free(none);
    mem_free(c);
    assert_int_equal(count_pages(), 0);
}

// ---- hostile row 27 --------------------------------------------------------------------------

static void truncation_fails_one_snapshot_alone(void **state)
{
    (void)state;
    assert_int_equal(guard_install(), 0); // here: cmocka takes the signal at each test's start
    const struct mem_desc desc = region(0, 4 * PAGE, 0);
    int fd = file_open();
    struct mem *hit = set(NULL, &desc, 1, fd), *neighbour = set(NULL, &desc, 1, the_file);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_false(mem_is_failed(hit));
    assert_int_equal(*(volatile uint8_t *)&hit->regions[0].host[2 * PAGE], 0);
    assert_true(mem_is_failed(hit));
    assert_false(mem_is_failed(neighbour));
    assert_int_equal(neighbour->regions[0].host[2 * PAGE], 0x20);

    // A file that grew again is mapped anew, not shared with the zeros.
    assert_int_equal(ftruncate(fd, FILE_BYTES), 0);
    assert_int_equal(pwrite(fd, "x", 1, 0), 1);
    struct mem *again = set(hit, &desc, 1, fd);
    assert_false(mem_is_failed(again));
    assert_false(mem_keeps_all(again, hit));
    assert_int_equal(again->regions[0].host[0], 'x');
    mem_free(again);
    mem_free(hit);
    mem_free(neighbour);
    close(fd);
    assert_int_equal(count_pages(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_regions_are_refused),
        cmocka_unit_test(bad_descriptors_are_refused),
        cmocka_unit_test(number_of_regions_is_limited),
        cmocka_unit_test(addresses_are_found),
        cmocka_unit_test(user_addresses_are_found_in_one_region),
        cmocka_unit_test(offset_need_not_be_a_page),
        cmocka_unit_test(huge_pages_are_mapped_whole),
        cmocka_unit_test(writes_reach_the_file),
        cmocka_unit_test(empty_table_finds_nothing),
        cmocka_unit_test(same_regions_share_their_mapping),
        cmocka_unit_test(failed_set_leaves_the_old_snapshot),
        cmocka_unit_test(regions_come_and_go),
        cmocka_unit_test(truncation_fails_one_snapshot_alone),
    };
    return cmocka_run_group_tests_name("mem", tests, set_up, tear_down);
}
