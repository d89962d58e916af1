/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the image must hold, in plain arrays. */

#include "tests/stress/model.h"

#include <stdlib.h>
#include <string.h>

bool
state_init(struct state *state, const struct params *params)
{
    state->disk = calloc(1, params->most);
    state->vm = calloc(1, params->vm_most);
    state->vm_most = params->vm_most;
    state->size = 0;
    return state->disk && state->vm;
}

void
state_destroy(struct state *state)
{
    free(state->disk);
    free(state->vm);
    *state = (struct state){0};
}

void
state_copy(struct state *to, const struct state *from, const struct params *params)
{
    memcpy(to->disk, from->disk, params->most);
    memcpy(to->vm, from->vm, params->vm_most);
    to->size = from->size;
}

bool
model_init(struct model *model, const struct params *params)
{
    model->below = calloc(1, params->most);
    return state_init(&model->active, params) && model->below;
}

void
model_destroy(struct model *model)
{
    state_destroy(&model->active);
    for (unsigned i = 0; i < model->snapshot_count; i++)
        state_destroy(&model->snapshots[i].state);
    for (unsigned i = 0; i < model->bitmap_count; i++) {
        free(model->bitmaps[i].must);
        free(model->bitmaps[i].may);
    }
    free(model->below);
    *model = (struct model){0};
}

void
model_begin(struct model *model, const struct params *params)
{
    model->active.size = params->size;
    memcpy(model->active.disk, model->below, params->size);
}

/* Mark the sectors that differ, as far as bitmaps record them. */
static void
change(struct model *model, uint64_t offset, const uint8_t *bytes, uint64_t length)
{
    uint8_t *disk = model->active.disk;
    for (unsigned b = 0; b < model->bitmap_count; b++)
        for (uint64_t i = 0; model->bitmaps[b].enabled && i < length; i++)
            if (disk[offset + i] != (bytes ? bytes[i] : 0))
                model->bitmaps[b].must[(offset + i) / 512] = 1;
    if (bytes)
        memcpy(disk + offset, bytes, length);
    else
        memset(disk + offset, 0, length);
}

void
model_touch(struct model *model, uint64_t offset, uint64_t length)
{
    for (unsigned b = 0; b < model->bitmap_count && length > 0; b++)
        if (model->bitmaps[b].enabled)
            memset(model->bitmaps[b].may + offset / 512, 1,
                   (offset + length - 1) / 512 - offset / 512 + 1);
}

void
model_write(struct model *model, uint64_t offset, const uint8_t *bytes, size_t length)
{
    model_touch(model, offset, length);
    change(model, offset, bytes, length);
}

void
model_zero(struct model *model, uint64_t offset, uint64_t length)
{
    change(model, offset, NULL, length);
}

void
model_empty(struct model *model, const struct params *params)
{
    (void)params;
    model_write(model, 0, model->below, model->active.size);
}

void
model_resize(struct model *model, uint64_t size)
{
    uint64_t was = model->active.size;
    if (size < was)
        memset(model->active.disk + size, 0, was - size);
    /* Whether what is new counts as changed is nowhere said. */
    for (unsigned b = 0; b < model->bitmap_count; b++) {
        struct dirt *dirt = &model->bitmaps[b];
        uint64_t end = (size + 511) / 512;
        if (size > was)
            memset(dirt->may + was / 512, 1, end - was / 512);
        else
            memset(dirt->must + end, 0, (was + 511) / 512 - end);
    }
    /* VM state begins behind the disk, and does not survive that it ends elsewhere. */
    if (size != was)
        memset(model->active.vm, 0, model->active.vm_most);
    model->active.size = size;
}
