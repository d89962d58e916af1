/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The layers of a backing chain one by one: learned by opening the chain once for reading, so that
 * each can be opened by itself, for writing too, without the locks of the others in the way. */

#ifndef Q2_TOOL_CHAIN_H
#define Q2_TOOL_CHAIN_H

#include "core/tool/tool.h"

struct chain_layer {
    char *path;
    char *stored; /* the name in the image above; NULL: the top */
    enum q2_disk_format format;
    uint64_t size; /* of the disk, bytes */
    const struct q2_secret *secret;
};

/* Embed it with `= {0}`. */
struct chain {
    struct chain_layer *layers; /* the image first */
    unsigned count;
};

/* Says what is wrong. */
bool chain_read(const struct tool_common *common, const char *name, struct chain *chain);
void chain_destroy(struct chain *chain);

/* The layer below the image that a name means. */
bool chain_find(const struct chain *chain, const char *name, unsigned *ret_depth);

int chain_open(const struct chain *chain, unsigned depth, unsigned flags, struct q2_disk **ret_disk,
               struct q2_error *err);

#endif
