// SPDX-License-Identifier: Apache-2.0
// sluicectl.c - asks a running sluiced: one command, one answer, as text or as JSON.
#include "tools/client.h"
#include "tools/path.h"
#include "tools/view.h"

#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EXIT_USAGE 2

static const char help[] =
    "Usage: sluicectl [--control PATH] [--json] COMMAND\n"
    "\n"
    "Ask a running sluiced(1), over its control socket.\n"
    "\n"
    "Commands\n"
    "  add 'LINE'        add the device that LINE describes; its socket listens when this\n"
    "                    returns. sluiced --help shows what a line may hold\n"
    "  remove NAME       end a device: its front end is cut off, requests finish, the socket\n"
    "                    goes away. Returns when all that is done\n"
    "  resize NAME [SIZE]\n"
    "                    make a disk larger, or (without SIZE) measure the file or block\n"
    "                    device behind it again. The guest sees it at once\n"
    "  move NAME[:QUEUE] WORKER\n"
    "                    have another worker serve a device, or one queue of it, from now on.\n"
    "                    Requests in flight go on. WORKER is a number of stats; without\n"
    "                    QUEUE, queues that start later go there too\n"
    "  list              the devices: state, running queues, requests, socket\n"
    "  show NAME         one device: its line, what was negotiated, each queue, what was\n"
    "                    dropped and why; of a switch its ports and addresses\n"
    "  stats [--watch]   counters of workers and queues; with --watch, rates each second\n"
    "\n"
    "Options\n"
    "  --control PATH    the control socket (default: " PATH_CONTROL ",\n"
    "                    for a user $XDG_RUNTIME_DIR/sluice/control)\n"
    "  --json            print the answer as JSON, one object a line\n"
    "  --version         print the version\n"
    "  --help            print this\n"
    "\n"
    "Exit status\n"
    "  0 when done; 1 when sluiced refused or does not answer, with the reason on standard\n"
    "  error; 2 for a wrong command line.\n"
    "\n"
    "Examples\n"
    "  sluicectl add 'disk vm1 socket=/run/sluice/vm1.sock file=/images/vm1.img queues=4'\n"
    "  sluicectl move vm1:2 0\n"
    "  sluicectl stats --watch\n"
    "  sluicectl --json list | jq -r '.devices[].name'\n";

struct options {
    const char *control;
    bool is_json;
    bool is_watch;
};

struct command {
    const char *name;
    const char *usage; // how it is written
    int n_min, n_max;  // arguments
    // The parameters; NULL if an argument is not UTF-8 text. @words end with NULL.
    json_t *(*params)(char *const words[]);
    void (*view)(const json_t *result); // NULL: success says nothing
};

static json_t *params_line(char *const words[])
{
    return json_pack("{s:s}", "line", words[0]);
}

static json_t *params_name(char *const words[])
{
    return json_pack("{s:s}", "name", words[0]);
}

static json_t *params_resize(char *const words[])
{
    return json_pack("{s:s, s:s*}", "name", words[0], "size", words[1]);
}

// A number, or (not one) the text as it is: sluiced says what it should be.
static json_t *number_or_text(const char *text)
{
    char *end;
    errno = 0;
    long n = strtol(text, &end, 10);
    return *text && !*end && !errno ? json_integer(n) : json_string(text);
}

// No name has a colon.
static json_t *params_move(char *const words[])
{
    const char *colon = strchr(words[0], ':');
    size_t n_name = colon ? (size_t)(colon - words[0]) : strlen(words[0]);
    return json_pack("{s:s%, s:o*, s:o}", "name", words[0], n_name, "queue",
                     colon ? number_or_text(colon + 1) : NULL, "worker", number_or_text(words[1]));
}

static void view_stats_once(const json_t *stats)
{
    view_stats(stats, NULL);
}

static const struct command commands[] = {
    {"add", "add 'LINE'", 1, 1, params_line, NULL},
    {"remove", "remove NAME", 1, 1, params_name, NULL},
    {"resize", "resize NAME [SIZE]", 1, 2, params_resize, view_resize},
    {"move", "move NAME[:QUEUE] WORKER", 2, 2, params_move, view_move},
    {"list", "list", 0, 0, NULL, view_list},
    {"show", "show NAME", 1, 1, params_name, view_show},
    {"stats", "stats [--watch]", 0, 0, NULL, view_stats_once},
};

static void print_json(const json_t *result)
{
    json_dumpf(result, stdout, JSON_COMPACT);
    printf("\n");
}

static int fail(const struct error *e)
{
    fprintf(stderr, "sluicectl: %s\n", e->text);
    return EXIT_FAILURE;
}

// ---- one answer, or one each second ------------------------------------------------------

static int ask(struct client *c, const struct options *o, const struct command *command,
               char *const arguments[])
{
    struct error e;
    json_t *params = command->params ? command->params(arguments) : NULL;
    if (command->params && !params) {
        error_set(&e, 0, "%s: the argument is not UTF-8 text", command->name);
        return fail(&e);
    }
    json_t *result = client_call(c, command->name, params, &e);
    if (!result)
        return fail(&e);
    if (o->is_json)
        print_json(result);
    else if (command->view)
        command->view(result);
    json_decref(result);
    return EXIT_SUCCESS;
}

static void show_rates(const struct options *o, const json_t *now, const json_t *before)
{
    if (o->is_json) {
        print_json(now);
    } else {
        if (isatty(STDOUT_FILENO))
            printf("\033[H\033[J"); // from the top of an empty screen
        view_stats(now, before);
        printf("\n");
    }
}

// Until the daemon ends or nobody reads any more.
static int watch(struct client *c, const struct options *o)
{
    const struct timespec second = {.tv_sec = 1};
    struct error e;
    json_t *before = NULL, *now;
    while ((now = client_call(c, "stats", NULL, &e))) {
        if (before || o->is_json)
            show_rates(o, now, before);
        json_decref(before);
        before = now;
        if (fflush(stdout) == EOF)
            break;
        nanosleep(&second, NULL);
    }
    json_decref(before);
    return now ? EXIT_SUCCESS : fail(&e);
}

// ---- the command line --------------------------------------------------------------------

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    }
    return NULL;
}

static bool takes(const struct command *command, int n_arguments)
{
    return n_arguments >= command->n_min && n_arguments <= command->n_max;
}

static int usage(const struct command *command)
{
    if (command)
        fprintf(stderr, "sluicectl: it is written: sluicectl %s\n", command->usage);
    else
        fprintf(stderr, "sluicectl: the commands are add, remove, resize, move, list, show and "
                        "stats; --help explains them\n");
    return EXIT_USAGE;
}

static int run(const struct options *o, char *words[], int n)
{
    const struct command *command = n > 0 ? find_command(words[0]) : NULL;
    bool is_stats = command && strcmp(command->name, "stats") == 0;
    if (!command || !takes(command, n - 1) || (o->is_watch && !is_stats))
        return usage(command);
    struct client c;
    struct error e;
    if (client_open(&c, o->control, &e) < 0)
        return fail(&e);
    int status = o->is_watch ? watch(&c, o) : ask(&c, o, command, words + 1);
    client_close(&c);
    return status;
}

static const struct option long_options[] = {
    {"control", required_argument, NULL, 'p'}, {"json", no_argument, NULL, 'j'},
    {"watch", no_argument, NULL, 'w'},         {"version", no_argument, NULL, 'v'},
    {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0},
};

int main(int argc, char *argv[])
{
    struct options o = {.control = path_default_control()};
    int option;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) >= 0) {
        switch (option) {
        case 'p':
            o.control = optarg;
            break;
        case 'j':
            o.is_json = true;
            break;
        case 'w':
            o.is_watch = true;
            break;
        case 'v':
            printf("sluicectl %s\n", SLUICE_VERSION);
            return EXIT_SUCCESS;
        case 'h':
            fputs(help, stdout);
            return EXIT_SUCCESS;
        default:
            return usage(NULL);
        }
    }
    return run(&o, argv + optind, argc - optind);
}
