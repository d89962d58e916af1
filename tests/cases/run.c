/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Runs case folders. A case is a folder with
 *
 *   recipe        the image, in the language of corpus/README.md
 *   *.recipe      further files that it needs; base.qcow2.recipe makes base.qcow2, and
 *                 link-%.qcow2.recipe makes link-1.qcow2, link-2.qcow2 and so on, 201 of them;
 *                 in the text % stands for that number and %+ for the next one
 *   options       optional: one per line, "deep", "chain", "max-memory N", "max-work N",
 *                 "max-details N", "threads N", "now N", or "fault OFFSET LENGTH" for a range that
 * cannot be read, or "fault-once OFFSET LENGTH" for one that can be when it is tried again
 *   expect.txt    the report for people, and the exit status
 *   expect.json   the report as JSON
 *
 * `case-run DIR...` builds the image in a scratch folder, checks it, and shows where the reports
 * differ from what is expected; `case-run --bless DIR...` writes them down instead. */

#include "checker/companion.h"
#include "checker/report.h"
#include "core/base/cleanup.h"
#include "core/io/posix.h"
#include "corpus/recipe/recipe.h"
#include "tests/cases/folder.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char image_name[] = "image.qcow2";

/* ---- files ---- */

static int
make_companion(void *data, const char *name, struct q2_file **ret_file, struct q2_error *err)
{
    (void)data;
    unlink(name);
    return q2_file_open(name, Q2_OPEN_CREATE | Q2_OPEN_WRITE, ret_file, err);
}

/* Build `text` as `output` in the current folder. */
static void
build_text(const char *folder, const char *recipe_name, const char *text, const char *output)
{
    struct q2_error err = {0};
    struct q2_recipe *recipe = NULL;
    Q2_AUTOCLOSE struct q2_file *image = NULL;
    if (q2_recipe_parse(recipe_name, text, strlen(text), &recipe, &err) < 0 ||
        q2_file_open(output, Q2_OPEN_CREATE | Q2_OPEN_WRITE, &image, &err) < 0 ||
        q2_recipe_build(recipe,
                        &(struct q2_recipe_target){.image = image,
                                                   .make_companion = make_companion},
                        &err) < 0)
        folder_die(folder, err.message);
    q2_recipe_free(recipe);
}

/* Copy `text` with the number in the place of each %. */
static char *
number_text(const char *text, unsigned number)
{
    char *numbered = NULL;
    size_t size;
    FILE *out = open_memstream(&numbered, &size);
    if (!out)
        folder_die("memory", strerror(errno));
    for (; *text; text++) {
        bool next = text[0] == '%' && text[1] == '+';
        if (*text == '%')
            fprintf(out, "%u", number + next);
        else
            fputc(*text, out);
        text += next;
    }
    fclose(out);
    return numbered;
}

/* Build `folder/recipe_name` as `output`, once or, if that has a %, many times. */
static void
build(const char *folder, const char *recipe_name, const char *output)
{
    enum { COPIES = Q2_MAX_CHAIN + 1 };
    Q2_AUTOFREE char *text = folder_read(folder, recipe_name, NULL);
    if (!text)
        folder_die(folder, "has no recipe");
    if (!strchr(output, '%'))
        build_text(folder, recipe_name, text, output);
    for (unsigned i = 1; strchr(output, '%') && i <= COPIES; i++) {
        Q2_AUTOFREE char *numbered = number_text(text, i);
        Q2_AUTOFREE char *name = number_text(output, i);
        build_text(folder, recipe_name, numbered, name);
    }
}

/* Build everything that the case needs, in the current folder. */
static void
build_all(const char *folder)
{
    DIR *entries = opendir(folder);
    if (!entries)
        folder_die(folder, strerror(errno));
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        size_t length = strlen(entry->d_name), suffix = strlen(".recipe");
        if (length <= suffix || strcmp(entry->d_name + length - suffix, ".recipe") != 0)
            continue;
        Q2_AUTOFREE char *output = strndup(entry->d_name, length - suffix);
        build(folder, entry->d_name, output);
    }
    closedir(entries);
    build(folder, "recipe", image_name);
}

/* ---- checking ---- */

static void
write_reports(const struct q2_check *check)
{
    struct q2_error err = {0};
    struct q2_report_style style = {.max_lines = 10};
    FILE *text = fopen("actual.txt", "w"), *json = fopen("actual.json", "w");
    if (!text || !json)
        folder_die("actual.txt", strerror(errno));
    q2_report_human(check, image_name, &style, text);
    fprintf(text, "exit %d\n", (int)q2_check_exit(check));
    if (q2_report_json(check, image_name, true, json, &err) < 0)
        folder_die("actual.json", err.message);
    fclose(text);
    fclose(json);
    /* A new version is no new result. */
    if (system("sed -i /qcow2kit-version/d actual.json") != 0)
        folder_die("actual.json", "cannot be edited");
}

/* A check that could not be made: only the message. */
static void
write_refusal(int rc, const struct q2_error *err)
{
    FILE *text = fopen("actual.txt", "w"), *json = fopen("actual.json", "w");
    if (!text || !json)
        folder_die("actual.txt", strerror(errno));
    fprintf(text, "%s\nexit %d\n", err->message,
            rc == Q2_ERR_NOT_QCOW2 ? Q2_EXIT_NOT_SUPPORTED : Q2_EXIT_INCOMPLETE);
    fclose(text);
    fclose(json);
}

static void
check_image(struct folder_options *setup)
{
    struct q2_error err = {0};
    struct q2_companions *companions = NULL;
    struct q2_check *check = NULL;
    Q2_AUTOCLOSE struct q2_file *image = NULL;
    Q2_AUTOCLOSE struct q2_file *faulty = NULL;
    if (q2_file_open(image_name, 0, &image, &err) < 0 ||
        (setup->chain && q2_companions_open(image, image_name, false, &companions, &err) < 0) ||
        (setup->fault.kind && q2_file_new_fault(image, &setup->fault, &faulty, &err) < 0))
        folder_die(image_name, err.message);
    setup->check.companions = companions;
    int rc = q2_check_run(faulty ? faulty : image, &setup->check, &check, &err);
    if (rc < 0)
        write_refusal(rc, &err);
    else
        write_reports(check);
    q2_check_free(check);
    q2_companions_free(companions);
}

/* ---- verdict ---- */

static bool
compare(const char *folder, const char *suffix, bool bless)
{
    char command[3 * PATH_MAX];
    snprintf(command, sizeof command,
             bless ? "cp actual.%s '%s/expect.%s'"
                   : "diff -u --label actual --label expected "
                     "actual.%s '%s/expect.%s'",
             suffix, folder, suffix);
    fflush(stdout);
    return system(command) == 0;
}

static bool
run_case(const char *folder, bool bless)
{
    char scratch[] = "/tmp/qcow2kit-case-XXXXXX", home[PATH_MAX];
    Q2_AUTOFREE char *path = realpath(folder, NULL);
    struct folder_options setup = {.check = {.now = 0}};
    if (!path || !mkdtemp(scratch) || !getcwd(home, sizeof home) || chdir(scratch) < 0)
        folder_die(folder, strerror(errno));
    folder_options(path, &setup);
    build_all(path);
    check_image(&setup);
    bool text = compare(path, "txt", bless), json = compare(path, "json", bless);
    char command[PATH_MAX];
    snprintf(command, sizeof command, "rm -rf %s", scratch);
    if (chdir(home) < 0 || system(command) != 0)
        folder_die(scratch, "cannot be removed");
    return text && json;
}

int
main(int argc, char **argv)
{
    bool bless = argc > 1 && strcmp(argv[1], "--bless") == 0;
    int failed = 0;
    for (int i = bless ? 2 : 1; i < argc; i++) {
        bool ok = run_case(argv[i], bless);
        printf("%s: %s\n", argv[i], bless ? "blessed" : ok ? "ok" : "FAILED");
        failed += !ok;
    }
    return failed ? 1 : 0;
}
