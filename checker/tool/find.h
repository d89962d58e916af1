/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* From the names on the command line to a list of images. */

#ifndef Q2_CHECKER_TOOL_FIND_H
#define Q2_CHECKER_TOOL_FIND_H

#include <stdbool.h>
#include <stddef.h>

struct find_list {
    char **names;
    size_t count;
    size_t capacity;
    bool failed; /* something could not be looked at; said on stderr */
};

/* Whether a name is a folder. */
bool find_is_folder(const char *name);

/* List the images that `names` stand for: files as they are, and for a folder all files below it
 * that begin with the magic bytes of qcow2, sorted by name. Symbolic links below a folder are not
 * followed. */
void find_images(char **names, int count, struct find_list *ret_list);
void find_list_free(struct find_list *list);

#endif
