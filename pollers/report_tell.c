// SPDX-License-Identifier: Apache-2.0
// What device types say of their devices and queues, as JSON.
#include "pollers/report.h"

#define DEPTH_MAX 8

struct teller {
    struct describer describer;
    json_t *open[DEPTH_MAX]; // objects and lists, borrowed but for the first
    unsigned depth;
};

static void set(struct describer *to, const char *name, json_t *value)
{
    struct teller *t = container_of(to, struct teller, describer);
    json_t *into = t->open[t->depth];
    if (json_is_array(into))
        json_array_append_new(into, value);
    else
        json_object_set_new(into, name, value);
}

static void tell_number(struct describer *to, const char *name, uint64_t value)
{
    set(to, name, json_integer((json_int_t)value));
}

static void tell_text(struct describer *to, const char *name, const char *text)
{
    set(to, name, json_string(text));
}

static void open_in(struct describer *to, const char *name, json_t *what)
{
    struct teller *t = container_of(to, struct teller, describer);
    set(to, name, what);
    assert(t->depth + 1 < DEPTH_MAX && what);
    t->open[++t->depth] = what;
}

static void open_object(struct describer *to, const char *name)
{
    open_in(to, name, json_object());
}

static void open_list(struct describer *to, const char *name)
{
    open_in(to, name, json_array());
}

static void close_last(struct describer *to)
{
    container_of(to, struct teller, describer)->depth--;
}

static struct teller begin(void)
{
    return (struct teller){
        .describer = {tell_number, tell_text, open_object, open_list, close_last},
        .open = {json_object()},
    };
}

json_t *report_tell(const struct device *d)
{
    struct teller t = begin();
    if (d->type->tell)
        d->type->tell(d, &t.describer);
    assert(t.depth == 0);
    return t.open[0];
}

json_t *report_tell_queue(const struct queue *q)
{
    struct teller t = begin();
    if (q->device->type->tell_queue)
        q->device->type->tell_queue(q, &t.describer);
    assert(t.depth == 0);
    return t.open[0];
}
