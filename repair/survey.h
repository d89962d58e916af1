/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A survey of all pointers: which clusters sound pointers lead to, which pointers cannot be
 * right, and which clusters are lost, that is, in use by all appearances while nothing leads to
 * them. Damaged pointers and lost clusters belong together; who explains one explains the other.
 *
 * A pointer is suspect if it breaks a rule of the format, leads past the end of the file or to what
 * cannot be what it should be, or shares its cluster with a pointer that has nothing to do with it.
 * References by suspect pointers do not count: `sound` is what is left. */

#ifndef Q2_REPAIR_SURVEY_H
#define Q2_REPAIR_SURVEY_H

#include "core/base/bitset.h"
#include "core/format/entry.h"
#include "repair/scene.h"

enum q2_suspicion {
    Q2_SUSPECT_RULE = 1 << 0,     /* breaks a rule: reserved bits, alignment, flags */
    Q2_SUSPECT_PAST_END = 1 << 1, /* leads past the end of the file */
    Q2_SUSPECT_SHARED = 1 << 2,   /* shares its cluster with another guest range or structure */
    Q2_SUSPECT_METADATA = 1 << 3, /* leads into a structure of known place */
    Q2_SUSPECT_FREE = 1 << 4,     /* leads to a cluster that is not counted as used */
    Q2_SUSPECT_TARGET = 1 << 5,   /* an L1 entry that leads to what is no L2 table */
    Q2_SUSPECT_CUT = 1 << 6,      /* leads past the end, and rightly so: the file was cut off */
};

/* A pointer that cannot be right, or one of several of which only one can be. */
struct q2_suspect {
    unsigned why; /* enum q2_suspicion */
    bool is_l1;   /* an entry of an L1 table; otherwise of an L2 table */
    uint32_t map; /* the first map that it belongs to, as check->maps */
    uint32_t l1_index;
    uint32_t l2_index;
    uint64_t at;    /* of the entry, host, bytes */
    uint64_t guest; /* the first guest byte that it maps */
    struct q2_l2_entry entry;
};

/* An L1 entry that leads to a table inside the file. */
struct q2_table_reference {
    uint64_t table; /* cluster */
    uint64_t at;    /* of the entry, host, bytes */
    uint64_t raw;
    uint32_t map;
    uint32_t slot;
    bool suspect; /* its table is not walked for it */
};

/* Where the stream of a compressed cluster begins. */
struct q2_claimed_stream {
    uint64_t offset; /* host, bytes */
    uint64_t guest;  /* cluster */
};

struct q2_survey {
    struct q2_scene *scene;
    struct q2_claimed_stream *streams; /* of sound entries, by offset */
    uint64_t stream_count, stream_capacity;
    uint64_t clusters;
    struct q2_table_reference *references; /* by table, then slot, then map */
    uint64_t reference_count, reference_capacity;
    uint64_t *structures; /* a bit for each cluster of a structure of known place, L2 tables too */
    uint64_t *sound;   /* a bit for each cluster: a sound pointer, or a known structure, has it */
    uint64_t *shared;  /* several have it that have nothing to do with each other */
    uint64_t *counted; /* its refcount is not 0 */
    uint64_t
        *false_blocks; /* a bit for each refcount block that is none: what it says is no evidence */
    uint64_t *counting; /* what counts references, or did before the repair: it is not lost */
    uint64_t *stored;   /* where refcounts do not help: some of it is no hole */
    /* Clusters from this one on are new since an earlier round: not counted yet. */
    uint64_t old_end;
    bool counts_help; /* refcounts are evidence: what is sound is counted, nearly always */
    bool settled;     /* what is sound is known, so that there is an answer to what is lost */
    struct q2_suspect *suspects; /* by `at` */
    uint64_t suspect_count, suspect_capacity;
    uint64_t dropped; /* suspects beyond those that are kept */
};

/* Survey scene->check, which must be current. With `entries` false, only L1 entries are looked at,
 * and what sound L2 tables refer to still counts as sound. Takes memory from the scene's budget. */
int q2_survey_take(struct q2_scene *scene, bool entries, struct q2_survey **ret_survey,
                   struct q2_error *err);
void q2_survey_free(struct q2_survey *survey);

/* Name a change of `length` bytes from guest offset `suspect->guest` on, in all maps that share the
 * L2 table with this entry; of an L1 entry, in its own map. */
void q2_survey_change(struct q2_survey *survey, const struct q2_suspect *suspect,
                      enum q2_change_kind kind, uint64_t length);

/* The first of the references to the table at cluster `table`; reference_count: there is none. */
uint64_t q2_survey_first_reference(const struct q2_survey *survey, uint64_t table);

/* The recorded refcount of a cluster where it is evidence, else the number of its references. */
struct q2_refcount_reader;
uint64_t q2_survey_refcount(const struct q2_survey *survey, struct q2_refcount_reader *reader,
                            uint64_t cluster);

/* Whether the stream at host `offset` belongs to a guest cluster other than that at `guest`, bytes.
 */
bool q2_survey_claimed(const struct q2_survey *survey, uint64_t offset, uint64_t guest);

/* Whether a cluster is lost: counted where refcounts help, else stored and not a hole; and nothing
 * sound leads to it. */
bool q2_survey_lost(const struct q2_survey *survey, uint64_t cluster);

/* What the cluster at host `offset` would be as an L2 table. */
struct q2_table_look {
    bool readable;
    uint64_t mapped;        /* entries that refer to a cluster */
    uint64_t faults;        /* entries that break a rule or lead past the end */
    uint64_t lost;          /* of those mapped, entries that lead to lost clusters */
    uint64_t copied;        /* of those mapped, entries with the COPIED flag */
    uint64_t first;         /* index of the first entry that maps something */
    uint64_t last;          /* and of the last */
    uint64_t first_cluster; /* host clusters that these two refer to */
    uint64_t last_cluster;
};
int q2_survey_look(struct q2_survey *survey, uint64_t offset, struct q2_table_look *ret_look,
                   struct q2_error *err);

/* Whether that is an L2 table, by the rule that all who ask share: it maps something, and hardly
 * anything of it is at fault. */
bool q2_table_credible(const struct q2_table_look *look);

/* Bits in which a pointer differs from one that leads to host `offset`, flags of either kind left
 * out of account where they do not matter: what single flipped bits do is 1. */
unsigned q2_pointer_distance(uint64_t raw, uint64_t offset, bool copied);

#endif
