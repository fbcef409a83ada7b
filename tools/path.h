// SPDX-License-Identifier: Apache-2.0
// path.h - where the control socket is unless somebody says otherwise.
//
// Threads  [C] and sluicectl.
#pragma once

#define PATH_CONTROL "/run/sluice/control"

// PATH_CONTROL for root, $XDG_RUNTIME_DIR/sluice/control for a user. Stays valid.
const char *path_default_control(void);

// Make the folder of @path if it is missing (not the ones above it). What fails shows later.
void path_make_folder(const char *path);
