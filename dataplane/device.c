// SPDX-License-Identifier: Apache-2.0
#include "dataplane/device.h"

#include <errno.h>
#include <stdlib.h>

const struct line_key device_socket_keys[] = {
    {.name = "socket",
     .kind = LINE_TEXT,
     .required = true,
     .max = 107, // sun_path holds 108 with its end
     .value = "PATH",
     .help = "vhost-user socket"},
    {.name = "mode",
     .kind = LINE_CHOICE,
     .choices = "server|client",
     .help = "listen (the default), or connect and reconnect"},
    {.name = "socket-mode",
     .kind = LINE_OCTAL,
     .max = 0777,
     .value = "MODE",
     .help = "permissions of the socket (0660)"},
    {.name = NULL},
};

const char *device_socket(const struct line *l)
{
    return line_knows(l, "socket") ? line_text(l, "socket", NULL) : NULL;
}

static struct queue *open_queues(struct device *d)
{
    struct queue *queues = calloc(MAX(d->n_queues, 1), sizeof(*queues));
    if (!queues)
        return NULL;
    for (uint16_t i = 0; i < d->n_queues; i++) {
        queues[i].device = d;
        queues[i].index = i;
        queues[i].kick_fd = -1;
        queues[i].call_fd = -1;
    }
    return queues;
}

int device_open(struct device **out, const struct device_type *type, struct line *l,
                const struct lane_set *lanes, struct error *e)
{
    struct device *d = calloc(1, sizeof(*d));
    if (!d)
        return error_set(e, ENOMEM, "%s: out of memory", l->name);
    d->type = type;
    d->line = l;
    d->name = l->name;
    d->lanes = lanes;

    int err = type->open(d, l, e);
    if (err)
        goto err_free;
    assert(d->n_queues <= type->queues_max && type->queues_max <= DEVICE_QUEUES_MAX &&
           d->config_bytes <= DEVICE_CONFIG_MAX);

    d->queues = open_queues(d);
    if (!d->queues) {
        err = error_set(e, ENOMEM, "%s: out of memory", l->name);
        goto err_close;
    }
    *out = d;
    return 0;

err_close:
    type->close(d);
err_free:
    free(d);
    return err;
}

void device_close(struct device *d)
{
    d->type->close(d);
    free(d->queues);
    line_free(d->line);
    free(d);
}
