/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The files beside an image that undo its repairs: IMAGE.qcow2kit-undo, then .1, .2 and so on. */

#ifndef Q2_REPAIR_TOOL_JOURNALS_H
#define Q2_REPAIR_TOOL_JOURNALS_H

#include "core/io/file.h"

enum { JOURNALS_MAX = 64 };

struct journals {
    char *names[JOURNALS_MAX + 1];
    struct q2_file *files[JOURNALS_MAX + 1];
    size_t count;
};

/* Open those that there are, and `also` if it exists (NULL: none). `write`: to roll back. */
int journals_find(const char *image, const char *also, bool write, struct journals *ret_journals,
                  struct q2_error *err);
void journals_close(struct journals *journals);

/* Make a new one, called `wanted`, or by the next free name beside the image if that is NULL. Only
 * its owner may read it: it holds parts of the image. Its name is on the disk. */
int journals_create(const char *image, const char *wanted, char **ret_name,
                    struct q2_file **ret_file, struct q2_error *err);

/* Remove one, if that is a file: what else may have been named is not ours. */
void journals_remove(const char *name);

/* The image that a journal by this name belongs to; NULL where the name does not say that, or for
 * lack of memory. The caller frees it. */
char *journals_image(const char *name);

#endif
