// SPDX-License-Identifier: Apache-2.0
#include "tools/options.h"

#include "devices/table.h"
#include "tools/path.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help_head[] =
    "Usage: sluiced [--config FILE] [--control PATH] [--workers auto|CPULIST]\n"
    "               [--poll busy|adaptive|interrupt] [--add 'LINE']... [--check-config]\n"
    "\n"
    "Serve virtio devices to virtual machines over vhost-user sockets. The devices are\n"
    "described by lines, one device a line, the same on the command line, in the\n"
    "configuration file and in sluicectl(1).\n"
    "\n"
    "Options\n"
    "  --add 'LINE'          add a device; may be repeated\n"
    "  --config FILE         add the devices of FILE, one a line; blank lines and lines that\n"
    "                        begin with # are left out\n"
    "  --check-config        check all lines, report every mistake with its place, open\n"
    "                        nothing and end: 0 when there is none\n"
    "  --control PATH        the control socket (default: %s,\n"
    "                        for a user $XDG_RUNTIME_DIR/sluice/control)\n"
    "  --workers auto|LIST   the processors that poll, one pinned thread each, such as 2,4-7.\n"
    "                        auto (the default) is one on each core this process may use but\n"
    "                        the first\n"
    "  --poll MODE           busy: poll always. adaptive (the default): poll while there is\n"
    "                        work, sleep after %d us without. interrupt: sleep at once\n"
    "  --version             print the version\n"
    "  --help                print this\n"
    "\n"
    "Lines\n"
    "  TYPE NAME KEY=VALUE... FLAG...    a value with blanks is quoted. Sizes take K, M, G\n"
    "  and T, powers of 1024.\n";

static const char help_tail[] =
    "\n"
    "When every socket listens, \"sluiced: ready\" is printed and systemd is told. Messages go\n"
    "to standard error. SIGTERM and SIGINT let the guests' requests finish, at most 10 s; a\n"
    "second one ends at once.\n"
    "\n"
    "Exit status\n"
    "  0 after a clean end; 1 if the start failed or requests did not finish; 2 for a wrong\n"
    "  command line.\n"
    "\n"
    "Examples\n"
    "  sluiced --add 'disk vm0 socket=/run/sluice/vm0.sock file=/images/vm0.img'\n"
    "  sluiced --workers 2,3 --poll busy --config /etc/sluice.conf\n"
    "\n"
    "See also sluicectl --help.\n";

static void print_help(void)
{
    printf(help_head, PATH_CONTROL, WORKER_SPIN_US);
    for (unsigned i = 0; i < device_table_n; i++) {
        printf("\n");
        line_print_help(&device_table[i]->line, stdout);
    }
    fputs(help_tail, stdout);
}

static const struct {
    const char *name;
    enum worker_poll poll;
} polls[] = {
    {"busy", WORKER_BUSY},
    {"adaptive", WORKER_ADAPTIVE},
    {"interrupt", WORKER_INTERRUPT},
};

static bool parse_poll(enum worker_poll *poll, const char *text)
{
    for (unsigned i = 0; i < ARRAY_LEN(polls); i++) {
        if (strcmp(text, polls[i].name) == 0) {
            *poll = polls[i].poll;
            return true;
        }
    }
    fprintf(stderr, "sluiced: --poll %s: busy, adaptive or interrupt\n", text);
    return false;
}

static bool read_file(struct options *o, const char *path)
{
    struct error e;
    if (config_read(&o->config, path, &e) == 0)
        return true;
    fprintf(stderr, "sluiced: %s\n", e.text);
    return false;
}

static const struct option long_options[] = {
    {"add", required_argument, NULL, 'a'},
    {"config", required_argument, NULL, 'c'},
    {"check-config", no_argument, NULL, 'C'},
    {"control", required_argument, NULL, 'p'},
    {"workers", required_argument, NULL, 'w'},
    {"poll", required_argument, NULL, 'm'},
    {"version", no_argument, NULL, 'v'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

// One option; OPTIONS_RUN to go on.
static int take(struct options *o, int option)
{
    switch (option) {
    case 'a':
        return config_add(&o->config, optarg, "--add") ? EXIT_FAILURE : OPTIONS_RUN;
    case 'c':
        return read_file(o, optarg) ? OPTIONS_RUN : EXIT_FAILURE;
    case 'C':
        o->only_check = true;
        return OPTIONS_RUN;
    case 'p':
        o->control = optarg;
        return OPTIONS_RUN;
    case 'w':
        o->workers = optarg;
        return OPTIONS_RUN;
    case 'm':
        return parse_poll(&o->poll, optarg) ? OPTIONS_RUN : 2;
    case 'v':
        printf("sluiced %s\n", SLUICE_VERSION);
        return EXIT_SUCCESS;
    case 'h':
        print_help();
        return EXIT_SUCCESS;
    default: // getopt_long() said what is wrong
        fprintf(stderr, "sluiced: --help lists the options\n");
        return 2;
    }
}

int options_parse(struct options *o, int argc, char *argv[])
{
    *o = (struct options){.workers = "auto", .poll = WORKER_ADAPTIVE};
    int option;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) >= 0) {
        int status = take(o, option);
        if (status != OPTIONS_RUN)
            return status;
    }
    if (optind < argc) {
        fprintf(stderr, "sluiced: \"%s\" is no option; a device is added by --add 'LINE'\n",
                argv[optind]);
        return 2;
    }
    o->is_control_default = !o->control;
    if (!o->control)
        o->control = path_default_control();
    return OPTIONS_RUN;
}

void options_close(struct options *o)
{
    config_close(&o->config);
}
