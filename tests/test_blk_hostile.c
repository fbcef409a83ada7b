// SPDX-License-Identifier: Apache-2.0
// A guest that changes a request while it is read, and one that makes its disk look like another
// kind of image.
#include "bench/guest_request.h"
#include "tests/blk_store.h"
#include "tests/disk_folder.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <ucontext.h>
#include <unistd.h>

#if defined(__SANITIZE_THREAD__)
#define HAS_TSAN 1
#elif defined(__has_feature)
#define HAS_TSAN __has_feature(thread_sanitizer)
#else
#define HAS_TSAN 0
#endif

#if defined(__x86_64__)
// ---- memory that changes after each access -----------------------------------------------

// The device's mapping of the requests is closed. An access faults, is let through by one step of
// the processor, and then something else stands there.

#define DEPTH    8
#define CAPACITY 4096u
#define HALF     (SECTORS / 2) // no right request goes beyond

static const uint32_t types[] = {VIRTIO_BLK_T_IN,
                                 VIRTIO_BLK_T_OUT,
                                 VIRTIO_BLK_T_DISCARD,
                                 VIRTIO_BLK_T_WRITE_ZEROES,
                                 VIRTIO_BLK_T_SECURE_ERASE,
                                 VIRTIO_BLK_T_GET_ID,
                                 VIRTIO_BLK_T_FLUSH,
                                 VIRTIO_BLK_T_ZONE_APPEND,
                                 VIRTIO_BLK_T_ZONE_REPORT,
                                 VIRTIO_BLK_T_ZONE_OPEN,
                                 VIRTIO_BLK_T_ZONE_FINISH,
                                 VIRTIO_BLK_T_ZONE_RESET,
                                 UINT32_MAX};
static const uint64_t sectors[] = {0,     8,        128,        256,        HALF - 8,
                                   0,     16,       SECTORS,    UINT64_MAX, UINT64_MAX - 7,
                                   WRAPS, WRAPS_TO, SECTORS + 8};
static const uint32_t counts[] = {0, 1, 8, 8, 7, UINT32_MAX, 1u << 23, SECTORS + 1};
static const uint32_t flag_words[] = {0, 0, 0, 1, 2, UINT32_MAX};

#define ANY_OF(array, seed) (array)[random_below(seed, ARRAY_LEN(array))]

static void flip_once(struct guest_request *r, uint64_t *seed)
{
    struct virtio_blk_discard_write_zeroes *ranges = (void *)r->data;
    unsigned at = (unsigned)random_below(seed, 4);
    __atomic_store_n(&r->header->type, ANY_OF(types, seed), __ATOMIC_RELAXED);
    __atomic_store_n(&r->header->sector, ANY_OF(sectors, seed), __ATOMIC_RELAXED);
    __atomic_store_n(&ranges[at].sector, ANY_OF(sectors, seed), __ATOMIC_RELAXED);
    __atomic_store_n(&ranges[at].num_sectors, ANY_OF(counts, seed), __ATOMIC_RELAXED);
    __atomic_store_n(&ranges[at].flags, ANY_OF(flag_words, seed), __ATOMIC_RELAXED);
}

static struct {
    uint8_t *from; // the pages, as the device sees them
    size_t bytes;
    struct guest_request *requests;
    uint64_t seed;
    unsigned n_accesses;
} closed;

#define TRAP_FLAG 0x100 // of the processor: stop after one instruction

static void set_trap(void *context, bool on)
{
    greg_t *flags = &((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL];
    *flags = on ? *flags | TRAP_FLAG : *flags & ~TRAP_FLAG;
}

static void open_for_one(int signal_number, siginfo_t *info, void *context)
{
    uint8_t *at = info->si_addr;
    if (at < closed.from || at >= closed.from + closed.bytes) {
        signal(signal_number, SIG_DFL); // a wrong access: it comes again, and ends us
        return;
    }
    mprotect(closed.from, closed.bytes, PROT_READ | PROT_WRITE);
    set_trap(context, true);
}

static void close_again(int signal_number, siginfo_t *info, void *context)
{
    (void)signal_number;
    (void)info;
    closed.n_accesses++;
    mprotect(closed.from, closed.bytes, PROT_NONE);
    for (unsigned i = 0; i < DEPTH; i++)
        flip_once(&closed.requests[i], &closed.seed);
    set_trap(context, false);
}

static void catch (int number, void (*handler)(int, siginfo_t *, void *))
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    assert_int_equal(sigaction(number, &action, NULL), 0);
}

static void close_requests(const struct device_rig *rig, struct guest_request r[])
{
    const struct mem_region *region = &rig->mem->regions[0];
    uint64_t first = r[0].header_addr & ~UINT64_C(4095);
    closed.from = region->host + (first - region->guest_addr);
    closed.bytes = r[DEPTH - 1].data_addr + CAPACITY - first;
    closed.requests = r;
    closed.seed = 3;
    closed.n_accesses = 0;
    catch (SIGSEGV, open_for_one);
    catch (SIGTRAP, close_again);
    assert_int_equal(mprotect(closed.from, closed.bytes, PROT_NONE), 0);
}

static void open_requests(void)
{
    assert_int_equal(mprotect(closed.from, closed.bytes, PROT_READ | PROT_WRITE), 0);
    signal(SIGSEGV, SIG_DFL);
    signal(SIGTRAP, SIG_DFL);
}

// ---- requests that change while they are read --------------------------------------------

// Data of a range, of four, of a sector; readable, or writable.
static void prepare(struct guest_request *r, uint64_t *seed)
{
    static const uint32_t sizes[] = {16, 64, 512};
    bool is_read = random_below(seed, 3) == 0;
    guest_request_prepare(r, is_read ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, 0, ANY_OF(sizes, seed),
                          GUEST_REQUEST_DIRECT);
    flip_once(r, seed);
}

// Returns how many of the requests did what they asked.
static unsigned serve(struct device_rig *rig, struct guest_request r[], uint64_t *seed)
{
    struct driver_chain *chains[DEPTH];
    uint32_t lengths[DEPTH];
    unsigned n_done = 0;
    for (unsigned i = 0; i < DEPTH; i++) {
        prepare(&r[i], seed);
        chains[i] = &r[i].chain;
    }
    assert_int_equal(device_rig_run(rig, chains, lengths, DEPTH), DEPTH);
    for (unsigned i = 0; i < DEPTH; i++) {
        assert_true(*r[i].status <= VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE);
        assert_true(lengths[i] <= chains[i]->in_bytes);
        n_done += *r[i].status == VIRTIO_BLK_S_OK;
    }
    return n_done;
}

static void check_upper_half(struct disk_rig *d)
{
    static uint8_t found[HALF * 512];
    for (uint64_t at = 0; at < HALF; at += 512)
        assert_int_equal(disk_rig_read(d, HALF + at, found + at * 512, 512 * 512), OK);
    assert_memory_equal(found, store_contents + HALF * 512, sizeof(found));
}

static void run_flips(const struct store *s, uint64_t features, unsigned n_turns)
{
    struct error e;
    struct disk_rig d;
    store_open(&d, s, features);
    struct guest_request requests[DEPTH];
    check_ok(guest_request_open(requests, DEPTH, d.rig.guest, CAPACITY, &e), &e);
    uint64_t seed = 4;
    unsigned n_done = 0;
    close_requests(&d.rig, requests);
    for (unsigned i = 0; i < n_turns; i++)
        n_done += serve(&d.rig, requests, &seed);
    open_requests();
    assert_true(closed.n_accesses > 2 * DEPTH * n_turns);
    assert_in_range(n_done, n_turns / 4, n_turns * DEPTH - n_turns / 4); // some of each
    assert_int_equal(d.rig.queue->ring.fault, RING_OK);
    if (s->has_data && !(features & VIRTIO_BIT(VIRTIO_BLK_F_ZONED)))
        check_upper_half(&d);
    guest_request_close(requests, DEPTH);
    disk_rig_close(&d);
}

// Whatever is read is what was checked: nothing outside of the disk, nor outside of what right
// requests name, is read or written.
static void requests_change_while_they_are_read(void **state)
{
    static const struct store zoned = {"zoned", "ram=1M zoned=64K", false, false};
    unsigned n_turns = getenv("SLUICE_LONG") ? 100000 : 1000; // tools/check --long
    (void)state;
    if (HAS_TSAN) {
        print_message("skipped: TSan delays the signals that this needs\n");
        skip();
    }
    for (unsigned l = 0; l < ARRAY_LEN(rig_layouts); l++) {
        run_flips(&stores[STORE_RAM],
                  rig_layouts[l] | VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) |
                      VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES) | VIRTIO_BIT(VIRTIO_BLK_F_SECURE_ERASE),
                  n_turns);
        run_flips(&zoned, rig_layouts[l] | VIRTIO_BIT(VIRTIO_BLK_F_ZONED), n_turns);
    }
}
#else
static void requests_change_while_they_are_read(void **state)
{
    (void)state;
    print_message("skipped: knows how to step through x86-64 only\n");
    skip();
}
#endif

// ---- a raw disk that looks like another image --------------------------------------------

#define BACKING "/tmp/test_blk_hostile.backing"

// "QFI\xfb", version 3, the name of a backing file at 104, clusters of 64 KiB, 1 TiB; all of it
// with the highest byte first.
static void make_header(uint8_t header[512])
{
    static const uint8_t start[] = {'Q', 'F', 'I', 0xfb, 0, 0,   0, 3, 0, 0,
                                    0,   0,   0,   0,    0, 104, 0, 0, 0, sizeof(BACKING) - 1,
                                    0,   0,   0,   16,   0, 0,   1, 0};
    memset(header, 0, 512);
    memcpy(header, start, sizeof(start));
    header[103] = 104; // header length
    memcpy(header + 104, BACKING, sizeof(BACKING) - 1);
}

// Its size and its bytes are what they were, and nobody looks for the file that it names.
static void a_raw_disk_stays_raw(void **state)
{
    (void)state;
    uint8_t header[512], found[512], event[4096];
    struct stat before, after;
    int watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    int backing = open(BACKING, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    assert_true(watch >= 0 && backing >= 0);
    assert_true(inotify_add_watch(watch, BACKING, IN_OPEN | IN_ACCESS) >= 0);
    disk_make_file("image", 1 << 20);
    assert_int_equal(stat("image", &before), 0);
    make_header(header);
    struct disk_rig d;
    disk_open_rig(&d, "image", rig_layouts[0]);
    assert_int_equal(disk_rig_write(&d, 0, header, sizeof(header)), OK);
    disk_rig_close(&d);

    for (unsigned l = 0; l < ARRAY_LEN(rig_layouts); l++) {
        disk_open_rig(&d, "image", rig_layouts[l]);
        uint64_t size = 0; // measured anew
        struct error e;
        check_ok(d.rig.device->type->resize(d.rig.device, &size, &e), &e);
        assert_int_equal(size, 1 << 20);
        struct virtio_blk_config config;
        memcpy(&config, d.rig.device->config, sizeof(config));
        assert_int_equal(config.capacity, SECTORS);
        assert_int_equal(disk_rig_read(&d, 0, found, sizeof(found)), OK);
        assert_memory_equal(found, header, sizeof(found));
        assert_int_equal(disk_rig_read(&d, LAST, found, sizeof(found)), OK);
        assert_int_equal(disk_rig_read(&d, SECTORS, found, sizeof(found)), IOERR);
        disk_rig_close(&d);
    }
    assert_int_equal(stat("image", &after), 0);
    assert_int_equal(after.st_size, before.st_size);
    assert_int_equal(read(watch, event, sizeof(event)), -1); // nothing happened to it
    close(open(BACKING, O_RDONLY | O_CLOEXEC));
    assert_true(read(watch, event, sizeof(event)) > 0); // or we would not have seen it
    unlink(BACKING);
    close(backing);
    close(watch);
}

static int enter(void **state)
{
    return store_make(state) || disk_folder_enter(state);
}

static int leave(void **state)
{
    return store_remove(state) || disk_folder_leave(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_change_while_they_are_read),
        cmocka_unit_test(a_raw_disk_stays_raw),
    };
    return cmocka_run_group_tests_name("blk_hostile", tests, enter, leave);
}
