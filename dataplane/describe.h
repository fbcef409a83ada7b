// SPDX-License-Identifier: Apache-2.0
// describe.h - how a device says what is to be said about it, without knowing to whom.
//
// Values have names; so have objects and lists, but for what stands in a list (name NULL).
//
// Threads  [C] only.
// Memory   texts are copied.
#pragma once

#include <stdint.h>

struct describer {
    void (*number)(struct describer *to, const char *name, uint64_t value);
    void (*text)(struct describer *to, const char *name, const char *text);
    void (*open_object)(struct describer *to, const char *name);
    void (*open_list)(struct describer *to, const char *name);
    void (*close)(struct describer *to); // the object or list opened last
};
