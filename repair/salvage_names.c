/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The names of files that a salvage makes, and the name that it writes into one of them. */

#include "core/base/cleanup.h"
#include "core/io/path.h"
#include "repair/salvage_parts.h"

#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    LONGEST_ID = 64, /* bytes of an id that a name of a file has */
    MAX_COMPARED = 4096,
};

/* ---- outputs ---- */

static bool
is_plain(char byte)
{
    return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') ||
           (byte >= 'A' && byte <= 'Z') || byte == '-' || byte == '_' || byte == '.';
}

/* Whether the id can be part of a name as it is: no other snapshot has the same. */
static bool
is_good_id(const struct salvage *salvage, uint32_t map)
{
    const struct salvage_map *maps = salvage->source.maps;
    const char *id = maps[map].id;
    size_t length = strlen(id);
    bool good = length > 0 && length <= LONGEST_ID && map <= MAX_COMPARED;
    for (size_t i = 0; good && i < length; i++)
        good = is_plain(id[i]);
    for (uint32_t i = 1; good && i < map; i++)
        good = strcmp(maps[i].id, id) != 0;
    return good;
}

char *
q2_salvage_output_name(const struct salvage *salvage, uint32_t map, bool vm_state)
{
    const char *id = salvage->source.maps[map].id, *ending = vm_state ? "vmstate" : "raw";
    char *path = NULL, part[LONGEST_ID + 1];
    int length;
    if (map == 0 || salvage->is_image)
        return strdup(salvage->out);
    snprintf(part, sizeof part, "%s", id);
    for (char *at = part; *at; at++)
        *at = is_plain(*at) ? *at : '_';
    /* No good id has a plus sign. */
    if (is_good_id(salvage, map))
        length = asprintf(&path, "%s.%s.%s", salvage->out, part, ending);
    else
        length = asprintf(&path, "%s.%s+%u.%s", salvage->out, part, map, ending);
    return length < 0 ? NULL : path;
}

/* ---- the same file by two names ---- */

/* The folder that `path` is in, as the system has it; NULL where there is none. */
static char *
folder_of(const char *path)
{
    Q2_AUTOFREE char *copy = strdup(path);
    return copy ? realpath(dirname(copy), NULL) : NULL;
}

/* Names of files that do not exist yet are the same if they are so in one folder. */
static bool
is_same_name(const char *path, const char *other)
{
    const char *a = strrchr(path, '/'), *b = strrchr(other, '/');
    if (strcmp(a ? a + 1 : path, b ? b + 1 : other) != 0)
        return false;
    Q2_AUTOFREE char *left = folder_of(path);
    Q2_AUTOFREE char *right = folder_of(other);
    return left && right && strcmp(left, right) == 0;
}

bool
q2_salvage_same_file(const char *path, const char *other)
{
    struct stat a, b;
    if (stat(path, &a) < 0 || stat(other, &b) < 0)
        return is_same_name(path, other);
    return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* ---- the backing file ---- */

char *
q2_salvage_backing_name(const struct salvage *salvage)
{
    const struct salvage_source *source = &salvage->source;
    const char *name = source->backing_name;
    if (salvage->options->backing_file) {
        char *path = realpath(salvage->options->backing_file, NULL);
        return path ? path : strdup(salvage->options->backing_file);
    }
    const char *plain = strncmp(name, "file:", 5) == 0 ? name + 5 : name;
    Q2_AUTOFREE char *from = folder_of(source->image->name);
    Q2_AUTOFREE char *to = folder_of(salvage->out);
    /* A relative name is relative to the image that has it. */
    if (*plain == '/' || q2_path_has_protocol(plain) || !from || (to && strcmp(from, to) == 0))
        return strdup(name);
    char *path = NULL;
    return asprintf(&path, "%s/%s", from, plain) < 0 ? NULL : path;
}
