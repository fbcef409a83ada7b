// SPDX-License-Identifier: Apache-2.0
//
// A lane looks at one line of memory in each turn: whether frames came home, and who sent
// something. A sender writes there once a batch, after its messages.
//
// A frame that other lanes have counts them in n_away, and all of them as one in n_holders. Who
// brings n_away to 0 sends it home. While n_away is 1 nobody else can touch it, so the common frame
// with one receiver needs no locked instruction for that.
#include "devices/exchange.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 64 // parcels of one sender in a row

// Frames on their way to one lane, linked.
struct homeward {
    struct frame *first;
    struct frame *last;
};

// What one lane sends to and takes from the others.
struct counterpart {
    struct channel channel; // from us to them
    struct homeward homeward;
    bool is_due; // to be told to look
};

struct end {
    // Other lanes write.
    _Alignas(CACHE_LINE) _Atomic uint64_t senders; // bit i: look at lanes i, i + 64 …
    struct frame *_Atomic home;                    // a stack of frames that came home

    // The lane's own.
    _Alignas(CACHE_LINE) struct lane_poll poll;
    struct lane *lane; // NULL: not joined
    unsigned n_users;
    uint64_t pending;   // senders, likewise, with more than was taken
    unsigned next;      // bit whose turn it is
    unsigned n_due;     // counterparts
    struct frame *fan;  // delivered several times just now
    unsigned n_fan_out; // of these deliveries: given back
    struct counterpart *others;
};

struct exchange {
    const struct lane_set *lanes;
    exchange_receive *receive;
    unsigned n_users;
    struct end ends[];
};

// Control writes it while no lane has a use for it.
static struct exchange *exchange;

static struct end *end_of(const struct lane *lane)
{
    return &exchange->ends[lane->index];
}

// ---- to others ---------------------------------------------------------------------------

static void set_due(struct end *x, struct counterpart *c)
{
    if (!c->is_due) {
        c->is_due = true;
        x->n_due++;
    }
}

bool exchange_send(struct lane *lane, unsigned to, const struct parcel *parcel)
{
    struct end *x = end_of(lane);
    struct counterpart *c = &x->others[to];
    struct channel_message m = {
        .kind = parcel->whose,
        .subject = parcel->frame,
        .argument = (void *)(uintptr_t)parcel->where,
    };
    if (!channel_send(&c->channel, &m))
        return false;
    set_due(x, c);
    return true;
}

// (exchange pair R) What was done to the frames is done before their home takes them.
static void push_home(struct end *to, struct homeward *h)
{
    struct frame *top = atomic_load_explicit(&to->home, memory_order_relaxed);
    do
        h->last->next = top;
    while (!atomic_compare_exchange_weak_explicit(&to->home, &top, h->first, memory_order_release,
                                                  memory_order_relaxed));
    *h = (struct homeward){0};
}

static void tell(struct end *x, unsigned index)
{
    struct end *to = &exchange->ends[index];
    struct counterpart *c = &x->others[index];
    c->is_due = false;
    if (c->homeward.first)
        push_home(to, &c->homeward);
    // (exchange pair S) The messages are in the channel before the bit is set.
    atomic_fetch_or(&to->senders, 1ull << x->lane->index % 64);
    lane_wake(x->lane, exchange->lanes->lanes[index]);
}

void exchange_flush(struct lane *lane)
{
    struct end *x = end_of(lane);
    for (unsigned i = 0; x->n_due; i++) {
        if (x->others[i].is_due) {
            x->n_due--;
            tell(x, i);
        }
    }
}

// ---- home --------------------------------------------------------------------------------

static void send_home(struct end *x, struct frame *f)
{
    struct uring *home = atomic_load_explicit(&f->home->uring, memory_order_relaxed);
    struct counterpart *c = &x->others[exchange_lane_of(home)];
    f->next = c->homeward.first;
    c->homeward.first = f;
    if (!f->next)
        c->homeward.last = f;
    set_due(x, c);
}

static void return_away(struct end *x, struct frame *f)
{
    if (f == x->fan) {
        x->n_fan_out++;
        return;
    }
    if (atomic_load_explicit(&f->n_away, memory_order_acquire) == 1 ||
        atomic_fetch_sub_explicit(&f->n_away, 1, memory_order_acq_rel) == 1)
        send_home(x, f);
}

void frame_return(struct lane *lane, struct frame *f)
{
    // A queue stays on its lane until its frames are home: this does not change meanwhile.
    if (unlikely(atomic_load_explicit(&f->home->uring, memory_order_relaxed) != &lane->uring))
        return_away(end_of(lane), f);
    else if (--f->n_holders == 0)
        f->free(f);
}

void exchange_begin_fan(struct lane *lane, struct frame *f)
{
    struct end *x = end_of(lane);
    x->fan = f;
    x->n_fan_out = 0;
}

// Those who keep the frame give it back later, and on this lane: they are counted in time.
void exchange_end_fan(struct lane *lane, unsigned n)
{
    struct end *x = end_of(lane);
    struct frame *f = x->fan;
    unsigned n_kept = n - x->n_fan_out;
    x->fan = NULL;
    if (n_kept == 0)
        return_away(x, f);
    else if (n_kept > 1)
        atomic_fetch_add_explicit(&f->n_away, n_kept - 1, memory_order_relaxed);
}

static unsigned come_home(struct end *x)
{
    if (likely(!atomic_load_explicit(&x->home, memory_order_relaxed)))
        return 0;
    unsigned n = 0;
    // (exchange pair R)
    struct frame *f = atomic_exchange_explicit(&x->home, NULL, memory_order_acquire);
    for (struct frame *next; f; f = next, n++) {
        next = f->next;
        if (--f->n_holders == 0)
            f->free(f);
    }
    return n;
}

// ---- from others -------------------------------------------------------------------------

static unsigned take(struct end *x, unsigned from)
{
    struct channel *c = &exchange->ends[from].others[x->lane->index].channel;
    struct parcel parcels[BATCH];
    struct channel_message m;
    unsigned n = 0;
    for (; n < BATCH && channel_receive(c, &m); n++)
        parcels[n] = (struct parcel){m.subject, (uintptr_t)m.argument, m.kind};
    if (n == BATCH)
        x->pending |= 1ull << from % 64;
    return n ? exchange->receive(x->lane, parcels, n) : 0;
}

static unsigned take_group(struct end *x, unsigned group)
{
    unsigned work = 0;
    for (unsigned from = group; from < exchange->lanes->n; from += 64) {
        if (from != x->lane->index)
            work += take(x, from);
    }
    return work;
}

// One batch of each sender in turn, and each time another one first.
static unsigned take_all(struct end *x, unsigned budget)
{
    unsigned work = 0;
    x->pending |= atomic_exchange(&x->senders, 0); // (exchange pair S)
    for (; x->pending && work < budget; x->next = (x->next + 1) % 64) {
        uint64_t bit = 1ull << x->next;
        if (x->pending & bit) {
            x->pending &= ~bit;
            work += take_group(x, x->next);
        }
    }
    return work;
}

static unsigned exchange_poll(struct lane_poll *p, unsigned budget)
{
    struct end *x = container_of(p, struct end, poll);
    unsigned work = come_home(x);
    if (unlikely(x->pending || atomic_load_explicit(&x->senders, memory_order_relaxed)))
        work += take_all(x, budget);
    if (unlikely(x->n_due))
        exchange_flush(x->lane);
    return work;
}

// Senders set their bits, and chain frames, before they look whether we sleep (pair: doze).
static bool exchange_has_work(const struct lane_poll *p)
{
    const struct end *x = container_of(p, struct end, poll);
    return x->pending || x->n_due || atomic_load(&x->senders) || atomic_load(&x->home);
}

// ---- open and close ----------------------------------------------------------------------

void exchange_join(struct lane *lane)
{
    struct end *x = end_of(lane);
    if (x->n_users++)
        return;
    x->lane = lane;
    x->poll = (struct lane_poll){.poll = exchange_poll, .has_work = exchange_has_work};
    lane_add_poll(lane, &x->poll);
}

void exchange_part(struct lane *lane)
{
    struct end *x = end_of(lane);
    if (--x->n_users == 0)
        lane_remove_poll(&x->poll);
}

static void release(struct exchange *x)
{
    for (unsigned i = 0; i < x->lanes->n; i++) {
        for (unsigned j = 0; x->ends[i].others && j < x->lanes->n; j++)
            channel_close(&x->ends[i].others[j].channel);
        free(x->ends[i].others);
    }
    free(x);
}

static int open_end(struct end *end, unsigned index, unsigned n)
{
    size_t bytes = n * sizeof(end->others[0]);
    end->others = aligned_alloc(_Alignof(struct counterpart), bytes);
    if (!end->others)
        return -ENOMEM;
    memset(end->others, 0, bytes);
    for (unsigned i = 0; i < n; i++) {
        if (i != index && channel_open(&end->others[i].channel, EXCHANGE_MESSAGES))
            return -ENOMEM;
    }
    return 0;
}

static struct exchange *open_ends(const struct lane_set *lanes, exchange_receive *receive)
{
    size_t bytes = sizeof(struct exchange) + lanes->n * sizeof(struct end);
    struct exchange *x = aligned_alloc(_Alignof(struct exchange), bytes);
    if (!x)
        return NULL;
    memset(x, 0, bytes);
    x->lanes = lanes;
    x->receive = receive;
    for (unsigned i = 0; i < lanes->n; i++) {
        if (open_end(&x->ends[i], i, lanes->n)) {
            release(x);
            return NULL;
        }
    }
    return x;
}

int exchange_open(const struct lane_set *lanes, exchange_receive *receive)
{
    if (!exchange)
        exchange = open_ends(lanes, receive);
    if (!exchange)
        return -ENOMEM;
    assert(exchange->lanes == lanes && exchange->receive == receive);
    exchange->n_users++;
    return 0;
}

void exchange_close(void)
{
    if (--exchange->n_users)
        return;
    release(exchange);
    exchange = NULL;
}
