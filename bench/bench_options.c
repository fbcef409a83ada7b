// SPDX-License-Identifier: Apache-2.0
#include "bench/bench_options.h"

#include "bench/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FRAME_MAX 65550 // 65536 bytes behind an Ethernet header

static const char *const layouts[] = {"split", "packed", NULL};
static const char *const patterns[] = {
    [DISK_LOAD_READ] = "read",         [DISK_LOAD_WRITE] = "write",
    [DISK_LOAD_RANDREAD] = "randread", [DISK_LOAD_RANDWRITE] = "randwrite",
    [DISK_LOAD_RANDRW] = "randrw",     NULL,
};
static const char *const modes[] = {"forward", "both", "echo", "pingpong", NULL};
enum { MODE_PINGPONG = 3 }; // an echo of one

#define AT(field) offsetof(struct bench_options, field)

static const struct option_spec common_options[] = {
    {"depth", OPTION_COUNT, AT(depth), 1, SPLIT_SIZE_MAX, NULL, "N",
     "requests or frames on their way, on each queue (default 32)"},
    {"queues", OPTION_COUNT, AT(n_queues), 1, GUEST_NIC_PAIRS_MAX, NULL, "N",
     "queues, or pairs of them, of each guest (default 1)"},
    {"guests", OPTION_COUNT, AT(n_guests), 1, BENCH_GUESTS_MAX, NULL, "N",
     "N guests: %d in SOCKET becomes 0, 1, ..."},
    {"time", OPTION_SECONDS, AT(seconds), 0, 0, NULL, "SECONDS", "how long (default 10)"},
    {"rate", OPTION_NUMBER, AT(rate), 1, UINT32_MAX, NULL, "N",
     "so many a second in all; latency counts from when each was due"},
    {"verify", OPTION_FLAG, AT(is_verified), 0, 0, NULL, NULL,
     "compare each byte that comes back with what was sent or written"},
    {"cpu", OPTION_COUNT, AT(cpu), 0, 65535, NULL, "N", "pin this program to processor N"},
    {"server-cpu", OPTION_COUNT, AT(server_cpu), 0, 65535, NULL, "N",
     "where the back end's worker is: measures how near that is"},
    {"ring", OPTION_CHOICE, AT(ring), 0, 0, layouts, "LAYOUT", "split or packed (default split)"},
    {"ring-size", OPTION_COUNT, AT(ring_size), 1, PACKED_SIZE_MAX, NULL, "N",
     "descriptors in a ring (default by depth: blk 128, net 256 or more)"},
    {"indirect", OPTION_FLAG, AT(is_indirect), 0, 0, NULL, NULL,
     "requests and frames as indirect tables (blk: default)"},
    {"direct", OPTION_FLAG, AT(is_direct), 0, 0, NULL, NULL,
     "as descriptors of the ring (net: default)"},
    {"event-idx", OPTION_FLAG, AT(has_event_idx), 0, 0, NULL, NULL, "negotiate the event index"},
    {"in-order", OPTION_FLAG, AT(has_in_order), 0, 0, NULL, NULL, "negotiate in-order use"},
    {"regions", OPTION_COUNT, AT(n_regions), 1, GUEST_REGIONS_MAX, NULL, "N",
     "cut guest memory into N regions (default 1)"},
    {"huge", OPTION_FLAG, AT(is_huge), 0, 0, NULL, NULL, "guest memory on 2 MiB pages"},
    {"json", OPTION_FLAG, AT(is_json), 0, 0, NULL, NULL, "print the result as JSON"},
    {"help", OPTION_FLAG, AT(is_help), 0, 0, NULL, NULL, "this text"},
    {.name = NULL},
};

static const struct option_spec blk_options[] = {
    {"rw", OPTION_CHOICE, AT(pattern), 0, 0, patterns, "PATTERN",
     "read, write, randread, randwrite or randrw (default randread)"},
    {"bs", OPTION_COUNT, AT(block_bytes), 512, 16 << 20, NULL, "SIZE",
     "bytes in a request (default 4k)"},
    {"ios", OPTION_NUMBER, AT(n_units), 1, UINT64_MAX - 1, NULL, "N",
     "how many requests, instead of --time"},
    {"range", OPTION_NUMBER, AT(range_bytes), 512, UINT64_MAX, NULL, "SIZE",
     "use only the first SIZE bytes of each disk (default all)"},
    {"seed", OPTION_NUMBER, AT(seed), 0, UINT64_MAX, NULL, "N",
     "of the random numbers (default 1)"},
    {.name = NULL},
};

static const struct option_spec net_options[] = {
    {"mode", OPTION_CHOICE, AT(mode), 0, 0, modes, "MODE",
     "forward: even guests send to odd ones; both: all send; echo:\n"
     "                     odd ones send back; pingpong: an echo of one frame at a time\n"
     "                     (default forward)"},
    {"size", OPTION_TEXT, AT(size), 0, 0, NULL, "BYTES",
     "of a frame with its Ethernet header, or imix (default 64)"},
    {"frames", OPTION_NUMBER, AT(n_units), 1, UINT64_MAX - 1, NULL, "N",
     "how many frames, instead of --time"},
    {"mergeable", OPTION_FLAG, AT(is_mergeable), 0, 0, NULL, NULL,
     "negotiate mergeable receive buffers"},
    {.name = NULL},
};

static const struct option_spec *const blk_tables[] = {blk_options, common_options, NULL};
static const struct option_spec *const net_tables[] = {net_options, common_options, NULL};

static const struct {
    const char *name;
    const struct option_spec *const *tables;
} commands[] = {
    [BENCH_BLK] = {"blk", blk_tables},
    [BENCH_NET] = {"net", net_tables},
};

void bench_options_help(FILE *to)
{
    static const struct option_spec *const blk_only[] = {blk_options, NULL};
    static const struct option_spec *const net_only[] = {net_options, NULL};
    static const struct option_spec *const common[] = {common_options, NULL};
    fputs("usage: sluice-bench blk SOCKET [SOCKET ...] [OPTION ...]\n"
          "       sluice-bench net SOCKET SOCKET [...] [OPTION ...]\n"
          "\n"
          "Drives the disks, or the network devices, of any vhost-user back end as guests would.\n"
          "Each SOCKET is one guest.\n"
          "\n",
          to);
    options_help(common, to);
    fputs("\nblk:\n", to);
    options_help(blk_only, to);
    fputs("\nnet:\n", to);
    options_help(net_only, to);
    fputs(
        "\n"
        "Progress goes to standard error each second, the result to standard output. The program\n"
        "ends with 0, or with 1 if the device broke the rules, data differed, requests failed or\n"
        "frames were lost.\n",
        to);
}

const char *bench_options_layout(const struct bench_options *o)
{
    return layouts[o->ring];
}

const char *bench_options_pattern(const struct bench_options *o)
{
    return patterns[o->pattern];
}

const char *bench_options_mode(const struct bench_options *o)
{
    return modes[o->mode];
}

// ---- sockets -----------------------------------------------------------------------------

static char *socket_of(const char *pattern, unsigned i)
{
    const char *mark = strstr(pattern, "%d");
    char *path = NULL;
    if (!mark)
        return strdup(pattern);
    if (asprintf(&path, "%.*s%u%s", (int)(mark - pattern), pattern, i, mark + 2) < 0)
        return NULL;
    return path;
}

// One path a guest: the arguments, or one pattern for --guests.
static int expand_sockets(struct bench_options *o, char *const args[], unsigned n_args,
                          struct error *e)
{
    const char *command = commands[o->command].name;
    unsigned n = o->n_guests ? o->n_guests : n_args;
    o->n_guests = 0;
    if (!n_args)
        return error_set(e, EINVAL, "%s needs the socket of a back end; see --help", command);
    bool is_pattern = n_args == 1 && strstr(args[0], "%d");
    if (n != n_args && !is_pattern)
        return error_set(e, EINVAL, "--guests %u needs one SOCKET with %%d in it", n);
    if (o->command == BENCH_NET && n % 2)
        return error_set(e, EINVAL, "net needs guests in twos, not %u", n);
    o->sockets = calloc(n, sizeof o->sockets[0]);
    for (unsigned i = 0; o->sockets && i < n; i++) {
        o->sockets[i] = socket_of(args[is_pattern ? 0 : i], i);
        o->n_guests = i + 1;
        if (!o->sockets[i])
            break;
    }
    if (!o->sockets || !o->sockets[n - 1])
        return error_set(e, ENOMEM, "no memory for %u guests", n);
    return 0;
}

// ---- what follows from the options -------------------------------------------------------

static uint64_t ring_features(const struct bench_options *o, bool is_indirect)
{
    return (o->ring ? VIRTIO_BIT(VIRTIO_F_RING_PACKED) : 0) |
           (o->has_event_idx ? VIRTIO_BIT(VIRTIO_F_EVENT_IDX) : 0) |
           (o->has_in_order ? VIRTIO_BIT(VIRTIO_F_IN_ORDER) : 0) |
           (is_indirect ? VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) : 0);
}

static uint32_t ring_size(const struct bench_options *o, uint32_t least, uint32_t needed)
{
    if (o->ring_size)
        return o->ring_size;
    while (least < needed)
        least *= 2;
    return least;
}

// A piece has to lie in one region: leave room for what does not fit at their ends.
static struct guest_layout memory_of(const struct bench_options *o, uint64_t bytes, uint64_t piece)
{
    const uint64_t unit = UINT64_C(2) << 20;
    uint64_t region = bytes / o->n_regions + piece + 8192;
    return (struct guest_layout){
        .n_regions = o->n_regions,
        .region_bytes = (region + unit - 1) / unit * unit,
        .first_addr = UINT64_C(1) << 30,
        .is_huge = o->is_huge,
    };
}

static void derive_disk(struct bench_options *o)
{
    bool is_indirect = !o->is_direct;
    o->disk_load = (struct disk_load_config){
        .pattern = (enum disk_load_pattern)o->pattern,
        .block_bytes = o->block_bytes,
        .depth = o->depth,
        .form = is_indirect ? GUEST_REQUEST_INDIRECT : GUEST_REQUEST_DIRECT,
        .verify = o->is_verified,
        .range_bytes = o->range_bytes,
        .seed = o->seed,
    };
    struct guest_disk_config *d = &o->disk;
    *d = (struct guest_disk_config){
        .features = ring_features(o, is_indirect),
        .protocol = GUEST_DISK_PROTOCOL,
        .n_queues = o->n_queues,
        .ring_size = ring_size(o, 128, o->depth * (is_indirect ? 1u : 3u)),
        .table_entries = is_indirect ? 4 : 0, // header, data, status; four make a line
    };
    d->memory = memory_of(
        o, disk_load_memory_bytes(&o->disk_load, d->n_queues, d->ring_size, d->table_entries),
        o->block_bytes);
}

static int parse_size(const char *text, uint32_t *out, struct error *e)
{
    char *end;
    if (strcmp(text, "imix") == 0) {
        *out = NET_LOAD_IMIX;
        return 0;
    }
    unsigned long v = strtoul(text, &end, 10);
    if (end == text || *end || v < NET_LOAD_FRAME_MIN || v > FRAME_MAX)
        return error_set(e, EINVAL, "--size takes %d to %d bytes or imix, not '%.60s'",
                         NET_LOAD_FRAME_MIN, FRAME_MAX, text);
    *out = (uint32_t)v;
    return 0;
}

static int derive_net(struct bench_options *o, struct error *e)
{
    struct guest_nic_config *n = &o->nic;
    bool is_pingpong = o->mode == MODE_PINGPONG;
    o->net_load = (struct net_load_config){
        .mode = is_pingpong ? NET_LOAD_ECHO : (enum net_load_mode)o->mode,
        .depth = is_pingpong ? 1 : o->depth,
        .verify = o->is_verified,
    };
    int rc = parse_size(o->size, &o->net_load.frame_bytes, e);
    if (rc < 0)
        return rc;
    uint32_t whole = MAX(o->net_load.frame_bytes, 1518u) + VIRTIO_NET_HDR_BYTES_HASH;
    uint32_t buffer = o->is_mergeable ? 2048 : MAX((whole + 63) & ~63u, 2048u);
    *n = (struct guest_nic_config){
        .required = ring_features(o, o->is_indirect) |
                    (o->is_mergeable ? VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF) : 0) |
                    (o->n_queues > 1 ? VIRTIO_BIT(VIRTIO_NET_F_MQ) : 0),
        .protocol = GUEST_NIC_PROTOCOL,
        .n_pairs = o->n_queues,
        .ring_size = ring_size(o, 256, o->depth),
        .table_entries = o->is_indirect ? 4 : 0,
        .receive_bytes = buffer,
        .send_bytes = MAX((whole + 63) & ~63u, 2048u),
        .is_header_apart = o->is_indirect,
    };
    n->memory = memory_of(o, guest_nic_memory_bytes(n), n->send_bytes);
    return 0;
}

static int find_command(enum bench_command *out, int argc, char *argv[], struct error *e)
{
    for (unsigned i = 0; i < ARRAY_LEN(commands); i++) {
        if (argc > 1 && strcmp(argv[1], commands[i].name) == 0) {
            *out = (enum bench_command)i;
            return 0;
        }
    }
    return error_set(e, EINVAL, "the first argument says what to drive: blk or net; see --help");
}

int bench_options_parse(struct bench_options *o, int argc, char *argv[], struct error *e)
{
    *o = (struct bench_options){
        .n_regions = 1,
        .n_queues = 1,
        .depth = 32,
        .cpu = BENCH_NO_CPU,
        .server_cpu = BENCH_NO_CPU,
        .n_units = UINT64_MAX,
        .pattern = DISK_LOAD_RANDREAD,
        .block_bytes = 4096,
        .seed = 1,
        .size = "64",
    };
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        o->is_help = true;
        return 0;
    }
    int first, rc = find_command(&o->command, argc, argv, e);
    if (rc == 0)
        rc = options_parse(o, commands[o->command].tables, argc - 1, argv + 1, &first, e);
    if (rc < 0 || o->is_help)
        return rc;
    if (o->is_direct && o->is_indirect)
        return error_set(e, EINVAL, "--direct and --indirect exclude each other");
    if (o->command == BENCH_BLK && o->n_queues > GUEST_DISK_QUEUES_MAX)
        return error_set(e, EINVAL, "--queues takes a number from 1 to %d, not '%u'",
                         GUEST_DISK_QUEUES_MAX, o->n_queues);
    if (o->server_cpu != BENCH_NO_CPU && o->cpu == BENCH_NO_CPU)
        return error_set(e, EINVAL, "--server-cpu needs --cpu: how far is it from where?");
    if (o->seconds == 0 && o->n_units == UINT64_MAX)
        o->seconds = 10;
    if (o->command == BENCH_BLK)
        derive_disk(o);
    else
        rc = derive_net(o, e);
    if (rc < 0)
        return rc;
    argv += 1 + first;
    return expand_sockets(o, argv, (unsigned)(argc - 1 - first), e);
}

void bench_options_close(struct bench_options *o)
{
    for (unsigned i = 0; o->sockets && i < o->n_guests; i++)
        free(o->sockets[i]);
    free(o->sockets);
}
