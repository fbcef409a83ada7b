// SPDX-License-Identifier: Apache-2.0
// The zone model against a second one, which keeps each zone's sectors in plain sight and counts
// its limits anew each time.
#include "devices/disk_zoned.h"
#include "bench/guest_request.h"
#include "tests/check.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>

#define ZONE  16u // sectors
#define N     7u  // zones; the last one has fewer sectors
#define LAST  5u
#define CAP   ((N - 1) * ZONE + LAST)
#define STEPS 200000
#define ANY   UINT32_MAX // no limit

enum { OK = 0, INVALID = 3, UNALIGNED = 4, OPEN = 5, ACTIVE = 6 };
enum { APPEND = VIRTIO_BLK_T_ZONE_APPEND, WRITE = VIRTIO_BLK_T_OUT };
enum { EMPTY = 1, IOPEN = 2, EOPEN = 3, CLOSED = 4, FULL = 14 };

// ---- the second model --------------------------------------------------------------------

struct model {
    uint32_t open_max, active_max;
    unsigned states[N];
    uint32_t n_written[N];
    unsigned opened_at[N]; // when it became open
    unsigned now;
};

static uint32_t size_of(uint32_t zone)
{
    return zone == N - 1 ? LAST : ZONE;
}

static uint32_t count(const struct model *m, bool with_closed)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < N; i++)
        n += m->states[i] == IOPEN || m->states[i] == EOPEN ||
             (with_closed && m->states[i] == CLOSED);
    return n;
}

// "implicitly": the one that is open longest gives way, unless it was opened on purpose.
static bool close_oldest(struct model *m)
{
    uint32_t oldest = N;
    for (uint32_t i = 0; i < N; i++)
        if (m->states[i] == IOPEN && (oldest == N || m->opened_at[i] < m->opened_at[oldest]))
            oldest = i;
    if (oldest == N)
        return false;
    m->states[oldest] = CLOSED;
    return true;
}

static int become_open(struct model *m, uint32_t zone, unsigned state)
{
    bool was_open = m->states[zone] == IOPEN || m->states[zone] == EOPEN;
    if (m->states[zone] == EMPTY && count(m, true) >= m->active_max)
        return ACTIVE;
    if (!was_open && count(m, false) >= m->open_max && !close_oldest(m))
        return OPEN;
    if (!was_open)
        m->opened_at[zone] = ++m->now;
    if (!was_open || state == EOPEN)
        m->states[zone] = state;
    return OK;
}

static int model_write(struct model *m, uint64_t sector, uint32_t n, bool is_append)
{
    uint64_t zone = sector / ZONE, skip = sector % ZONE;
    if (sector >= CAP || skip + n > size_of((uint32_t)zone))
        return INVALID;
    if (is_append && skip)
        return INVALID;
    if (m->states[zone] == FULL && (!is_append || n))
        return INVALID;
    if (!is_append && skip != m->n_written[zone])
        return UNALIGNED;
    if (n == 0)
        return OK;
    if (m->n_written[zone] + n > size_of((uint32_t)zone))
        return INVALID;
    int result = become_open(m, (uint32_t)zone, IOPEN);
    if (result != OK)
        return result;
    m->n_written[zone] += n;
    if (m->n_written[zone] == size_of((uint32_t)zone))
        m->states[zone] = FULL;
    return OK;
}

static void model_reset(struct model *m, uint32_t zone)
{
    m->states[zone] = EMPTY;
    m->n_written[zone] = 0;
}

static int model_close(struct model *m, uint32_t zone)
{
    if (m->states[zone] == EMPTY || m->states[zone] == FULL)
        return INVALID;
    m->states[zone] = m->n_written[zone] ? CLOSED : EMPTY;
    return OK;
}

static int model_command(struct model *m, uint32_t command, uint64_t sector)
{
    if (command == VIRTIO_BLK_T_ZONE_RESET_ALL) {
        for (uint32_t i = 0; i < N; i++)
            model_reset(m, i);
        return OK;
    }
    if (sector >= CAP || sector % ZONE)
        return INVALID;
    uint32_t zone = (uint32_t)(sector / ZONE);
    switch (command) {
    case VIRTIO_BLK_T_ZONE_OPEN:
        return m->states[zone] == FULL ? INVALID : become_open(m, zone, EOPEN);
    case VIRTIO_BLK_T_ZONE_CLOSE:
        return model_close(m, zone);
    case VIRTIO_BLK_T_ZONE_FINISH:
        m->states[zone] = FULL;
        return OK;
    default:
        model_reset(m, zone);
        return OK;
    }
}

// ---- both --------------------------------------------------------------------------------

static struct disk_zones *open_zones(uint32_t open_max, uint32_t active_max)
{
    struct disk_zones_config config = {.n_sectors = CAP,
                                       .zone_sectors = ZONE,
                                       .open_max = open_max == ANY ? 0 : open_max,
                                       .active_max = active_max == ANY ? 0 : active_max};
    struct disk_zones *z = disk_zones_open(&config);
    assert_non_null(z);
    assert_int_equal(z->n_zones, N);
    return z;
}

static void check_same(const struct disk_zones *z, const struct model *m, unsigned step)
{
    for (uint32_t i = 0; i < N; i++) {
        struct virtio_blk_zone_descriptor d;
        disk_zones_describe(z, i, &d);
        uint32_t wp = m->states[i] == FULL ? size_of(i) : m->n_written[i];
        if (d.z_state != m->states[i] || d.z_wp != (uint64_t)i * ZONE + wp || d.z_type != 2 ||
            d.z_start != (uint64_t)i * ZONE || d.z_cap != size_of(i))
            fail_msg("step %u: zone %u: state %u, not %u; at %llu, not %u", step, i, d.z_state,
                     m->states[i], (unsigned long long)d.z_wp, i * ZONE + wp);
    }
    assert_int_equal(z->n_open, count(m, false));
    assert_int_equal(z->n_active, count(m, true));
}

static void check_reads(const struct disk_zones *z, const struct model *m, uint64_t sector,
                        uint32_t n)
{
    uint32_t n_written = ANY;
    enum disk_zone_result result = disk_zones_read(z, sector, n, &n_written);
    bool is_inside = sector < CAP && sector % ZONE + n <= size_of((uint32_t)(sector / ZONE));
    assert_int_equal(result, is_inside ? OK : INVALID);
    if (!is_inside)
        return;
    uint32_t expected = 0;
    for (uint32_t i = 0; i < n; i++)
        expected += sector % ZONE + i < m->n_written[sector / ZONE];
    assert_int_equal(n_written, expected);
}

// Mostly what a driver asks; sometimes anything.
static uint64_t any_sector(const struct model *m, uint32_t type, uint64_t *seed)
{
    static const uint64_t wrong[] = {CAP, CAP + 1, UINT64_MAX, UINT64_MAX - ZONE, 1, ZONE + 3};
    uint32_t zone = (uint32_t)random_below(seed, N);
    if (random_below(seed, 16) == 0)
        return wrong[random_below(seed, ARRAY_LEN(wrong))];
    return (uint64_t)zone * ZONE + (type == WRITE ? m->n_written[zone] : 0);
}

static int both(struct disk_zones *z, struct model *m, uint64_t *seed)
{
    static const uint32_t types[] = {WRITE,
                                     WRITE,
                                     WRITE,
                                     APPEND,
                                     APPEND,
                                     VIRTIO_BLK_T_ZONE_OPEN,
                                     VIRTIO_BLK_T_ZONE_CLOSE,
                                     VIRTIO_BLK_T_ZONE_FINISH,
                                     VIRTIO_BLK_T_ZONE_RESET};
    uint32_t type = types[random_below(seed, ARRAY_LEN(types))];
    if (random_below(seed, 200) == 0)
        type = VIRTIO_BLK_T_ZONE_RESET_ALL;
    uint64_t sector = any_sector(m, type, seed), at = 0;
    uint32_t n = (uint32_t)random_below(seed, ZONE + 2);
    int expected, result;
    if (type == WRITE) {
        expected = model_write(m, sector, n, false);
        result = (int)disk_zones_write(z, sector, n);
    } else if (type == APPEND) {
        uint64_t place = sector < CAP ? sector + m->n_written[sector / ZONE] : 0;
        expected = model_write(m, sector, n, true);
        result = (int)disk_zones_append(z, sector, n, &at);
        if (expected == OK)
            assert_int_equal(at, place);
    } else {
        expected = model_command(m, type, sector);
        result = (int)disk_zones_command(z, type, sector);
    }
    if (result != expected)
        fail_msg("type %u at %llu, %u sectors: %d, not %d", type, (unsigned long long)sector, n,
                 result, expected);
    check_reads(z, m, any_sector(m, WRITE, seed), n);
    return result;
}

static void agrees_with_the_model(void **state)
{
    (void)state;
    static const uint32_t limits[][2] = {{ANY, ANY}, {1, ANY}, {2, 3},  {4, ANY},
                                         {3, 3},     {1, 1},   {ANY, 2}};
    for (unsigned k = 0; k < ARRAY_LEN(limits); k++) {
        struct disk_zones *z = open_zones(limits[k][0], limits[k][1]);
        struct model m = {.open_max = limits[k][0], .active_max = limits[k][1]};
        for (uint32_t i = 0; i < N; i++)
            m.states[i] = EMPTY;
        uint64_t seed = k;
        unsigned seen[7] = {0};
        for (unsigned i = 0; i < STEPS / ARRAY_LEN(limits); i++) {
            seen[both(z, &m, &seed)]++;
            check_same(z, &m, i);
        }
        // Or nothing was tried. Active zones that are all open keep the open limit out of reach.
        assert_true(seen[OK] > 1000 && seen[INVALID] > 1000 && seen[UNALIGNED] > 100);
        assert_int_equal(seen[OPEN] > 10, limits[k][0] < MIN(limits[k][1], N));
        assert_int_equal(seen[ACTIVE] > 10, limits[k][1] != ANY);
        disk_zones_close(z);
    }
}

// ---- two threads -------------------------------------------------------------------------

#define WIDE_ZONE  4096u
#define WIDE_ZONES 8u
#define APPENDS    (WIDE_ZONE / 2)

struct appender {
    struct disk_zones *z;
    uint64_t places[WIDE_ZONES * APPENDS];
};

static void *append_everywhere(void *argument)
{
    struct appender *a = argument;
    for (unsigned i = 0; i < WIDE_ZONES * APPENDS; i++) {
        while (!disk_zones_take(a->z))
            sched_yield();
        uint64_t zone = (uint64_t)(i / APPENDS) * WIDE_ZONE;
        enum disk_zone_result result = disk_zones_append(a->z, zone, 1, &a->places[i]);
        disk_zones_give(a->z);
        if (result != DISK_ZONE_OK)
            a->places[i] = UINT64_MAX;
    }
    return NULL;
}

// Each sector is given to one of them, and one zone at a time is enough for both.
static void two_threads_share_the_zones(void **state)
{
    (void)state;
    static struct appender a[2];
    static uint8_t given[WIDE_ZONES * WIDE_ZONE];
    struct disk_zones *z = disk_zones_open(&(struct disk_zones_config){
        .n_sectors = sizeof(given), .zone_sectors = WIDE_ZONE, .open_max = 2, .active_max = 2});
    pthread_t threads[2];
    for (unsigned i = 0; i < 2; i++) {
        a[i].z = z;
        assert_int_equal(pthread_create(&threads[i], NULL, append_everywhere, &a[i]), 0);
    }
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    uint64_t n_given = 0;
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned k = 0; k < WIDE_ZONES * APPENDS; k++) {
            if (a[i].places[k] == UINT64_MAX)
                continue; // the other one is far ahead: its zones are active
            assert_true(a[i].places[k] < sizeof(given));
            assert_int_equal(given[a[i].places[k]]++, 0);
            n_given++;
        }
    }
    for (uint32_t i = 0; i < WIDE_ZONES; i++) {
        struct virtio_blk_zone_descriptor d;
        disk_zones_describe(z, i, &d);
        n_given -= d.z_wp - d.z_start;
    }
    assert_int_equal(n_given, 0);
    assert_true(z->n_active <= 2);
    disk_zones_close(z);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_the_model),
        cmocka_unit_test(two_threads_share_the_zones),
    };
    return cmocka_run_group_tests_name("disk_zoned", tests, NULL, NULL);
}
