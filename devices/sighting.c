// SPDX-License-Identifier: Apache-2.0
#include "devices/sighting.h"

#include <string.h>

int sightings_open(struct sightings *s)
{
    memset(s->recent, 0, sizeof(s->recent));
    return channel_open(&s->channel, SIGHTINGS_MAX);
}

void sightings_close(struct sightings *s)
{
    channel_close(&s->channel);
}

void sightings_tell(struct sightings *s, uint32_t tick, const struct sighting *what)
{
    // Addresses of neighbours mostly differ in their last octets: bits 40 to 47 of the key.
    unsigned i = (unsigned)(what->key >> 40 ^ what->key >> 32 ^ what->key) % SIGHTINGS_RECENT;
    if (s->recent[i].tick == tick && s->recent[i].what.key == what->key &&
        s->recent[i].what.port == what->port)
        return;
    struct channel_message m = {.extra = what->port, .argument = (void *)(uintptr_t)what->key};
    if (!channel_send(&s->channel, &m)) {
        counter_add(&s->n_lost, 1);
        return;
    }
    s->recent[i].what = *what;
    s->recent[i].tick = tick;
}

bool sightings_hear(struct sightings *s, struct sighting *out)
{
    struct channel_message m;
    if (!channel_receive(&s->channel, &m))
        return false;
    *out = (struct sighting){.key = (uintptr_t)m.argument, .port = m.extra};
    return true;
}
