/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* All fields of an image: every base of the field table with every index that leads somewhere. */

#include "corpus/recipe/field.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct listing {
    struct recipe_build *build;
    const struct recipe_base *base;
    unsigned levels; /* indexes that the base takes */
    uint64_t index[RECIPE_MAX_INDEXES + 1];
    int rc; /* of the first failure */
};

/* The base's key with the numbers in, and the member's name. */
static void
spell(const struct listing *listing, const char *member, char *name, size_t size)
{
    const uint64_t *index = listing->index;
    size_t used = 0;
    for (const char *from = listing->base->key; *from && used + 24 < size; from++) {
        name[used++] = *from;
        if (*from == '[' || *from == '(')
            used += (size_t)snprintf(name + used, size - used, "%" PRIu64, *index++);
    }
    snprintf(name + used, size - used, "%s", member);
}

static void
give_text(struct listing *listing, struct q2_recipe_field *field)
{
    struct recipe_build *build = listing->build;
    uint8_t *bytes = malloc(field->length + 1);
    if (!bytes) {
        listing->rc = q2_error_set(build->err, Q2_ERR_NOMEM, "out of memory for a field");
        return;
    }
    listing->rc =
        q2_file_read_padded(build->image, field->offset, bytes, field->length, build->err);
    field->bytes = bytes;
    field->is_text = true;
    if (listing->rc == 0)
        build->target->list_field(build->target->data, field);
    free(bytes);
}

static void
give(struct listing *listing, const struct recipe_member *member, struct recipe_place *place)
{
    struct recipe_build *build = listing->build;
    char name[2 * RECIPE_MAX_FIELD_NAME];
    if (listing->rc || !recipe_field_settle(build, member, listing->index, place))
        return;
    spell(listing, member ? member->name : "", name, sizeof name);
    struct q2_recipe_field field = {.name = name, .offset = place->offset, .length = place->length};
    if (place->is_text) {
        give_text(listing, &field);
        return;
    }
    if (place->length)
        listing->rc = recipe_place_load(build, place, &field.value);
    if (listing->rc == 0)
        build->target->list_field(build->target->data, &field);
}

/* Whether the entry that a base like l1[] leads to is zero: its first member is the whole of it. */
static bool
is_unset(struct listing *listing, struct recipe_place place)
{
    const struct recipe_member *member = recipe_members;
    while (member->name && member->of != listing->base->members)
        member++;
    uint64_t value = 0;
    if (!recipe_field_settle(listing->build, member, listing->index, &place))
        return true;
    listing->rc = recipe_place_load(listing->build, &place, &value);
    return value == 0;
}

static void
list_members(struct listing *listing)
{
    struct recipe_place place = {0};
    if (listing->base->locate(listing->build, listing->index, &place) != RECIPE_FOUND)
        return;
    if (listing->base->listing == LIST_SET && is_unset(listing, place))
        return;
    if (listing->base->members == MEMBERS_NONE) {
        give(listing, NULL, &place);
        return;
    }
    for (const struct recipe_member *member = recipe_members; member->name; member++) {
        struct recipe_place copy = place;
        if (member->of == listing->base->members)
            give(listing, member, &copy);
    }
}

static void
list_level(struct listing *listing, unsigned level)
{
    if (level == listing->levels || level == RECIPE_MAX_INDEXES) {
        list_members(listing);
        return;
    }
    for (uint64_t i = 0; listing->rc == 0; i++) {
        struct recipe_place place;
        memset(listing->index + level, 0, (RECIPE_MAX_INDEXES - level) * sizeof *listing->index);
        listing->index[level] = i;
        int found = listing->base->locate(listing->build, listing->index, &place);
        if (found == (int)level)
            return;
        /* What is absent for an index further in may be there for another. */
        if (found >= RECIPE_ABSENT - (int)level && found <= RECIPE_ABSENT)
            continue;
        list_level(listing, level + 1);
    }
}

int
recipe_field_list(struct recipe_build *build)
{
    int rc = 0;
    for (const struct recipe_base *base = recipe_bases; base->key && rc == 0; base++) {
        struct listing listing = {.build = build, .base = base};
        for (const char *c = base->key; *c; c++)
            listing.levels += *c == '[' || *c == '(';
        if (base->listing != LIST_NOT)
            list_level(&listing, 0);
        rc = listing.rc;
    }
    return rc;
}
