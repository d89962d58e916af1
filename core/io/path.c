/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/io/path.h"

#include <stdio.h>
#include <string.h>

bool
q2_path_has_protocol(const char *name)
{
    size_t plain = strcspn(name, ":/");
    return name[plain] == ':';
}

char *
q2_path_beside(const char *path, const char *name)
{
    char *joined = NULL;
    const char *slash = strrchr(path, '/');
    if (name[0] == '/' || !slash)
        return strdup(name);
    int folder = (int)(slash - path) + 1;
    return asprintf(&joined, "%.*s%s", folder, path, name) < 0 ? NULL : joined;
}
