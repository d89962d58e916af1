/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Salvage: everything that can be read of an image, written to a new one, with a map that says of
 * every guest range whether it is certain, guessed or lost.
 *
 * The image is only read. A repair is planned at the level of guesses (repair.h), so that all that
 * can be found is connected; what is read then goes entry by entry, and what cannot be read is
 * marked and passed over. Memory is bounded, whatever the size of the disk. An interrupted salvage
 * goes on where it was: OUT.qcow2kit-salvage remembers that until the end. */

#ifndef Q2_REPAIR_SALVAGE_H
#define Q2_REPAIR_SALVAGE_H

#include "checker/check.h"
#include "core/image/disk.h"

/* How far the bytes of a range can be trusted; each is worse than the one before. */
enum q2_salvage_state {
    Q2_SALVAGE_CERTAIN,
    Q2_SALVAGE_LIKELY,
    Q2_SALVAGE_GUESS,
    Q2_SALVAGE_LOST, /* reads as zeros in what is written */
    Q2_SALVAGE_STATE_COUNT,
};
const char *q2_salvage_state_id(enum q2_salvage_state state); /* "certain", "likely", ... */

/* A range of the map. */
struct q2_salvage_range {
    uint32_t map;    /* 0: the active disk, i + 1: snapshot i of the image as it is salvaged */
    uint64_t offset; /* guest, bytes; of VM state: from the start of that */
    uint64_t length; /* bytes */
    bool vm_state;
    enum q2_salvage_state state;
    const char *why; /* a sentence without full stop; empty where it is certain */
};

struct q2_salvage_progress {
    const char *phase; /* a few words, static: "check", "disk", "snapshot" */
    const char *name;  /* of the snapshot, printable; NULL: none */
    uint64_t done;     /* bytes of all that is to be written, holes included */
    uint64_t total;    /* bytes; 0: unknown */
};

/* All zero: a raw image, flat. */
struct q2_salvage_options {
    enum q2_disk_format format; /* Q2_DISK_PROBE counts as raw */
    /* Leave what is not allocated to the same backing file; qcow2 only. Otherwise it is read. */
    bool keep_backing;
    bool overwrite;           /* what is at the output's place, if no salvage was interrupted */
    bool restart;             /* forget an interrupted salvage */
    const char *map_file;     /* NULL: OUT.map.json */
    const char *data_file;    /* instead of the name in the image; as q2_image_options */
    const char *backing_file; /* the same */
    /* Open no file that only the image names, which could be any: the backing file counts as
     * missing then, unless all of it is left to it. */
    bool given_names_only;
    /* Of an encrypted image. A qcow2 output is encrypted by the same method with the same pass
     * phrase, a raw one is not encrypted. */
    const struct q2_secret *secret;
    bool force_share;          /* for the other files of the image */
    uint64_t max_memory;       /* bytes, for the plan; 0: derived from the size of the file */
    uint32_t max_snapshots;    /* that are written, the rest counting as lost; 0: 4096 */
    unsigned threads;          /* 0: as many as are useful */
    uint64_t now;              /* seconds since the Epoch; 0: unknown */
    uint64_t checkpoint_bytes; /* written between two records of where it is; 0: by time */
    /* Asked now and then; true ends the salvage with Q2_ERR_STOPPED, to be continued. */
    bool (*stop)(void *data);
    void *stop_data;
    void (*progress)(void *data, const struct q2_salvage_progress *progress); /* may be NULL */
    void *progress_data;
};

struct q2_salvage_result {
    bool resumed;
    uint64_t maps;                          /* the active disk and snapshots that were written */
    uint64_t maps_lost;                     /* snapshots of which nothing could be written */
    uint64_t bytes[Q2_SALVAGE_STATE_COUNT]; /* of all maps, VM state included */
    bool backing_missing;                   /* what it held is lost, or left to it */
};

/* Salvage the image in `file` to `out`: a qcow2 image with all snapshots; or a raw one, with one
 * more for each snapshot, called OUT.ID.raw, and OUT.ID.vmstate where that has VM state. `file`
 * must not change meanwhile.
 *
 * Fails where nothing can be done: Q2_ERR_NOT_QCOW2; Q2_ERR_FORMAT, if the geometry cannot be
 * found; Q2_ERR_PASSPHRASE; Q2_ERR_EXISTS without `overwrite`; if the output cannot be written.
 * What cannot be read is no failure. After a failure to write, the next call goes on if the state
 * file is there. */
int q2_salvage_run(struct q2_file *file, const char *out, const struct q2_salvage_options *options,
                   struct q2_salvage_result *ret_result, struct q2_error *err);

/* What the map file says of what it is about. */
struct q2_salvage_map {
    uint32_t map;
    const char *output;        /* the file it was written to; NULL: none */
    const char *snapshot_id;   /* printable; NULL: the active disk */
    const char *snapshot_name; /* printable; NULL: the active disk */
    uint64_t disk_size;        /* bytes */
    uint64_t vm_state_size;    /* bytes */
};

/* Read a map file, in order: first all maps, then ranges, those next to each other being different.
 * Either function may be NULL. Texts live during the call. */
int q2_salvage_read_map(const char *path, void (*map)(void *data, const struct q2_salvage_map *map),
                        void (*range)(void *data, const struct q2_salvage_range *range), void *data,
                        struct q2_error *err);

#endif
