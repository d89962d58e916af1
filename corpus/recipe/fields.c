/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The field table. A name is that of a structure ("snapshot[0]") and that of a member of it
 * (".l1_size"), so there is one table for each half. */

#include "core/format/luks.h"
#include "corpus/recipe/locate.h"

#include <string.h>

const struct recipe_base recipe_bases[] = {
    {"header", recipe_locate_header, MEMBERS_HEADER, LIST_ALL},
    {"backing_file_name", recipe_locate_backing_name, MEMBERS_TEXT, LIST_ALL},
    {"extension[]", recipe_locate_extension, MEMBERS_EXTENSION, LIST_ALL},
    {"bitmaps", recipe_locate_bitmaps_extension, MEMBERS_BITMAPS_EXTENSION, LIST_ALL},
    {"crypto", recipe_locate_crypto_extension, MEMBERS_CRYPTO_EXTENSION, LIST_ALL},

    {"refcount_table", recipe_locate_refcount_table, MEMBERS_NONE, LIST_ALL},
    {"refcount_table[]", recipe_locate_refcount_entry, MEMBERS_REFCOUNT_TABLE, LIST_SET},
    {"refcount_block[]", recipe_locate_refcount_block, MEMBERS_NONE, LIST_ALL},
    {"refcount[]", recipe_locate_refcount, MEMBERS_REFCOUNT, LIST_SET},
    {"refcount()", recipe_locate_refcount_of, MEMBERS_REFCOUNT, LIST_NOT},

    {"l1", recipe_locate_l1, MEMBERS_NONE, LIST_ALL},
    {"l1[]", recipe_locate_l1_entry, MEMBERS_L1, LIST_SET},
    {"l2_table[]", recipe_locate_l2_table, MEMBERS_NONE, LIST_ALL},
    {"l2[][]", recipe_locate_l2_entry, MEMBERS_L2, LIST_SET},
    {"l2[]", recipe_locate_l2_cluster, MEMBERS_L2, LIST_NOT},
    {"map()", recipe_locate_map, MEMBERS_L2, LIST_NOT},

    {"snapshot_table", recipe_locate_snapshot_table, MEMBERS_NONE, LIST_ALL},
    {"snapshot[]", recipe_locate_snapshot, MEMBERS_SNAPSHOT, LIST_ALL},
    {"snapshot[].l1", recipe_locate_snapshot_l1, MEMBERS_NONE, LIST_ALL},
    {"snapshot[].l1[]", recipe_locate_snapshot_l1_entry, MEMBERS_L1, LIST_SET},
    {"snapshot[].l2_table[]", recipe_locate_snapshot_l2_table, MEMBERS_NONE, LIST_ALL},
    {"snapshot[].l2[][]", recipe_locate_snapshot_l2_entry, MEMBERS_L2, LIST_SET},
    {"snapshot[].l2[]", recipe_locate_snapshot_l2_cluster, MEMBERS_L2, LIST_NOT},
    {"snapshot[].map()", recipe_locate_snapshot_map, MEMBERS_L2, LIST_NOT},

    {"bitmap_directory", recipe_locate_bitmap_directory, MEMBERS_NONE, LIST_ALL},
    {"bitmap[]", recipe_locate_bitmap, MEMBERS_BITMAP, LIST_ALL},
    {"bitmap[].table", recipe_locate_bitmap_table, MEMBERS_NONE, LIST_ALL},
    {"bitmap[].table[]", recipe_locate_bitmap_entry, MEMBERS_BITMAP_TABLE, LIST_SET},

    {"luks", recipe_locate_luks, MEMBERS_LUKS, LIST_ALL},
    {"luks.slot[]", recipe_locate_luks_slot, MEMBERS_LUKS_SLOT, LIST_ALL},
    {"luks.key_material[]", recipe_locate_luks_material, MEMBERS_NONE, LIST_ALL},

    {"leak[]", recipe_locate_leak, MEMBERS_NONE, LIST_ALL},

    {"byte[]", recipe_locate_byte, MEMBERS_BYTE, LIST_NOT},
    {"u16[]", recipe_locate_byte, MEMBERS_U16, LIST_NOT},
    {"u32[]", recipe_locate_byte, MEMBERS_U32, LIST_NOT},
    {"u64[]", recipe_locate_byte, MEMBERS_U64, LIST_NOT},
    {NULL, NULL, 0, 0},
};

/* ---- members whose place depends on the image ---- */

static bool
settle_header(struct recipe_build *build, const struct recipe_member *member, const uint64_t *index,
              struct recipe_place *place)
{
    (void)build;
    (void)index;
    struct q2_header_field field;
    if (!q2_header_field(member->name + 1, &field))
        return false;
    place->offset = field.offset;
    place->length = field.width;
    return true;
}

static bool
settle_backing_name(struct recipe_build *build, const struct recipe_member *member,
                    const uint64_t *index, struct recipe_place *place)
{
    (void)member;
    (void)index;
    place->length = build->header.backing_file_size;
    place->is_text = true;
    return true;
}

static bool
settle_extension_data(struct recipe_build *build, const struct recipe_member *member,
                      const uint64_t *index, struct recipe_place *place)
{
    (void)member;
    const struct recipe_extension *extension = recipe_extension_find(build, index[0]);
    place->length = extension ? extension->length : 0;
    place->is_text = true;
    return place->length;
}

static bool
settle_snapshot_text(struct recipe_build *build, const struct recipe_member *member,
                     const uint64_t *index, struct recipe_place *place)
{
    const struct q2_snapshot *fields = &build->snapshots[index[0]].fields;
    uint64_t extra_end = Q2_SNAPSHOT_FIXED_LENGTH + (uint64_t)fields->extra_length;
    place->is_text = true;
    if (strcmp(member->name, ".extra") == 0) {
        place->offset += Q2_SNAPSHOT_FIXED_LENGTH;
        place->length = fields->extra_length;
    } else if (strcmp(member->name, ".id") == 0) {
        place->offset += extra_end;
        place->length = fields->id_length;
    } else {
        place->offset += extra_end + fields->id_length;
        place->length = fields->name_length;
    }
    return place->length;
}

static bool
settle_bitmap_text(struct recipe_build *build, const struct recipe_member *member,
                   const uint64_t *index, struct recipe_place *place)
{
    const struct q2_bitmap *fields = &build->bitmaps[index[0]].fields;
    place->is_text = true;
    place->offset += Q2_BITMAP_FIXED_LENGTH;
    if (strcmp(member->name, ".extra") == 0) {
        place->length = fields->extra_length;
    } else {
        place->offset += fields->extra_length;
        place->length = fields->name_length;
    }
    return place->length;
}

static bool
settle_refcount(struct recipe_build *build, const struct recipe_member *member,
                const uint64_t *index, struct recipe_place *place)
{
    unsigned order = build->geometry.refcount_order;
    uint64_t cluster = strcmp(member->name, "") == 0 ? index[0] : 0;
    place->length = order < 3 ? 1 : UINT64_C(1) << (order - 3);
    /* Narrow refcounts fill a byte from its least significant bit. */
    place->shift = order < 3 ? (unsigned)(cluster & ((8U >> order) - 1)) << order : 0;
    place->mask = (UINT64_MAX >> (64 - (1U << order))) << place->shift;
    return true;
}

/* The descriptor of a compressed cluster splits its bits elsewhere. */
static bool
settle_entry(struct recipe_build *build, const struct recipe_member *member, const uint64_t *index,
             struct recipe_place *place)
{
    (void)index;
    const struct recipe_place whole = {.offset = place->offset, .length = 8, .mask = UINT64_MAX};
    unsigned bits = 62 - (build->geometry.cluster_bits - 8);
    uint64_t raw = 0, low = (UINT64_C(1) << bits) - 1;
    if (recipe_place_load(build, &whole, &raw))
        return false;
    bool sectors = strcmp(member->name, ".sectors") == 0;
    if (!(raw & Q2_ENTRY_COMPRESSED))
        return !sectors;
    place->mask = sectors ? (Q2_ENTRY_COMPRESSED - 1) & ~low : low;
    place->shift = sectors ? bits : 0;
    return true;
}

static bool
settle_extended(struct recipe_build *build, const struct recipe_member *member,
                const uint64_t *index, struct recipe_place *place)
{
    (void)member;
    (void)index;
    (void)place;
    return build->geometry.extended_l2;
}

/* ---- members ---- */

#define HEADER(name)                                        \
    {                                                       \
        MEMBERS_HEADER, "." name, 0, 0, 0, 0, settle_header \
    }
#define NUMBER(of, name, add, width)     \
    {                                    \
        of, name, add, width, 0, 0, NULL \
    }
#define BITS(of, name, mask, shift)       \
    {                                     \
        of, name, 0, 8, mask, shift, NULL \
    }
#define SETTLED(of, name, settle)    \
    {                                \
        of, name, 0, 8, 0, 0, settle \
    }

/* What an offset may be damaged to: any value below 2^56. Bit 0 of an L2 entry is a flag, though.
 */
#define L1_OFFSET UINT64_C(0x00ffffffffffffff)
#define L2_OFFSET UINT64_C(0x00fffffffffffffe)
#define COPIED    UINT64_C(0x8000000000000000)

const struct recipe_member recipe_members[] = {
    HEADER("magic"),
    HEADER("version"),
    HEADER("backing_file_offset"),
    HEADER("backing_file_size"),
    HEADER("cluster_bits"),
    HEADER("size"),
    HEADER("crypt_method"),
    HEADER("l1_size"),
    HEADER("l1_table_offset"),
    HEADER("refcount_table_offset"),
    HEADER("refcount_table_clusters"),
    HEADER("nb_snapshots"),
    HEADER("snapshots_offset"),
    HEADER("incompatible_features"),
    HEADER("compatible_features"),
    HEADER("autoclear_features"),
    HEADER("refcount_order"),
    HEADER("header_length"),
    HEADER("compression_type"),
    {MEMBERS_TEXT, "", 0, 0, 0, 0, settle_backing_name},

    NUMBER(MEMBERS_EXTENSION, ".type", 0, 4),
    NUMBER(MEMBERS_EXTENSION, ".length", 4, 4),
    {MEMBERS_EXTENSION, ".data", 8, 0, 0, 0, settle_extension_data},
    NUMBER(MEMBERS_BITMAPS_EXTENSION, ".nb_bitmaps", 8, 4),
    NUMBER(MEMBERS_BITMAPS_EXTENSION, ".reserved", 12, 4),
    NUMBER(MEMBERS_BITMAPS_EXTENSION, ".directory_size", 16, 8),
    NUMBER(MEMBERS_BITMAPS_EXTENSION, ".directory_offset", 24, 8),
    NUMBER(MEMBERS_CRYPTO_EXTENSION, ".offset", 8, 8),
    NUMBER(MEMBERS_CRYPTO_EXTENSION, ".length", 16, 8),

    NUMBER(MEMBERS_L1, "", 0, 8),
    BITS(MEMBERS_L1, ".offset", L1_OFFSET, 0),
    BITS(MEMBERS_L1, ".copied", COPIED, 63),
    BITS(MEMBERS_L1, ".reserved", Q2_L1_RESERVED, 0),
    NUMBER(MEMBERS_L2, "", 0, 8),
    {MEMBERS_L2, ".offset", 0, 8, L2_OFFSET, 0, settle_entry},
    SETTLED(MEMBERS_L2, ".sectors", settle_entry),
    BITS(MEMBERS_L2, ".copied", COPIED, 63),
    BITS(MEMBERS_L2, ".compressed", Q2_ENTRY_COMPRESSED, 62),
    BITS(MEMBERS_L2, ".zero", Q2_ENTRY_ZERO, 0),
    BITS(MEMBERS_L2, ".reserved", Q2_L2_RESERVED, 0),
    {MEMBERS_L2, ".bitmap", 8, 8, 0, 0, settle_extended},
    {MEMBERS_L2, ".alloc_bits", 12, 4, 0, 0, settle_extended},
    {MEMBERS_L2, ".zero_bits", 8, 4, 0, 0, settle_extended},
    NUMBER(MEMBERS_REFCOUNT_TABLE, "", 0, 8),
    {MEMBERS_REFCOUNT, "", 0, 1, 0, 0, settle_refcount},

    NUMBER(MEMBERS_SNAPSHOT, ".l1_table_offset", 0, 8),
    NUMBER(MEMBERS_SNAPSHOT, ".l1_size", 8, 4),
    NUMBER(MEMBERS_SNAPSHOT, ".id_size", 12, 2),
    NUMBER(MEMBERS_SNAPSHOT, ".name_size", 14, 2),
    NUMBER(MEMBERS_SNAPSHOT, ".date_seconds", 16, 4),
    NUMBER(MEMBERS_SNAPSHOT, ".date_nanoseconds", 20, 4),
    NUMBER(MEMBERS_SNAPSHOT, ".vm_clock_nanoseconds", 24, 8),
    NUMBER(MEMBERS_SNAPSHOT, ".vm_state_size_32", 32, 4),
    NUMBER(MEMBERS_SNAPSHOT, ".extra_size", 36, 4),
    NUMBER(MEMBERS_SNAPSHOT, ".vm_state_size", 40, 8),
    NUMBER(MEMBERS_SNAPSHOT, ".disk_size", 48, 8),
    {MEMBERS_SNAPSHOT, ".extra", 0, 0, 0, 0, settle_snapshot_text},
    {MEMBERS_SNAPSHOT, ".id", 0, 0, 0, 0, settle_snapshot_text},
    {MEMBERS_SNAPSHOT, ".name", 0, 0, 0, 0, settle_snapshot_text},

    NUMBER(MEMBERS_BITMAP, ".table_offset", 0, 8),
    NUMBER(MEMBERS_BITMAP, ".table_size", 8, 4),
    NUMBER(MEMBERS_BITMAP, ".flags", 12, 4),
    NUMBER(MEMBERS_BITMAP, ".type", 16, 1),
    NUMBER(MEMBERS_BITMAP, ".granularity_bits", 17, 1),
    NUMBER(MEMBERS_BITMAP, ".name_size", 18, 2),
    NUMBER(MEMBERS_BITMAP, ".extra_size", 20, 4),
    {MEMBERS_BITMAP, ".extra", 0, 0, 0, 0, settle_bitmap_text},
    {MEMBERS_BITMAP, ".name", 0, 0, 0, 0, settle_bitmap_text},
    NUMBER(MEMBERS_BITMAP_TABLE, "", 0, 8),
    BITS(MEMBERS_BITMAP_TABLE, ".offset", L2_OFFSET, 0),
    BITS(MEMBERS_BITMAP_TABLE, ".ones", Q2_BITMAP_ENTRY_ONES, 0),
    BITS(MEMBERS_BITMAP_TABLE, ".reserved", Q2_BITMAP_ENTRY_RESERVED, 0),

    NUMBER(MEMBERS_LUKS, ".magic", Q2_LUKS_AT_MAGIC, Q2_LUKS_MAGIC_LENGTH),
    NUMBER(MEMBERS_LUKS, ".version", Q2_LUKS_AT_VERSION, 2),
    NUMBER(MEMBERS_LUKS, ".cipher_name", Q2_LUKS_AT_CIPHER_NAME, Q2_LUKS_NAME_LENGTH),
    NUMBER(MEMBERS_LUKS, ".cipher_mode", Q2_LUKS_AT_CIPHER_MODE, Q2_LUKS_NAME_LENGTH),
    NUMBER(MEMBERS_LUKS, ".hash", Q2_LUKS_AT_HASH, Q2_LUKS_NAME_LENGTH),
    NUMBER(MEMBERS_LUKS, ".payload", Q2_LUKS_AT_PAYLOAD, 4),
    NUMBER(MEMBERS_LUKS, ".key_bytes", Q2_LUKS_AT_KEY_BYTES, 4),
    NUMBER(MEMBERS_LUKS, ".digest", Q2_LUKS_AT_DIGEST, Q2_LUKS_DIGEST_LENGTH),
    NUMBER(MEMBERS_LUKS, ".salt", Q2_LUKS_AT_SALT, Q2_LUKS_SALT_LENGTH),
    NUMBER(MEMBERS_LUKS, ".iterations", Q2_LUKS_AT_ITERATIONS, 4),
    NUMBER(MEMBERS_LUKS, ".uuid", Q2_LUKS_AT_UUID, Q2_LUKS_UUID_LENGTH),
    NUMBER(MEMBERS_LUKS_SLOT, ".state", Q2_LUKS_SLOT_AT_STATE, 4),
    NUMBER(MEMBERS_LUKS_SLOT, ".iterations", Q2_LUKS_SLOT_AT_ITERATIONS, 4),
    NUMBER(MEMBERS_LUKS_SLOT, ".salt", Q2_LUKS_SLOT_AT_SALT, Q2_LUKS_SALT_LENGTH),
    NUMBER(MEMBERS_LUKS_SLOT, ".material", Q2_LUKS_SLOT_AT_MATERIAL, 4),
    NUMBER(MEMBERS_LUKS_SLOT, ".stripes", Q2_LUKS_SLOT_AT_STRIPES, 4),

    NUMBER(MEMBERS_BYTE, "", 0, 1),
    NUMBER(MEMBERS_U16, "", 0, 2),
    NUMBER(MEMBERS_U32, "", 0, 4),
    NUMBER(MEMBERS_U64, "", 0, 8),
    {0, NULL, 0, 0, 0, 0, NULL},
};
