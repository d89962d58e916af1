/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* From the name of a field to the bytes that hold it. Fields are where the healthy image has them,
 * whatever the damage has done to the pointers since; their values are those of the moment. */

#ifndef Q2_CORPUS_FIELD_H
#define Q2_CORPUS_FIELD_H

#include "corpus/recipe/build.h"

/* Where a field is. */
struct recipe_place {
    uint64_t offset; /* in the file, bytes */
    uint64_t length; /* bytes; 0: a structure, which has a place but no value */
    bool is_text;
    bool endless;   /* a text may run on */
    uint64_t mask;  /* the bits of the number that are the field's */
    unsigned shift; /* of the field inside the number */
};

/* Where in the field table locators look. A locator gets the indexes of a name and finds the
 * structure: it returns RECIPE_FOUND, RECIPE_ABSENT - n where index n leads to nothing though a
 * greater one may not, or n >= 0 where index n is past the end. */
enum { RECIPE_FOUND = -1, RECIPE_ABSENT = -2 };

struct recipe_base {
    const char *key;
    int (*locate)(const struct recipe_build *build, const uint64_t *index,
                  struct recipe_place *place);
    uint8_t members; /* which class of members it has, enum recipe_members */
    uint8_t listing; /* enum recipe_listing */
};

enum recipe_listing {
    LIST_ALL,
    LIST_SET, /* only where the number is not zero */
    LIST_NOT, /* another name for what is listed already */
};

enum recipe_members {
    MEMBERS_NONE, /* a structure */
    MEMBERS_HEADER,
    MEMBERS_TEXT,
    MEMBERS_EXTENSION,
    MEMBERS_BITMAPS_EXTENSION,
    MEMBERS_CRYPTO_EXTENSION,
    MEMBERS_L1,
    MEMBERS_L2,
    MEMBERS_REFCOUNT_TABLE,
    MEMBERS_REFCOUNT,
    MEMBERS_SNAPSHOT,
    MEMBERS_BITMAP,
    MEMBERS_BITMAP_TABLE,
    MEMBERS_LUKS,
    MEMBERS_LUKS_SLOT,
    MEMBERS_BYTE,
    MEMBERS_U16,
    MEMBERS_U32,
    MEMBERS_U64,
};

struct recipe_member {
    uint8_t of;       /* enum recipe_members */
    const char *name; /* what follows the base's key */
    uint16_t add;     /* bytes from the structure's offset */
    uint16_t width;   /* bytes; more than 8: a text */
    uint64_t mask;    /* 0: all bits */
    uint8_t shift;
    /* Settles what depends on the image; NULL: nothing. Returns false where there is no such
     * field. */
    bool (*settle)(struct recipe_build *build, const struct recipe_member *member,
                   const uint64_t *index, struct recipe_place *place);
};

extern const struct recipe_base recipe_bases[];     /* ends with a NULL key */
extern const struct recipe_member recipe_members[]; /* ends with a NULL name */

/* Find a field or structure; fails at its position in the recipe. */
int recipe_field_find(struct recipe_build *build, const struct recipe_field_name *name,
                      struct recipe_place *ret_place);

/* Fill in the place of a member once its structure was located; NULL for the structure itself.
 * Returns false where the image has no such field. */
bool recipe_field_settle(struct recipe_build *build, const struct recipe_member *member,
                         const uint64_t *index, struct recipe_place *place);

/* The value of a numeric field. */
int recipe_field_get(struct recipe_build *build, const struct recipe_field_name *name,
                     uint64_t *ret_value);

int recipe_place_load(struct recipe_build *build, const struct recipe_place *place,
                      uint64_t *ret_value);
int recipe_place_store(struct recipe_build *build, const struct recipe_place *place,
                       uint64_t value);

/* Give every field to the target's list_field. */
int recipe_field_list(struct recipe_build *build);

#endif
