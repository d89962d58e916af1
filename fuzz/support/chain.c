/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "fuzz/support/chain.h"

#include "checker/companion.h"
#include "core/base/checked.h"
#include "core/format/extension.h"
#include "core/io/posix.h"
#include "fuzz/fuzz.h"
#include "fuzz/support/medium.h"
#include "fuzz/support/scratch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_PATH = 1024 };

/* ---- names that lead nowhere else ---- */

/* Whether it is none, or stays within the folder. */
static bool
is_inside(const struct q2_text *text)
{
    const char *name = (const char *)text->bytes;
    if (!name || text->length == 0)
        return true;
    bool prefixed = text->length > 5 && memcmp(name, "file:", 5) == 0;
    return name[prefixed ? 5 : 0] != '/' && !memmem(name, text->length, "..", 2);
}

static void
ignore(void *data, const struct q2_violation *violation)
{
    (void)data;
    (void)violation;
}

static bool
names_inside(const uint8_t *bytes, size_t length)
{
    struct q2_header header;
    struct q2_extensions extensions = {0};
    struct q2_sink sink = {.report = ignore};
    q2_header_decode(bytes, length, &header);
    if (header.magic != Q2_MAGIC)
        return true;
    unsigned usable = q2_header_validate(&header, length, &sink);
    q2_extensions_decode(&header, usable, bytes, length, &sink, &extensions);
    return is_inside(&extensions.backing_file) && is_inside(&extensions.data_file);
}

/* ---- the folder ---- */

static void
make_file(const char *name, const uint8_t *bytes, size_t length)
{
    char path[MOST_PATH];
    snprintf(path, sizeof path, "%s/%s", q2_fuzz_scratch(), name);
    FILE *file = fopen(path, "wb");
    Q2_REQUIRE(file && fwrite(bytes, 1, length, file) == length && fclose(file) == 0,
               "%s cannot be written", name);
}

/* More than a chain may have. */
static void
make_deep(void)
{
    char path[MOST_PATH - 8], image[MOST_PATH], link_name[MOST_PATH];
    int end = snprintf(path, sizeof path, "%s", q2_fuzz_scratch());
    snprintf(image, sizeof image, "%s/image", path);
    for (unsigned i = 0; i <= Q2_MAX_CHAIN; i++) {
        Q2_REQUIRE((size_t)end < sizeof path - 2, "%s is too long a name", path);
        end += snprintf(path + end, sizeof path - (size_t)end, "/d");
        snprintf(link_name, sizeof link_name, "%s/image", path);
        Q2_REQUIRE(mkdir(path, 0700) == 0 && link(image, link_name) == 0, "%s cannot be made",
                   link_name);
    }
}

bool
q2_fuzz_chain_make(const uint8_t *input, size_t length, const struct q2_fuzz_options *options,
                   size_t *ret_first)
{
    char path[MOST_PATH];
    size_t first = q2_min((uint64_t)options->number * Q2_FUZZ_SECTOR, length);
    *ret_first = first = first ? first : length;
    if (!names_inside(input, first) || !names_inside(input + first, length - first))
        return false;
    make_file("image", input, first);
    make_file("base", input + first, length - first);
    snprintf(path, sizeof path, "%s/again", q2_fuzz_scratch());
    Q2_REQUIRE(symlink("image", path) == 0, "%s cannot be made", path);
    if (options->flags & Q2_FUZZ_CHAIN_DEEP)
        make_deep();
    return true;
}

struct q2_file *
q2_fuzz_chain_open(const char *name, bool force_share, struct q2_companions **ret_companions)
{
    char path[MOST_PATH];
    struct q2_error err = {0};
    struct q2_file *file = NULL;
    snprintf(path, sizeof path, "%s/%s", q2_fuzz_scratch(), name);
    Q2_REQUIRE(q2_file_open(path, 0, &file, &err) == 0, "%s", err.message);
    if (ret_companions)
        Q2_REQUIRE(q2_companions_open(file, path, force_share, ret_companions, &err) == 0, "%s",
                   err.message);
    return file;
}
