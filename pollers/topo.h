// SPDX-License-Identifier: Apache-2.0
// topo.h - the machine's cores and memory nodes. The one module that knows hwloc.
//
// Threads  [C]; topo_pin() by the thread that pins itself.
// Memory   the caller owns the struct topo.
#pragma once

#include "dataplane/error.h"

#include <sched.h>
#include <stdbool.h>

#define TOPO_CPUS_MAX CPU_SETSIZE

struct topo;

// [C] Read the machine, or (@synthetic not NULL) hwloc's synthetic description, for tests.
int topo_open(struct topo **out, const char *synthetic, struct error *e);
void topo_close(struct topo *t);

// [C] The CPUs of `--workers`: "auto" is one a core of the cpuset but the first core (that one if
// it is alone), else a list like "2,4-7". Fills @cpus (at most @max), returns how many, or
// -EINVAL with a sentence that names the CPU and the choices.
int topo_select(const struct topo *t, const char *text, int cpus[], unsigned max, struct error *e);

// [C] The memory node of @cpu, 0 on a machine with one.
unsigned topo_node(const struct topo *t, int cpu);

// [C] Until topo_prefer_any(): memory this thread touches first comes from @cpu's node.
void topo_prefer_node_of(const struct topo *t, int cpu);
void topo_prefer_any(const struct topo *t);

// The cpuset without @cpus: where control and the kernel's helpers run. The whole cpuset if
// nothing would be left.
void topo_others(const struct topo *t, const int cpus[], unsigned n, cpu_set_t *out);

// Pin the calling thread. 0 or -errno.
int topo_pin(int cpu);
