/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The -o options of the formats. */

#ifndef Q2_TOOL_TARGET_OPTIONS_H
#define Q2_TOOL_TARGET_OPTIONS_H

#include "core/tool/tool.h"

enum tool_option_where {
    TOOL_OPTION_OF_QCOW2 = 1 << 0,
    TOOL_OPTION_OF_RAW = 1 << 1,
    TOOL_OPTION_OF_AMEND = 1 << 2, /* may be changed afterwards */
};

struct tool_create_option {
    const char *key;
    const char *kind;   /* str, size, num, bool (on/off) */
    unsigned where;     /* enum tool_option_where */
    const char *preset; /* what counts where it is not given, if that is to be told */
    const char *help;
};

/* NULL: there is none. */
const struct tool_create_option *tool_create_option_find(const char *key);

/* Whether an image of the format has all these options; otherwise says which one it lacks. */
bool tool_create_keys_check(const char *name, enum q2_disk_format format,
                            const struct tool_pairs *pairs);

/* List those of `where`, as `-o help` does. */
void tool_create_option_list(unsigned where);

/* "Formatting 'NAME', fmt=... key=value ...", as `qemu-img create` says it. */
void tool_create_tell(const char *name, enum q2_disk_format format, const struct tool_pairs *pairs);

/* "0.10", "1.1", "v2", "v3"; says so otherwise. */
bool tool_version_find(const char *text, unsigned *ret_version);

#endif
