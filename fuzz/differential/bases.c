/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Recipes, built once and kept in memory. */

#include "core/io/fault.h"
#include "core/io/memory.h"
#include "corpus/recipe/recipe.h"
#include "fuzz/differential/make.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Files in the making. */
struct making {
    struct q2_file *companions[MAX_COMPANIONS];
    char *names[MAX_COMPANIONS];
    unsigned count;
};

static void *
need(void *memory)
{
    if (!memory)
        abort();
    return memory;
}

/* The build closes what it is given; here the file has to last. */
static int
make_companion(void *data, const char *name, struct q2_file **ret_file, struct q2_error *err)
{
    struct making *making = data;
    if (making->count == MAX_COMPANIONS)
        return q2_error_set(err, Q2_ERR_RANGE, "%s: too many files", name);
    int rc = q2_file_new_memory(name, &making->companions[making->count], err);
    if (rc < 0)
        return rc;
    const struct q2_fault_plan none = {.kind = Q2_FAULT_NONE};
    rc = q2_file_new_fault(making->companions[making->count], &none, ret_file, err);
    making->names[making->count++] = need(strdup(name));
    return rc;
}

static bool
take_bytes(struct q2_file *file, uint8_t **ret_bytes, size_t *ret_length)
{
    uint64_t size;
    if (q2_file_size(file, &size, NULL) < 0 || size > IMAGE_MAX)
        return false;
    *ret_bytes = need(malloc(size + 1));
    *ret_length = (size_t)size;
    return size == 0 || q2_file_read(file, 0, *ret_bytes, (size_t)size, NULL) == 0;
}

void
base_destroy(struct base *base)
{
    for (unsigned i = 0; i < base->companion_count; i++) {
        free(base->companions[i].name);
        free(base->companions[i].bytes);
    }
    free(base->name);
    free(base->script);
    free(base->bytes);
}

static bool
build(const struct q2_recipe *recipe, struct base *base)
{
    struct making making = {0};
    Q2_AUTOCLOSE struct q2_file *image = NULL;
    need(q2_file_new_memory("image", &image, NULL) == 0 ? image : NULL);
    const struct q2_recipe_target target = {.image = image,
                                            .make_companion = make_companion,
                                            .data = &making};
    bool fits = q2_recipe_build(recipe, &target, NULL) == 0 &&
                take_bytes(image, &base->bytes, &base->length);
    for (unsigned i = 0; i < making.count; i++) {
        struct companion *companion = &base->companions[base->companion_count++];
        companion->name = making.names[i];
        fits &= take_bytes(making.companions[i], &companion->bytes, &companion->length);
        q2_file_close(making.companions[i]);
    }
    return fits;
}

static char *
read_text(const char *path)
{
    char *text = NULL;
    size_t capacity = 0;
    FILE *in = fopen(path, "r");
    if (!in || getdelim(&text, &capacity, '\0', in) < 0) {
        perror(path);
        exit(2);
    }
    fclose(in);
    return text;
}

static void
add_recipe(struct bases *bases, const char *path)
{
    struct base base = {.name = need(strdup(path)), .script = read_text(path)};
    const char *text = base.script;
    struct q2_recipe *recipe = NULL;
    struct q2_error err = {0};
    if (q2_recipe_parse(path, text, strlen(text), &recipe, &err) < 0) {
        fprintf(stderr, "%s\n", err.message);
        exit(2);
    }
    if (build(recipe, &base)) {
        bases->bases = need(reallocarray(bases->bases, bases->count + 1, sizeof *bases->bases));
        bases->bases[bases->count++] = base;
    } else {
        base_destroy(&base);
    }
    q2_recipe_free(recipe);
}

static int
is_recipe(const struct dirent *entry)
{
    const char *dot = strrchr(entry->d_name, '.');
    return dot ? strcmp(dot, ".recipe") == 0 : strcmp(entry->d_name, "recipe") == 0;
}

void
bases_add(struct bases *bases, const char *path)
{
    struct stat status;
    struct dirent **entries;
    if (stat(path, &status) == 0 && !S_ISDIR(status.st_mode)) {
        add_recipe(bases, path);
        return;
    }
    int count = scandir(path, &entries, is_recipe, alphasort);
    if (count < 0) {
        perror(path);
        exit(2);
    }
    for (int i = 0; i < count; i++) {
        char *name;
        need(asprintf(&name, "%s/%s", path, entries[i]->d_name) < 0 ? NULL : name);
        add_recipe(bases, name);
        free(name);
        free(entries[i]);
    }
    free(entries);
}

void
bases_destroy(struct bases *bases)
{
    for (size_t i = 0; i < bases->count; i++)
        base_destroy(&bases->bases[i]);
    free(bases->bases);
}
