/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The other files of an image: its chain of backing files and its external data file. Opening them
 * is a step of its own, taken only when asked for and before a program shuts itself in; judging
 * them is a pass of the check. */

#ifndef Q2_CHECKER_COMPANION_H
#define Q2_CHECKER_COMPANION_H

#include "core/format/header.h"
#include "core/io/file.h"

enum { Q2_MAX_CHAIN = 200 };

/* What came of opening a file. */
enum q2_companion_state {
    Q2_COMPANION_OPEN,
    Q2_COMPANION_MISSING,      /* `error` says why */
    Q2_COMPANION_NOT_FOLLOWED, /* a protocol or JSON name */
    Q2_COMPANION_LOOP,         /* a file that is in the chain already */
    Q2_COMPANION_TOO_DEEP,
};

struct q2_companion {
    enum q2_companion_state state;
    char *name;           /* as recorded, made printable */
    char *path;           /* canonical; NULL unless open or a loop */
    struct q2_file *file; /* NULL unless open */
    struct q2_error error;
    char format[16];    /* recorded for it; empty: none */
    uint64_t file_size; /* bytes */
    bool has_magic;     /* begins like a qcow2 image; `header` and `usable` are then set */
    struct q2_header header;
    unsigned usable;
    unsigned broken; /* rules that its header and extensions break */
    enum q2_problem first_broken;
};

struct q2_companions {
    struct q2_companion *backing; /* from the image's own backing file down */
    size_t backing_count;
    bool has_data_file;
    struct q2_companion data_file;
};

/* Open what `image` (found at `path`) names, and what that names in turn. Relative names are
 * relative to the folder of the file that names them; protocol and JSON names are not followed.
 * What cannot be opened is remembered as such and becomes a finding. Fails for lack of memory, or
 * where the image's own first cluster cannot be read. */
int q2_companions_open(struct q2_file *image, const char *path, bool force_share,
                       struct q2_companions **ret_companions, struct q2_error *err);
void q2_companions_free(struct q2_companions *companions);

#endif
