// SPDX-License-Identifier: Apache-2.0
// commands.h - the methods of the control socket: what sluicectl can ask for.
//
// Threads  [C] only.
#pragma once

#include "pollers/rpc.h"

// Their context is a struct control.
extern const struct rpc_method command_methods[];
