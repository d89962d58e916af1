/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "corpus/recipe/field.h"

#include "core/base/checked.h"
#include "core/base/endian.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- values ---- */

static bool
is_number_width(uint64_t width)
{
    return width == 1 || width == 2 || width == 4 || width == 8;
}

static int
load_raw(struct recipe_build *build, const struct recipe_place *place, uint64_t *ret_raw)
{
    uint8_t bytes[8] = {0};
    int rc = q2_file_read_padded(build->image, place->offset, bytes + 8 - place->length,
                                 (size_t)place->length, build->err);
    if (rc == 0)
        *ret_raw = q2_load_be64(bytes);
    return rc;
}

int
recipe_place_load(struct recipe_build *build, const struct recipe_place *place, uint64_t *ret_value)
{
    uint64_t raw = 0;
    if (place->is_text || !is_number_width(place->length))
        return recipe_fail(build, "this has a place, but no value that is a number");
    int rc = load_raw(build, place, &raw);
    if (rc == 0)
        *ret_value = (raw & place->mask) >> place->shift;
    return rc;
}

int
recipe_place_store(struct recipe_build *build, const struct recipe_place *place, uint64_t value)
{
    uint64_t raw = 0, moved = value << place->shift;
    if (place->is_text || !is_number_width(place->length))
        return recipe_fail(build, "this is no number; a text in quotes can be assigned to a text");
    if (moved >> place->shift != value || (moved & ~place->mask))
        return recipe_fail(build, "0x%" PRIx64 " does not fit the field, whose bits are 0x%" PRIx64,
                           value, place->mask >> place->shift);
    int rc = load_raw(build, place, &raw);
    if (rc)
        return rc;
    uint8_t bytes[8];
    q2_store_be64(bytes, (raw & ~place->mask) | moved);
    return q2_file_write(build->image, place->offset, bytes + 8 - place->length,
                         (size_t)place->length, build->err);
}

/* ---- names ---- */

/* The base and member that a key names together. */
struct match {
    const struct recipe_base *base;
    const struct recipe_member *member; /* NULL: the structure itself */
};

static const struct recipe_member *
find_member(const struct recipe_base *base, const char *name)
{
    for (const struct recipe_member *member = recipe_members; member->name; member++)
        if (member->of == base->members && strcmp(member->name, name) == 0)
            return member;
    return NULL;
}

static bool
find(const char *key, struct match *ret_match)
{
    for (const struct recipe_base *base = recipe_bases; base->key; base++) {
        size_t length = strlen(base->key);
        if (strncmp(key, base->key, length) != 0)
            continue;
        const struct recipe_member *member = find_member(base, key + length);
        if (!member && key[length])
            continue;
        *ret_match = (struct match){base, member};
        return true;
    }
    return false;
}

bool
recipe_field_settle(struct recipe_build *build, const struct recipe_member *member,
                    const uint64_t *index, struct recipe_place *place)
{
    if (!member)
        return true;
    place->offset += member->add;
    place->length = member->width;
    place->is_text = member->width && !is_number_width(member->width);
    place->shift = member->shift;
    place->mask = member->mask;
    if (member->settle && !member->settle(build, member, index, place))
        return false;
    if (!place->is_text && place->mask == 0 && place->length)
        place->mask = UINT64_MAX >> (64 - 8 * place->length);
    place->endless = member->of == MEMBERS_BYTE;
    return true;
}

static int
eval_indexes(struct recipe_build *build, const struct recipe_field_name *name, uint64_t *index)
{
    int rc = 0;
    for (unsigned i = 0; i < name->count && rc == 0; i++)
        rc = recipe_eval(build, name->indexes[i], &index[i]);
    build->at = rc ? build->at : name->at;
    return rc;
}

static int
place_of(struct recipe_build *build, const struct match *match,
         const struct recipe_field_name *name, const uint64_t *index,
         struct recipe_place *ret_place)
{
    struct recipe_place place = {0};
    int found = match->base->locate(build, index, &place);
    if (found >= 0)
        return recipe_fail(build, "the image has no '%s' with index %" PRIu64, name->key,
                           index[found]);
    if (found <= RECIPE_ABSENT || !recipe_field_settle(build, match->member, index, &place))
        return recipe_fail(build, "the image has no '%s' there", name->key);
    *ret_place = place;
    return 0;
}

int
recipe_field_find(struct recipe_build *build, const struct recipe_field_name *name,
                  struct recipe_place *ret_place)
{
    uint64_t index[RECIPE_MAX_INDEXES + 1] = {0};
    struct match match;
    int rc = eval_indexes(build, name, index);
    if (rc)
        return rc;
    if (find(name->key, &match))
        return place_of(build, &match, name, index, ret_place);

    /* A byte of a text: the name of the text and one index more. */
    char key[RECIPE_MAX_FIELD_NAME];
    size_t length = strlen(name->key);
    snprintf(key, sizeof key, "%s", name->key);
    if (length > 2 && strcmp(key + length - 2, "[]") == 0) {
        struct recipe_place text = {0};
        key[length - 2] = '\0';
        rc = find(key, &match) ? place_of(build, &match, name, index, &text) : 1;
        if (rc < 0)
            return rc;
        if (rc == 0 && text.is_text) {
            uint64_t at = index[name->count - 1];
            if (at >= text.length)
                return recipe_fail(build, "byte %" PRIu64 " of '%s' is past its end", at, key);
            *ret_place =
                (struct recipe_place){.offset = text.offset + at, .length = 1, .mask = 0xff};
            return 0;
        }
    }
    return recipe_fail(build, "there is no field '%s'", name->key);
}

int
recipe_field_get(struct recipe_build *build, const struct recipe_field_name *name,
                 uint64_t *ret_value)
{
    struct recipe_place place = {0};
    int rc = recipe_field_find(build, name, &place);
    return rc ? rc : recipe_place_load(build, &place, ret_value);
}
