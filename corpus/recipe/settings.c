/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The statements that say what kind of image it is, and the first clusters that follow from them.
 */

#include "corpus/recipe/build.h"

#include "core/base/checked.h"
#include "core/io/memory.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void
recipe_settings_init(struct recipe_build *build)
{
    build->header = (struct q2_header){
        .magic = Q2_MAGIC,
        .version = 3,
        .cluster_bits = 16,
        .refcount_order = 4,
        .header_length = Q2_HEADER_KNOWN_LENGTH,
    };
}

/* Which of a few words it is, from 0 on; -1 for none. */
static int
choose(const char *word, const char *const *choices)
{
    for (int i = 0; choices[i]; i++)
        if (strcmp(word, choices[i]) == 0)
            return i;
    return -1;
}

static int
set_compression(struct recipe_build *build, const char *word)
{
    static const char *const choices[] = {"zlib", "zstd", NULL};
    int type = choose(word, choices);
    if (type < 0)
        return recipe_fail(build, "compression is zlib or zstd");
    build->header.compression_type = (uint8_t)type;
    if (type)
        build->header.incompatible_features |= Q2_INCOMPATIBLE_COMPRESSION;
    return 0;
}

static int
set_encryption(struct recipe_build *build, const char *word)
{
    static const char *const choices[] = {"none", "aes", "luks", NULL};
    int method = choose(word, choices);
    if (method < 0)
        return recipe_fail(build, "encryption is none, aes or luks");
    build->header.crypt_method = (uint32_t)method;
    return 0;
}

static int
set_data_file(struct recipe_build *build, const struct recipe_statement *statement)
{
    build->data_file_name = statement->clauses[0].arguments[0].text;
    build->header.incompatible_features |= Q2_INCOMPATIBLE_DATA_FILE;
    if (recipe_statement_clause(statement, WORD_RAW))
        build->header.autoclear_features |= Q2_AUTOCLEAR_RAW_DATA;
    return 0;
}

static int
set_backing(struct recipe_build *build, const struct recipe_statement *statement)
{
    const struct recipe_clause *format = recipe_statement_clause(statement, WORD_FORMAT);
    build->backing_name = statement->clauses[0].arguments[0].text;
    build->backing_format = format ? format->arguments[0].text : NULL;
    return 0;
}

static int
make_companion(struct recipe_build *build, const char *name, struct q2_file **ret_file)
{
    *ret_file = NULL;
    if (strchr(name, '/') || !*name)
        return recipe_fail(build, "a file beside the image has a name without '/'");
    if (!build->target->make_companion)
        return 0;
    return build->target->make_companion(build->target->data, name, ret_file, build->err);
}

static int
make_file(struct recipe_build *build, const struct recipe_clause *head)
{
    const struct recipe_expr *size = head->arguments[1].number;
    struct q2_file *file = NULL;
    if (size->kind != EXPR_NUMBER)
        return recipe_fail(build, "the size of a file is a plain number");
    int rc = make_companion(build, head->arguments[0].text, &file);
    if (rc || !file)
        return rc;
    rc = recipe_fill_file(file, 0, size->number, &head->arguments[2].pattern, build->err);
    q2_file_close(file);
    return rc;
}

/* A number that must be a power of two between two powers of two. */
static int
set_power(struct recipe_build *build, uint64_t value, unsigned least, unsigned most,
          const char *what, uint32_t *ret_bits)
{
    unsigned bits = value ? (unsigned)__builtin_ctzll(value) : 0;
    if (value != UINT64_C(1) << bits || bits < least || bits > most)
        return recipe_fail(build, "%s is a power of two from %" PRIu64 " to %" PRIu64, what,
                           UINT64_C(1) << least, UINT64_C(1) << most);
    *ret_bits = bits;
    return 0;
}

static int
set_number(struct recipe_build *build, enum recipe_word word, uint64_t value)
{
    struct q2_header *header = &build->header;
    switch (word) {
    case WORD_VERSION:
        if (value != 2 && value != 3)
            return recipe_fail(build, "a healthy version is 2 or 3; damage header.version instead");
        header->version = (uint32_t)value;
        return 0;
    case WORD_CLUSTER_SIZE:
        return set_power(build, value, Q2_MIN_CLUSTER_BITS, Q2_MAX_CLUSTER_BITS, "a cluster size",
                         &header->cluster_bits);
    case WORD_SIZE:
        header->size = value;
        return 0;
    case WORD_REFCOUNT_BITS:
        return set_power(build, value, 0, Q2_MAX_REFCOUNT_ORDER, "refcount-bits",
                         &header->refcount_order);
    case WORD_HEADER_LENGTH:
        if (value != Q2_HEADER_V3_LENGTH && value != Q2_HEADER_KNOWN_LENGTH)
            return recipe_fail(build, "header-length is 104 or 112");
        header->header_length = (uint32_t)value;
        return 0;
    default:
        build->l1_entries = value;
        return 0;
    }
}

int
recipe_apply_setting(struct recipe_build *build, const struct recipe_statement *statement)
{
    const struct recipe_clause *head = &statement->clauses[0];
    uint64_t value = 0;
    int rc;
    switch (head->grammar->word) {
    case WORD_COMPRESSION:
        return set_compression(build, head->arguments[0].text);
    case WORD_ENCRYPTION:
        return set_encryption(build, head->arguments[0].text);
    case WORD_EXTENDED_L2:
        build->header.incompatible_features |= Q2_INCOMPATIBLE_EXTENDED_L2;
        return 0;
    case WORD_LAZY_REFCOUNTS:
        build->header.compatible_features |= Q2_COMPATIBLE_LAZY_REFCOUNTS;
        return 0;
    case WORD_DATA_FILE:
        return set_data_file(build, statement);
    case WORD_BACKING:
        return set_backing(build, statement);
    case WORD_FEATURE_TABLE:
        build->feature_table = true;
        return 0;
    case WORD_EXTENSION:
        return 0; /* read when the header is written */
    case WORD_FILE:
        return make_file(build, head);
    default:
        rc = recipe_number(build, head, 0, &value);
        return rc ? rc : set_number(build, head->grammar->word, value);
    }
}

/* ---- the first clusters ---- */

static int
check_settings(struct recipe_build *build)
{
    const struct q2_header *header = &build->header;
    bool features =
        header->incompatible_features | header->compatible_features | header->autoclear_features;
    if (header->version == 2 && (features || header->refcount_order != 4))
        return recipe_fail(build, "version 2 has no features and refcounts of 16 bits");
    if ((header->incompatible_features & Q2_INCOMPATIBLE_EXTENDED_L2) &&
        header->cluster_bits < Q2_MIN_EXTENDED_CLUSTER_BITS)
        return recipe_fail(build, "extended-l2 needs clusters of at least 16K");
    if (header->header_length == Q2_HEADER_V3_LENGTH && header->compression_type)
        return recipe_fail(build, "compression zstd needs a header-length of 112");
    if (build->backing_name && build->data_file_name &&
        (header->autoclear_features & Q2_AUTOCLEAR_RAW_DATA))
        return recipe_fail(build, "a raw data file and a backing file exclude each other");
    return 0;
}

static void
find_backing_file(struct recipe_build *build)
{
    for (size_t i = 0; build->backing_name && i < build->recipe->count; i++) {
        const struct recipe_statement *statement = &build->recipe->statements[i];
        if (recipe_statement_word(statement) == WORD_FILE &&
            strcmp(statement->clauses[0].arguments[0].text, build->backing_name) == 0)
            build->backing_file = statement;
    }
}

/* Open what the content goes through. */
static int
open_files(struct recipe_build *build)
{
    build->cluster = malloc(build->geometry.cluster_size);
    build->packed = malloc(build->geometry.cluster_size);
    if (!build->cluster || !build->packed)
        return q2_error_set(build->err, Q2_ERR_NOMEM, "out of memory for a cluster");
    int rc = q2_file_new_memory("guest view", &build->view, build->err);
    if (rc == 0 && build->data_file_name)
        rc = make_companion(build, build->data_file_name, &build->data);
    if (rc == 0 && build->backing_name)
        rc = recipe_view_backing(build, 0, build->header.size);
    return rc;
}

int
recipe_start_image(struct recipe_build *build)
{
    int rc = check_settings(build);
    if (rc)
        return rc;
    if (build->header.version == 2)
        build->header.header_length = Q2_HEADER_V2_LENGTH;
    q2_geometry_init(&build->geometry, &build->header, 0);
    find_backing_file(build);
    rc = open_files(build);
    rc = rc ? rc : recipe_allocate_first(build);
    uint64_t needed = q2_l1_entries_for(&build->geometry, build->header.size);
    rc = rc ? rc : recipe_grow_l1(build, q2_max(needed, build->l1_entries));
    if (rc == 0 && build->header.crypt_method == Q2_CRYPT_LUKS)
        rc = recipe_make_luks(build);
    build->stage = STAGE_CONTENT;
    return rc;
}
