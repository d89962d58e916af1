/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The locators of the field table; see struct recipe_base for what they return. */

#ifndef Q2_CORPUS_LOCATE_H
#define Q2_CORPUS_LOCATE_H

#include "corpus/recipe/field.h"

typedef int recipe_locator(const struct recipe_build *build, const uint64_t *index,
                           struct recipe_place *place);

recipe_locator recipe_locate_header;
recipe_locator recipe_locate_backing_name;
recipe_locator recipe_locate_extension;
recipe_locator recipe_locate_bitmaps_extension;
recipe_locator recipe_locate_crypto_extension;
recipe_locator recipe_locate_l1;
recipe_locator recipe_locate_l1_entry;
recipe_locator recipe_locate_l2_table;
recipe_locator recipe_locate_l2_entry;
recipe_locator recipe_locate_l2_cluster;
recipe_locator recipe_locate_map;
recipe_locator recipe_locate_refcount_table;
recipe_locator recipe_locate_refcount_entry;
recipe_locator recipe_locate_refcount_block;
recipe_locator recipe_locate_refcount;
recipe_locator recipe_locate_refcount_of;
recipe_locator recipe_locate_snapshot_table;
recipe_locator recipe_locate_snapshot;
recipe_locator recipe_locate_snapshot_l1;
recipe_locator recipe_locate_snapshot_l1_entry;
recipe_locator recipe_locate_snapshot_l2_entry;
recipe_locator recipe_locate_snapshot_l2_table;
recipe_locator recipe_locate_snapshot_l2_cluster;
recipe_locator recipe_locate_snapshot_map;
recipe_locator recipe_locate_bitmap_directory;
recipe_locator recipe_locate_bitmap;
recipe_locator recipe_locate_bitmap_table;
recipe_locator recipe_locate_bitmap_entry;
recipe_locator recipe_locate_luks;
recipe_locator recipe_locate_luks_slot;
recipe_locator recipe_locate_luks_material;
recipe_locator recipe_locate_leak;
recipe_locator recipe_locate_byte;

/* An extension by its position or its type; NULL if there is none. */
const struct recipe_extension *recipe_extension_find(const struct recipe_build *build,
                                                     uint64_t which);

#endif
