// SPDX-License-Identifier: Apache-2.0
// dpdk_driver.h - what the DPDK plug-in does for the program, and all that each knows of the other.
//
// The plug-in alone includes DPDK's headers and links its libraries. The program finds the table
// below in it by the name DPDK_DRIVER_SYMBOL when a line asks for DPDK, and not before.
//
// Threads  [C] opens and closes; [W] a queue's calls are all made on one worker.
// Memory   what is received belongs to the plug-in, until release().
// Trust    frames are the network's: their bytes are checked by who receives them.
#pragma once

#include "dataplane/error.h"

#include <stdint.h>
#include <sys/uio.h>

#define DPDK_DRIVER_SYMBOL "dpdk_driver"
#define DPDK_PAIRS_MAX     127 // of queues
#define DPDK_SEGS_MAX      8   // of a received frame; one with more is dropped

struct dpdk_nic;

struct dpdk_received {
    void *handle;
    struct iovec iov[DPDK_SEGS_MAX];
    uint16_t n_iov;
};

// A frame to be sent: its head, then @bytes of the segments from byte @skip of the first on.
struct dpdk_sent {
    const uint8_t *head;
    uint32_t n_head;
    const struct iovec *iov;
    size_t skip;
    uint32_t bytes;
};

struct dpdk_driver {
    // [C] The device that @devargs name, with @n_pairs queues to receive and to send, started.
    // @frame_bytes: 0, or the largest frame it has to take; then: the largest it takes.
    // 0, or -errno with the reason in @why.
    int (*open)(struct dpdk_nic **out, const char *devargs, unsigned n_pairs, uint32_t *frame_bytes,
                struct error *why);
    // [C] Everything received was released.
    void (*close)(struct dpdk_nic *nic);
    // [W] The calling thread is going to use queues.
    void (*enter)(void);
    // [W] Up to @n frames; how many. Never blocks.
    unsigned (*receive)(struct dpdk_nic *nic, unsigned queue, struct dpdk_received out[],
                        unsigned n);
    void (*release)(void *const handles[], unsigned n);
    // [W] Send frames of at most frame_bytes; returns how many of them, the first ones, the device
    // took. All of their bytes are the caller's again then.
    unsigned (*send)(struct dpdk_nic *nic, unsigned queue, const struct dpdk_sent frames[],
                     unsigned n);
};
