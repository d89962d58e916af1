/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The proof of repairs, on pairs of images: one as it was, and the same with an edit. Both are
 * recipes, the second being the first and some lines more; the bytes that differ are what a fix
 * would have written. Each rule has edits that it must let pass and edits that it must not. */

#ifndef Q2_TESTS_PAIRS_H
#define Q2_TESTS_PAIRS_H

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/io/memory.h"
#include "corpus/recipe/recipe.h"
#include "repair/prove.h"
#include "tests/unit/images.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROVEN = -1 }; /* instead of an enum q2_objection_kind */

struct pair {
    const char *name;
    const char *image;
    const char *edit;
    int content;                          /* what the third rule alone says */
    int proof;                            /* what all say */
    enum q2_problem problem;              /* of an objection to findings */
    uint32_t map;                         /* of one to content, and where: */
    uint64_t offset, length;              /* a range that it lies in */
    void (*plan)(struct q2_scene *scene); /* says what actions there were; NULL: none */
    uint64_t blamed;                      /* index of the action + 1 */
    bool deep;
};

/* ---- making them ---- */

static struct q2_file *
build(const char *image, const char *edit)
{
    char *text = NULL;
    cr_assert_geq(asprintf(&text, "%s%s", image, edit), 0);
    struct q2_file *file = build_image(text);
    free(text);
    return file;
}

static uint8_t *
slurp(struct q2_file *file, uint64_t *ret_size)
{
    cr_assert_eq(q2_file_size(file, ret_size, NULL), 0);
    uint8_t *bytes = malloc(*ret_size + 1);
    cr_assert_not_null(bytes);
    cr_assert_eq(q2_file_read(file, 0, bytes, *ret_size, NULL), 0);
    return bytes;
}

/* Write to the overlay what tells `target` from the base: byte by byte, as small as edits can be.
 */
static void
make_same(struct q2_scene *scene, struct q2_file *target)
{
    uint64_t old_size, new_size;
    Q2_AUTOFREE uint8_t *from = slurp(scene->base, &old_size);
    Q2_AUTOFREE uint8_t *to = slurp(target, &new_size);
    if (old_size != new_size)
        cr_assert_eq(q2_file_truncate(scene->file, new_size, NULL), 0);
    for (uint64_t at = 0, end; at < new_size; at = end + 1) {
        for (end = at; end < new_size && (end < old_size ? from[end] : 0) != to[end];)
            end++;
        if (end > at)
            cr_assert_eq(q2_file_write(scene->file, at, to + at, end - at, NULL), 0);
    }
    scene->edited = true;
}

static struct q2_scene *
stage(const struct q2_scene_options *options, struct q2_file *base, struct q2_file *target,
      void (*plan)(struct q2_scene *scene))
{
    struct q2_error err = {0};
    struct q2_scene *scene = NULL;
    cr_assert_eq(q2_scene_open(base, options, Q2_LEVEL_GUESS, 0, &scene, &err), 0, "%s",
                 err.message);
    make_same(scene, target);
    if (plan)
        plan(scene);
    cr_assert_eq(scene->plan.failed, 0);
    cr_assert_eq(q2_scene_recheck(scene, &err), 0, "%s", err.message);
    return scene;
}

/* ---- asking ---- */

static void
expect(const struct pair *pair, const char *what, int rc, int expected,
       const struct q2_objection *objection)
{
    cr_expect_eq(rc, expected == PROVEN, "%s, %s: %d, %s", pair->name, what, rc, objection->text);
    if (rc != 0 || expected == PROVEN)
        return;
    cr_expect_eq((int)objection->kind, expected, "%s, %s: %s", pair->name, what, objection->text);
    if ((int)objection->kind != expected)
        return;
    bool is_finding = expected == Q2_OBJECTION_NEW_FINDING || expected == Q2_OBJECTION_NOT_MENDED;
    if (is_finding)
        cr_expect_eq(objection->problem, pair->problem, "%s, %s: %s", pair->name, what,
                     objection->text);
    else
        cr_expect_eq(objection->map, pair->map, "%s, %s: map %u", pair->name, what, objection->map);
    if (expected == Q2_OBJECTION_DATA_CHANGED)
        cr_expect(objection->length > 0 && objection->offset >= pair->offset &&
                      q2_range_inside(objection->offset - pair->offset, objection->length,
                                      pair->length),
                  "%s, %s: %s", pair->name, what, objection->text);
    cr_expect_eq(objection->action + 1, pair->blamed, "%s, %s: blames %llu", pair->name, what,
                 (unsigned long long)objection->action);
}

static void
prove(const struct pair *pair)
{
    struct q2_error err = {0};
    struct q2_objection objection = {0};
    const struct q2_scene_options options = {.threads = 1, .deep = pair->deep};
    Q2_AUTOCLOSE struct q2_file *base = build(pair->image, "");
    Q2_AUTOCLOSE struct q2_file *target = build(pair->image, pair->edit);
    struct q2_scene *scene = stage(&options, base, target, pair->plan);
    int rc = q2_prove(scene, &objection, &err);
    expect(pair, "proof", rc, pair->proof, &objection);
    objection = (struct q2_objection){0};
    rc = q2_prove_content(base, scene->before, scene->file, scene->check, &scene->plan, &objection,
                          &err);
    expect(pair, "content", rc, pair->content, &objection);
    /* The same of two files that no overlay connects. */
    objection = (struct q2_objection){0};
    rc =
        q2_prove_content(base, scene->before, target, scene->check, &scene->plan, &objection, &err);
    expect(pair, "content of files", rc, pair->content, &objection);
    q2_scene_close(scene);
}

static void
prove_all(const struct pair *pairs, size_t count)
{
    for (size_t i = 0; i < count; i++)
        prove(&pairs[i]);
}
#define PROVE(pairs) prove_all(pairs, sizeof(pairs) / sizeof((pairs)[0]))

#define CHANGED Q2_OBJECTION_DATA_CHANGED
#define FOUND   Q2_OBJECTION_NEW_FINDING

#define PAIR(pair_name, pair_image, pair_edit, of_content, of_all, ...)                   \
    {                                                                                     \
        .name = pair_name, .image = pair_image, .edit = pair_edit, .content = of_content, \
        .proof = of_all, ##__VA_ARGS__                                                    \
    }

#define PLAIN  "cluster-size 4K\nsize 4M\nwrite 0 64K 0x41\nwrite 2M 64K 0x42\n"
#define PACKED "cluster-size 4K\nsize 4M\nwrite-compressed 0 16K text\nwrite 1M 4K 0x42\n"
#define HISTORY                                                                   \
    "cluster-size 4K\nsize 4M\nwrite 0 64K 0x41\nsnapshot one vm-state 8K 0x51\n" \
    "write 0 32K 0x42\nwrite 2M 4K 0x43\nsnapshot two\nwrite 0 4K 0x44\n"

#endif
