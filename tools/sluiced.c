// SPDX-License-Identifier: Apache-2.0
// sluiced.c - the daemon: reads the command line, opens what it asks for, runs control.
#include "dataplane/state.h"
#include "devices/table.h"
#include "pollers/commands.h"
#include "pollers/control.h"
#include "tools/notify.h"
#include "tools/options.h"
#include "tools/path.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOCK_DEADLINE_MS 5000 // then a locked image is refused
#define LOCK_RETRY_MS    10

static int fail(const char *sentence)
{
    fprintf(stderr, "sluiced: %s\n", sentence);
    return EXIT_FAILURE;
}

static bool check_lines(const struct config *config)
{
    unsigned n_bad = config_check(config, device_table, device_table_n);
    if (n_bad)
        fprintf(stderr, "sluiced: %u of %u lines are wrong\n", n_bad, config->n_lines);
    return n_bad == 0;
}

// An image's lock outlives a killed process until the kernel has ended its requests, which is what
// keeps them from landing on ours. That takes milliseconds, more on a slow disk.
static int add_device(struct control *c, const char *text, struct error *e)
{
    int err = control_add(c, text, e);
    for (unsigned ms = 0; err == -EBUSY && ms < LOCK_DEADLINE_MS; ms += LOCK_RETRY_MS) {
        usleep(LOCK_RETRY_MS * 1000);
        err = control_add(c, text, e);
    }
    return err;
}

static bool add_devices(struct control *c, const struct config *config)
{
    for (unsigned i = 0; i < config->n_lines; i++) {
        struct error e;
        if (add_device(c, config->lines[i].text, &e) < 0) {
            fprintf(stderr, "%s: %s\n", config->lines[i].origin, e.text);
            return false;
        }
    }
    return true;
}

// Every socket listens: say so, and run to the end.
static int serve(struct control *c)
{
    printf("sluiced: ready\n");
    fflush(stdout);
    int err = notify_manager("READY=1");
    if (err)
        log_warning("cannot tell the service manager that sluiced is ready: error %d", -err);
    return control_run(c);
}

static int run_control(struct control *c, const struct options *o)
{
    struct rpc *rpc;
    struct error e;
    if (o->is_control_default)
        path_make_folder(o->control);
    int err = rpc_open(&rpc, control_loop(c), o->control, 0600, command_methods, c, &e);
    if (err)
        return fail(e.text);
    bool is_added = add_devices(c, &o->config);
    if (is_added) {
        control_forget_others(c);
        err = serve(c);
    } else {
        control_stop(c);
        err = control_run(c);
    }
    // Before the end: the kernel may hold the process until its disks answer.
    rpc_close(rpc);
    if (err) // queues are still out: their workers cannot be stopped, only ended
        _exit(EXIT_FAILURE);
    return is_added ? EXIT_SUCCESS : EXIT_FAILURE;
}

// ---- what outlives us --------------------------------------------------------------------

#define STATE_FD_NAME "sluice-state"

static const struct keeper_host manager = {.store = notify_store, .forget = notify_forget};

struct kept {
    struct keeper *keeper;
    int state_fd; // -1: none
};

static void take_kept(void *context, const char *name, int fd)
{
    struct kept *kept = context;
    if (strcmp(name, STATE_FD_NAME) == 0 && kept->state_fd < 0)
        kept->state_fd = fd;
    else if (kept->keeper)
        keeper_adopt(kept->keeper, name, fd);
    else
        close(fd);
}

static struct state *begin_state(struct keeper *keeper)
{
    struct state *s = NULL;
    struct error e;
    if (state_open(&s, -1, keeper, &e) < 0) {
        log_warning("%s; nothing is kept for a restart", e.text);
        return NULL;
    }
    int err = notify_store(STATE_FD_NAME, state_fd(s));
    if (err)
        log_warning("the service manager does not keep the state: error %d", -err);
    return s;
}

// Take up what the service manager kept, or begin anew. Nothing without a manager.
static struct state *open_state(struct kept *kept)
{
    struct state *s = NULL;
    struct error e;
    *kept = (struct kept){.state_fd = -1};
    if (notify_has_manager())
        kept->keeper = keeper_open(&manager);
    notify_take_kept(take_kept, kept);
    if (!kept->keeper)
        return NULL;
    if (kept->state_fd < 0)
        return begin_state(kept->keeper);
    if (state_open(&s, kept->state_fd, kept->keeper, &e) < 0) {
        log_warning("%s; sluiced begins anew", e.text);
        notify_forget(STATE_FD_NAME);
        s = begin_state(kept->keeper);
    }
    close(kept->state_fd);
    return s;
}

static int start(const struct options *o, const struct topo *topo)
{
    static int cpus[TOPO_CPUS_MAX];
    struct error e;
    int n_cpus = topo_select(topo, o->workers, cpus, TOPO_CPUS_MAX, &e);
    if (n_cpus < 0)
        return fail(e.text);
    if (o->only_check)
        return EXIT_SUCCESS;
    struct kept kept;
    struct control_config config = {
        .types = device_table,
        .n_types = device_table_n,
        .topo = topo,
        .cpus = cpus,
        .n_cpus = (unsigned)n_cpus,
        .poll = o->poll,
        .drain_ms = CONTROL_DRAIN_MS,
        .state = open_state(&kept),
    };
    struct control *c;
    if (control_open(&c, &config, &e) < 0)
        return fail(e.text);
    int status = run_control(c, o);
    control_close(c);
    state_close(config.state);
    keeper_close(kept.keeper);
    return status;
}

int main(int argc, char *argv[])
{
    struct options o;
    struct topo *topo;
    struct error e;
    int status = options_parse(&o, argc, argv);
    if (status == OPTIONS_RUN) {
        status = EXIT_FAILURE;
        if (!check_lines(&o.config)) {
            // it said what is wrong
        } else if (topo_open(&topo, NULL, &e) < 0) {
            fail(e.text);
        } else {
            status = start(&o, topo);
            topo_close(topo);
        }
    }
    options_close(&o);
    return status;
}
