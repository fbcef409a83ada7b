// SPDX-License-Identifier: Apache-2.0
#include "bench/bench_options.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char bench_options_help[] =
    "usage: sluice-bench blk SOCKET [SOCKET ...] [OPTION ...]\n"
    "\n"
    "Drives the disk of any vhost-user back end as a guest would. Each SOCKET is one guest.\n"
    "\n"
    "  --rw PATTERN       read, write, randread, randwrite or randrw (default randread)\n"
    "  --bs SIZE          bytes in a request (default 4k)\n"
    "  --depth N          requests in flight on each queue (default 32)\n"
    "  --queues N         queues of each guest (default 1)\n"
    "  --time SECONDS     how long (default 10)\n"
    "  --ios N            how many requests instead\n"
    "  --guests N         N guests: %d in SOCKET becomes 0, 1, ...\n"
    "  --cpu N            pin this program to processor N\n"
    "  --verify           stamp what is written and compare what is read; a block is written\n"
    "                     before it is read for the first time\n"
    "  --range SIZE       use only the first SIZE bytes of each disk (default all)\n"
    "  --seed N           of the random numbers (default 1)\n"
    "  --ring LAYOUT      split or packed (default split)\n"
    "  --ring-size N      descriptors in a ring (default: what depth needs, 128 at least)\n"
    "  --indirect         each request as one indirect table (default)\n"
    "  --direct           each request as descriptors of the ring\n"
    "  --event-idx        negotiate the event index\n"
    "  --in-order         negotiate in-order use\n"
    "  --regions N        cut guest memory into N regions (default 1)\n"
    "  --huge             guest memory on 2 MiB pages\n"
    "  --json             print the result as JSON\n"
    "  --help             this text\n"
    "\n"
    "Progress goes to standard error each second, the result to standard output. The program\n"
    "ends with 0, or with 1 if the device broke the rules, data differed or requests failed.\n";

enum option_id {
    OPT_RW = 256,
    OPT_BS,
    OPT_DEPTH,
    OPT_QUEUES,
    OPT_TIME,
    OPT_IOS,
    OPT_GUESTS,
    OPT_CPU,
    OPT_VERIFY,
    OPT_RANGE,
    OPT_SEED,
    OPT_RING,
    OPT_RING_SIZE,
    OPT_INDIRECT,
    OPT_DIRECT,
    OPT_EVENT_IDX,
    OPT_IN_ORDER,
    OPT_REGIONS,
    OPT_HUGE,
    OPT_JSON,
    OPT_HELP,
};

static const struct option options[] = {
    {"rw", required_argument, NULL, OPT_RW},
    {"bs", required_argument, NULL, OPT_BS},
    {"depth", required_argument, NULL, OPT_DEPTH},
    {"queues", required_argument, NULL, OPT_QUEUES},
    {"time", required_argument, NULL, OPT_TIME},
    {"ios", required_argument, NULL, OPT_IOS},
    {"guests", required_argument, NULL, OPT_GUESTS},
    {"cpu", required_argument, NULL, OPT_CPU},
    {"verify", no_argument, NULL, OPT_VERIFY},
    {"range", required_argument, NULL, OPT_RANGE},
    {"seed", required_argument, NULL, OPT_SEED},
    {"ring", required_argument, NULL, OPT_RING},
    {"ring-size", required_argument, NULL, OPT_RING_SIZE},
    {"indirect", no_argument, NULL, OPT_INDIRECT},
    {"direct", no_argument, NULL, OPT_DIRECT},
    {"event-idx", no_argument, NULL, OPT_EVENT_IDX},
    {"in-order", no_argument, NULL, OPT_IN_ORDER},
    {"regions", required_argument, NULL, OPT_REGIONS},
    {"huge", no_argument, NULL, OPT_HUGE},
    {"json", no_argument, NULL, OPT_JSON},
    {"help", no_argument, NULL, OPT_HELP},
    {NULL, 0, NULL, 0},
};

static const char *const patterns[] = {
    [DISK_LOAD_READ] = "read",         [DISK_LOAD_WRITE] = "write",
    [DISK_LOAD_RANDREAD] = "randread", [DISK_LOAD_RANDWRITE] = "randwrite",
    [DISK_LOAD_RANDRW] = "randrw",
};

const char *bench_options_layout(const struct bench_options *o)
{
    return o->disk.features & VIRTIO_BIT(VIRTIO_F_RING_PACKED) ? "packed" : "split";
}

const char *bench_options_pattern(const struct bench_options *o)
{
    return patterns[o->load.pattern];
}

// ---- values ------------------------------------------------------------------------------

// A whole number from @min to @max, with K, M, G or T (powers of 1024).
static int parse_number(const char *name, const char *text, uint64_t min, uint64_t max,
                        uint64_t *out, struct error *e)
{
    static const char units[] = "KMGT";
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
    bool ok = isdigit((unsigned char)text[0]) && !errno && end[unit != NULL] == '\0' &&
              v <= UINT64_MAX >> shift;
    if (ok && v << shift >= min && v << shift <= max) {
        *out = v << shift;
        return 0;
    }
    return error_set(e, EINVAL, "--%s takes a number from %llu to %llu (K, M, G, T), not '%.60s'",
                     name, (unsigned long long)min, (unsigned long long)max, text);
}

static int parse_unsigned(const char *name, const char *text, uint64_t min, uint64_t max,
                          unsigned *out, struct error *e)
{
    uint64_t v;
    int rc = parse_number(name, text, min, max, &v, e);
    if (rc == 0)
        *out = (unsigned)v;
    return rc;
}

static int parse_seconds(const char *text, double *out, struct error *e)
{
    char *end;
    *out = strtod(text, &end);
    if (end != text && !*end && *out > 0 && *out <= 1e6)
        return 0;
    return error_set(e, EINVAL, "--time takes seconds above 0, not '%.60s'", text);
}

static int parse_pattern(const char *text, enum disk_load_pattern *out, struct error *e)
{
    for (unsigned i = 0; i < ARRAY_LEN(patterns); i++) {
        if (strcmp(text, patterns[i]) == 0) {
            *out = (enum disk_load_pattern)i;
            return 0;
        }
    }
    return error_set(e, EINVAL,
                     "--rw takes read, write, randread, randwrite or randrw, not '%.60s'", text);
}

static int parse_layout(const char *text, uint64_t *features, struct error *e)
{
    const uint64_t packed = VIRTIO_BIT(VIRTIO_F_RING_PACKED);
    if (strcmp(text, "packed") == 0)
        *features |= packed;
    else if (strcmp(text, "split") == 0)
        *features &= ~packed;
    else
        return error_set(e, EINVAL, "--ring takes split or packed, not '%.60s'", text);
    return 0;
}

static int parse_one(struct bench_options *o, int id, const char *name, const char *text,
                     struct error *e)
{
    switch (id) {
    case OPT_RW:
        return parse_pattern(text, &o->load.pattern, e);
    case OPT_BS:
        return parse_unsigned(name, text, 512, 16 << 20, &o->load.block_bytes, e);
    case OPT_DEPTH:
        return parse_unsigned(name, text, 1, SPLIT_SIZE_MAX, &o->load.depth, e);
    case OPT_QUEUES:
        return parse_unsigned(name, text, 1, GUEST_DISK_QUEUES_MAX, &o->disk.n_queues, e);
    case OPT_TIME:
        return parse_seconds(text, &o->seconds, e);
    case OPT_IOS:
        return parse_number(name, text, 1, UINT64_MAX - 1, &o->n_ios, e);
    case OPT_GUESTS:
        return parse_unsigned(name, text, 1, BENCH_GUESTS_MAX, &o->n_guests, e);
    case OPT_CPU:
        return parse_unsigned(name, text, 0, 65535, (unsigned *)&o->cpu, e);
    case OPT_RANGE:
        return parse_number(name, text, 512, UINT64_MAX, &o->load.range_bytes, e);
    case OPT_SEED:
        return parse_number(name, text, 0, UINT64_MAX, &o->load.seed, e);
    case OPT_RING:
        return parse_layout(text, &o->disk.features, e);
    case OPT_RING_SIZE:
        return parse_unsigned(name, text, 1, PACKED_SIZE_MAX, &o->disk.ring_size, e);
    case OPT_REGIONS:
        return parse_unsigned(name, text, 1, GUEST_REGIONS_MAX, &o->disk.memory.n_regions, e);
    case OPT_VERIFY:
        o->load.verify = true;
        return 0;
    case OPT_INDIRECT:
        o->load.form = GUEST_REQUEST_INDIRECT;
        return 0;
    case OPT_DIRECT:
        o->load.form = GUEST_REQUEST_DIRECT;
        return 0;
    case OPT_EVENT_IDX:
        o->disk.features |= VIRTIO_BIT(VIRTIO_F_EVENT_IDX);
        return 0;
    case OPT_IN_ORDER:
        o->disk.features |= VIRTIO_BIT(VIRTIO_F_IN_ORDER);
        return 0;
    case OPT_HUGE:
        o->disk.memory.is_huge = true;
        return 0;
    case OPT_JSON:
        o->is_json = true;
        return 0;
    default:
        o->is_help = true;
        return 0;
    }
}

// ---- what follows from the options -------------------------------------------------------

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
    if (!n_args)
        return error_set(e, EINVAL, "blk needs the socket of a back end; see --help");
    unsigned n = o->n_guests ? o->n_guests : n_args;
    bool is_pattern = n_args == 1 && strstr(args[0], "%d");
    if (n != n_args && !is_pattern)
        return error_set(e, EINVAL, "--guests %u needs one SOCKET with %%d in it", n);
    o->n_guests = 0;
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

static void derive(struct bench_options *o)
{
    struct guest_disk_config *d = &o->disk;
    struct guest_layout *m = &d->memory;
    const uint64_t unit = UINT64_C(2) << 20;
    bool is_indirect = o->load.form == GUEST_REQUEST_INDIRECT;
    if (is_indirect)
        d->features |= VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC);
    d->table_entries = is_indirect ? 4 : 0; // header, data, status; four make a line
    if (!d->ring_size) {
        d->ring_size = 128;
        while (d->ring_size < o->load.depth * (is_indirect ? 1u : 3u))
            d->ring_size *= 2;
    }
    uint64_t bytes = disk_load_memory_bytes(&o->load, d->n_queues, d->ring_size, d->table_entries);
    // A piece has to lie in one region: leave room for what does not fit at their ends.
    m->region_bytes = bytes / m->n_regions + o->load.block_bytes + 8192;
    m->region_bytes = (m->region_bytes + unit - 1) / unit * unit;
    m->first_addr = UINT64_C(1) << 30;
}

int bench_options_parse(struct bench_options *o, int argc, char *argv[], struct error *e)
{
    *o = (struct bench_options){
        .load = {.pattern = DISK_LOAD_RANDREAD,
                 .block_bytes = 4096,
                 .depth = 32,
                 .form = GUEST_REQUEST_INDIRECT,
                 .seed = 1},
        .disk = {.protocol = GUEST_DISK_PROTOCOL, .n_queues = 1, .memory.n_regions = 1},
        .n_ios = UINT64_MAX,
        .cpu = -1,
    };
    int id, index = 0;
    opterr = 0;
    while ((id = getopt_long(argc, argv, "", options, &index)) != -1) {
        if (id == '?')
            return error_set(e, EINVAL, "unknown option, or one without its value: %.60s",
                             argv[optind - 1]);
        int rc = parse_one(o, id, options[index].name, optarg, e);
        if (rc < 0)
            return rc;
    }
    if (o->is_help)
        return 0;
    if (optind == argc || strcmp(argv[optind], "blk") != 0)
        return error_set(e, EINVAL, "the first argument says what to drive: blk; see --help");
    if (o->seconds == 0 && o->n_ios == UINT64_MAX)
        o->seconds = 10;
    derive(o);
    return expand_sockets(o, argv + optind + 1, (unsigned)(argc - optind - 1), e);
}

void bench_options_close(struct bench_options *o)
{
    for (unsigned i = 0; o->sockets && i < o->n_guests; i++)
        free(o->sockets[i]);
    free(o->sockets);
}
