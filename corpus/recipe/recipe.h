/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Recipes: a text language that describes a qcow2 image, its content and its damage, field by
 * field. corpus/README.md is the language reference.
 *
 * A recipe is parsed once and built as often as needed; the same recipe always makes the same
 * bytes. Nothing here trusts the image to be sane: once the damage begins, the fields are found
 * where the healthy image had them. */

#ifndef Q2_CORPUS_RECIPE_H
#define Q2_CORPUS_RECIPE_H

#include "core/io/file.h"

struct q2_recipe;

/* Parse `length` bytes at `text`; `name` is that of the file, for messages. Q2_ERR_FORMAT with a
 * message that begins "name:line:column: " where the text is no recipe. */
int q2_recipe_parse(const char *name, const char *text, size_t length,
                    struct q2_recipe **ret_recipe, struct q2_error *err);

/* NULL is allowed. */
void q2_recipe_free(struct q2_recipe *recipe);

/* A field of the built image, as q2_recipe_build lists it. */
struct q2_recipe_field {
    const char *name;  /* as a recipe would spell it */
    uint64_t offset;   /* of the bytes that hold it in the file */
    uint64_t length;   /* bytes */
    bool is_text;      /* a run of bytes rather than a number */
    uint64_t value;    /* of a number */
    const void *bytes; /* of a text; lives during the call */
};

/* What a build writes to. Only `image` is required. */
struct q2_recipe_target {
    struct q2_file *image; /* empty and writable */

    /* Make an empty file `name` beside the image, for an external data file or a raw backing file;
     * the build closes it. NULL: such files are not made. */
    int (*make_companion)(void *data, const char *name, struct q2_file **ret_file,
                          struct q2_error *err);

    /* Gets each field of the finished image, in the order of the file format's chapters. */
    void (*list_field)(void *data, const struct q2_recipe_field *field);
    void *data; /* for both functions */

    /* An empty file that gets the guest's view of the healthy image, as a raw disk. */
    struct q2_file *guest;
    const char *guest_snapshot; /* the view of this snapshot instead; NULL: the active disk */
};

/* Build the image: content first, then damage. On failure the files hold part of it. */
int q2_recipe_build(const struct q2_recipe *recipe, const struct q2_recipe_target *target,
                    struct q2_error *err);

#endif
