// SPDX-License-Identifier: Apache-2.0
// notify.h - tell the service manager that we are ready (sd_notify(3), without its library).
//
// Threads  [C].
#pragma once

// Send @state ("READY=1") to $NOTIFY_SOCKET. Without one nothing happens; 0 or -errno.
int notify_manager(const char *state);
