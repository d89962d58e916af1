/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The bundled recipes: each builds, gives the same bytes every time, obeys the rules of
 * core/format, and every field that it lists can be assigned under the listed name. */

#include "core/base/cleanup.h"
#include "core/format/extension.h"
#include "core/format/header.h"
#include "core/io/memory.h"
#include "corpus/recipe/recipe.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The folder of recipes, found from this source file. */
static const char *
corpus_folder(const char *name)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s", __FILE__);
    for (int i = 0; i < 3; i++) {
        char *slash = strrchr(path, '/');
        cr_assert(slash, "%s is not inside the sources", __FILE__);
        *slash = '\0';
    }
    size_t used = strlen(path);
    snprintf(path + used, sizeof path - used, "/corpus/%s", name);
    return path;
}

static char *
read_text(const char *path)
{
    FILE *stream = fopen(path, "r");
    char *text = NULL;
    size_t room = 0;
    cr_assert(stream, "cannot open %s", path);
    ssize_t length = getdelim(&text, &room, '\0', stream);
    cr_assert_gt(length, 0, "cannot read %s", path);
    fclose(stream);
    return text;
}

static struct q2_file *
build(const char *name, const char *text, struct q2_recipe_target *target)
{
    struct q2_recipe *recipe = NULL;
    struct q2_error err = {0};
    int rc = q2_recipe_parse(name, text, strlen(text), &recipe, &err);
    rc = rc ? rc : q2_file_new_memory("image", &target->image, &err);
    rc = rc ? rc : q2_recipe_build(recipe, target, &err);
    cr_assert_eq(rc, 0, "%s", err.message);
    q2_recipe_free(recipe);
    return target->image;
}

/* Call `test` for each recipe of a folder. */
static unsigned
for_each(const char *folder, void (*test)(const char *name, const char *text))
{
    const char *path = corpus_folder(folder);
    DIR *directory = opendir(path);
    unsigned count = 0;
    cr_assert(directory, "cannot open %s", path);
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        char file[8192];
        if (!strstr(entry->d_name, ".recipe"))
            continue;
        snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
        Q2_AUTOFREE char *text = read_text(file);
        test(entry->d_name, text);
        count++;
    }
    closedir(directory);
    return count;
}

static bool
same(struct q2_file *a, struct q2_file *b)
{
    enum { CHUNK = 1 << 16 };
    static char left[CHUNK], right[CHUNK];
    uint64_t size, other;
    cr_assert_eq(q2_file_size(a, &size, NULL), 0);
    cr_assert_eq(q2_file_size(b, &other, NULL), 0);
    bool equal = size == other;
    for (uint64_t at = 0; equal && at < size; at += CHUNK) {
        cr_assert_eq(q2_file_read_padded(a, at, left, CHUNK, NULL), 0);
        cr_assert_eq(q2_file_read_padded(b, at, right, CHUNK, NULL), 0);
        equal = memcmp(left, right, CHUNK) == 0;
    }
    return equal;
}

static void
test_same_every_time(const char *name, const char *text)
{
    Q2_AUTOCLOSE struct q2_file *first = build(name, text, &(struct q2_recipe_target){0});
    Q2_AUTOCLOSE struct q2_file *second = build(name, text, &(struct q2_recipe_target){0});
    cr_expect(same(first, second), "%s", name);
}

Test(corpus, builds_are_deterministic)
{
    cr_expect_geq(for_each("healthy", test_same_every_time), 25);
    cr_expect_geq(for_each("damaged", test_same_every_time), 1);
}

/* ---- the rules of core/format ---- */

static void
report(void *data, const struct q2_violation *violation)
{
    /* The one recipe with extensions that nobody knows says so in its name. */
    if (violation->problem != Q2_PROBLEM_EXTENSION_UNKNOWN)
        cr_expect_fail("%s: %s %s", (const char *)data, q2_problem_id(violation->problem),
                       violation->detail);
}

static void
test_header(const char *name, const char *text)
{
    enum { AREA = 4096 };
    Q2_AUTOCLOSE struct q2_file *file = build(name, text, &(struct q2_recipe_target){0});
    const struct q2_sink sink = {.report = report, .data = (void *)(uintptr_t)name};
    struct q2_header header;
    struct q2_extensions extensions;
    uint8_t bytes[AREA];
    uint64_t size;
    cr_assert_eq(q2_file_size(file, &size, NULL), 0);
    cr_assert_eq(q2_file_read_padded(file, 0, bytes, sizeof bytes, NULL), 0);
    q2_header_decode(bytes, sizeof bytes, &header);
    unsigned usable = q2_header_validate(&header, size, &sink);
    cr_expect_eq(usable, Q2_USABLE_ALL, "%s", name);
    q2_extensions_decode(&header, usable, bytes, sizeof bytes, &sink, &extensions);
}

Test(corpus, healthy_headers_obey_the_rules)
{
    cr_expect_geq(for_each("healthy", test_header), 25);
}

/* ---- fields ---- */

struct assignments {
    FILE *stream;
    unsigned count;
    unsigned skip; /* to the next that is taken */
};

/* Spell an assignment that changes nothing. */
static void
assign_itself(void *data, const struct q2_recipe_field *field)
{
    enum { EVERY = 7, ALWAYS = 300 };
    struct assignments *assignments = data;
    const uint8_t *bytes = field->bytes;
    /* All of the first, which are the most varied, then some. */
    if (field->length == 0 || (assignments->count > ALWAYS && assignments->skip++ % EVERY != 0))
        return;
    assignments->count++;
    if (!field->is_text) {
        fprintf(assignments->stream, "%s = 0x%" PRIx64 "\n", field->name, field->value);
        return;
    }
    fprintf(assignments->stream, "%s = \"", field->name);
    for (uint64_t i = 0; i < field->length; i++)
        fprintf(assignments->stream, "\\x%02x", bytes[i]);
    fprintf(assignments->stream, "\"\n");
}

static void
test_fields(const char *name, const char *text)
{
    /* Its L1 table alone would take seconds to list. */
    if (strcmp(name, "exabyte.recipe") == 0)
        return;
    Q2_AUTOFREE char *more = NULL;
    size_t length;
    struct assignments assignments = {.stream = open_memstream(&more, &length)};
    cr_assert(assignments.stream);
    fprintf(assignments.stream, "%s\n", text);
    struct q2_recipe_target target = {.list_field = assign_itself, .data = &assignments};
    Q2_AUTOCLOSE struct q2_file *plain = build(name, text, &target);
    fclose(assignments.stream);
    cr_expect_gt(assignments.count, 20, "%s", name);
    Q2_AUTOCLOSE struct q2_file *assigned = build(name, more, &(struct q2_recipe_target){0});
    cr_expect(same(plain, assigned), "%s", name);
}

Test(corpus, listed_fields_can_be_assigned)
{
    cr_expect_geq(for_each("healthy", test_fields), 25);
}

/* ---- the guest's view ---- */

Test(corpus, guest_view_is_that_of_the_statements)
{
    static const char text[] = "cluster-size 4K\nsize 40K\nwrite 0 4K 0x11\nwrite-compressed 4K 4K "
                               "0x22\nsnapshot s\nzero 0 4K\nwrite 6K 100 0x33\n";
    Q2_AUTOCLOSE struct q2_file *now = NULL, *then = NULL;
    cr_assert_eq(q2_file_new_memory("now", &now, NULL), 0);
    cr_assert_eq(q2_file_new_memory("then", &then, NULL), 0);
    q2_file_close(build("t", text, &(struct q2_recipe_target){.guest = now}));
    q2_file_close(
        build("t", text, &(struct q2_recipe_target){.guest = then, .guest_snapshot = "s"}));
    static const struct {
        uint64_t offset;
        uint8_t now;
        uint8_t then;
    } bytes[] = {{0, 0, 0x11},       {4096, 0x22, 0x22}, {6144, 0x33, 0x22},
                 {6244, 0x22, 0x22}, {8192, 0, 0},       {40959, 0, 0}};
    for (size_t i = 0; i < sizeof bytes / sizeof bytes[0]; i++) {
        uint8_t byte = 0xff;
        cr_expect_eq(q2_file_read(now, bytes[i].offset, &byte, 1, NULL), 0);
        cr_expect_eq(byte, bytes[i].now, "at %" PRIu64, bytes[i].offset);
        cr_expect_eq(q2_file_read(then, bytes[i].offset, &byte, 1, NULL), 0);
        cr_expect_eq(byte, bytes[i].then, "at %" PRIu64, bytes[i].offset);
    }
}

/* A companion that remembers what was made. */
static int
remember(void *data, const char *name, struct q2_file **ret_file, struct q2_error *err)
{
    strncat(data, name, 20);
    strncat(data, ";", 2);
    return q2_file_new_memory(name, ret_file, err);
}

Test(corpus, companions_are_made)
{
    char names[100] = "";
    struct q2_recipe_target target = {.make_companion = remember, .data = names};
    q2_file_close(build("t",
                        "file \"b.raw\" 1K random\nbacking \"b.raw\"\ndata-file d\nsize 1M\n"
                        "write 0 100 1\n",
                        &target));
    cr_expect_str_eq(names, "b.raw;d;");
}
