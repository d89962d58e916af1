/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The bitmap directory of an image under repair, and which of its bitmaps can be relied on. A
 * bitmap says what a backup may leave out: one that is wrong loses data, one that is missing costs
 * time. So what is not sound beyond doubt goes, and what is sound stays as it is. */

#ifndef Q2_REPAIR_BITMAP_LIST_H
#define Q2_REPAIR_BITMAP_LIST_H

#include "core/format/bitmap.h"
#include "repair/scene.h"

struct q2_bitmap_item {
    uint64_t at;     /* in the directory, bytes */
    uint64_t length; /* bytes, padding included */
    const uint8_t *name;
    struct q2_bitmap bitmap;
    bool namesake; /* another bitmap has the same name */
    bool removed;
};

/* What the extension says. */
struct q2_bitmap_place {
    uint64_t offset; /* of the directory, bytes */
    uint64_t size;   /* bytes */
    uint32_t count;  /* of bitmaps */
};

struct q2_bitmap_list {
    struct q2_scene *scene;
    struct q2_bitmap_place place;
    uint64_t loaded; /* bytes */
    uint64_t used;   /* bytes that the items take */
    uint8_t *bytes;  /* the directory; may be changed */
    struct q2_bitmap_item *items;
    uint32_t count, capacity;
};

/* What the extension of scene->check says, and writing it, within an action. */
struct q2_bitmap_place q2_bitmap_place_claimed(const struct q2_scene *scene);
int q2_bitmap_place_write(struct q2_scene *scene, const struct q2_bitmap_place *place,
                          struct q2_error *err);

/* Whether the check found anything that makes the directory unusable, or that belies its place. */
bool q2_bitmap_directory_is_broken(const struct q2_scene *scene);

/* Let the action that has begun answer all findings of a problem, or all about the directory. */
void q2_bitmap_answer(struct q2_scene *scene, enum q2_problem problem);
void q2_bitmap_answer_directory(struct q2_scene *scene);

/* Read the directory at `place` from the overlay: as many items as fit. Destroy it also if this
 * failed. */
int q2_bitmap_list_read(struct q2_scene *scene, const struct q2_bitmap_place *place,
                        struct q2_bitmap_list *ret_list, struct q2_error *err);
void q2_bitmap_list_destroy(struct q2_bitmap_list *list);

/* What is wrong with an item, reported to `sink` with the offset in the file, the bits of its table
 * included. Tables that have something in common with another structure are not read. */
int q2_bitmap_judge(struct q2_bitmap_list *list, const struct q2_bitmap_item *item,
                    const struct q2_sink *sink, struct q2_error *err);

/* Whether a problem makes a bitmap one that cannot be relied on. */
bool q2_bitmap_is_spoilt_by(enum q2_problem problem);

/* Find the only directory that agrees with what the extension says but for one of its three
 * numbers, or one bit of the offset. False: there is none, or more than one. */
int q2_bitmap_place_find(struct q2_scene *scene, const struct q2_bitmap_place *claimed,
                         bool *ret_found, struct q2_bitmap_place *ret_place, struct q2_error *err);

/* Find the table of a bitmap of which nothing is wrong but the offset of its table, by one bit. */
int q2_bitmap_table_find(struct q2_bitmap_list *list, const struct q2_bitmap_item *item,
                         bool *ret_found, uint64_t *ret_offset, struct q2_error *err);

#endif
