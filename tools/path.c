// SPDX-License-Identifier: Apache-2.0
#include "tools/path.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *path_default_control(void)
{
    static char path[PATH_MAX];
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    if (geteuid() == 0 || !runtime || !*runtime)
        return PATH_CONTROL;
    snprintf(path, sizeof(path), "%s/sluice/control", runtime);
    return path;
}

void path_make_folder(const char *path)
{
    char folder[PATH_MAX];
    const char *end = strrchr(path, '/');
    if (!end || end == path || (size_t)(end - path) >= sizeof(folder))
        return;
    memcpy(folder, path, (size_t)(end - path));
    folder[end - path] = '\0';
    mkdir(folder, 0755);
}
