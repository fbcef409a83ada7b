// SPDX-License-Identifier: Apache-2.0
// sluice-bench: loads the disks or network devices of a vhost-user back end and measures.
#include "bench/bench_command.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

static int pin(unsigned cpu, struct error *e)
{
    cpu_set_t set;
    if (cpu == BENCH_NO_CPU)
        return 0;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0)
        return error_set(e, errno, "cannot pin to processor %u: %s", cpu, strerror(errno));
    return 0;
}

// A guest takes a memfd, a socket and two eventfds a ring.
static void raise_file_limit(void)
{
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
        l.rlim_cur = l.rlim_max;
        setrlimit(RLIMIT_NOFILE, &l);
    }
}

static int run(const struct bench_options *o, struct error *e)
{
    raise_file_limit();
    int rc = pin(o->cpu, e);
    if (rc < 0)
        return rc;
    return o->command == BENCH_BLK ? bench_blk(o, e) : bench_net(o, e);
}

int main(int argc, char *argv[])
{
    struct bench_options o;
    struct error e;
    int rc = bench_options_parse(&o, argc, argv, &e);
    if (rc == 0 && o.is_help)
        bench_options_help(stdout);
    else if (rc == 0)
        rc = run(&o, &e);
    if (rc < 0)
        fprintf(stderr, "sluice-bench: %s\n", e.text);
    bench_options_close(&o);
    return rc < 0 ? 1 : 0;
}
