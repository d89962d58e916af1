/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The first cluster: the header, its extensions, the backing file name. */

#include "corpus/recipe/build.h"

#include "core/base/checked.h"

#include <inttypes.h>
#include <string.h>

/* What goes into the first cluster, one after the other. */
struct preamble {
    struct recipe_build *build;
    uint8_t *bytes; /* a cluster */
    uint64_t used;
    int rc; /* of the first failure */
};

/* Room for `length` bytes more, padded to a multiple of 8; NULL where the cluster is full. */
static uint8_t *
extend(struct preamble *preamble, uint64_t length)
{
    uint64_t padded = (length + 7) & ~UINT64_C(7);
    if (preamble->rc)
        return NULL;
    if (padded > preamble->build->geometry.cluster_size - preamble->used) {
        preamble->rc = recipe_fail(preamble->build,
                                   "the header and its extensions do not fit the first cluster");
        return NULL;
    }
    uint8_t *at = preamble->bytes + preamble->used;
    preamble->used += padded;
    return at;
}

static void
add_extension(struct preamble *preamble, uint32_t type, const void *data, size_t length)
{
    struct recipe_build *build = preamble->build;
    uint64_t offset = preamble->used;
    uint8_t *at = extend(preamble, Q2_EXTENSION_HEADER_LENGTH + length);
    if (at && build->extension_count == RECIPE_MAX_EXTENSIONS)
        preamble->rc = recipe_fail(build, "too many header extensions");
    if (preamble->rc)
        return;
    build->extensions[build->extension_count++] =
        (struct recipe_extension){.type = type, .length = (uint32_t)length, .offset = offset};
    q2_store_be32(at, type);
    q2_store_be32(at + 4, (uint32_t)length);
    if (length)
        memcpy(at + Q2_EXTENSION_HEADER_LENGTH, data, length);
}

static void
add_features(struct preamble *preamble)
{
    static const struct {
        uint8_t type;
        uint8_t bit;
        const char *name;
    } names[] = {
        {0, 0, "dirty bit"},        {0, 1, "corrupt bit"},         {0, 2, "external data file"},
        {0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
        {2, 0, "bitmaps"},          {2, 1, "raw external data"},
    };
    enum { COUNT = sizeof names / sizeof names[0] };
    uint8_t table[COUNT * Q2_FEATURE_ENTRY_LENGTH] = {0};
    for (size_t i = 0; i < COUNT; i++) {
        uint8_t *entry = table + i * Q2_FEATURE_ENTRY_LENGTH;
        entry[0] = names[i].type;
        entry[1] = names[i].bit;
        memcpy(entry + 2, names[i].name, strlen(names[i].name));
    }
    add_extension(preamble, Q2_EXTENSION_FEATURES, table, sizeof table);
}

static void
add_bitmaps(struct preamble *preamble)
{
    const struct recipe_build *build = preamble->build;
    uint8_t data[Q2_EXTENSION_BITMAPS_LENGTH] = {0};
    q2_store_be32(data, build->bitmap_count);
    q2_store_be64(data + 8, build->bitmap_directory_size);
    q2_store_be64(data + 16, build->bitmap_directory);
    add_extension(preamble, Q2_EXTENSION_BITMAPS, data, sizeof data);
}

static void
add_crypto(struct preamble *preamble)
{
    uint8_t data[Q2_EXTENSION_CRYPTO_LENGTH];
    q2_store_be64(data, preamble->build->luks);
    q2_store_be64(data + 8, preamble->build->luks_length);
    add_extension(preamble, Q2_EXTENSION_CRYPTO, data, sizeof data);
}

/* The extensions that the recipe spells out. */
static void
add_others(struct preamble *preamble)
{
    struct recipe_build *build = preamble->build;
    for (size_t i = 0; i < build->recipe->count; i++) {
        const struct recipe_clause *head = &build->recipe->statements[i].clauses[0];
        uint64_t type = 0;
        if (head->grammar->word != WORD_EXTENSION || preamble->rc)
            continue;
        build->at = head->at;
        preamble->rc = recipe_number(build, head, 0, &type);
        if (preamble->rc == 0 && type > UINT32_MAX)
            preamble->rc = recipe_fail(build, "an extension's type has 32 bits");
        if (preamble->rc == 0)
            add_extension(preamble, (uint32_t)type, head->arguments[1].text,
                          head->arguments[1].text_length);
    }
}

static void
add_extensions(struct preamble *preamble)
{
    const struct recipe_build *build = preamble->build;
    if (build->backing_format)
        add_extension(preamble, Q2_EXTENSION_BACKING_FORMAT, build->backing_format,
                      strlen(build->backing_format));
    if (build->data_file_name)
        add_extension(preamble, Q2_EXTENSION_DATA_FILE, build->data_file_name,
                      strlen(build->data_file_name));
    if (build->luks)
        add_crypto(preamble);
    if (build->feature_table)
        add_features(preamble);
    if (build->bitmap_count)
        add_bitmaps(preamble);
    add_others(preamble);
    add_extension(preamble, Q2_EXTENSION_END, NULL, 0);
}

int
recipe_write_preamble(struct recipe_build *build)
{
    struct preamble preamble = {.build = build,
                                .bytes = build->cluster,
                                .used = build->header.header_length};
    memset(preamble.bytes, 0, build->geometry.cluster_size);
    add_extensions(&preamble);
    if (build->backing_name) {
        size_t length = strlen(build->backing_name);
        build->header.backing_file_offset = preamble.used;
        build->header.backing_file_size = (uint32_t)length;
        uint8_t *at = extend(&preamble, length);
        if (at)
            memcpy(at, build->backing_name, length);
    }
    if (preamble.rc)
        return preamble.rc;
    q2_header_encode(&build->header, preamble.bytes);
    return recipe_put(build->image, 0, preamble.bytes, build->geometry.cluster_size, build->err);
}
