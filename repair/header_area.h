/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The first cluster taken apart, to be put together again with other contents: header fields,
 * header extensions, backing file name.
 *
 * Whoever wants another set of extensions, or other fields, reads the area, changes it and writes
 * it back. What is not changed stays byte for byte: fields that are unknown here, extensions of
 * unknown types, and their order. */

#ifndef Q2_REPAIR_HEADER_AREA_H
#define Q2_REPAIR_HEADER_AREA_H

#include "core/format/extension.h"
#include "repair/scene.h"

/* An extension; `data` belongs to the area, or to whoever added it. */
struct q2_header_part {
    uint32_t type;
    uint32_t length; /* of the data, bytes */
    const uint8_t *data;
};

struct q2_header_area {
    struct q2_budget *budget;
    uint8_t *bytes;          /* the first cluster as it is */
    uint64_t length;         /* bytes: a cluster, or less where the file ends */
    struct q2_header header; /* may be changed, but for cluster_bits */
    unsigned usable;         /* enum q2_usable */
    struct q2_header_part *parts;
    uint32_t count, capacity;
    uint64_t parts_end; /* of what holds them, with the end marker, bytes */
    bool ended; /* the extensions end where they should; otherwise `parts` are those before that */
    /* The backing file's name. NULL: there is none, or where it should be is nothing; the fields
     * that locate it then are written as they are in `header`. */
    const uint8_t *backing;
    uint32_t backing_length;
};

/* Read the area as it is in the overlay now, which may be newer than the last check. Needs a header
 * with a cluster size; where header_length is no good, there are no parts. */
int q2_header_area_read(struct q2_scene *scene, struct q2_header_area *ret_area,
                        struct q2_error *err);
void q2_header_area_destroy(struct q2_header_area *area);

/* The first part of this type, or NULL. */
struct q2_header_part *q2_header_area_find(struct q2_header_area *area, uint32_t type);

/* Remove all parts of this type; returns how many there were. */
uint32_t q2_header_area_remove(struct q2_header_area *area, uint32_t type);
void q2_header_area_remove_at(struct q2_header_area *area, uint32_t index);

/* Append a part; `data` must live until the area is written. */
int q2_header_area_add(struct q2_header_area *area, uint32_t type, const uint8_t *data,
                       uint32_t length, struct q2_error *err);

/* Write the area to the overlay, within an action: the header's fields, the parts, an end marker,
 * and the backing file's name behind it, where there is one, with the fields that locate it.
 * Only bytes that differ are written. Q2_ERR_NOSPACE, and nothing is changed, where they do not
 * fit into the first cluster. */
int q2_header_area_write(struct q2_scene *scene, struct q2_header_area *area, struct q2_error *err);

/* Write only the header's fields, within an action. */
int q2_header_write(struct q2_scene *scene, const struct q2_header *header, struct q2_error *err);

#endif
