// SPDX-License-Identifier: Apache-2.0
// disk_folder.h - the images of a test: a folder of its own, mounts in it, one-line devices.
//
// Threads  one.
#pragma once

#include "devices/disk_image.h"
#include "tests/disk_rig.h"

// Group set-up and tear-down: the working directory of all tests is a new folder.
int disk_folder_enter(void **state);
int disk_folder_leave(void **state);

// An empty (sparse) file of @bytes; what the file system stores of it; all of its bytes.
void disk_make_file(const char *name, uint64_t bytes);
uint64_t disk_allocated(const char *name);
void disk_read_file(const char *name, void *data, uint64_t offset, size_t bytes);

// Open "disk d socket=/unused @keys".
int disk_open_line(struct device **out, struct error *e, const char *keys);
// A rig on "disk d socket=/unused file=@file", which may have more keys.
void disk_open_rig(struct disk_rig *d, const char *file, uint64_t features);

// The image of a file disk.
struct image *disk_image(const struct device *d);
// Skips the test, and says so, where the file @name cannot do direct I/O.
void disk_need_direct(const char *name);
// Queues that start from now on find a file whose blocks are of @block bytes, as one on a device
// with such sectors has.
void disk_make_coarse(struct device *d, uint32_t block);

// A file system that nobody else sees, at the new folder @name. Skips the test, and says so, where
// that is not permitted.
void disk_mount(const char *name, const char *type, const char *options);
void disk_unmount(const char *name);

// Fails unless @text has each of @parts (NULL ends them).
void disk_check_says(const char *what, const char *text, const char *const parts[], unsigned n);
