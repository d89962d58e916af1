/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Damage to the metadata of a sound image, in few numbers. */

#ifndef Q2_FUZZ_SUPPORT_DAMAGE_H
#define Q2_FUZZ_SUPPORT_DAMAGE_H

#include "core/io/file.h"

struct q2_damage {
    uint8_t kind;   /* where it is and what it does; any value has a meaning */
    uint32_t place; /* which of the words there are */
    uint32_t value; /* what it becomes, or which bits change */
};

/* Damage the image, which can be damaged before. What leads nowhere does nothing. */
void q2_damage_image(struct q2_file *file, const struct q2_damage *damage);

#endif
