/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Persistent bitmaps. Clusters of a bitmap without a dirty bit are not stored. */

#include "corpus/recipe/build.h"

#include "core/base/checked.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* A bitmap while it is being made. */
struct drawing {
    uint64_t *table; /* in native byte order */
    uint64_t entries;
    uint64_t bits; /* of the whole bitmap */
    unsigned granularity_bits;
};

/* Set bits [first, end), all inside the bitmap cluster at host `offset`. */
static int
set_bits(struct recipe_build *build, uint64_t offset, uint64_t first, uint64_t end)
{
    size_t from = (size_t)(first / 8), length = (size_t)((end + 7) / 8) - from;
    uint8_t *bytes = build->cluster;
    int rc = q2_file_read_padded(build->image, offset + from, bytes, length, build->err);
    if (rc)
        return rc;
    for (uint64_t bit = first; bit < end; bit++)
        bytes[bit / 8 - from] |= (uint8_t)(1U << bit % 8);
    return q2_file_write(build->image, offset + from, bytes, length, build->err);
}

static int
draw_range(struct recipe_build *build, const struct recipe_clause *clause, bool ones,
           struct drawing *drawing)
{
    uint64_t offset = 0, length = 0, per_cluster = build->geometry.cluster_size * 8;
    int rc = recipe_number(build, clause, 0, &offset);
    rc = rc ? rc : recipe_number(build, clause, 1, &length);
    if (rc)
        return rc;
    if (!q2_range_inside(offset, length, build->header.size))
        return recipe_fail(build, "the dirty range ends beyond the disk of %" PRIu64 " bytes",
                           build->header.size);
    uint64_t bit = offset >> drawing->granularity_bits;
    uint64_t end = q2_units(offset + length, drawing->granularity_bits);
    while (bit < end && rc == 0) {
        uint64_t index = bit / per_cluster, stop = q2_min(end, (index + 1) * per_cluster);
        uint64_t *entry = &drawing->table[index];
        uint64_t whole = q2_min(per_cluster, drawing->bits - index * per_cluster);
        if (ones && *entry == 0 && stop - bit == whole) {
            *entry = Q2_BITMAP_ENTRY_ONES;
        } else if (*entry != Q2_BITMAP_ENTRY_ONES) {
            rc = *entry ? 0 : recipe_allocate(build, 1, entry);
            rc =
                rc ? rc
                   : set_bits(build, *entry, bit - index * per_cluster, stop - index * per_cluster);
        }
        bit = stop;
    }
    return rc;
}

static int
draw(struct recipe_build *build, const struct recipe_statement *statement, struct drawing *drawing)
{
    bool ones = recipe_statement_clause(statement, WORD_ONES);
    int rc = 0;
    for (size_t i = 1; i < statement->count && rc == 0; i++)
        if (statement->clauses[i].grammar->word == WORD_DIRTY)
            rc = draw_range(build, &statement->clauses[i], ones, drawing);
    return rc;
}

static int
write_table(struct recipe_build *build, const struct drawing *drawing, uint64_t *ret_offset)
{
    uint64_t clusters = q2_units(drawing->entries * 8, build->geometry.cluster_bits);
    uint64_t offset = 0;
    int rc = clusters ? recipe_allocate(build, clusters, &offset) : 0;
    for (uint64_t i = 0; i < drawing->entries && rc == 0; i++) {
        uint8_t bytes[8];
        q2_store_be64(bytes, drawing->table[i]);
        if (drawing->table[i])
            rc = q2_file_write(build->image, offset + i * 8, bytes, sizeof bytes, build->err);
    }
    if (rc == 0)
        *ret_offset = offset;
    return rc;
}

static int
read_granularity(struct recipe_build *build, const struct recipe_statement *statement,
                 unsigned *ret_bits)
{
    const struct recipe_clause *clause = recipe_statement_clause(statement, WORD_GRANULARITY);
    uint64_t granularity = 64 << 10;
    int rc = clause ? recipe_number(build, clause, 0, &granularity) : 0;
    if (rc)
        return rc;
    unsigned bits = granularity ? (unsigned)__builtin_ctzll(granularity) : 0;
    if (granularity != UINT64_C(1) << bits || bits < Q2_BITMAP_MIN_GRANULARITY_BITS ||
        bits > Q2_BITMAP_MAX_GRANULARITY_BITS)
        return recipe_fail(build, "a granularity is a power of two from 512 to 2G");
    *ret_bits = bits;
    return 0;
}

static int
append(struct recipe_build *build, const struct recipe_bitmap *bitmap)
{
    struct recipe_bitmap *grown =
        reallocarray(build->bitmaps, (size_t)build->bitmap_count + 1, sizeof *grown);
    if (!grown)
        return q2_error_set(build->err, Q2_ERR_NOMEM, "out of memory for a bitmap");
    build->bitmaps = grown;
    grown[build->bitmap_count++] = *bitmap;
    build->header.autoclear_features |= Q2_AUTOCLEAR_BITMAPS;
    return 0;
}

int
recipe_make_bitmap(struct recipe_build *build, const struct recipe_statement *statement)
{
    static const uint64_t MAX_TABLE = UINT64_C(1) << 24;
    const struct recipe_clause *extra = recipe_statement_clause(statement, WORD_EXTRA);
    const struct recipe_argument *name = &statement->clauses[0].arguments[0];
    struct drawing drawing = {0};
    if (build->geometry.version < 3)
        return recipe_fail(build, "version 2 has no bitmaps");
    if (name->text_length > UINT16_MAX)
        return recipe_fail(build, "the name is too long");
    int rc = read_granularity(build, statement, &drawing.granularity_bits);
    if (rc)
        return rc;
    drawing.bits = q2_units(build->header.size, drawing.granularity_bits);
    drawing.entries = q2_units(q2_units(drawing.bits, 3), build->geometry.cluster_bits);
    if (drawing.entries > MAX_TABLE)
        return recipe_fail(build, "the bitmap table would have %" PRIu64 " entries",
                           drawing.entries);
    drawing.table = calloc(drawing.entries + 1, sizeof *drawing.table);
    if (!drawing.table)
        return q2_error_set(build->err, Q2_ERR_NOMEM, "out of memory for a bitmap table");
    bool automatic = recipe_statement_clause(statement, WORD_AUTO);
    bool in_use = recipe_statement_clause(statement, WORD_IN_USE);
    struct recipe_bitmap bitmap = {
        .statement = statement,
        .fields = {.table_size = (uint32_t)drawing.entries,
                   .flags = (automatic ? (uint32_t)Q2_BITMAP_AUTO : 0) |
                            (in_use ? (uint32_t)Q2_BITMAP_IN_USE : 0),
                   .type = Q2_BITMAP_TYPE_DIRTY,
                   .granularity_bits = (uint8_t)drawing.granularity_bits,
                   .name_length = (uint16_t)name->text_length,
                   .extra_length = extra ? (uint32_t)extra->arguments[0].text_length : 0},
    };
    rc = draw(build, statement, &drawing);
    build->at = statement->clauses[0].at;
    rc = rc ? rc : write_table(build, &drawing, &bitmap.fields.table_offset);
    free(drawing.table);
    return rc ? rc : append(build, &bitmap);
}
