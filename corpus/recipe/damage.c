/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The damage: changes to the bytes of the finished image. The model stays as it was, so that every
 * name keeps its meaning. */

#include "core/base/checked.h"
#include "corpus/recipe/field.h"

#include <inttypes.h>

static uint64_t
combine(char sign, uint64_t old, uint64_t value)
{
    switch (sign) {
    case '|':
        return old | value;
    case '&':
        return old & value;
    case '^':
        return old ^ value;
    case '+':
        return old + value;
    case '-':
        return old - value;
    default:
        return value;
    }
}

static int
assign_text(struct recipe_build *build, const struct recipe_place *place,
            const struct recipe_argument *text)
{
    if (!place->is_text && !place->endless)
        return recipe_fail(build, "a text can only be assigned to a text or to byte[OFFSET]");
    if (!place->endless && text->text_length > place->length)
        return recipe_fail(build, "the text of %zu bytes does not fit the field of %" PRIu64,
                           text->text_length, place->length);
    return q2_file_write(build->image, place->offset, text->text, text->text_length, build->err);
}

static int
assign(struct recipe_build *build, const struct recipe_statement *statement)
{
    const struct recipe_argument *argument = &statement->clauses[0].arguments[0];
    struct recipe_place place;
    uint64_t value = 0, old = 0;
    int rc = recipe_field_find(build, &statement->target, &place);
    if (rc)
        return rc;
    if (argument->text)
        return assign_text(build, &place, argument);
    rc = recipe_eval(build, argument->number, &value);
    if (rc)
        return rc;
    build->at = statement->target.at;
    if (statement->sign != '=')
        rc = recipe_place_load(build, &place, &old);
    return rc ? rc : recipe_place_store(build, &place, combine(statement->sign, old, value));
}

static int
append(struct recipe_build *build, const struct recipe_clause *head)
{
    uint64_t length = 0, size = 0;
    int rc = recipe_number(build, head, 0, &length);
    rc = rc ? rc : q2_file_size(build->image, &size, build->err);
    return rc ? rc
              : recipe_fill_file(build->image, size, length, &head->arguments[1].pattern,
                                 build->err);
}

/* Copy between ranges that do not overlap. */
static int
copy(struct recipe_build *build, uint64_t from, uint64_t to, uint64_t length)
{
    enum { CHUNK = 16 << 10 };
    uint8_t chunk[CHUNK];
    uint64_t end;
    if (!q2_add(from, length, &end) || !q2_add(to, length, &end) ||
        q2_ranges_overlap(from, length, to, length))
        return recipe_fail(build, "the ranges overlap");
    int rc = 0;
    for (uint64_t done = 0; done < length && rc == 0;) {
        size_t part = (size_t)q2_min(length - done, CHUNK);
        rc = q2_file_read_padded(build->image, from + done, chunk, part, build->err);
        rc = rc ? rc : q2_file_write(build->image, to + done, chunk, part, build->err);
        done += part;
    }
    return rc;
}

int
recipe_damage(struct recipe_build *build, const struct recipe_statement *statement)
{
    const struct recipe_clause *head = &statement->clauses[0];
    uint64_t numbers[RECIPE_MAX_ARGUMENTS] = {0};
    if (head->grammar->word == WORD_ASSIGNMENT)
        return assign(build, statement);
    if (head->grammar->word == WORD_APPEND)
        return append(build, head);
    for (unsigned i = 0; i < head->count; i++) {
        if (!head->arguments[i].number)
            continue;
        int rc = recipe_number(build, head, i, &numbers[i]);
        if (rc)
            return rc;
    }
    switch (head->grammar->word) {
    case WORD_TRUNCATE:
        return q2_file_truncate(build->image, numbers[0], build->err);
    case WORD_FILL:
        return recipe_fill_file(build->image, numbers[0], numbers[1], &head->arguments[2].pattern,
                                build->err);
    case WORD_ZERO_FILL:
        return recipe_zero_file(build->image, numbers[0], numbers[1], build->err);
    default:
        return copy(build, numbers[0], numbers[1], numbers[2]);
    }
}
