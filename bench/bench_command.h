// SPDX-License-Identifier: Apache-2.0
// bench_command.h - the commands of sluice-bench: open the guests, run the load, report, close.
//
// Threads  one. Memory: everything is freed when they return.
#pragma once

#include "bench/bench_report.h"

// 0, or -errno with the sentence; the report is printed also when the load failed on its way.
int bench_blk(const struct bench_options *o, struct error *e);
int bench_net(const struct bench_options *o, struct error *e);
