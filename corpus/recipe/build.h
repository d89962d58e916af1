/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* An image while it is being built.
 *
 * The content statements act on a small model: a flat file with what the guest sees, the L1 and L2
 * tables as arrays, a counter for each host cluster. Data goes to the image file at once, copied
 * from the guest's view cluster by cluster, so that copy on write needs no reading back; the
 * metadata is written at the end, when everything is known (layout.c). After that the model only
 * says where things are, for the damage. */

#ifndef Q2_CORPUS_BUILD_H
#define Q2_CORPUS_BUILD_H

#include "core/codec/codec.h"
#include "core/format/bitmap.h"
#include "core/format/entry.h"
#include "core/format/header.h"
#include "core/format/snapshot.h"
#include "corpus/recipe/recipe.h"
#include "corpus/recipe/syntax.h"

/* An L2 table. One that several L1 tables use is one object. */
struct recipe_table {
    uint64_t host;               /* bytes */
    struct q2_l2_entry *entries; /* COPIED is decided when it is written */
    struct recipe_table *next;   /* of all tables */
    bool active;                 /* reachable from the active L1 table */
};

struct recipe_snapshot {
    struct q2_snapshot fields;
    const struct recipe_statement *statement;
    char id[24]; /* if the statement has none */
    struct recipe_table **l1;
    uint64_t *copied; /* bit set: the COPIED flags at the time */
};

struct recipe_bitmap {
    struct q2_bitmap fields;
    const struct recipe_statement *statement;
};

/* Host clusters and how often they are used. */
struct recipe_hosts {
    uint64_t *refcounts; /* for each cluster below `next` */
    uint64_t next;       /* first cluster that was never used */
    uint64_t room;       /* entries that fit */
    uint64_t *blocks;    /* host offset of each refcount block; 0: none */
    uint64_t block_count;
    uint64_t table; /* host offset of the refcount table */
    uint64_t table_clusters;
    uint64_t packed; /* where the next compressed cluster may go; 0: nowhere */
};

/* A header extension as it was written. */
struct recipe_extension {
    uint32_t type;
    uint32_t length; /* of the data, bytes */
    uint64_t offset; /* of its own header, bytes */
};
enum { RECIPE_MAX_EXTENSIONS = 32 };

enum recipe_stage {
    STAGE_SETTINGS,
    STAGE_CONTENT,
    STAGE_BUILT,
};

struct recipe_build {
    const struct q2_recipe *recipe;
    const struct q2_recipe_target *target;
    struct q2_error *err;
    struct recipe_position at; /* of the statement or clause that is carried out */
    enum recipe_stage stage;

    struct q2_file *image;
    struct q2_file *view; /* the guest's; beyond the end of the disk, the VM state */
    struct q2_file *data; /* external data file; NULL: none, or not made */

    /* What the image statements said. */
    uint64_t l1_entries; /* least size of the L1 table */
    const char *data_file_name;
    const char *backing_name;
    const char *backing_format;
    const struct recipe_statement *backing_file; /* that makes the backing file; NULL: unknown */
    bool feature_table;

    struct q2_header header;
    struct q2_geometry geometry;
    struct recipe_hosts hosts;
    struct recipe_table **l1; /* header.l1_size slots */
    struct recipe_table *tables;
    struct recipe_snapshot *snapshots; /* header.nb_snapshots */
    struct recipe_bitmap *bitmaps;
    uint32_t bitmap_count;
    uint64_t bitmap_directory; /* host offset */
    uint64_t bitmap_directory_size;
    uint64_t luks; /* host offset */
    uint64_t luks_length;

    struct recipe_extension extensions[RECIPE_MAX_EXTENSIONS]; /* the end marker included */
    unsigned extension_count;
    uint64_t *leaks; /* host offset of each leak, in the order of the statements */
    uint64_t leak_count;
    bool guest_saved;

    uint8_t *cluster; /* scratch, one cluster each */
    uint8_t *packed;
};

/* ---- image.c: host clusters and mapping tables ---- */

/* Fail at build->at. */
int recipe_fail(struct recipe_build *build, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Get `count` adjacent new clusters with refcount 1. */
int recipe_allocate(struct recipe_build *build, uint64_t count, uint64_t *ret_offset);

/* Take the first clusters of an image: header, refcount table and refcount block. */
int recipe_allocate_first(struct recipe_build *build);

static inline uint64_t *
recipe_refcount(struct recipe_build *build, uint64_t offset)
{
    return &build->hosts.refcounts[offset >> build->geometry.cluster_bits];
}

/* One more user of the cluster at host `offset`; fails where the refcount is not wide enough. */
int recipe_refer(struct recipe_build *build, uint64_t offset);
void recipe_release(struct recipe_build *build, uint64_t offset, uint64_t clusters);

/* The same for the host clusters of an L2 entry. */
int recipe_refer_entry(struct recipe_build *build, uint64_t raw);
void recipe_release_entry(struct recipe_build *build, uint64_t raw);

/* Make the active L1 table at least `entries` long. */
int recipe_grow_l1(struct recipe_build *build, uint64_t entries);

/* The L2 entry for guest offset `guest` in a table that is the active disk's alone. */
int recipe_map_writable(struct recipe_build *build, uint64_t guest, struct q2_l2_entry **ret_entry);

/* The same for reading; NULL where there is no table. */
const struct q2_l2_entry *recipe_map(const struct recipe_build *build, uint64_t guest);

/* Empty slots [first, end) of the active L1 table. */
void recipe_clear_l1(struct recipe_build *build, uint64_t first, uint64_t end);

/* Free what the model took. */
void recipe_model_fini(struct recipe_build *build);

/* ---- settings.c: the image statements ---- */

void recipe_settings_init(struct recipe_build *build);
int recipe_apply_setting(struct recipe_build *build, const struct recipe_statement *statement);

/* Hold the settings against each other and put down the first structures. */
int recipe_start_image(struct recipe_build *build);

/* ---- content.c, compress.c, snapshot.c, bitmap.c, luks.c: the content statements ---- */

int recipe_write(struct recipe_build *build, const struct recipe_statement *statement);
int recipe_write_compressed(struct recipe_build *build, const struct recipe_statement *statement);
int recipe_zero(struct recipe_build *build, const struct recipe_statement *statement);
int recipe_discard(struct recipe_build *build, const struct recipe_statement *statement);
int recipe_preallocate(struct recipe_build *build, const struct recipe_statement *statement);
int recipe_subclusters(struct recipe_build *build, const struct recipe_statement *statement);
int recipe_resize(struct recipe_build *build, const struct recipe_statement *statement);
int recipe_leak(struct recipe_build *build, const struct recipe_statement *statement);
int recipe_take_snapshot(struct recipe_build *build, const struct recipe_statement *statement);
int recipe_make_bitmap(struct recipe_build *build, const struct recipe_statement *statement);
int recipe_make_luks(struct recipe_build *build);

/* Put `length` bytes of the guest's view at `guest` into one compressed cluster each. */
int recipe_store_packed(struct recipe_build *build, uint64_t guest);

/* Make guest bytes [guest, guest + length) the disk's own and copy them from the view. */
int recipe_store(struct recipe_build *build, uint64_t guest, uint64_t length);

/* ---- the guest's view and the files: view.c ---- */

int recipe_view_fill(struct recipe_build *build, uint64_t offset, uint64_t length,
                     const struct recipe_pattern *pattern);
int recipe_view_zero(struct recipe_build *build, uint64_t offset, uint64_t length);
/* Let the backing file show through. */
int recipe_view_backing(struct recipe_build *build, uint64_t offset, uint64_t length);
/* Copy the view of the disk to the target's guest file. */
int recipe_view_save(struct recipe_build *build);

int recipe_fill_file(struct q2_file *file, uint64_t offset, uint64_t length,
                     const struct recipe_pattern *pattern, struct q2_error *err);
/* Make a range zero, sparse where it can be, and the file long enough to hold it. */
int recipe_zero_file(struct q2_file *file, uint64_t offset, uint64_t length, struct q2_error *err);
/* Write to new space of a file; zeros are left out, so that it stays sparse. */
int recipe_put(struct q2_file *file, uint64_t offset, const uint8_t *bytes, uint64_t length,
               struct q2_error *err);

/* ---- layout.c, preamble.c: from the model to bytes ---- */

int recipe_finish_image(struct recipe_build *build);

/* Write the header, its extensions and the backing file name. */
int recipe_write_preamble(struct recipe_build *build);

/* ---- eval.c, damage.c ---- */

int recipe_eval(struct recipe_build *build, const struct recipe_expr *expr, uint64_t *ret_value);

/* The value of a clause's number. */
int recipe_number(struct recipe_build *build, const struct recipe_clause *clause, unsigned argument,
                  uint64_t *ret_value);

int recipe_damage(struct recipe_build *build, const struct recipe_statement *statement);

#endif
