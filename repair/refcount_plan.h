/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Rebuilding refcounts: where the table and its blocks are to be, and what they are to hold.
 * Private to fix_refcounts.
 *
 * What is sound stays where it is. The number of references to a cluster is what the newest check
 * counted, plus what is `added` (new blocks, a new table), less what is `dropped` (those that
 * cannot stay). Old blocks that cannot stay are still read for what they record, as far as what
 * they say of clusters in use is believable. */

#ifndef Q2_REPAIR_REFCOUNT_PLAN_H
#define Q2_REPAIR_REFCOUNT_PLAN_H

#include "repair/scene.h"

struct q2_rebuild {
    struct q2_scene *scene;
    const struct q2_geometry *geometry;
    uint64_t *table;       /* offsets of blocks as they are to be, bytes; 0: none */
    uint64_t *old;         /* offsets that recorded refcounts are read from, bytes; 0: none */
    uint64_t entries;      /* of both arrays */
    uint64_t usable;       /* entries that a table at `table_offset` has room for, in the end */
    uint64_t table_offset; /* bytes; 0: it needs a new place */
    uint64_t end;          /* the first cluster behind the file as it is to be */
    bool moved;            /* something has another place than the header or the table says */
    bool doubtful;    /* a block, or the table, that is one by all appearances shares its cluster */
    bool keep_stored; /* what is stored may be lost: it counts where nothing is recorded */
    uint64_t *found;  /* as struct q2_loose has them, `held` behind `all`: lost tables, and what
                       * only they lead to, where nothing is recorded; NULL: there are none */
    uint64_t found_words;   /* of each set */
    struct q2_tally *added; /* references */
    struct q2_tally *dropped;
    uint64_t extent_end; /* of the part of the file looked at last, bytes: data, or a hole */
    uint64_t extent_first;
    bool extent_data;
    uint8_t *recorded; /* a cluster each, for whoever looks at a block */
    uint8_t *wanted;
};

/* How far what a block records agrees with what is counted. */
struct q2_block_look {
    bool readable;
    bool zero;           /* all of it */
    bool credible;       /* most clusters in use are counted about right */
    uint64_t referenced; /* clusters of its range that are referred to */
};

int q2_rebuild_init(struct q2_rebuild *rebuild, struct q2_scene *scene, struct q2_error *err);
void q2_rebuild_destroy(struct q2_rebuild *rebuild);

/* Decide which blocks stay, and whether the table does. */
int q2_rebuild_sift(struct q2_rebuild *rebuild, struct q2_error *err);

/* Look for the table elsewhere where next to nothing of it is usable. */
int q2_rebuild_find_table(struct q2_rebuild *rebuild, struct q2_error *err);

/* Find places for what is missing. Q2_ERR_NOSPACE where there are none. */
int q2_rebuild_place(struct q2_rebuild *rebuild, struct q2_error *err);

/* Make the arrays hold `entries` entries at least. */
int q2_rebuild_extend(struct q2_rebuild *rebuild, uint64_t entries, struct q2_error *err);

int q2_rebuild_add(struct q2_rebuild *rebuild, uint64_t first, uint64_t count,
                   struct q2_error *err);
int q2_rebuild_drop(struct q2_rebuild *rebuild, uint64_t first, uint64_t count,
                    struct q2_error *err);

/* References to a cluster, as they are to be. */
uint64_t q2_rebuild_references(const struct q2_rebuild *rebuild, uint64_t cluster);

/* Whether a cluster was part of the refcounts that cannot stay where it is. What it holds is known,
 * so that it is nothing lost. */
bool q2_rebuild_dropped(const struct q2_rebuild *rebuild, uint64_t cluster);

/* Of 64 clusters from `cluster` on (a multiple of 64), those that have any. */
uint64_t q2_rebuild_seen(const struct q2_rebuild *rebuild, uint64_t cluster);

/* The first cluster from `cluster` on that anything may refer to; UINT64_MAX: none. A file may be
 * far too large to look at all of its clusters. */
uint64_t q2_rebuild_next(const struct q2_rebuild *rebuild, uint64_t cluster);

/* Whether there will be any to [first, end). */
bool q2_rebuild_any(const struct q2_rebuild *rebuild, uint64_t first, uint64_t end);

/* Read the block at host `offset` into rebuild->recorded, and hold it against what is counted for
 * the clusters of entry `index`. */
void q2_rebuild_look(struct q2_rebuild *rebuild, uint64_t index, uint64_t offset,
                     struct q2_block_look *ret_look);

/* Write everything: within an action that is to be carried out. */
int q2_rebuild_write(struct q2_rebuild *rebuild, struct q2_error *err);

/* Whether any of a cluster is no hole, and it is not known what that is. */
bool q2_rebuild_stored(struct q2_rebuild *rebuild, uint64_t cluster);

/* ---- what nothing refers to ---- */

/* Clusters that are counted, though nothing refers to them, as sets of file_clusters bits. */
struct q2_loose {
    uint64_t *all;
    uint64_t *held; /* of those, what must not be freed without asking */
    uint64_t words; /* of each set */
    uint64_t count; /* bits of `all` */
    uint64_t held_count;
    bool damage;         /* all are held, because damage is left that they may explain */
    bool incomplete;     /* the same, and not even all references are known */
    uint64_t first_held; /* cluster */
};

/* Whether damage is left that clusters without references may explain. */
bool q2_loose_damage(const struct q2_scene *scene);

/* Whether pointers are damaged, and so something may be lost. */
bool q2_loose_pointers(const struct q2_scene *scene);

/* Where blocks are to be made from nothing, find tables that nothing leads to in what is stored. */
int q2_loose_find_stored(struct q2_rebuild *rebuild, struct q2_error *err);

/* Find them in the blocks of rebuild->table, as the overlay has them. */
int q2_loose_find(struct q2_rebuild *rebuild, struct q2_loose *ret_loose, struct q2_error *err);
void q2_loose_destroy(struct q2_rebuild *rebuild, struct q2_loose *loose);

/* Set the refcounts of the loose clusters that are held, or of those that are not, to 0; within an
 * action that is to be carried out. */
int q2_loose_free(struct q2_rebuild *rebuild, const struct q2_loose *loose, bool held,
                  struct q2_error *err);

/* Words of 64 refcounts from cluster `cluster` on in the block in rebuild->recorded, whose first is
 * that of cluster `first`: those with this refcount. */
uint64_t q2_rebuild_equal(const struct q2_rebuild *rebuild, uint64_t first, uint64_t cluster,
                          uint64_t refcount);

#endif
