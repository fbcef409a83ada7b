// SPDX-License-Identifier: Apache-2.0
// stream.h - lines in and lines out on one non-blocking socket, both bounded.
//
// Input is cut at newlines and handed on, one line a turn: a peer with many lines waits for the
// others. Output is buffered and written when the socket takes it; while some waits no input is
// read, so who does not read cannot ask for more, and in the end is dropped.
//
// Threads  [C] only.
// Memory   embedded in the caller's struct, which closed() may free. The stream owns its socket.
// Trust    the peer may send anything, in any pieces, and stay silent.
#pragma once

#include "pollers/loop.h"

#include <stddef.h>

#define STREAM_LINE_MAX (64 * 1024)  // bytes in a line that comes in
#define STREAM_OUT_MAX  (16ul << 20) // bytes that wait to be read by the peer
#define STREAM_STALL_MS 10000        // a peer that reads nothing for so long is dropped

struct stream;

struct stream_owner {
    void (*line)(struct stream *s, const char *line, size_t bytes);
    void (*too_long)(struct stream *s); // the last chance to write: the stream ends
    void (*closed)(struct stream *s);   // the socket is closed; free what @s is embedded in
};

struct stream {
    const struct stream_owner *owner;
    struct loop *loop;
    struct loop_source source;
    struct loop_timer stall;
    int fd;
    unsigned n_awaited; // owner: lines it will write later; till then the end of input waits
    bool is_ending;     // no more input; closed when all is written
    size_t n_in;
    char *out;
    size_t n_out, n_written;
    char in[STREAM_LINE_MAX + 1];
};

// [C] Serve the zeroed @s on @fd, taken over. 0 or -errno (nothing is then taken).
int stream_open(struct stream *s, struct loop *l, int fd, const struct stream_owner *owner);

// [C] Write one line (without its newline). Nothing is sent before the next turn.
void stream_write(struct stream *s, const char *line, size_t bytes);

// [C] Write what the socket takes now, and close.
void stream_close(struct stream *s);
