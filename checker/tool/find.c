/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "checker/tool/find.h"

#include "checker/console/say.h"
#include "core/base/endian.h"
#include "core/format/header.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool
find_is_folder(const char *name)
{
    struct stat st;
    return stat(name, &st) == 0 && S_ISDIR(st.st_mode);
}

static void
add(struct find_list *list, const char *name)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 64;
        char **names = reallocarray(list->names, capacity, sizeof *names);
        if (!names) {
            list->failed = true;
            return;
        }
        list->names = names;
        list->capacity = capacity;
    }
    char *copy = strdup(name);
    if (copy)
        list->names[list->count++] = copy;
    else
        list->failed = true;
}

/* A file that cannot be read may be an image, so that it is kept for the check to complain of. */
static bool
may_be_image(const char *path)
{
    uint8_t magic[4];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return true;
    ssize_t got = read(fd, magic, sizeof magic);
    close(fd);
    return got < 0 || (got == sizeof magic && q2_load_be32(magic) == Q2_MAGIC);
}

static int
compare_names(const FTSENT **left, const FTSENT **right)
{
    return strcmp((*left)->fts_name, (*right)->fts_name);
}

static void
add_entry(struct find_list *list, const FTSENT *entry)
{
    switch (entry->fts_info) {
    case FTS_F:
        if (may_be_image(entry->fts_path))
            add(list, entry->fts_path);
        break;
    case FTS_DNR:
    case FTS_ERR:
    case FTS_NS:
        say_error(entry->fts_path, "cannot be looked at: %s", strerror(entry->fts_errno));
        list->failed = true;
        break;
    default:
        break;
    }
}

static void
add_folder(struct find_list *list, char *name)
{
    char *roots[] = {name, NULL};
    FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, compare_names);
    if (!tree) {
        say_error(name, "cannot be looked at: %s", strerror(errno));
        list->failed = true;
        return;
    }
    size_t before = list->count;
    for (FTSENT *entry; (entry = fts_read(tree));)
        add_entry(list, entry);
    fts_close(tree);
    if (list->count == before && !list->failed) {
        say_error(name, "has no qcow2 image below it");
        list->failed = true;
    }
}

void
find_images(char **names, int count, struct find_list *ret_list)
{
    struct find_list list = {NULL, 0, 0, false};
    for (int i = 0; i < count; i++)
        if (find_is_folder(names[i]))
            add_folder(&list, names[i]);
        else
            add(&list, names[i]);
    *ret_list = list;
}

void
find_list_free(struct find_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->names[i]);
    free(list->names);
}
