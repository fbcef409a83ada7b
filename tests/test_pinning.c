// SPDX-License-Identifier: Apache-2.0
#include "dataplane/pinning.h"
#include "devices/disk_file.h"
#include "tests/child.h"
#include "tests/disk_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define IMAGE      (1u << 20)
#define REGION     (4u << 20)
#define DATA       (128u << 10) // in the arena: apart
#define PATIENCE_S 60

static bool is_late(time_t since)
{
    return time(NULL) - since > PATIENCE_S;
}

static int need_lending(void **state)
{
    (void)state;
    if (!uring_can_lend()) {
        print_message("this kernel's rings cannot share buffers (before Linux 6.13)\n");
        skip();
    }
    return 0;
}

// ---- the table of fixed buffers ----------------------------------------------------------

static uint8_t pages[4][4096];

static void open_source(struct io_uring *from, unsigned n)
{
    struct iovec iovs[ARRAY_LEN(pages)];
    for (unsigned i = 0; i < n; i++)
        iovs[i] = (struct iovec){pages[i], sizeof(pages[i])};
    assert_int_equal(io_uring_queue_init(1, from, 0), 0);
    assert_int_equal(io_uring_register_buffers(from, iovs, n), 0);
}

static void open_ring(struct uring *u)
{
    struct error e;
    check_ok(uring_open(u, &e), &e);
    assert_int_equal(uring_enable(u, NULL, 0), 0);
}

static int result_of_read;

static void has_read(struct uring_op *op, int result)
{
    (void)op;
    result_of_read = result;
}

// What a read of zeros into the first page says that names @slot.
static int read_with(struct uring *u, int slot, void *to)
{
    struct uring_op op = {.done = has_read};
    int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    io_uring_prep_read_fixed(uring_entry(u, &op), fd, to, 4096, 0, slot);
    while (!uring_reap(u, 1))
        uring_sleep(u, UINT64_MAX);
    close(fd);
    return result_of_read;
}

static void buffers_are_lent_and_given_back(void **state)
{
    (void)state;
    struct uring u;
    struct io_uring a, b;
    open_ring(&u);
    open_source(&a, 3);
    open_source(&b, 1);
    assert_int_equal(uring_take_buffers(&u, a.ring_fd, 3), 0);
    assert_int_equal(uring_take_buffers(&u, b.ring_fd, 1), 3);
    assert_int_equal(uring_take_buffers(&u, a.ring_fd, 3), 0);
    memset(pages, 1, sizeof(pages));
    assert_int_equal(read_with(&u, 2, pages[2]), 4096);
    assert_int_equal(read_with(&u, 3, pages[0]), 4096);
    assert_int_equal(read_with(&u, 2, pages[0]), -EFAULT); // another buffer

    uring_give_buffers(&u, a.ring_fd);
    assert_int_equal(read_with(&u, 2, pages[2]), 4096); // taken twice
    uring_give_buffers(&u, a.ring_fd);
    assert_int_equal(read_with(&u, 2, pages[2]), -EFAULT);
    assert_int_equal(read_with(&u, 3, pages[0]), 4096);

    // The hole is used again; what does not fit goes behind.
    assert_int_equal(uring_take_buffers(&u, a.ring_fd, 3), 0);
    assert_int_equal(u.n_loans, 2);
    uring_give_buffers(&u, a.ring_fd);
    uring_give_buffers(&u, b.ring_fd);
    assert_int_equal(u.n_loans, 0);
    uring_close(&u);
    io_uring_queue_exit(&a);
    io_uring_queue_exit(&b);
}

static void the_table_has_an_end(void **state)
{
    (void)state;
    struct uring u;
    struct io_uring from[URING_LOANS_MAX + 1];
    open_ring(&u);
    for (unsigned i = 0; i < ARRAY_LEN(from); i++)
        open_source(&from[i], 1);
    assert_int_equal(uring_take_buffers(&u, from[0].ring_fd, URING_BUFFERS_MAX + 1), -ENOSPC);
    assert_int_equal(uring_take_buffers(&u, from[0].ring_fd, 0), -ENOSPC);
    for (unsigned i = 0; i < URING_LOANS_MAX; i++)
        assert_int_equal(uring_take_buffers(&u, from[i].ring_fd, 1), i);
    assert_int_equal(uring_take_buffers(&u, from[URING_LOANS_MAX].ring_fd, 1), -ENOSPC);
    uring_give_buffers(&u, from[5].ring_fd);
    assert_int_equal(uring_take_buffers(&u, from[URING_LOANS_MAX].ring_fd, 1), 5);
    assert_int_equal(read_with(&u, 5, pages[0]), 4096);
    uring_close(&u);
    for (unsigned i = 0; i < ARRAY_LEN(from); i++)
        io_uring_queue_exit(&from[i]);
}

// ---- a disk ------------------------------------------------------------------------------

static struct pinning *pinning_of(const struct disk_rig *d)
{
    return ((struct disk_queue *)d->rig.queue->priv)->disk->pinning;
}

static const struct pin_view *view_of(const struct disk_rig *d)
{
    return &file_of(d->rig.queue->priv)->pins;
}

static void open_pinned(struct disk_rig *d, uint64_t layout, const char *keys)
{
    disk_make_file("image", IMAGE);
    disk_need_direct("image");
    disk_open_rig(d, keys, layout | VIRTIO_BIT(VIRTIO_BLK_F_FLUSH));
}

// Until what is to be pinned is.
static void tick_until_pinned(struct disk_rig *d)
{
    struct device *device = d->rig.device;
    time_t since = time(NULL);
    const struct pinning *p = pinning_of(d);
    do {
        device->type->tick(device, 0);
        assert_false(is_late(since));
    } while (p->next || p->working);
    assert_non_null(p->current);
}

static void pin_all(struct disk_rig *d)
{
    d->rig.device->type->memory(d->rig.device, d->rig.mem);
    tick_until_pinned(d);
}

// A request whose data are one aligned segment, at @at in the arena.
static uint8_t run_aligned(struct disk_rig *d, uint32_t type, uint64_t sector, uint32_t at,
                           uint32_t bytes)
{
    struct guest *g = d->rig.guest;
    bool is_read = type == VIRTIO_BLK_T_IN;
    struct virtio_blk_req_header header = {.type = type, .sector = sector};
    memcpy(d->arena, &header, sizeof(header));
    uint8_t *status = d->arena + 64;
    *status = DISK_CANARY;
    struct driver_segment pieces[] = {{guest_addr(g, d->arena), sizeof(header)},
                                      {guest_addr(g, d->arena + at), bytes},
                                      {guest_addr(g, status), 1}};
    struct driver_chain chain = {.segments = pieces,
                                 .n_out = is_read ? 1 : 2,
                                 .n_in = is_read ? 2 : 1,
                                 .n_direct = 3,
                                 .in_bytes = (is_read ? bytes : 0) + 1};
    struct driver_chain *chains[] = {&chain};
    uint32_t length;
    assert_int_equal(device_rig_run(&d->rig, chains, &length, 1), 1);
    assert_int_equal(length, chain.in_bytes);
    return *status;
}

static void check_data(struct disk_rig *d, unsigned seed)
{
    static const uint32_t sizes[] = {512, 4096, 8192, 65536};
    static uint8_t data[65536], got[65536];
    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        uint64_t sector = i * 256;
        uint8_t *out = d->arena + DATA, *in = d->arena + 2 * DATA;
        disk_pattern(data, sizes[i], sector, seed);
        memcpy(out, data, sizes[i]);
        assert_int_equal(run_aligned(d, VIRTIO_BLK_T_OUT, sector, DATA, sizes[i]), 0);
        disk_read_file("image", got, sector * 512, sizes[i]);
        assert_memory_equal(data, got, sizes[i]);
        memset(in, 0, sizes[i]);
        assert_int_equal(run_aligned(d, VIRTIO_BLK_T_IN, sector, 2 * DATA, sizes[i]), 0);
        assert_memory_equal(data, in, sizes[i]);
        assert_int_equal(disk_rig_write(d, sector, data, sizes[i]), 0); // not aligned: bounces
        assert_int_equal(disk_rig_read(d, sector, got, sizes[i]), 0);
        assert_memory_equal(data, got, sizes[i]);
    }
}

static void data_is_the_same(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(rig_layouts); i++) {
        struct disk_rig d;
        open_pinned(&d, rig_layouts[i], "image pin=on");
        check_data(&d, 1);
        assert_null(view_of(&d)->slices);
        pin_all(&d);
        check_data(&d, 2);
        assert_int_equal(view_of(&d)->n_slices, 1);
        assert_int_equal(d.rig.lane.uring.n_loans, 1);
        device_rig_resume(&d.rig); // leaves its lane, and comes again
        assert_int_equal(d.rig.lane.uring.n_loans, 0);
        check_data(&d, 3);
        assert_int_equal(d.rig.lane.uring.n_loans, 1);
        disk_rig_close(&d);
    }
}

// A request with fixed buffers finds the pages that were there first. So what the guest gave back
// since reads as zeros: the reason why nothing is pinned unless it is asked for.
static void given_back_pages_are_stale(void **state)
{
    (void)state;
    for (unsigned pins = 0; pins < 2; pins++) {
        struct disk_rig d;
        open_pinned(&d, rig_layouts[0], pins ? "image pin=on" : "image pin=off");
        assert_int_equal(pinning_of(&d) != NULL, pins);
        if (pins)
            pin_all(&d);
        uint8_t *in = d.arena + DATA;
        memset(in, 7, 4096);
        assert_int_equal(run_aligned(&d, VIRTIO_BLK_T_OUT, 8, DATA, 4096), 0);
        struct guest_region *region = &d.rig.guest->regions[0];
        off_t at = (off_t)(region->file_offset + (uint64_t)(in - d.rig.guest->host));
        assert_int_equal(
            fallocate(region->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, 4096), 0);
        assert_int_equal(run_aligned(&d, VIRTIO_BLK_T_IN, 8, DATA, 4096), 0);
        assert_int_equal(in[0], pins ? 0 : 7);
        assert_int_equal(in[4095], pins ? 0 : 7);
        disk_rig_close(&d);
    }
}

// ---- memory that changes -----------------------------------------------------------------

static void tell(struct disk_rig *d, struct mem *new)
{
    struct mem *old = d->rig.mem;
    d->rig.mem = new;
    d->rig.device->type->memory(d->rig.device, new);
    ring_set_mem(&d->rig.queue->ring, new);
    mem_free(old);
}

static int other_region(struct mem_desc *desc)
{
    int fd = memfd_create("other", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, REGION), 0);
    *desc = (struct mem_desc){.guest_addr = UINT64_C(1) << 40, .size = REGION, .user_addr = 4096};
    return fd;
}

static void memory_comes_and_goes(void **state)
{
    (void)state;
    struct disk_rig d;
    struct error e;
    struct mem_desc desc;
    struct mem *more, *less;
    open_pinned(&d, rig_layouts[0], "image pin=on");
    pin_all(&d);
    check_data(&d, 1);
    int fd = other_region(&desc);
    check_ok(mem_add(&more, d.rig.mem, &desc, fd, &e), &e);
    const struct pinned *first = view_of(&d)->pinned;
    tell(&d, more);
    check_data(&d, 2);
    assert_ptr_equal(view_of(&d)->pinned, first); // stays while the rest is pinned
    tick_until_pinned(&d);
    for (unsigned i = 0; i < 500; i++) { // what a queue still has does not end
        usleep(100);
        d.rig.device->type->tick(d.rig.device, 0);
        assert_ptr_equal(pinning_of(&d)->retired, first);
    }
    check_data(&d, 3);
    assert_int_equal(view_of(&d)->n_slices, 2);
    assert_int_equal(d.rig.lane.uring.n_loans, 1);

    // The session has stopped all queues when some of it goes.
    check_ok(mem_remove(&less, d.rig.mem, &desc, &e), &e);
    d.rig.device->type->lane_leave(d.rig.queue);
    tell(&d, less);
    assert_int_equal(d.rig.device->type->lane_enter(d.rig.queue), 0);
    check_data(&d, 4);
    assert_null(view_of(&d)->slices);
    tick_until_pinned(&d);
    check_data(&d, 5);
    assert_int_equal(view_of(&d)->n_slices, 1);
    time_t since = time(NULL);
    while (pinning_of(&d)->retired) {
        d.rig.device->type->tick(d.rig.device, 0);
        assert_false(is_late(since));
    }
    close(fd);
    disk_rig_close(&d);
}

// Slices end at the kernel's limit of a buffer; what lies across is nobody's.
static void slices_are_found_by_address(void **state)
{
    (void)state;
    const struct pin_slice slices[] = {{0x1000, 0x1000}, {0x2000, 0x1000}, {0x9000, 0x800}};
    static const struct {
        uintptr_t at;
        size_t bytes;
        int slot;
    } cases[] = {{0x1000, 0x1000, 10}, {0x1fff, 1, 10},      {0x1fff, 2, -1},     {0x2000, 1, 11},
                 {0xfff, 1, -1},       {0x3000, 1, -1},      {0x9000, 0x800, 12}, {0x97ff, 2, -1},
                 {0x8fff, 1, -1},      {UINTPTR_MAX, 2, -1}, {0, 1, -1},          {0x2fff, 1, 11}};
    struct pin_view v = {.first = 10, .slices = slices, .n_slices = ARRAY_LEN(slices)};
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < ARRAY_LEN(cases); i++)
            assert_int_equal(pinning_find(&v, (void *)cases[i].at, cases[i].bytes), cases[i].slot);
    }
    assert_int_equal(pinning_find(&(struct pin_view){0}, slices, 1), -1);
}

// ---- a worker beside control -------------------------------------------------------------

struct beside {
    struct pinning *pinning;
    atomic_bool is_over;
    atomic_uint n_views; // with slices
};

static void *look_again_and_again(void *argument)
{
    struct beside *b = argument;
    struct uring u;
    struct pin_view views[2] = {0};
    open_ring(&u);
    for (unsigned i = 0; !b->is_over; i++) {
        struct pin_view *v = &views[i % 2];
        pinning_look(b->pinning, v, &u);
        if (v->slices)
            b->n_views++;
        if (i % 64 == 63)
            pinning_leave(v, &u);
    }
    for (unsigned i = 0; i < 2; i++)
        pinning_leave(&views[i], &u);
    assert(u.n_loans == 0);
    uring_close(&u);
    return NULL;
}

static void workers_look_while_memory_changes(void **state)
{
    (void)state;
    struct error e;
    struct mem *small, *large;
    struct mem_desc descs[2];
    int fds[2] = {other_region(&descs[0]), other_region(&descs[1])};
    descs[1].guest_addr *= 2;
    descs[1].user_addr += REGION;
    check_ok(mem_set(&small, NULL, descs, fds, 1, &e), &e);
    check_ok(mem_set(&large, small, descs, fds, 2, &e), &e);
    struct beside b = {0};
    check_ok(pinning_open(&b.pinning, "d", &e), &e);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, look_again_and_again, &b), 0);
    time_t since = time(NULL);
    for (unsigned i = 0; i < 40; i++) {
        pinning_set_memory(b.pinning, i % 2 ? large : small);
        unsigned seen = b.n_views;
        // Each third is not waited for.
        while (i % 3 && (b.pinning->next || b.pinning->working || b.n_views == seen)) {
            pinning_tick(b.pinning);
            assert_false(is_late(since));
        }
    }
    b.is_over = true;
    pthread_join(thread, NULL);
    pinning_close(b.pinning);
    mem_free(small);
    mem_free(large);
    close(fds[0]);
    close(fds[1]);
}

// ---- where it cannot be ------------------------------------------------------------------

// Run @what in a process of its own and look at what that logged.
static void check_log_of(void (*what)(void), const char *const parts[], unsigned n)
{
    int out = open("log", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(out, STDERR_FILENO);
        what();
        _exit(0);
    }
    assert_int_equal(child_wait(pid, PATIENCE_S), 0);
    char text[4096] = "";
    assert_true(pread(out, text, sizeof(text) - 1, 0) >= 0);
    close(out);
    disk_check_says("log", text, parts, n);
}

// As a kernel that does not know the operation.
static void refuse_clones(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_register, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, URING_REGISTER_CLONE_BUFFERS, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {ARRAY_LEN(code), code};
    assert_int_equal(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    assert_int_equal(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

static void serve_without_clones(void)
{
    struct disk_rig d;
    refuse_clones();
    open_pinned(&d, rig_layouts[0], "image pin=on");
    if (pinning_of(&d))
        _exit(1);
    d.rig.device->type->memory(d.rig.device, d.rig.mem);
    check_data(&d, 1);
    disk_rig_close(&d);
}

static void an_old_kernel_is_said(void **state)
{
    (void)state;
    static const char *const parts[] = {"disk d: pin=on", "Linux 6.13", NULL};
    check_log_of(serve_without_clones, parts, 2);
}

static void serve_within_limit(void)
{
    struct disk_rig d;
    const struct rlimit limit = {1 << 20, 1 << 20};
    open_pinned(&d, rig_layouts[0], "image pin=on");
    if (setrlimit(RLIMIT_MEMLOCK, &limit) || setgroups(0, NULL) || setgid(65534) || setuid(65534))
        _exit(1);
    d.rig.device->type->memory(d.rig.device, d.rig.mem);
    while (pinning_of(&d)->next || pinning_of(&d)->working)
        d.rig.device->type->tick(d.rig.device, 0);
    if (pinning_of(&d)->current)
        _exit(2);
    check_data(&d, 1);
    disk_rig_close(&d);
}

static void a_limit_is_said(void **state)
{
    (void)state;
    static const char *const parts[] = {"disk d: pin=on", "8 MiB", "1024 KiB", NULL};
    if (geteuid() != 0) {
        print_message("needs root, to become another user\n");
        skip();
    }
    check_log_of(serve_within_limit, parts, 3);
}

static void a_buffered_image_is_said(void **state)
{
    (void)state;
    struct disk_rig d;
    open_pinned(&d, rig_layouts[0], "image cache=buffered pin=on");
    assert_null(pinning_of(&d));
    check_data(&d, 1);
    disk_rig_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(buffers_are_lent_and_given_back, need_lending),
        cmocka_unit_test_setup(the_table_has_an_end, need_lending),
        cmocka_unit_test_setup(data_is_the_same, need_lending),
        cmocka_unit_test_setup(given_back_pages_are_stale, need_lending),
        cmocka_unit_test_setup(memory_comes_and_goes, need_lending),
        cmocka_unit_test(slices_are_found_by_address),
        cmocka_unit_test_setup(workers_look_while_memory_changes, need_lending),
        cmocka_unit_test(an_old_kernel_is_said),
        cmocka_unit_test_setup(a_limit_is_said, need_lending),
        cmocka_unit_test(a_buffered_image_is_said),
    };
    return cmocka_run_group_tests_name("pinning", tests, disk_folder_enter, disk_folder_leave);
}
