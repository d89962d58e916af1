/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/tool/chain.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool
out_of_memory(void)
{
    tool_say("out of memory");
    return false;
}

/* The secret of the layer at `depth`, where --image-opts names one; otherwise that of the image. */
static const struct q2_secret *
secret_at(const struct tool_common *common, const struct tool_pairs *pairs, unsigned depth)
{
    char key[1024] = "";
    size_t used = 0;
    for (unsigned i = 0; i < depth && used + 64 < sizeof key; i++)
        used += (size_t)snprintf(key + used, sizeof key - used, "backing.");
    snprintf(key + used, sizeof key - used, "encrypt.key-secret");
    const char *id = tool_pairs_get(pairs, key);
    if (!id)
        id = tool_pairs_get(pairs, "encrypt.key-secret");
    return id ? tool_secret_find(common->secrets, id) : NULL;
}

static bool
add_layer(struct chain *chain, struct q2_disk *disk, const char *stored)
{
    struct chain_layer *layers = realloc(chain->layers, (chain->count + 1) * sizeof *layers);
    if (!layers)
        return out_of_memory();
    chain->layers = layers;
    struct chain_layer *layer = &layers[chain->count++];
    *layer = (struct chain_layer){
        .path = strdup(q2_disk_name(disk)),
        .stored = stored ? strdup(stored) : NULL,
        .format = q2_disk_format(disk),
        .size = q2_disk_size(disk),
    };
    return (layer->path && (layer->stored || !stored)) || out_of_memory();
}

bool
chain_read(const struct tool_common *common, const char *name, struct chain *chain)
{
    struct q2_disk *top = NULL;
    struct tool_pairs pairs = {0};
    const char *stored = NULL;
    if (!tool_open_one(common, name, 0, &top))
        return false;
    bool good = !common->image_opts || tool_pairs_add(&pairs, name, NULL);
    for (struct q2_disk *disk = top; good && disk; disk = q2_disk_backing(disk)) {
        good = add_layer(chain, disk, stored);
        stored = q2_disk_image(disk) ? q2_image_backing_name(q2_disk_image(disk)) : NULL;
        if (good)
            chain->layers[chain->count - 1].secret = secret_at(common, &pairs, chain->count - 1);
    }
    tool_pairs_destroy(&pairs);
    return tool_close(top, TOOL_OK) == TOOL_OK && good;
}

void
chain_destroy(struct chain *chain)
{
    for (unsigned i = 0; i < chain->count; i++) {
        free(chain->layers[i].path);
        free(chain->layers[i].stored);
    }
    free(chain->layers);
    *chain = (struct chain){0};
}

static bool
is_same_file(const char *a, const char *b)
{
    char *real_a = realpath(a, NULL), *real_b = realpath(b, NULL);
    bool same = real_a && real_b && strcmp(real_a, real_b) == 0;
    free(real_a);
    free(real_b);
    return same;
}

bool
chain_find(const struct chain *chain, const char *name, unsigned *ret_depth)
{
    for (unsigned i = 1; i < chain->count; i++) {
        const struct chain_layer *layer = &chain->layers[i];
        if (strcmp(layer->stored, name) != 0 && !is_same_file(layer->path, name))
            continue;
        *ret_depth = i;
        return true;
    }
    return false;
}

int
chain_open(const struct chain *chain, unsigned depth, unsigned flags, struct q2_disk **ret_disk,
           struct q2_error *err)
{
    const struct chain_layer *layer = &chain->layers[depth];
    struct q2_image_options options = {.flags = flags,
                                       .format = layer->format,
                                       .secret = layer->secret};
    return q2_disk_open(layer->path, &options, ret_disk, err);
}
