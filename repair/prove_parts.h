/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the parts of the proof share: the two images, the edits between them, and a way to ask what
 * a map has at a guest offset. Private to prove*.c. */

#ifndef Q2_REPAIR_PROVE_PARTS_H
#define Q2_REPAIR_PROVE_PARTS_H

#include "core/codec/codec.h"
#include "core/format/entry.h"
#include "repair/prove.h"

/* ---- ranges: ascending, never touching ---- */

struct q2_proof_range {
    uint64_t offset;
    uint64_t end;
};

struct q2_proof_ranges {
    struct q2_budget *budget;
    struct q2_proof_range *items;
    uint64_t count, capacity;
};

/* Add a range; in any order, if q2_proof_ranges_settle is called before anything is asked. */
int q2_proof_ranges_add(struct q2_proof_ranges *ranges, uint64_t offset, uint64_t length,
                        struct q2_error *err);
void q2_proof_ranges_settle(struct q2_proof_ranges *ranges);
void q2_proof_ranges_destroy(struct q2_proof_ranges *ranges);

/* Whether any byte of [offset, offset + length) is in a range. */
bool q2_proof_ranges_touch(const struct q2_proof_ranges *ranges, uint64_t offset, uint64_t length);

/* Where the range that has the byte at `offset` ends; `offset` where none has. */
uint64_t q2_proof_ranges_until(const struct q2_proof_ranges *ranges, uint64_t offset);

/* Where the next range begins behind `offset`; UINT64_MAX: nowhere. */
uint64_t q2_proof_ranges_next(const struct q2_proof_ranges *ranges, uint64_t offset);

/* ---- the proof ---- */

struct q2_proof {
    struct q2_file *base;
    struct q2_file *file;
    struct q2_check *before;
    struct q2_check *after;
    const struct q2_plan *plan; /* NULL: nothing was done on purpose */
    struct q2_budget *budget;
    struct q2_objection *objection;
    /* Host bytes that may differ: of the edits, and what was cut off. Everything, where the file is
     * no overlay over the base. */
    struct q2_proof_ranges edits;
    struct q2_work work;
};

int q2_proof_open(struct q2_proof *proof, struct q2_error *err);
void q2_proof_close(struct q2_proof *proof);

/* Whether the edits may have touched what a guest reads: an L2 table, or its data. What nothing
 * referred to is none of that, nor what has one reference and is another structure. */
int q2_proof_edits_matter(struct q2_proof *proof, bool *ret_matter, struct q2_error *err);

/* Structures of known place of the image as it was, other than L2 tables: whole clusters. */
int q2_proof_structures(struct q2_proof *proof, struct q2_proof_ranges *known,
                        struct q2_error *err);

/* The applied action that most likely has to do with a host range, or with a guest range of a map
 * of the repaired image (`length` 0: none): the least sure of those that write or change it, and of
 * these the one that does the least else. UINT64_MAX: none. */
uint64_t q2_proof_blame(const struct q2_proof *proof, uint64_t host, uint64_t host_length,
                        uint32_t map, uint64_t guest, uint64_t guest_length);

/* Of two that might be to blame, either of which may be none. */
uint64_t q2_proof_worse(const struct q2_proof *proof, uint64_t left, uint64_t right);

/* Fill in the objection's text. Returns 0, which is what a proof that failed returns. */
int q2_proof_object(struct q2_proof *proof, const struct q2_objection *objection,
                    const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The three rules. 1: they hold; 0: they do not; or an error. */
int q2_proof_findings(struct q2_proof *proof, const struct q2_scene *scene, struct q2_error *err);
int q2_proof_answers(struct q2_proof *proof);
int q2_proof_content(struct q2_proof *proof, struct q2_error *err);

/* ---- maps: prove_maps.c ---- */

enum { Q2_PROOF_NO_MAP = -1 };

/* For each map of the image as it was, the map of the repaired one that goes by the same id, or
 * Q2_PROOF_NO_MAP. Free with q2_proof_free_maps. */
int q2_proof_match_maps(struct q2_proof *proof, int64_t **ret_matches, struct q2_error *err);
void q2_proof_free_maps(struct q2_proof *proof, int64_t *matches);

/* ---- what a guest reads: prove_view.c ---- */

enum q2_view_kind {
    Q2_VIEW_UNREADABLE,
    Q2_VIEW_BACKING, /* what the backing file has there */
    Q2_VIEW_ZERO,
    Q2_VIEW_DATA,       /* `host` is in the image */
    Q2_VIEW_EXTERNAL,   /* `host` is in the data file */
    Q2_VIEW_COMPRESSED, /* part of what `raw` decodes to, from byte `skip` on */
};

/* What is at a guest offset, and from there on for `length` bytes. */
struct q2_view {
    enum q2_view_kind kind;
    uint64_t length;
    uint64_t host;
    uint64_t raw;
    uint64_t skip;
    bool past_end;  /* unreadable, for what says where it is leads past the end of the file */
    uint64_t l1_at; /* where the entries are that say so, host, bytes; 0: there is none */
    uint64_t l2_at;
};

/* One of the two images, to look through. */
struct q2_viewer {
    struct q2_file *file;
    struct q2_check *check;
    struct q2_work *work;
    struct q2_budget *budget;
    enum q2_view_kind hole; /* how unallocated clusters read */
    const struct q2_map *map;
    uint8_t *l1; /* a window of the map's L1 table */
    uint64_t l1_first, l1_count;
    uint8_t *l2; /* a part of an L2 table */
    uint64_t l2_offset, l2_length;
    bool limited;   /* by `work`: the last view is not to be believed */
    uint8_t *bytes; /* what was fetched last */
    uint8_t *stream;
    uint8_t *decoded;
    uint64_t decoded_raw; /* 0: none */
    struct q2_decoder *decoder;
};

int q2_viewer_init(struct q2_viewer *viewer, struct q2_proof *proof, struct q2_file *file,
                   struct q2_check *check, struct q2_error *err);
void q2_viewer_destroy(struct q2_viewer *viewer);

/* Look through this map from now on; NULL: through nothing. */
void q2_viewer_choose(struct q2_viewer *viewer, const struct q2_map *map);

/* What is at guest offset `guest`, below the end of what software would read. */
struct q2_view q2_viewer_look(struct q2_viewer *viewer, uint64_t guest);

/* The L2 table that maps guest offset `guest`, host, bytes; 0: none that can be read. */
uint64_t q2_viewer_table(struct q2_viewer *viewer, uint64_t guest);

/* The largest length that q2_viewer_fetch takes, bytes. */
uint64_t q2_viewer_most(const struct q2_viewer *viewer);

/* Read `length` bytes that a view has to viewer->bytes; false where that is not possible. */
bool q2_viewer_fetch(struct q2_viewer *viewer, const struct q2_view *view, uint64_t length);

/* ---- what applied actions name: prove_names.c ---- */

struct q2_proof_names {
    struct q2_proof *proof;
    uint32_t map; /* of the repaired image */
    bool loaded;
    struct q2_proof_ranges ranges[Q2_CHANGE_COUNT]; /* guest, bytes, of this map */
    struct q2_proof_ranges known;                   /* structures of the image as it was */
    uint64_t table; /* the table judged last, host, bytes; 0: none */
    bool is_table;  /* and what came of that */
};

void q2_proof_names_init(struct q2_proof_names *names, struct q2_proof *proof);
void q2_proof_names_destroy(struct q2_proof_names *names);

/* Ask about this map of the repaired image from now on. */
void q2_proof_names_choose(struct q2_proof_names *names, uint32_t map);

/* Whether what was `from` in [*guest, *end) may read otherwise; `before` is what it was seen
 * through. If so, 1; if not, 0, and the range becomes the first part of it that may not. */
int q2_proof_names_allow(struct q2_proof_names *names, struct q2_viewer *before,
                         const struct q2_view *from, uint64_t *guest, uint64_t *end,
                         struct q2_error *err);

/* Whether nothing in [*guest, *end) is called lost, which reads as zeros and as nothing else. If
 * so, 1; if not, 0, and the range becomes the first part that is. */
int q2_proof_names_spare(struct q2_proof_names *names, uint64_t *guest, uint64_t *end,
                         struct q2_error *err);

#endif
