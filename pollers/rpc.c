// SPDX-License-Identifier: Apache-2.0
#include "pollers/rpc.h"

#include "dataplane/base.h"
#include "dataplane/log.h"
#include "pollers/acceptor.h"
#include "pollers/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// JSON-RPC 2.0, 5.1: error codes.
#define CODE_PARSE   (-32700)
#define CODE_REQUEST (-32600)
#define CODE_METHOD  (-32601)
#define CODE_PARAMS  (-32602)
#define CODE_FAILED  (-32000) // "server error", ours to define

LIST_HEAD(client_list, client);
LIST_HEAD(call_list, rpc_call);

struct rpc {
    struct loop *loop;
    struct acceptor acceptor;
    const struct rpc_method *methods;
    void *context;
    struct client_list clients;
    unsigned n_clients;
};

struct client {
    struct rpc *server;
    struct call_list calls; // not answered yet
    LIST_ENTRY(client) link;
    struct stream stream;
};

// A call outlives its client: the two forget each other when either goes.
struct rpc_call {
    struct client *client; // NULL: it left
    json_t *id;            // NULL: a notification, which has no reply (4.1)
    LIST_ENTRY(rpc_call) link;
};

// ---- replies -----------------------------------------------------------------------------

// Takes over @body and @id.
static void client_reply(struct client *c, const char *key, json_t *body, json_t *id)
{
    json_t *reply = json_pack("{s:s, s:o, s:o}", "jsonrpc", "2.0", key, body, "id", id);
    char *text = reply ? json_dumps(reply, JSON_COMPACT) : NULL;
    if (text)
        stream_write(&c->stream, text, strlen(text));
    else
        log_error("control: no memory for a reply");
    free(text);
    json_decref(reply);
}

static void client_refuse(struct client *c, int code, const char *message, json_t *id)
{
    json_t *text = json_string(message);
    if (!text) // it quotes what a client wrote, and that need not be UTF-8
        text = json_string("refused, for a reason that is not UTF-8 text");
    client_reply(c, "error", json_pack("{s:i, s:o}", "code", code, "message", text), id);
}

static void call_free(struct rpc_call *call)
{
    if (call->client) {
        call->client->stream.n_awaited--;
        LIST_REMOVE(call, link);
    }
    json_decref(call->id);
    free(call);
}

void rpc_reply(struct rpc_call *call, json_t *result)
{
    if (call->client && call->id)
        client_reply(call->client, "result", result, json_incref(call->id));
    else
        json_decref(result);
    call_free(call);
}

static void call_refuse(struct rpc_call *call, int code, const char *message)
{
    if (call->client && call->id)
        client_refuse(call->client, code, message, json_incref(call->id));
    call_free(call);
}

// ---- requests ----------------------------------------------------------------------------

static struct rpc_call *call_new(struct client *c, json_t *id)
{
    struct rpc_call *call = calloc(1, sizeof(*call));
    if (!call)
        return NULL;
    call->client = c;
    call->id = json_incref(id);
    c->stream.n_awaited++;
    LIST_INSERT_HEAD(&c->calls, call, link);
    return call;
}

static const struct rpc_method *find_method(const struct rpc *r, const char *name)
{
    for (const struct rpc_method *m = r->methods; m->name; m++) {
        if (strcmp(m->name, name) == 0)
            return m;
    }
    return NULL;
}

static void refuse_method(struct rpc_call *call, const struct rpc *r, const char *name)
{
    char text[ERROR_TEXT_MAX];
    size_t n = (size_t)snprintf(text, sizeof(text), "unknown method \"%.64s\"; there are:", name);
    for (const struct rpc_method *m = r->methods; m->name && n < sizeof(text); m++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, " %s", m->name);
    call_refuse(call, CODE_METHOD, text);
}

static void call_method(struct rpc_call *call, const struct rpc_method *m, void *context,
                        const json_t *params)
{
    json_t *result = NULL;
    struct error e = {0};
    switch (m->call(context, params, call, &result, &e)) {
    case RPC_DONE:
        rpc_reply(call, result);
        break;
    case RPC_LATER: // the call may be answered and gone already
        break;
    case RPC_FAILED:
        call_refuse(call, CODE_FAILED, e.text);
        break;
    case RPC_BAD_PARAMS:
        call_refuse(call, CODE_PARAMS, e.text);
        break;
    }
}

// 4: what makes an object a request. NULL if it is one, else what is wrong.
static const char *request_flaw(const json_t *request)
{
    const char *version = json_string_value(json_object_get(request, "jsonrpc"));
    const json_t *id = json_object_get(request, "id");
    const json_t *params = json_object_get(request, "params");
    if (!json_is_object(request))
        return "a request is one JSON object on a line";
    if (!version || strcmp(version, "2.0") != 0)
        return "\"jsonrpc\" must be \"2.0\"";
    if (!json_is_string(json_object_get(request, "method")))
        return "\"method\" must be a string";
    if (id && !json_is_string(id) && !json_is_number(id) && !json_is_null(id))
        return "\"id\" must be a string, a number or null";
    if (params && !json_is_object(params))
        return "\"params\" must be an object";
    return NULL;
}

static void handle_request(struct client *c, const json_t *request)
{
    const char *flaw = request_flaw(request);
    if (flaw) {
        client_refuse(c, CODE_REQUEST, flaw, json_null());
        return;
    }
    struct rpc_call *call = call_new(c, json_object_get(request, "id"));
    if (!call) {
        log_error("control: no memory for a request");
        return;
    }
    const char *name = json_string_value(json_object_get(request, "method"));
    const struct rpc_method *m = find_method(c->server, name);
    if (m)
        call_method(call, m, c->server->context, json_object_get(request, "params"));
    else
        refuse_method(call, c->server, name);
}

static void client_line(struct stream *s, const char *line, size_t bytes)
{
    struct client *c = container_of(s, struct client, stream);
    json_error_t flaw;
    json_t *request = json_loadb(line, bytes, JSON_REJECT_DUPLICATES, &flaw);
    if (!request) {
        char text[ERROR_TEXT_MAX];
        snprintf(text, sizeof(text), "not JSON: %s, at byte %d", flaw.text, flaw.position);
        client_refuse(c, CODE_PARSE, text, json_null());
        return;
    }
    handle_request(c, request);
    json_decref(request);
}

// ---- clients -----------------------------------------------------------------------------

static void client_too_long(struct stream *s)
{
    char text[ERROR_TEXT_MAX];
    snprintf(text, sizeof(text), "a request has at most %d bytes", STREAM_LINE_MAX);
    client_refuse(container_of(s, struct client, stream), CODE_REQUEST, text, json_null());
}

static void client_closed(struct stream *s)
{
    struct client *c = container_of(s, struct client, stream);
    struct rpc_call *call;
    while ((call = LIST_FIRST(&c->calls))) {
        LIST_REMOVE(call, link);
        call->client = NULL;
    }
    LIST_REMOVE(c, link);
    c->server->n_clients--;
    free(c);
}

static const struct stream_owner client_owner = {
    .line = client_line,
    .too_long = client_too_long,
    .closed = client_closed,
};

static int client_open(struct rpc *r, int fd)
{
    struct client *c = r->n_clients < RPC_CLIENTS_MAX ? calloc(1, sizeof(*c)) : NULL;
    if (!c)
        return -EAGAIN;
    c->server = r;
    int err = stream_open(&c->stream, r->loop, fd, &client_owner);
    if (err) {
        free(c);
        return err;
    }
    LIST_INSERT_HEAD(&r->clients, c, link);
    r->n_clients++;
    return 0;
}

// ---- the server --------------------------------------------------------------------------

static void server_waiting(struct acceptor *a)
{
    struct rpc *r = container_of(a, struct rpc, acceptor);
    int fd = acceptor_take(a);
    if (fd < 0)
        return;
    if (client_open(r, fd) < 0) {
        log_warning("control: refused a client, %u are connected", r->n_clients);
        close(fd);
    }
}

int rpc_open(struct rpc **out, struct loop *l, const char *path, mode_t mode,
             const struct rpc_method methods[], void *context, struct error *e)
{
    struct rpc *r = calloc(1, sizeof(*r));
    if (!r)
        return error_set(e, ENOMEM, "no memory for the control socket");
    r->loop = l;
    r->methods = methods;
    r->context = context;
    int err = acceptor_open(&r->acceptor, l, path, mode, server_waiting, e);
    if (err) {
        free(r);
        return err;
    }
    *out = r;
    return 0;
}

void rpc_close(struct rpc *r)
{
    struct client *c;
    acceptor_close(&r->acceptor);
    while ((c = LIST_FIRST(&r->clients)))
        stream_close(&c->stream);
    free(r);
}
