/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* q2-recipe: builds the image that a recipe describes. */

#include "core/base/cleanup.h"
#include "core/io/memory.h"
#include "core/io/posix.h"
#include "corpus/recipe/recipe.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct options {
    const char *recipe;
    const char *image; /* NULL: nowhere, only the list is wanted */
    const char *guest;
    const char *snapshot;
    bool list;
};

static const char usage[] =
    "usage: q2-recipe [--guest RAW [--snapshot NAME]] RECIPE IMAGE\n"
    "       q2-recipe --list-fields RECIPE [IMAGE]\n"
    "\n"
    "Build the qcow2 image that RECIPE describes, damage and all; corpus/README.md\n"
    "is the language reference. Existing files are replaced.\n"
    "\n"
    "  -g, --guest RAW      write what the guest sees of the healthy image to RAW\n"
    "  -s, --snapshot NAME  ... of this snapshot instead of the active disk\n"
    "  -l, --list-fields    print each field's name, file offset and value\n"
    "  -h, --help           print this help\n";

static int
read_text(const char *path, char **ret_text, size_t *ret_length, struct q2_error *err)
{
    Q2_AUTOCLOSE struct q2_file *file = NULL;
    Q2_AUTOFREE char *text = NULL;
    uint64_t size = 0;
    int rc = q2_file_open(path, Q2_OPEN_FORCE_SHARE, &file, err);
    rc = rc ? rc : q2_file_size(file, &size, err);
    if (rc)
        return rc;
    if (size > 64 << 20)
        return q2_error_set(err, Q2_ERR_RANGE, "%s is too large for a recipe", path);
    text = malloc(size + 1);
    if (!text)
        return q2_error_set(err, Q2_ERR_NOMEM, "out of memory for %s", path);
    rc = q2_file_read(file, 0, text, size, err);
    if (rc)
        return rc;
    *ret_text = Q2_STEAL(text);
    *ret_length = size;
    return 0;
}

static int
create(const char *path, struct q2_file **ret_file, struct q2_error *err)
{
    if (unlink(path) && errno != ENOENT)
        return q2_error_set_errno(err, Q2_ERR_OPEN, errno, "cannot replace %s", path);
    return q2_file_open(path, Q2_OPEN_CREATE | Q2_OPEN_WRITE, ret_file, err);
}

/* Companions go to the folder of the image. */
static int
make_companion(void *data, const char *name, struct q2_file **ret_file, struct q2_error *err)
{
    const struct options *options = data;
    const char *slash = strrchr(options->image, '/');
    int folder = slash ? (int)(slash + 1 - options->image) : 0;
    Q2_AUTOFREE char *path = NULL;
    if (asprintf(&path, "%.*s%s", folder, options->image, name) < 0) {
        path = NULL;
        return q2_error_set(err, Q2_ERR_NOMEM, "out of memory for a path");
    }
    return create(path, ret_file, err);
}

static void
list_field(void *data, const struct q2_recipe_field *field)
{
    (void)data;
    printf("0x%010" PRIx64 "  ", field->offset);
    if (field->is_text) {
        const unsigned char *bytes = field->bytes;
        printf("%s = \"", field->name);
        for (uint64_t i = 0; i < field->length; i++)
            printf(bytes[i] < 0x20 || bytes[i] > 0x7e || bytes[i] == '"' || bytes[i] == '\\'
                       ? "\\x%02x"
                       : "%c",
                   bytes[i]);
        printf("\"\n");
    } else if (field->length) {
        printf("%s = 0x%" PRIx64 "\n", field->name, field->value);
    } else {
        printf("offset(%s)\n", field->name);
    }
}

static int
build(const struct options *options, struct q2_error *err)
{
    Q2_AUTOFREE char *text = NULL;
    Q2_AUTOCLOSE struct q2_file *image = NULL, *guest = NULL;
    struct q2_recipe *recipe = NULL;
    size_t length = 0;
    int rc = read_text(options->recipe, &text, &length, err);
    rc = rc ? rc : q2_recipe_parse(options->recipe, text, length, &recipe, err);
    if (rc)
        return rc;
    rc = options->image ? create(options->image, &image, err)
                        : q2_file_new_memory("image", &image, err);
    if (rc == 0 && options->guest)
        rc = create(options->guest, &guest, err);
    struct options own = *options;
    const struct q2_recipe_target target = {
        .image = image,
        .make_companion = options->image ? make_companion : NULL,
        .list_field = options->list ? list_field : NULL,
        .data = &own,
        .guest = guest,
        .guest_snapshot = options->snapshot,
    };
    rc = rc ? rc : q2_recipe_build(recipe, &target, err);
    q2_recipe_free(recipe);
    if (rc && image && options->image)
        unlink(options->image);
    return rc;
}

static int
parse_options(int argc, char **argv, struct options *options)
{
    static const struct option longs[] = {
        {"guest", required_argument, NULL, 'g'},
        {"snapshot", required_argument, NULL, 's'},
        {"list-fields", no_argument, NULL, 'l'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int letter;
    while ((letter = getopt_long(argc, argv, "g:s:lh", longs, NULL)) != -1) {
        switch (letter) {
        case 'g':
            options->guest = optarg;
            break;
        case 's':
            options->snapshot = optarg;
            break;
        case 'l':
            options->list = true;
            break;
        default:
            fputs(usage, letter == 'h' ? stdout : stderr);
            exit(letter == 'h' ? 0 : 1);
        }
    }
    int files = argc - optind;
    if (files > 2 || files < (options->list ? 1 : 2) || (options->snapshot && !options->guest))
        return -1;
    options->recipe = argv[optind];
    options->image = files > 1 ? argv[optind + 1] : NULL;
    return 0;
}

int
main(int argc, char **argv)
{
    struct options options = {0};
    struct q2_error err = {0};
    if (parse_options(argc, argv, &options)) {
        fputs(usage, stderr);
        return 1;
    }
    if (build(&options, &err) == 0)
        return fflush(stdout) ? 1 : 0;
    fprintf(stderr, "q2-recipe: %s\n", err.message);
    return 1;
}
