// SPDX-License-Identifier: Apache-2.0
#include "pollers/topo.h"
#include "tests/check.h"

#include <errno.h>
#include <linux/mempolicy.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TWO_SOCKETS "numa:2 core:4 pu:2" // CPUs 0-15, two a core, node 1 from CPU 8
#define ONE_CORE    "core:1 pu:2"
#define NO_SMT      "core:4 pu:1"

static struct topo *open_machine(const char *synthetic)
{
    struct topo *t;
    struct error e;
    check_ok(topo_open(&t, synthetic, &e), &e);
    return t;
}

struct selection {
    const char *machine, *text;
    unsigned max;
    int n; // -EINVAL: the sentence holds…
    int cpus[8];
    const char *sentence;
};

static const struct selection selections[] = {
    {TWO_SOCKETS, "auto", 8, 7, {2, 4, 6, 8, 10, 12, 14}, NULL},
    {TWO_SOCKETS, "auto", 3, 3, {2, 4, 6}, NULL},
    {NO_SMT, "auto", 8, 3, {1, 2, 3}, NULL},
    {ONE_CORE, "auto", 8, 1, {0}, NULL},
    {"core:1 pu:1", "auto", 8, 1, {0}, NULL},
    {TWO_SOCKETS, "3", 8, 1, {3}, NULL},
    {TWO_SOCKETS, "2,4-7", 8, 5, {2, 4, 5, 6, 7}, NULL},
    {TWO_SOCKETS, "15-15,0", 8, 2, {15, 0}, NULL},
    {TWO_SOCKETS, "16", 8, -EINVAL, {0}, "CPU 16 is not one that this process may use (0-15)"},
    {TWO_SOCKETS, "14-99999", 8, -EINVAL, {0}, "CPU 16 is not"},
    {TWO_SOCKETS, "99999999999999999999", 8, -EINVAL, {0}, "is not one"},
    {TWO_SOCKETS, "3,2-4", 8, -EINVAL, {0}, "CPU 3 is named twice"},
    {TWO_SOCKETS, "0-7", 4, -EINVAL, {0}, "CPU 4 is one too many: at most 4"},
    {TWO_SOCKETS, "", 8, -EINVAL, {0}, "neither auto nor a list of CPUs"},
    {TWO_SOCKETS, "7-4", 8, -EINVAL, {0}, "'7-4' is neither"},
    {TWO_SOCKETS, "1,", 8, -EINVAL, {0}, "this process may use 0-15"},
    {TWO_SOCKETS, ",1", 8, -EINVAL, {0}, "neither"},
    {TWO_SOCKETS, "1-", 8, -EINVAL, {0}, "neither"},
    {TWO_SOCKETS, "-1", 8, -EINVAL, {0}, "neither"},
    {TWO_SOCKETS, "1 2", 8, -EINVAL, {0}, "neither"},
    {TWO_SOCKETS, "all", 8, -EINVAL, {0}, "neither"},
};

static void cpus_are_selected(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(selections) / sizeof(selections[0]); i++) {
        const struct selection *s = &selections[i];
        struct topo *t = open_machine(s->machine);
        int cpus[8];
        struct error e = {""};
        int n = topo_select(t, s->text, cpus, s->max, &e);
        if (n != s->n)
            fail_msg("%s of %s: %d (%s)", s->text, s->machine, n, e.text);
        for (int k = 0; k < n; k++)
            assert_int_equal(cpus[k], s->cpus[k]);
        if (s->sentence && !strstr(e.text, s->sentence))
            fail_msg("'%s' lacks '%s'", e.text, s->sentence);
        topo_close(t);
    }
}

static void nodes_are_told(void **state)
{
    (void)state;
    struct topo *t = open_machine(TWO_SOCKETS);
    assert_int_equal(topo_node(t, 0), 0);
    assert_int_equal(topo_node(t, 7), 0);
    assert_int_equal(topo_node(t, 8), 1);
    assert_int_equal(topo_node(t, 15), 1);
    assert_int_equal(topo_node(t, 16), 0);
    topo_close(t);
    t = open_machine(NO_SMT);
    assert_int_equal(topo_node(t, 3), 0);
    topo_close(t);
}

static void others_are_the_rest(void **state)
{
    (void)state;
    struct topo *t = open_machine(NO_SMT);
    cpu_set_t set;
    const int cpus[] = {1, 3, 0, 2};
    topo_others(t, cpus, 2, &set);
    assert_int_equal(CPU_COUNT(&set), 2);
    assert_true(CPU_ISSET(0, &set) && CPU_ISSET(2, &set));
    topo_others(t, cpus, 0, &set);
    assert_int_equal(CPU_COUNT(&set), 4);
    topo_others(t, cpus, 4, &set); // nothing left: everything
    assert_int_equal(CPU_COUNT(&set), 4);
    topo_close(t);
}

// A thread of its own, so that the test itself stays where it may run.
static void *look_at_this_machine(void *argument)
{
    bool *is_right = argument;
    cpu_set_t all, one;
    sched_getaffinity(0, sizeof(all), &all);
    int cpu = 0;
    while (!CPU_ISSET(cpu, &all))
        cpu++;
    if (topo_pin(cpu))
        return "the first CPU cannot be pinned to";
    sched_getaffinity(0, sizeof(one), &one);
    if (CPU_COUNT(&one) != 1 || !CPU_ISSET(cpu, &one))
        return "pinned elsewhere";

    // What is left of the machine is then one CPU.
    struct topo *t = open_machine(NULL);
    char text[16];
    int cpus[2];
    struct error e;
    int n = topo_select(t, "auto", cpus, 2, &e);
    if (n != 1 || cpus[0] != cpu)
        return "auto ignores the affinity";
    for (int other = 0; other < CPU_SETSIZE; other++) {
        snprintf(text, sizeof(text), "%d", other);
        n = topo_select(t, text, cpus, 2, &e);
        if (n != (other == cpu ? 1 : -EINVAL))
            return "a CPU outside of the affinity is taken";
    }
    topo_close(t);
    *is_right = true;
    return NULL;
}

static void affinity_is_respected(void **state)
{
    (void)state;
    bool is_right = false;
    pthread_t thread;
    void *complaint;
    pthread_create(&thread, NULL, look_at_this_machine, &is_right);
    pthread_join(thread, &complaint);
    if (!is_right)
        fail_msg("%s", (const char *)complaint);
    assert_int_equal(topo_pin(-1), -EINVAL);
    assert_int_equal(topo_pin(CPU_SETSIZE), -EINVAL);
}

static int memory_policy(void)
{
    int mode = -1;
    syscall(SYS_get_mempolicy, &mode, NULL, 0, NULL, 0);
    return mode;
}

static void memory_is_preferred_and_released(void **state)
{
    (void)state;
    struct topo *t = open_machine(NULL);
    int cpus[1];
    struct error e;
    assert_int_equal(topo_select(t, "auto", cpus, 1, &e), 1);
    topo_prefer_node_of(t, cpus[0]);
    int mode = memory_policy();
    assert_true(mode == MPOL_PREFERRED || mode == MPOL_PREFERRED_MANY);
    topo_prefer_any(t);
    assert_int_equal(memory_policy(), MPOL_DEFAULT);
    topo_close(t);
}

static void nonsense_is_refused(void **state)
{
    (void)state;
    struct topo *t;
    struct error e;
    assert_int_equal(topo_open(&t, "no such thing", &e), -EINVAL);
    assert_non_null(strstr(e.text, "topology"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpus_are_selected),
        cmocka_unit_test(nodes_are_told),
        cmocka_unit_test(others_are_the_rest),
        cmocka_unit_test(affinity_is_respected),
        cmocka_unit_test(memory_is_preferred_and_released),
        cmocka_unit_test(nonsense_is_refused),
    };
    return cmocka_run_group_tests_name("topo", tests, NULL, NULL);
}
