/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the files of the salvage share. The road of a byte: tables of a map (salvage_tables.c) say
 * what is where; pieces of it are read, as far as they can be (salvage_read.c), and written
 * (salvage_copy.c) to a raw file or an image (salvage_target.c); what is to be thought of it
 * (salvage_trust.c) goes to the map file (salvage_log.c). */

#ifndef Q2_REPAIR_SALVAGE_PARTS_H
#define Q2_REPAIR_SALVAGE_PARTS_H

#include "checker/scan.h"
#include "core/base/flow.h"
#include "core/codec/codec.h"
#include "core/format/entry.h"
#include "core/format/snapshot.h"
#include "core/image/create.h"
#include "repair/repair.h"
#include "repair/salvage.h"

#include <stdatomic.h>

struct q2_cipher;

enum {
    SALVAGE_SECTOR = 512, /* bytes: the least that is given up */
    SALVAGE_PIECE = 1 << 20,
    SALVAGE_PIECE_RUNS = 4096,
};

/* ---- the source (salvage_source.c) ---- */

/* What is known of one map. */
struct salvage_map {
    const struct q2_map *table; /* where its L1 table is */
    const char *lost;           /* why nothing of it can be written, static; NULL: something can */
    uint64_t disk_size;         /* bytes */
    uint64_t vm_start;          /* guest offset of the VM state, bytes */
    uint64_t vm_state_size;     /* bytes */
    struct q2_snapshot fixed;   /* of a snapshot */
    bool has_icount;
    uint64_t icount;
    char *id; /* as in the image; NULL: the active disk */
    char *name;
};

struct salvage_source {
    struct q2_file *image;  /* as it was given */
    struct q2_file *file;   /* with the repair, if there is one */
    struct q2_file *data;   /* of the guest's clusters: `file`, or the data file */
    struct q2_file *opened; /* the data file, to be closed */
    uint64_t data_size;     /* bytes */
    struct q2_check *check;
    struct q2_geometry geometry;
    struct q2_repair *repair; /* owns `check`, unless `own_check` does */
    struct q2_check *own_check;
    struct q2_cipher *cipher; /* NULL: not encrypted */
    struct q2_disk *backing;  /* NULL: none, not wanted, or missing */
    bool backing_missing;
    char *backing_name; /* as it is stored; NULL: none */
    char *backing_format;
    char *backing_path; /* where it should be; NULL: not known */
    struct salvage_map *maps;
    uint32_t map_count;
    bool orphans;         /* there are L2 tables to which nothing leads */
    _Atomic bool any_bad; /* something that the tables lead to could not be read */
};

int q2_salvage_source_open(struct salvage_source *source, struct q2_file *image,
                           const struct q2_salvage_options *options, struct q2_error *err);
void q2_salvage_source_close(struct salvage_source *source);

/* The other files: data file, backing file, key (salvage_others.c). */
int q2_salvage_open_others(struct salvage_source *source, const struct q2_salvage_options *options,
                           struct q2_error *err);

/* ---- tables (salvage_tables.c) ---- */

enum salvage_kind {
    SALVAGE_NOTHING, /* left to the backing file */
    SALVAGE_ZERO,
    SALVAGE_DATA,
    SALVAGE_PACKED,  /* one compressed cluster, or what the disk has of it */
    SALVAGE_BACKING, /* data of the backing file */
    SALVAGE_GONE,
};

/* A stretch of guest bytes that are alike. */
struct salvage_run {
    enum salvage_kind kind;
    bool same;       /* as the state before has it, so that nothing is to be written */
    uint64_t offset; /* guest, bytes */
    uint64_t length; /* bytes */
    uint64_t host;   /* of DATA, bytes */
    struct q2_compressed_range packed;
    enum q2_salvage_state state;
    const char *why; /* static */
};

/* A table that is read as far as it can be. */
struct salvage_table {
    uint64_t offset; /* bytes; UINT64_MAX: none is loaded */
    uint64_t length; /* bytes */
    uint8_t *bytes;
    uint64_t *bad; /* a bit for each sector that could not be read */
    uint64_t end;  /* bytes of it that the file has */
    bool any_bad;
};

struct salvage_tables {
    struct salvage_source *source;
    const struct salvage_map *map;
    struct salvage_table l1; /* a part of it */
    struct salvage_table l2;
    uint64_t extent_start, extent_end; /* of the file of the guest's clusters, known, bytes */
    bool extent_data;
};

int q2_salvage_tables_init(struct salvage_tables *tables, struct salvage_source *source,
                           const struct salvage_map *map, struct q2_error *err);
void q2_salvage_tables_destroy(struct salvage_tables *tables);

/* The run at guest offset `guest`, below `end`. It ends at the end of an L2 table at the latest. */
void q2_salvage_tables_run(struct salvage_tables *tables, uint64_t guest, uint64_t end,
                           struct salvage_run *ret_run);

/* Whether the cluster at `guest` is mapped alike by both, and where the stretch of clusters for
 * which that is so, or not so, ends; below `end`. */
bool q2_salvage_tables_same(struct salvage_tables *tables, struct salvage_tables *before,
                            uint64_t guest, uint64_t end, uint64_t *ret_end);

/* ---- reading (salvage_read.c) ---- */

/* What could not be read, within a piece. */
struct salvage_loss {
    uint64_t offset; /* guest, bytes */
    uint64_t length;
    enum q2_salvage_state state;
    const char *why; /* static */
};

struct salvage_worker {
    uint8_t *buffer; /* a piece */
    uint8_t *kinds;  /* of each block of the piece; see salvage_copy.c */
    uint8_t *packed; /* bytes of a compressed cluster */
    struct q2_decoder *decoder;
    struct salvage_loss *losses;
    size_t loss_count, loss_capacity;
    bool failed; /* no memory for a loss */
};

int q2_salvage_worker_init(struct salvage_worker *worker, const struct salvage_source *source,
                           uint64_t piece, struct q2_error *err);
void q2_salvage_worker_destroy(struct salvage_worker *worker);

/* Read what a run has into `buffer`, zeros where that is not possible, and note that. */
void q2_salvage_read_run(struct salvage_source *source, struct salvage_worker *worker,
                         const struct salvage_run *run, uint8_t *buffer);

/* Read `length` bytes at `offset`, sector by sector where more cannot be read; `lost` is called for
 * each stretch of sectors that cannot, which are zeros then. Zeros past the end of the file. */
void q2_salvage_read_lenient(struct q2_file *file, uint64_t offset, uint8_t *buffer, size_t length,
                             void (*lost)(void *data, uint64_t offset, uint64_t length),
                             void *data);

/* ---- trust (salvage_trust.c) ---- */

/* What the repair did to guest ranges, and what is still wrong with them. */
struct salvage_trust {
    struct salvage_view *views; /* ascending, never overlapping */
    uint64_t count, capacity;
};

struct salvage_view {
    uint32_t map;
    uint64_t start, end; /* guest, bytes */
    enum q2_salvage_state state;
    const char *why; /* the plan's, or static */
};

int q2_salvage_trust_init(struct salvage_trust *trust, const struct salvage_source *source,
                          struct q2_error *err);
void q2_salvage_trust_destroy(struct salvage_trust *trust);

/* What is to be thought of `guest`, and up to where. */
enum q2_salvage_state q2_salvage_trust_at(const struct salvage_trust *trust, uint32_t map,
                                          uint64_t guest, const char **ret_why, uint64_t *ret_end);

/* ---- the map file (salvage_log.c) ---- */

struct salvage_log {
    struct q2_file *file;
    uint64_t length; /* bytes of whole lines */
    char *buffer;
    size_t used;
    uint64_t bytes[Q2_SALVAGE_STATE_COUNT];
    struct q2_salvage_range last; /* not written yet; length 0: none */
    char why[512];                /* of that */
};

/* Make or, with `resume`, go on with a map file, which is cut to `length` then. */
int q2_salvage_log_open(struct salvage_log *log, const char *path, bool resume, uint64_t length,
                        struct q2_error *err);
int q2_salvage_log_map(struct salvage_log *log, const struct q2_salvage_map *map,
                       struct q2_error *err);
/* Neighbours that are alike become one. */
int q2_salvage_log_range(struct salvage_log *log, const struct q2_salvage_range *range,
                         struct q2_error *err);
/* Write what is whole, durably. */
int q2_salvage_log_flush(struct salvage_log *log, struct q2_error *err);
/* Write the last range too. */
int q2_salvage_log_finish(struct salvage_log *log, struct q2_error *err);
void q2_salvage_log_close(struct salvage_log *log);

/* ---- where it is (salvage_place.c) ---- */

/* What an interrupted salvage leaves in OUT.qcow2kit-salvage. */
struct salvage_place {
    char identity[65]; /* of the image, the repair and what matters of the options */
    uint64_t step;     /* see salvage.c */
    uint64_t offset;   /* within it, bytes */
    bool any_bad;
    uint64_t log_length;
    uint64_t bytes[Q2_SALVAGE_STATE_COUNT];
    struct q2_salvage_range last;
    char why[512];
};

/* *ret_found is false where there is none. Q2_ERR_FORMAT for what is none. */
int q2_salvage_place_load(const char *path, struct salvage_place *ret_place, bool *ret_found,
                          struct q2_error *err);
int q2_salvage_place_save(const char *path, const struct salvage_place *place,
                          struct q2_error *err);

/* ---- targets (salvage_target.c) ---- */

struct salvage_target {
    bool blank;             /* raw: what is not written reads as zeros */
    bool keep;              /* qcow2: what is not allocated is left to the backing file */
    uint64_t grain;         /* bytes in which zeros are looked for */
    struct q2_file *file;   /* raw */
    struct q2_image *image; /* qcow2 */
    bool vm_state;          /* of the image: where writes go */
    uint64_t vm_length;     /* bytes of that */
};

/* Make a raw file of `size` bytes, or go on with it. */
int q2_salvage_target_open_raw(struct salvage_target *target, const char *path, uint64_t size,
                               bool resume, struct q2_error *err);
/* Make an image, or go on with it. */
int q2_salvage_target_open_image(struct salvage_target *target, const char *path,
                                 const struct q2_create_options *create, bool resume,
                                 struct q2_error *err);
/* What the disk of an image can have, for one of `size` bytes. */
static inline uint64_t
salvage_image_size(uint64_t size)
{
    return (size + SALVAGE_SECTOR - 1) & ~(uint64_t)(SALVAGE_SECTOR - 1);
}

int q2_salvage_target_write(struct salvage_target *target, uint64_t offset, const void *bytes,
                            size_t length, struct q2_error *err);
int q2_salvage_target_zero(struct salvage_target *target, uint64_t offset, uint64_t length,
                           struct q2_error *err);
int q2_salvage_target_uncover(struct salvage_target *target, uint64_t offset, uint64_t length,
                              struct q2_error *err);
int q2_salvage_target_flush(struct salvage_target *target, struct q2_error *err);
int q2_salvage_target_close(struct salvage_target *target, struct q2_error *err);

/* ---- copying (salvage_copy.c) ---- */

/* One map's disk or VM state. */
struct salvage_copy {
    struct salvage_source *source;
    struct salvage_target *target;
    const struct salvage_trust *trust;
    struct salvage_log *log;
    const struct q2_salvage_options *options;
    uint32_t map;
    bool vm_state;
    const struct salvage_map *before; /* the state that the target has; NULL: nothing */
    uint64_t base;                    /* guest offset of what is copied, bytes */
    uint64_t start;                   /* where to go on, bytes from `base` */
    uint64_t length;                  /* bytes */
    /* Called with how far it is, now and then; all up to there has been written. */
    int (*reached)(void *data, uint64_t offset, struct q2_error *err);
    void *reached_data;
    struct q2_salvage_progress progress; /* at the start */
};

int q2_salvage_copy_run(const struct salvage_copy *copy, struct q2_error *err);

/* ---- the whole (salvage.c, q2_salvage_steps.c) ---- */

/* Maps are written in an order, two steps each: the disk, then the VM state. */
struct salvage {
    const struct q2_salvage_options *options;
    const char *out;
    struct salvage_source source;
    struct salvage_trust trust;
    struct salvage_log log;
    struct salvage_target target;
    char *map_path, *place_path;
    char identity[65];
    bool is_image;             /* the output is a qcow2 image */
    bool empty_base;           /* its first snapshot is one of nothing, while it is being made */
    struct salvage_place from; /* where to go on */
    bool resumed;
    uint64_t step;        /* under way */
    uint64_t done, total; /* bytes, for the progress */
};

/* The map that comes at `turn`. */
uint32_t q2_salvage_map_at(const struct salvage *salvage, uint32_t turn);

/* Where a map is written to, malloc'ed; NULL for lack of memory (salvage_names.c). */
char *q2_salvage_output_name(const struct salvage *salvage, uint32_t map, bool vm_state);
/* The name by which the output has the backing file; the same. */
char *q2_salvage_backing_name(const struct salvage *salvage);
/* Whether two paths lead to one file. */
bool q2_salvage_same_file(const char *path, const char *other);

/* Record that all before `offset` of the step under way has been written, durably. */
int q2_salvage_reached(struct salvage *salvage, uint64_t offset, struct q2_error *err);

/* Do all steps from where to go on. */
int q2_salvage_steps(struct salvage *salvage, struct q2_error *err);

#endif
