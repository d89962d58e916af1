/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The proof as a whole: findings first, as they are at hand, then what guests read. And whom to
 * blame where it fails. */

#include "repair/prove.h"

#include "core/base/checked.h"
#include "repair/prove_parts.h"

#include <stdarg.h>
#include <stdio.h>

/* ---- blame ---- */

static bool
writes(const struct q2_action *action, uint64_t host, uint64_t length)
{
    for (uint64_t i = 0; i < action->written_count; i++)
        if (q2_ranges_overlap(action->written[i].offset, action->written[i].length, host, length))
            return true;
    return false;
}

static bool
changes(const struct q2_action *action, uint32_t map, uint64_t guest, uint64_t length)
{
    for (uint64_t i = 0; i < action->change_count; i++)
        if (action->changes[i].map == map &&
            q2_ranges_overlap(action->changes[i].offset, action->changes[i].length, guest, length))
            return true;
    return false;
}

static uint64_t
bytes_written(const struct q2_action *action)
{
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < action->written_count; i++)
        bytes += action->written[i].length;
    return bytes;
}

uint64_t
q2_proof_worse(const struct q2_proof *proof, uint64_t left, uint64_t right)
{
    if (left == UINT64_MAX || right == UINT64_MAX)
        return left == UINT64_MAX ? right : left;
    const struct q2_action *a = &proof->plan->actions[left], *b = &proof->plan->actions[right];
    if (a->confidence != b->confidence)
        return a->confidence > b->confidence ? left : right;
    return bytes_written(a) <= bytes_written(b) ? left : right;
}

uint64_t
q2_proof_blame(const struct q2_proof *proof, uint64_t host, uint64_t host_length, uint32_t map,
               uint64_t guest, uint64_t guest_length)
{
    uint64_t found = UINT64_MAX;
    for (uint64_t i = 0; proof->plan && i < proof->plan->count; i++) {
        const struct q2_action *action = &proof->plan->actions[i];
        if (action->applied &&
            (writes(action, host, host_length) || changes(action, map, guest, guest_length)))
            found = q2_proof_worse(proof, found, i);
    }
    return found;
}

int
q2_proof_object(struct q2_proof *proof, const struct q2_objection *objection, const char *format,
                ...)
{
    struct q2_objection filled = *objection;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(filled.text, sizeof filled.text, format, arguments);
    va_end(arguments);
    if (proof->objection)
        *proof->objection = filled;
    return 0;
}

/* ---- the front ---- */

int
q2_prove(struct q2_scene *scene, struct q2_objection *ret_objection, struct q2_error *err)
{
    struct q2_proof proof = {
        .base = scene->base,
        .file = scene->file,
        .before = scene->before,
        .after = scene->check,
        .plan = &scene->plan,
        .budget = &scene->budget,
        .objection = ret_objection,
    };
    int rc = q2_proof_open(&proof, err);
    if (rc == 0)
        rc = q2_proof_findings(&proof, scene, err);
    if (rc > 0)
        rc = q2_proof_answers(&proof);
    if (rc > 0)
        rc = q2_proof_content(&proof, err);
    q2_proof_close(&proof);
    return rc;
}

int
q2_prove_content(struct q2_file *base, struct q2_check *before, struct q2_file *file,
                 struct q2_check *after, const struct q2_plan *plan,
                 struct q2_objection *ret_objection, struct q2_error *err)
{
    struct q2_check *any = after ? after : before;
    struct q2_proof proof = {
        .base = base,
        .file = file,
        .before = before,
        .after = after,
        .plan = plan,
        .objection = ret_objection,
    };
    if (!any)
        return 1;
    proof.budget = plan && plan->budget ? plan->budget : &any->budget;
    int rc = q2_proof_open(&proof, err);
    if (rc == 0)
        rc = q2_proof_content(&proof, err);
    q2_proof_close(&proof);
    return rc;
}
