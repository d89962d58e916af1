/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The table of operations: a row for each thing that can be done to an image. */

#include "tests/stress/ops.h"

#include <string.h>

const struct op ops[] = {
    {"write", 30, op_write},
    {"writev", 8, op_writev},
    {"compressed", 8, op_compressed},
    {"zero", 8, op_zero},
    {"unmap", 6, op_unmap},
    {"discard", 8, op_discard},
    {"empty", 1, op_empty},
    {"flush", 6, op_flush},
    {"reopen", 4, op_reopen},
    {"invalidate", 2, op_invalidate},
    {"read", 10, op_read},
    {"map", 4, op_map},
    {"snapshot", 4, op_snapshot},
    {"goto", 2, op_goto},
    {"delete", 3, op_delete},
    {"load", 2, op_load},
    {"vm-write", 4, op_vm_write},
    {"vm-read", 3, op_vm_read},
    {"vm-discard", 1, op_vm_discard},
    {"resize", 3, op_resize},
    {"bitmap-add", 2, op_bitmap_add},
    {"bitmap-remove", 1, op_bitmap_remove},
    {"bitmap-clear", 1, op_bitmap_clear},
    {"bitmap-enable", 2, op_bitmap_enable},
    {"bitmap-merge", 1, op_bitmap_merge},
    {"bitmap-look", 4, op_bitmap_look},
    {"version", 1, op_version},
    {"width", 1, op_width},
    {"lazy", 1, op_lazy},
    {"rebase", 1, op_rebase},
    {"key-add", 1, op_key_add},
    {"key-remove", 1, op_key_remove},
    {"verify", 4, op_verify},
};
const unsigned op_count = sizeof ops / sizeof *ops;

const struct op *
op_find(const char *name)
{
    for (unsigned i = 0; i < op_count; i++)
        if (strcmp(ops[i].name, name) == 0)
            return &ops[i];
    return NULL;
}

void
step_choose(struct step *step, uint64_t *random)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < op_count; i++)
        total += ops[i].weight;
    uint64_t at = random_below(random, total);
    const struct op *op = ops;
    for (; at >= op->weight; op++)
        at -= op->weight;
    step->op = op;
    for (unsigned i = 0; i < 4; i++)
        step->arg[i] = next_random(random) >> 16;
}
