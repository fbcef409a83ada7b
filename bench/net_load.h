// SPDX-License-Identifier: Apache-2.0
// net_load.h - frames between the network devices of two or more guests, all from one thread.
//
// Guests come in twos. Each flow keeps at most a number of frames on their way: a new one is sent
// when one arrived. So nothing is lost for want of buffers, and what is lost is the back end's.
// Each frame says whose it is, its number, when it was sent; with verification also what it holds.
//
// Threads  one thread.
// Memory   devices are borrowed.
// Trust    what arrives is checked: order, flow and, if asked, each byte.
#pragma once

#include "bench/guest_nic.h"
#include "bench/histogram.h"
#include "bench/pace.h"

#define NET_LOAD_FRAME_MIN 60 // bytes without a checksum, as a driver sees it
#define NET_LOAD_IMIX      0  // seven of 64 bytes, four of 570, one of 1514

enum net_load_mode {
    NET_LOAD_FORWARD, // even guests send, odd ones receive
    NET_LOAD_BOTH,    // all do
    NET_LOAD_ECHO,    // odd guests send back what they get
};

struct net_load_config {
    enum net_load_mode mode;
    uint32_t frame_bytes; // Ethernet header included, or NET_LOAD_IMIX
    unsigned depth;       // frames on their way, of each flow; at most a ring
    bool verify;
};

// Of one guest.
struct net_load_stats {
    uint64_t n_sent, n_received;
    uint64_t n_bytes_received;
    uint64_t n_lost;          // numbers that were left out, and what never came
    uint64_t n_foreign;       // frames that nobody here sent
    struct histogram latency; // cycles_now() ticks, from offer to collection; echo: there and back
};

struct net_load;

// Greets from each device, so that a switch knows where it is. 0, or -errno with the sentence.
int net_load_open(struct net_load **out, struct guest_nic *const nics[], unsigned n_nics,
                  const struct net_load_config *config, struct error *e);
void net_load_close(struct net_load *l); // NULL is fine

// Go once over all devices: collect, then send as long as @n_left allows (each new frame counts it
// down). Returns how many arrived, or -errno with the sentence: the device broke the rules, or
// data differ.
int net_load_turn(struct net_load *l, uint64_t *n_left, struct error *e);

// From now on so many frames are sent each second, by all devices together; 0: as many as arrive.
void net_load_pace(struct net_load *l, double per_second, double ticks_per_second);

// On their way. Those that will not come any more: count them as lost and go on without them.
uint64_t net_load_n_in_flight(const struct net_load *l);
void net_load_give_up(struct net_load *l);

// What came back so far, of all.
uint64_t net_load_n_done(const struct net_load *l);

const struct net_load_stats *net_load_stats(const struct net_load *l, unsigned nic);
