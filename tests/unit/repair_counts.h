/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the tests of refcounts, COPIED flags and feature bits share: images from recipes, their
 * repair, and what the peer says of the result. */

#ifndef Q2_TESTS_UNIT_REPAIR_COUNTS_H
#define Q2_TESTS_UNIT_REPAIR_COUNTS_H

#include "core/image/image.h"
#include "core/io/fault.h"
#include "core/io/memory.h"
#include "corpus/recipe/recipe.h"
#include "repair/fix.h"
#include "repair/repair.h"
#include "tests/unit/images.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct content {
    uint8_t *bytes;
    uint64_t size;
};

static inline struct content
content_of(struct q2_file *file)
{
    struct content content = {0};
    cr_assert_eq(q2_file_size(file, &content.size, NULL), 0);
    content.bytes = malloc(content.size + 1);
    cr_assert(content.bytes);
    cr_assert_eq(q2_file_read(file, 0, content.bytes, content.size, NULL), 0);
    return content;
}

static inline struct q2_repair *
plan(struct q2_file *file, enum q2_repair_level level, bool fixed_size)
{
    const struct q2_repair_options options = {.level = level,
                                              .threads = 1,
                                              .fixed_size = fixed_size};
    struct q2_repair *repair = NULL;
    struct q2_error err = {0};
    cr_assert_eq(q2_repair_plan(file, &options, &repair, &err), 0, "%s", err.message);
    return repair;
}

/* The action of this kind, or NULL. */
static inline const struct q2_action *
action_of(const struct q2_repair *repair, enum q2_action_kind kind)
{
    const struct q2_plan *actions = q2_repair_actions(repair);
    for (uint64_t i = 0; i < actions->count; i++)
        if (actions->actions[i].kind == kind)
            return &actions->actions[i];
    return NULL;
}

static inline bool
applies(const struct q2_repair *repair, enum q2_action_kind kind)
{
    const struct q2_action *action = action_of(repair, kind);
    return action && action->applied;
}

static inline uint64_t
faults_after(const struct q2_repair *repair, enum q2_problem problem)
{
    return q2_check_problem_count(q2_repair_after(repair), problem).count;
}

/* The exit status of `qemu-img check` for what the file holds; -1 where there is no qemu-img. */
static inline int
peer_says(struct q2_file *file)
{
    char path[] = "/tmp/q2-counts-XXXXXX", command[200];
    if (system("qemu-img --version > /dev/null 2>&1") != 0)
        return -1;
    struct content content = content_of(file);
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, content.bytes, content.size), (ssize_t)content.size);
    close(fd);
    snprintf(command, sizeof command, "qemu-img check -q -f qcow2 %s > /dev/null 2>&1", path);
    int status = system(command);
    unlink(path);
    free(content.bytes);
    return status < 0 ? -1 : status >> 8;
}

/* Whether a second repair of the result finds nothing to do. */
static inline bool
is_settled(const struct q2_repair *repair, bool fixed_size)
{
    struct q2_repair *again = plan(q2_repair_file(repair), Q2_LEVEL_CERTAIN, fixed_size);
    bool settled = !q2_repair_needed(again) && !q2_plan_does_anything(q2_repair_actions(again));
    q2_repair_free(again);
    return settled;
}

#endif
