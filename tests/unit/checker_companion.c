/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Opening the other files of an image: where names are looked for, what is not followed, and what
 * is remembered of files that cannot be opened. What becomes of it is for the cases. */

#include "checker/companion.h"
#include "core/base/cleanup.h"
#include "core/io/fault.h"
#include "core/io/posix.h"
#include "corpus/recipe/recipe.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- a folder to work in ---- */

static char folder[] = "/tmp/q2_companion_XXXXXX";

static void
enter_folder(void)
{
    cr_assert_not_null(mkdtemp(folder));
    cr_assert_eq(chdir(folder), 0);
}

static void
leave_folder(void)
{
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    cr_assert_eq(chdir("/"), 0);
    cr_expect_eq(system(command), 0);
}

TestSuite(companion, .init = enter_folder, .fini = leave_folder);

static void
build(const char *name, const char *text)
{
    Q2_AUTOCLOSE struct q2_file *image = NULL;
    struct q2_recipe *recipe = NULL;
    struct q2_error err = {0};
    cr_assert_eq(q2_recipe_parse("t", text, strlen(text), &recipe, &err), 0, "%s", err.message);
    unlink(name);
    cr_assert_eq(q2_file_open(name, Q2_OPEN_CREATE | Q2_OPEN_WRITE, &image, &err), 0);
    struct q2_recipe_target target = {.image = image};
    cr_assert_eq(q2_recipe_build(recipe, &target, &err), 0, "%s", err.message);
    q2_recipe_free(recipe);
}

static void
write_text(const char *name, const char *text)
{
    FILE *file = fopen(name, "w");
    cr_assert_not_null(file);
    fputs(text, file);
    fclose(file);
}

static struct q2_companions *
open_all(const char *name)
{
    Q2_AUTOCLOSE struct q2_file *image = NULL;
    struct q2_companions *companions = NULL;
    struct q2_error err = {0};
    cr_assert_eq(q2_file_open(name, 0, &image, &err), 0, "%s", err.message);
    cr_assert_eq(q2_companions_open(image, name, false, &companions, &err), 0, "%s", err.message);
    return companions;
}

/* The only backing file of an image that names `backing`. */
static struct q2_companions *
open_over(const char *backing, const char *format)
{
    char text[256];
    snprintf(text, sizeof text, "size 1M\nbacking \"%s\"%s%s\n", backing, format ? " format " : "",
             format ? format : "");
    build("image.qcow2", text);
    struct q2_companions *companions = open_all("image.qcow2");
    cr_assert_eq(companions->backing_count, 1);
    cr_expect_not(companions->has_data_file);
    return companions;
}

static void
expect_state(const char *backing, const char *format, enum q2_companion_state state)
{
    struct q2_companions *companions = open_over(backing, format);
    const struct q2_companion *companion = &companions->backing[0];
    cr_expect_eq(companion->state, state, "%s: %d", backing, companion->state);
    cr_expect_str_eq(companion->name, backing);
    cr_expect_eq(companion->file != NULL, state == Q2_COMPANION_OPEN);
    cr_expect_eq(companion->error.message[0] != '\0', state == Q2_COMPANION_MISSING);
    q2_companions_free(companions);
}

/* ---- backing files ---- */

Test(companion, an_image_alone_has_none)
{
    build("image.qcow2", "size 1M\n");
    struct q2_companions *companions = open_all("image.qcow2");
    cr_expect_eq(companions->backing_count, 0);
    cr_expect_not(companions->has_data_file);
    q2_companions_free(companions);
    q2_companions_free(NULL);
}

Test(companion, a_raw_base)
{
    write_text("base.raw", "not very large");
    struct q2_companions *companions = open_over("base.raw", "raw");
    const struct q2_companion *base = &companions->backing[0];
    cr_expect_eq(base->state, Q2_COMPANION_OPEN);
    cr_expect_eq(base->file_size, 14);
    cr_expect_not(base->has_magic);
    cr_expect_str_eq(base->format, "raw");
    cr_expect_eq(base->path[0], '/');
    q2_companions_free(companions);
}

Test(companion, a_qcow2_base_is_decoded)
{
    build("base.qcow2", "version 2\nsize 3M\n");
    struct q2_companions *companions = open_over("base.qcow2", "qcow2");
    const struct q2_companion *base = &companions->backing[0];
    cr_expect(base->has_magic);
    cr_expect_eq(base->header.size, 3 << 20);
    cr_expect_eq(base->header.version, 2);
    cr_expect_eq(base->broken, 0);
    q2_companions_free(companions);

    build("base.qcow2", "size 3M\nheader.version = 9\n");
    companions = open_over("base.qcow2", NULL);
    cr_expect_gt(companions->backing[0].broken, 0);
    cr_expect_eq(companions->backing[0].first_broken, Q2_PROBLEM_HEADER_VERSION);
    cr_expect_str_eq(companions->backing[0].format, "");
    q2_companions_free(companions);
}

Test(companion, what_a_base_recorded_as_raw_names_is_not_followed)
{
    build("base.qcow2", "size 3M\nbacking \"deeper\" format raw\n");
    struct q2_companions *companions = open_over("base.qcow2", "raw");
    cr_expect(companions->backing[0].has_magic);
    q2_companions_free(companions);
}

Test(companion, names_are_relative_to_the_file_that_has_them)
{
    cr_assert_eq(mkdir("sub", 0777), 0);
    write_text("sub/base.raw", "base");
    build("sub/middle.qcow2", "size 1M\nbacking \"base.raw\" format raw\n");
    build("image.qcow2", "size 1M\nbacking \"sub/middle.qcow2\" format qcow2\n");
    struct q2_companions *companions = open_all("image.qcow2");
    cr_assert_eq(companions->backing_count, 2);
    cr_expect_eq(companions->backing[1].state, Q2_COMPANION_OPEN);
    cr_expect_str_eq(companions->backing[1].name, "base.raw");
    q2_companions_free(companions);

    char absolute[64];
    snprintf(absolute, sizeof absolute, "%s/sub/base.raw", folder);
    expect_state(absolute, "raw", Q2_COMPANION_OPEN);
}

Test(companion, protocols_are_not_followed)
{
    write_text("plain", "x");
    expect_state("file:plain", "raw", Q2_COMPANION_OPEN);
    expect_state("./plain", "raw", Q2_COMPANION_OPEN);
    expect_state("nbd://server/disk", "raw", Q2_COMPANION_NOT_FOLLOWED);
    expect_state("json:{}", "raw", Q2_COMPANION_NOT_FOLLOWED);
    expect_state("file:nbd:server", "raw", Q2_COMPANION_NOT_FOLLOWED);
    expect_state("./a:b", "raw", Q2_COMPANION_MISSING);
}

Test(companion, what_cannot_be_opened_is_remembered)
{
    cr_assert_eq(mkdir("directory", 0777), 0);
    cr_assert_eq(mkfifo("fifo", 0666), 0);
    cr_assert_eq(symlink("nowhere", "dangling"), 0);
    expect_state("absent", "raw", Q2_COMPANION_MISSING);
    expect_state("directory", "raw", Q2_COMPANION_MISSING);
    expect_state("fifo", "raw", Q2_COMPANION_MISSING);
    expect_state("dangling", "raw", Q2_COMPANION_MISSING);
}

Test(companion, loops_are_seen_through_links)
{
    expect_state("image.qcow2", "qcow2", Q2_COMPANION_LOOP);
    cr_assert_eq(symlink("image.qcow2", "link"), 0);
    expect_state("link", "qcow2", Q2_COMPANION_LOOP);

    build("b.qcow2", "size 1M\nbacking \"c.qcow2\" format qcow2\n");
    build("c.qcow2", "size 1M\nbacking \"b.qcow2\" format qcow2\n");
    build("image.qcow2", "size 1M\nbacking \"b.qcow2\" format qcow2\n");
    struct q2_companions *companions = open_all("image.qcow2");
    cr_assert_eq(companions->backing_count, 3);
    cr_expect_eq(companions->backing[1].state, Q2_COMPANION_OPEN);
    cr_expect_eq(companions->backing[2].state, Q2_COMPANION_LOOP);
    q2_companions_free(companions);
}

Test(companion, a_chain_ends_at_its_bound)
{
    for (int i = 0; i <= Q2_MAX_CHAIN; i++) {
        char name[32], text[96];
        snprintf(name, sizeof name, "%d", i);
        snprintf(text, sizeof text, "cluster-size 512\nsize 4K\nbacking \"%d\" format qcow2\n",
                 i + 1);
        build(name, text);
    }
    struct q2_companions *companions = open_all("0");
    cr_assert_eq(companions->backing_count, Q2_MAX_CHAIN);
    cr_expect_eq(companions->backing[Q2_MAX_CHAIN - 2].state, Q2_COMPANION_OPEN);
    cr_expect_eq(companions->backing[Q2_MAX_CHAIN - 1].state, Q2_COMPANION_TOO_DEEP);
    q2_companions_free(companions);

    /* One that is just short enough. */
    companions = open_all("2");
    cr_assert_eq(companions->backing_count, Q2_MAX_CHAIN - 1);
    cr_expect_eq(companions->backing[Q2_MAX_CHAIN - 2].state, Q2_COMPANION_MISSING);
    q2_companions_free(companions);
}

/* ---- data files ---- */

Test(companion, data_files)
{
    write_text("guest.data", "some data");
    build("image.qcow2", "data-file \"guest.data\"\nsize 1M\n");
    struct q2_companions *companions = open_all("image.qcow2");
    cr_assert(companions->has_data_file);
    cr_expect_eq(companions->data_file.state, Q2_COMPANION_OPEN);
    cr_expect_eq(companions->data_file.file_size, 9);
    cr_expect_eq(companions->backing_count, 0);
    q2_companions_free(companions);

    cr_assert_eq(unlink("guest.data"), 0);
    companions = open_all("image.qcow2");
    cr_expect_eq(companions->data_file.state, Q2_COMPANION_MISSING);
    q2_companions_free(companions);

    build("image.qcow2", "data-file \"image.qcow2\"\nsize 1M\n");
    companions = open_all("image.qcow2");
    cr_expect_eq(companions->data_file.state, Q2_COMPANION_LOOP);
    q2_companions_free(companions);

    build("image.qcow2", "data-file \"x\"\nsize 1M\nheader.incompatible_features = 0\n");
    companions = open_all("image.qcow2");
    cr_expect_not(companions->has_data_file, "the header does not say that it has one");
    q2_companions_free(companions);
}

/* ---- errors ---- */

Test(companion, an_image_that_cannot_be_read_is_an_error)
{
    build("image.qcow2", "size 1M\n");
    Q2_AUTOCLOSE struct q2_file *image = NULL;
    Q2_AUTOCLOSE struct q2_file *faulty = NULL;
    struct q2_companions *companions = NULL;
    struct q2_error err = {0};
    struct q2_fault_plan plan = {.kind = Q2_FAULT_EIO, .ops = Q2_FAULT_READ, .permanent = true};
    cr_assert_eq(q2_file_open("image.qcow2", 0, &image, &err), 0);
    cr_assert_eq(q2_file_new_fault(image, &plan, &faulty, &err), 0);
    cr_expect_eq(q2_companions_open(faulty, "image.qcow2", false, &companions, &err), Q2_ERR_IO);
    cr_expect_eq(q2_companions_open(image, "gone", false, &companions, &err), Q2_ERR_OPEN);
    cr_expect_null(companions);
}
