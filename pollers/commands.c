// SPDX-License-Identifier: Apache-2.0
#include "pollers/commands.h"

#include "dataplane/line_value.h"
#include "pollers/control.h"
#include "pollers/report.h"

#include <limits.h>
#include <string.h>

// The one parameter that @name names, or NULL with the sentence.
static const char *only_text(const json_t *params, const char *name, struct error *e)
{
    const char *text = json_string_value(json_object_get(params, name));
    if (text && json_object_size(params) == 1)
        return text;
    error_set(e, 0, "the parameters are {\"%s\": a string}", name);
    return NULL;
}

static bool has_none(const json_t *params, struct error *e)
{
    if (json_object_size(params) == 0)
        return true;
    error_set(e, 0, "this method has no parameters");
    return false;
}

static enum rpc_outcome add(void *context, const json_t *params, struct rpc_call *call,
                            json_t **result, struct error *e)
{
    (void)call;
    const char *line = only_text(params, "line", e);
    if (!line)
        return RPC_BAD_PARAMS;
    if (control_add(context, line, e) < 0)
        return RPC_FAILED;
    *result = json_object();
    return RPC_DONE;
}

static void removed(void *call)
{
    rpc_reply(call, json_object());
}

static enum rpc_outcome remove_device(void *context, const json_t *params, struct rpc_call *call,
                                      json_t **result, struct error *e)
{
    (void)result;
    const char *name = only_text(params, "name", e);
    if (!name)
        return RPC_BAD_PARAMS;
    return control_remove(context, name, removed, call, e) < 0 ? RPC_FAILED : RPC_LATER;
}

// {"name": …} with or without {"size": "2G"}; 0 bytes without.
static const char *name_and_size(const json_t *params, uint64_t *bytes, struct error *e)
{
    static const struct line_key size = {.name = "size", .kind = LINE_SIZE, .min = 1};
    const json_t *value = json_object_get(params, "size");
    const char *name = json_string_value(json_object_get(params, "name"));
    const char *text = json_string_value(value);
    if (!name || json_object_size(params) != (value ? 2 : 1) || (value && !text)) {
        error_set(e, 0, "the parameters are {\"name\": a string, \"size\": a string or left out}");
        return NULL;
    }
    *bytes = 0;
    if (!text || line_value_parse(&size, text, bytes))
        return name;
    char expected[LINE_EXPECT_MAX];
    line_value_expect(&size, expected);
    error_set(e, 0, "size %s: not %s", text, expected);
    return NULL;
}

static enum rpc_outcome resize(void *context, const json_t *params, struct rpc_call *call,
                               json_t **result, struct error *e)
{
    (void)call;
    uint64_t bytes;
    const char *name = name_and_size(params, &bytes, e);
    if (!name)
        return RPC_BAD_PARAMS;
    if (control_resize(context, name, &bytes, e) < 0)
        return RPC_FAILED;
    *result = json_pack("{s:I}", "bytes", (json_int_t)bytes);
    return RPC_DONE;
}

static bool is_index(const json_t *value)
{
    json_int_t n = json_integer_value(value);
    return json_is_integer(value) && n >= 0 && n <= INT_MAX;
}

static enum rpc_outcome move(void *context, const json_t *params, struct rpc_call *call,
                             json_t **result, struct error *e)
{
    (void)call;
    const char *name = json_string_value(json_object_get(params, "name"));
    const json_t *queue = json_object_get(params, "queue");
    const json_t *worker = json_object_get(params, "worker");
    if (!name || !is_index(worker) || (queue && !is_index(queue)) ||
        json_object_size(params) != (queue ? 3 : 2)) {
        error_set(e, 0,
                  "the parameters are {\"name\": a string, \"queue\": a number or left out, "
                  "\"worker\": a number}");
        return RPC_BAD_PARAMS;
    }
    unsigned n_moved;
    int index = queue ? (int)json_integer_value(queue) : -1;
    if (control_move(context, name, index, (unsigned)json_integer_value(worker), &n_moved, e) < 0)
        return RPC_FAILED;
    *result = json_pack("{s:i}", "queues", (int)n_moved);
    return RPC_DONE;
}

static enum rpc_outcome list(void *context, const json_t *params, struct rpc_call *call,
                             json_t **result, struct error *e)
{
    (void)call;
    if (!has_none(params, e))
        return RPC_BAD_PARAMS;
    *result = report_list(context);
    return RPC_DONE;
}

static enum rpc_outcome show(void *context, const json_t *params, struct rpc_call *call,
                             json_t **result, struct error *e)
{
    (void)call;
    const char *name = only_text(params, "name", e);
    if (!name)
        return RPC_BAD_PARAMS;
    const struct endpoint *p = control_find(context, name);
    if (!p) {
        error_set(e, 0, "%s: there is no such device", name);
        return RPC_FAILED;
    }
    *result = report_show(p);
    return RPC_DONE;
}

static enum rpc_outcome stats(void *context, const json_t *params, struct rpc_call *call,
                              json_t **result, struct error *e)
{
    (void)call;
    if (!has_none(params, e))
        return RPC_BAD_PARAMS;
    *result = report_stats(context);
    return RPC_DONE;
}

const struct rpc_method command_methods[] = {
    {"add", add},   {"remove", remove_device}, {"resize", resize}, {"move", move}, {"list", list},
    {"show", show}, {"stats", stats},          {.name = NULL},
};
