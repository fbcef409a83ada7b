// SPDX-License-Identifier: Apache-2.0
#include "tools/client.h"

#include "dataplane/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECT_TRIES 500 // while the daemon's queue of connections is full,
#define CONNECT_MS    10  // one each so many milliseconds
#define READ_BYTES    65536

static int connect_patiently(const char *path, struct error *e)
{
    const struct timespec pause = {.tv_nsec = CONNECT_MS * 1000000L};
    int fd = unix_connect(path, e);
    for (int i = 0; fd == -EAGAIN && i < CONNECT_TRIES; i++) {
        nanosleep(&pause, NULL);
        fd = unix_connect(path, e);
    }
    return fd;
}

int client_open(struct client *c, const char *path, struct error *e)
{
    *c = (struct client){.fd = connect_patiently(path, e)};
    if (c->fd == -ENOENT || c->fd == -ECONNREFUSED)
        return error_set(e, -c->fd,
                         "no sluiced listens on %s; start one with sluiced --control %s, or name "
                         "its socket with --control",
                         path, path);
    if (c->fd < 0)
        return c->fd;
    int flags = fcntl(c->fd, F_GETFL);
    fcntl(c->fd, F_SETFL, flags & ~O_NONBLOCK); // one question, one answer: waiting is right
    return 0;
}

void client_close(struct client *c)
{
    close(c->fd);
    free(c->in);
}

static int send_line(struct client *c, const json_t *request, struct error *e)
{
    char *text = json_dumps(request, JSON_COMPACT);
    size_t bytes = text ? strlen(text) : 0, sent = 0;
    if (!text)
        return error_set(e, ENOMEM, "cannot write the request as JSON");
    text[bytes++] = '\n'; // in place of its end
    while (sent < bytes) {
        ssize_t n = send(c->fd, text + sent, bytes - sent, MSG_NOSIGNAL);
        if (n < 0)
            break;
        sent += (size_t)n;
    }
    free(text);
    return sent == bytes ? 0 : error_set(e, errno, "sluiced is gone: %s", strerror(errno));
}

static int read_more(struct client *c, struct error *e)
{
    char *grown = realloc(c->in, c->n_in + READ_BYTES);
    if (!grown)
        return error_set(e, ENOMEM, "out of memory");
    c->in = grown;
    ssize_t n = recv(c->fd, c->in + c->n_in, READ_BYTES, 0);
    if (n <= 0)
        return error_set(e, EPIPE, "sluiced ended before it answered");
    c->n_in += (size_t)n;
    return 0;
}

static json_t *read_line(struct client *c, struct error *e)
{
    char *end;
    while (!(end = c->in ? memchr(c->in, '\n', c->n_in) : NULL)) {
        if (read_more(c, e) < 0)
            return NULL;
    }
    size_t bytes = (size_t)(end - c->in);
    json_t *answer = json_loadb(c->in, bytes, 0, NULL);
    c->n_in -= bytes + 1;
    memmove(c->in, end + 1, c->n_in);
    if (!answer)
        error_set(e, EPROTO, "the answer is not JSON: is that a sluiced?");
    return answer;
}

json_t *client_call(struct client *c, const char *method, json_t *params, struct error *e)
{
    json_t *request = json_pack("{s:s, s:i, s:s, s:o*}", "jsonrpc", "2.0", "id", 1, "method",
                                method, "params", params);
    int err = request ? send_line(c, request, e)
                      : error_set(e, EINVAL, "the command line is not UTF-8 text");
    json_decref(request);
    json_t *answer = err ? NULL : read_line(c, e);
    json_t *result = json_incref(json_object_get(answer, "result"));
    const json_t *refusal = json_object_get(answer, "error");
    if (answer && !result)
        error_set(e, EINVAL, "%s",
                  refusal ? json_string_value(json_object_get(refusal, "message"))
                          : "the answer is no JSON-RPC: is that a sluiced?");
    json_decref(answer);
    return result;
}
