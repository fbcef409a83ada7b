// SPDX-License-Identifier: Apache-2.0
#include "pollers/topo.h"

#include <errno.h>
#include <hwloc.h>
#include <hwloc/glibc-sched.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

struct topo {
    hwloc_topology_t machine;
    hwloc_bitmap_t cpus;                // that this process may use
    char cpus_text[ERROR_TEXT_MAX / 4]; // the same, for people
};

// What a container or taskset leaves us. A synthetic machine is all ours.
static int find_cpus(struct topo *t, bool is_synthetic)
{
    t->cpus = hwloc_bitmap_dup(hwloc_topology_get_allowed_cpuset(t->machine));
    if (!t->cpus)
        return -ENOMEM;
    if (!is_synthetic) {
        cpu_set_t bound;
        if (sched_getaffinity(0, sizeof(bound), &bound))
            return -errno;
        for (unsigned cpu = 0; cpu < TOPO_CPUS_MAX; cpu++)
            if (!CPU_ISSET(cpu, &bound))
                hwloc_bitmap_clr(t->cpus, cpu);
    }
    hwloc_bitmap_clr_range(t->cpus, TOPO_CPUS_MAX, -1);
    hwloc_bitmap_list_snprintf(t->cpus_text, sizeof(t->cpus_text), t->cpus);
    return 0;
}

static int load_machine(hwloc_topology_t machine, const char *synthetic)
{
    if (synthetic && hwloc_topology_set_synthetic(machine, synthetic))
        return -EINVAL;
    // Cores and memory nodes are all we ask for: leaving out the rest loads faster.
    hwloc_topology_set_cache_types_filter(machine, HWLOC_TYPE_FILTER_KEEP_NONE);
    return hwloc_topology_load(machine) ? -errno : 0;
}

int topo_open(struct topo **out, const char *synthetic, struct error *e)
{
    struct topo *t = calloc(1, sizeof(*t));
    if (!t || hwloc_topology_init(&t->machine)) {
        free(t);
        return error_set(e, ENOMEM, "out of memory for the machine's topology");
    }
    int err = load_machine(t->machine, synthetic);
    if (!err)
        err = find_cpus(t, synthetic != NULL);
    if (err) {
        topo_close(t);
        return error_set(e, -err, "the machine's topology cannot be read: %s", strerror(-err));
    }
    *out = t;
    return 0;
}

void topo_close(struct topo *t)
{
    hwloc_bitmap_free(t->cpus);
    hwloc_topology_destroy(t->machine);
    free(t);
}

// ---- which CPUs --------------------------------------------------------------------------

// One CPU, the first that we may use, of each core but the first core.
static int select_auto(const struct topo *t, int cpus[], unsigned max)
{
    unsigned n = 0, n_cores = 0;
    int first = -1;
    hwloc_bitmap_t left = hwloc_bitmap_dup(t->cpus);
    for (int cpu; (cpu = hwloc_bitmap_first(left)) >= 0;) {
        hwloc_obj_t pu = hwloc_get_pu_obj_by_os_index(t->machine, (unsigned)cpu);
        hwloc_obj_t core = hwloc_get_ancestor_obj_by_type(t->machine, HWLOC_OBJ_CORE, pu);
        if (core)
            hwloc_bitmap_andnot(left, left, core->cpuset);
        hwloc_bitmap_clr(left, (unsigned)cpu);
        if (!n_cores++)
            first = cpu;
        else if (n < max)
            cpus[n++] = cpu;
    }
    hwloc_bitmap_free(left);
    if (n == 0 && first >= 0 && max > 0)
        cpus[n++] = first;
    return (int)n;
}

// A CPU number; *@text moves behind it. -1 if there is none.
static int read_cpu(const char **text)
{
    if (**text < '0' || **text > '9')
        return -1;
    char *end;
    unsigned long cpu = strtoul(*text, &end, 10);
    *text = end;
    return (int)(cpu < INT_MAX ? cpu : INT_MAX - 1);
}

// "4" or "4-7" at *@text, which moves behind it.
static bool read_range(const char **text, int *first, int *last)
{
    *first = *last = read_cpu(text);
    if (*first >= 0 && **text == '-') {
        (*text)++;
        *last = read_cpu(text);
    }
    return *first >= 0 && *last >= *first;
}

static int add_cpu(const struct topo *t, int cpu, int cpus[], unsigned *n, unsigned max,
                   struct error *e)
{
    if (cpu >= TOPO_CPUS_MAX || !hwloc_bitmap_isset(t->cpus, (unsigned)cpu))
        return error_set(e, EINVAL, "CPU %d is not one that this process may use (%s)", cpu,
                         t->cpus_text);
    for (unsigned i = 0; i < *n; i++)
        if (cpus[i] == cpu)
            return error_set(e, EINVAL, "CPU %d is named twice", cpu);
    if (*n == max)
        return error_set(e, EINVAL, "CPU %d is one too many: at most %u", cpu, max);
    cpus[(*n)++] = cpu;
    return 0;
}

int topo_select(const struct topo *t, const char *text, int cpus[], unsigned max, struct error *e)
{
    if (!strcmp(text, "auto"))
        return select_auto(t, cpus, max);

    unsigned n = 0;
    const char *rest = text;
    for (;;) {
        int first, last;
        if (!read_range(&rest, &first, &last) || (*rest != ',' && *rest != '\0'))
            return error_set(e, EINVAL,
                             "'%.100s' is neither auto nor a list of CPUs such as 2,4-7; this "
                             "process may use %s",
                             text, t->cpus_text);
        for (int cpu = first; cpu <= last; cpu++) {
            int err = add_cpu(t, cpu, cpus, &n, max, e);
            if (err)
                return err;
        }
        if (*rest++ == '\0')
            return (int)n;
    }
}

void topo_others(const struct topo *t, const int cpus[], unsigned n, cpu_set_t *out)
{
    hwloc_bitmap_t others = hwloc_bitmap_dup(t->cpus);
    for (unsigned i = 0; i < n; i++)
        hwloc_bitmap_clr(others, (unsigned)cpus[i]);
    CPU_ZERO(out);
    hwloc_cpuset_to_glibc_sched_affinity(t->machine, hwloc_bitmap_iszero(others) ? t->cpus : others,
                                         out, sizeof(*out));
    hwloc_bitmap_free(others);
}

int topo_pin(int cpu)
{
    if (cpu < 0 || cpu >= TOPO_CPUS_MAX)
        return -EINVAL;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return sched_setaffinity(0, sizeof(set), &set) ? -errno : 0;
}

// ---- which memory ------------------------------------------------------------------------

static hwloc_obj_t node_of(const struct topo *t, int cpu)
{
    hwloc_obj_t pu = hwloc_get_pu_obj_by_os_index(t->machine, (unsigned)cpu);
    return pu ? hwloc_get_next_obj_covering_cpuset_by_type(t->machine, pu->cpuset,
                                                           HWLOC_OBJ_NUMANODE, NULL)
              : NULL;
}

unsigned topo_node(const struct topo *t, int cpu)
{
    hwloc_obj_t node = node_of(t, cpu);
    return node ? node->os_index : 0;
}

void topo_prefer_node_of(const struct topo *t, int cpu)
{
    hwloc_obj_t node = node_of(t, cpu);
    if (node)
        hwloc_set_membind(t->machine, node->nodeset, HWLOC_MEMBIND_BIND,
                          HWLOC_MEMBIND_THREAD | HWLOC_MEMBIND_BYNODESET);
}

void topo_prefer_any(const struct topo *t)
{
    hwloc_set_membind(t->machine, hwloc_topology_get_allowed_nodeset(t->machine),
                      HWLOC_MEMBIND_DEFAULT, HWLOC_MEMBIND_THREAD | HWLOC_MEMBIND_BYNODESET);
}
