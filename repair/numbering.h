/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the guest's data says of its own place: file systems and databases write the number of a
 * block into the block (XFS, Btrfs, GPT, InnoDB and others do). Where a word at a fixed place in
 * clusters grows evenly with the guest offset, within one L2 table after the other, its value tells
 * the slots of the tables too.
 *
 * What the numbers are is learnt from the image itself; nothing about any format is built in. A
 * disk within a file of the guest counts from elsewhere, so that this is never certain. */

#ifndef Q2_REPAIR_NUMBERING_H
#define Q2_REPAIR_NUMBERING_H

#include "repair/carve.h"

/* Learn how blocks are numbered, and note in each carved table the slot that its data names. */
int q2_number_tables(struct q2_carving *carving, struct q2_error *err);

#endif
