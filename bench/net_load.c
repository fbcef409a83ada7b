// SPDX-License-Identifier: Apache-2.0
#include "bench/net_load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_MAX  64
#define ETHER_TYPE 0xb588 // 0x88b5 in network order: for local experiments (IEEE 802)
#define NO_FLOW    UINT32_MAX

// What a frame begins with.
struct label {
    uint8_t destination[6], source[6];
    uint16_t type;
    uint16_t bytes; // of the frame
    uint32_t flow;
    uint64_t number;
    uint64_t sent_at;
    uint16_t run; // of which load it is
    bool is_answer;
    uint8_t filling;
} __attribute__((packed, aligned(4)));
static_assert(sizeof(struct label) <= NET_LOAD_FRAME_MIN, "in every frame");

// One direction between two devices, on one pair of queues.
struct flow {
    uint64_t next_number;   // to be sent
    uint64_t next_expected; // to arrive at its end
    uint64_t given_up;      // what is below may come late
    unsigned n_away;
};

struct load_nic {
    struct net_load *load;
    struct guest_nic *nic;
    unsigned index;
    struct flow *flows; // by pair of queues
    struct net_load_stats stats;
    // While frames are taken in.
    unsigned pair;
    uint64_t now;
};

struct net_load {
    struct net_load_config config;
    unsigned n_nics;
    uint16_t run;     // so that what an earlier load left behind is told apart
    uint64_t n_mixed; // frames, for imix
    struct pace pace;
    struct load_nic nics[];
};

static const uint16_t imix[] = {64, 64, 570, 64, 64, 570, 1514, 64, 570, 64, 64, 570};

// ---- frames ------------------------------------------------------------------------------

static void put_address(uint8_t mac[6], unsigned nic)
{
    const uint8_t address[6] = {2, 0, 0, 0x51, (uint8_t)(nic >> 8), (uint8_t)nic};
    memcpy(mac, address, sizeof address);
}

static unsigned peer_of(unsigned nic)
{
    return nic ^ 1;
}

static uint32_t flow_id(unsigned nic, unsigned pair)
{
    return nic << 8 | pair;
}

// A byte that depends on everything that could be mixed up.
static uint8_t pattern(const struct label *l, uint32_t at)
{
    return (uint8_t)((l->number * 31 + (uint64_t)l->flow * 7 + at) * 0x9d >> 3);
}

static void fill(uint8_t *frame, const struct label *l)
{
    for (uint32_t i = sizeof *l; i < l->bytes; i++)
        frame[i] = pattern(l, i);
}

static int check_filling(const uint8_t *frame, const struct label *l, struct error *e)
{
    for (uint32_t i = sizeof *l; i < l->bytes; i++) {
        if (frame[i] != pattern(l, i))
            return error_set(e, EIO, "flow %#x, frame %llu: byte %u of %u is %#x, not %#x", l->flow,
                             (unsigned long long)l->number, i, l->bytes, frame[i], pattern(l, i));
    }
    return 0;
}

static uint32_t next_size(struct net_load *l)
{
    if (l->config.frame_bytes != NET_LOAD_IMIX)
        return l->config.frame_bytes;
    return imix[l->n_mixed++ % ARRAY_LEN(imix)];
}

static void write_frame(struct load_nic *ln, struct nic_buffer *b, const struct label *l)
{
    uint32_t header = ln->nic->header_bytes;
    memset(b->data, 0, header);
    memcpy(b->data + header, l, sizeof *l);
    if (ln->load->config.verify)
        fill(b->data + header, l);
    guest_nic_send(ln->nic, ln->pair, b, header + l->bytes);
}

// ---- open --------------------------------------------------------------------------------

static void greet(struct load_nic *ln)
{
    struct nic_buffer *b = guest_nic_idle(ln->nic, 0);
    struct label l = {.type = ETHER_TYPE, .bytes = NET_LOAD_FRAME_MIN, .flow = NO_FLOW};
    memset(l.destination, 0xff, sizeof l.destination);
    put_address(l.source, ln->index);
    ln->pair = 0;
    write_frame(ln, b, &l);
    guest_nic_flush(ln->nic, 0);
}

static int check_config(struct guest_nic *const nics[], unsigned n, const struct net_load_config *c,
                        struct error *e)
{
    if (n % 2 || n == 0)
        return error_set(e, EINVAL, "guests come in twos, not %u", n);
    if (c->frame_bytes != NET_LOAD_IMIX && c->frame_bytes < NET_LOAD_FRAME_MIN)
        return error_set(e, EINVAL, "frames have at least %u bytes, not %u", NET_LOAD_FRAME_MIN,
                         c->frame_bytes);
    for (unsigned i = 0; i < n; i++) {
        uint32_t room = nics[i]->config.send_bytes - nics[i]->header_bytes;
        uint32_t most = c->frame_bytes == NET_LOAD_IMIX ? 1514 : c->frame_bytes;
        if (most > room)
            return error_set(e, EINVAL, "frames of %u bytes, and buffers for %u", most, room);
        if (!c->depth || c->depth > nics[i]->config.ring_size)
            return error_set(e, EINVAL, "a depth of %u, and rings of %u", c->depth,
                             nics[i]->config.ring_size);
    }
    return 0;
}

int net_load_open(struct net_load **out, struct guest_nic *const nics[], unsigned n,
                  const struct net_load_config *c, struct error *e)
{
    int rc = check_config(nics, n, c, e);
    if (rc < 0)
        return rc;
    struct net_load *l = calloc(1, sizeof *l + n * sizeof l->nics[0]);
    if (!l)
        return error_set(e, ENOMEM, "no memory for a load");
    l->config = *c;
    l->run = (uint16_t)(cycles_now() * UINT64_C(0x9e3779b97f4a7c15) >> 48);
    for (unsigned i = 0; i < n; i++) {
        struct load_nic *ln = &l->nics[i];
        l->n_nics = i + 1;
        *ln = (struct load_nic){.load = l, .nic = nics[i], .index = i};
        ln->flows = calloc(nics[i]->config.n_pairs, sizeof ln->flows[0]);
        if (!ln->flows) {
            net_load_close(l);
            return error_set(e, ENOMEM, "no memory for a load");
        }
        greet(ln);
    }
    *out = l;
    return 0;
}

void net_load_close(struct net_load *l)
{
    for (unsigned i = 0; l && i < l->n_nics; i++)
        free(l->nics[i].flows);
    free(l);
}

// ---- arrivals ----------------------------------------------------------------------------

static int check_bytes(struct load_nic *ln, struct nic_buffer *const parts[], unsigned n,
                       const struct label *l, struct error *e)
{
    static uint8_t whole[UINT16_MAX + 1];
    int bytes = guest_nic_copy(ln->nic, parts, n, whole, sizeof whole);
    if (bytes != l->bytes)
        return error_set(e, EIO, "flow %#x, frame %llu: %d bytes, not %u", l->flow,
                         (unsigned long long)l->number, bytes, l->bytes);
    return ln->load->config.verify ? check_filling(whole, l, e) : 0;
}

static void answer(struct load_nic *ln, struct label l)
{
    struct nic_buffer *b = guest_nic_idle(ln->nic, ln->pair);
    if (!b)
        return; // the frame is lost, and will be missed
    memcpy(l.destination, l.source, sizeof l.destination);
    put_address(l.source, ln->index);
    l.is_answer = true;
    write_frame(ln, b, &l);
    ln->stats.n_sent++;
}

static int arrived(void *context, struct nic_buffer *const parts[], unsigned n, struct error *e)
{
    struct load_nic *ln = context;
    struct net_load *load = ln->load;
    struct label l;
    uint32_t first = parts[0]->used - ln->nic->header_bytes;
    memcpy(&l, parts[0]->data + ln->nic->header_bytes, sizeof l);
    unsigned nic = l.flow >> 8, pair = l.flow & 0xff;
    if (first < sizeof l || l.type != ETHER_TYPE || l.run != load->run || nic >= load->n_nics ||
        pair >= load->nics[nic].nic->config.n_pairs) {
        ln->stats.n_foreign++;
        return 0;
    }
    if ((l.is_answer ? nic : peer_of(nic)) != ln->index) {
        ln->stats.n_foreign++; // flooded
        return 0;
    }
    int rc = check_bytes(ln, parts, n, &l, e);
    if (rc < 0)
        return rc;
    ln->stats.n_received++;
    ln->stats.n_bytes_received += l.bytes;
    if (load->config.mode == NET_LOAD_ECHO && !l.is_answer) {
        answer(ln, l);
        return 0;
    }
    struct flow *f = &load->nics[nic].flows[pair];
    if (l.number < f->given_up)
        return 0; // it was counted as lost
    if (l.number < f->next_expected)
        return error_set(e, EIO, "flow %#x: frame %llu after %llu", l.flow,
                         (unsigned long long)l.number, (unsigned long long)f->next_expected - 1);
    uint64_t n_missing = l.number - f->next_expected;
    ln->stats.n_lost += n_missing;
    f->n_away -= (unsigned)MIN(n_missing + 1, f->n_away);
    f->next_expected = l.number + 1;
    histogram_add(&ln->stats.latency, ln->now - l.sent_at);
    return 0;
}

// ---- departures --------------------------------------------------------------------------

static bool is_sender(const struct load_nic *ln)
{
    return ln->load->config.mode == NET_LOAD_BOTH || ln->index % 2 == 0;
}

static void send_new(struct load_nic *ln, uint64_t *n_left)
{
    struct flow *f = &ln->flows[ln->pair];
    struct label l = {
        .type = ETHER_TYPE, .flow = flow_id(ln->index, ln->pair), .run = ln->load->run};
    put_address(l.destination, peer_of(ln->index));
    put_address(l.source, ln->index);
    struct pace *pace = &ln->load->pace;
    while (f->n_away < ln->load->config.depth && *n_left && pace_is_due(pace, ln->now)) {
        struct nic_buffer *b = guest_nic_idle(ln->nic, ln->pair);
        if (!b)
            return;
        l.bytes = (uint16_t)next_size(ln->load);
        l.number = f->next_number++;
        l.sent_at = pace_take(pace, ln->now);
        write_frame(ln, b, &l);
        f->n_away++;
        ln->stats.n_sent++;
        --*n_left;
    }
}

static int turn_pair(struct load_nic *ln, uint64_t *n_left, struct error *e)
{
    ln->now = cycles_now();
    int n = guest_nic_receive(ln->nic, ln->pair, BATCH_MAX, arrived, ln, e);
    if (unlikely(n < 0))
        return n;
    int rc = guest_nic_reap(ln->nic, ln->pair, e);
    if (unlikely(rc < 0))
        return rc;
    if (is_sender(ln))
        send_new(ln, n_left);
    guest_nic_flush(ln->nic, ln->pair);
    return n;
}

int net_load_turn(struct net_load *l, uint64_t *n_left, struct error *e)
{
    int total = 0;
    for (unsigned i = 0; i < l->n_nics; i++) {
        struct load_nic *ln = &l->nics[i];
        for (ln->pair = 0; ln->pair < ln->nic->config.n_pairs; ln->pair++) {
            int n = turn_pair(ln, n_left, e);
            if (unlikely(n < 0)) {
                struct error cause = *e;
                return error_set(e, -n, "%.107s pair %u: %.300s", ln->nic->config.path, ln->pair,
                                 cause.text);
            }
            total += n;
        }
    }
    return total;
}

void net_load_pace(struct net_load *l, double per_second, double ticks_per_second)
{
    pace_start(&l->pace, per_second, ticks_per_second, cycles_now());
}

uint64_t net_load_n_in_flight(const struct net_load *l)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < l->n_nics; i++)
        for (unsigned k = 0; k < l->nics[i].nic->config.n_pairs; k++)
            n += l->nics[i].flows[k].n_away;
    return n;
}

void net_load_give_up(struct net_load *l)
{
    for (unsigned i = 0; i < l->n_nics; i++) {
        unsigned end = l->config.mode == NET_LOAD_ECHO ? i : peer_of(i);
        for (unsigned k = 0; k < l->nics[i].nic->config.n_pairs; k++) {
            struct flow *f = &l->nics[i].flows[k];
            l->nics[end].stats.n_lost += f->n_away;
            f->next_expected = f->given_up = f->next_number;
            f->n_away = 0;
        }
    }
}

uint64_t net_load_n_done(const struct net_load *l)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < l->n_nics; i++)
        n += l->nics[i].stats.n_received;
    return n;
}

const struct net_load_stats *net_load_stats(const struct net_load *l, unsigned nic)
{
    return &l->nics[nic].stats;
}
