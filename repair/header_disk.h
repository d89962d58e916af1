/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the guest's own disk says of its size. The guest writes it down when it partitions the disk:
 * the header of a GPT names the last sector, and no partition ends behind the disk. */

#ifndef Q2_REPAIR_HEADER_DISK_H
#define Q2_REPAIR_HEADER_DISK_H

#include "core/format/header.h"
#include "core/io/file.h"

struct q2_disk_evidence {
    uint64_t exact; /* bytes, by a GPT; 0: there is none */
    uint64_t least; /* bytes: where the last partition ends; 0: there are none */
};

/* Read the first sectors of the disk that `header` leads to in `file`. What cannot be read, or is
 * encrypted, says nothing. */
void q2_disk_evidence(struct q2_file *file, const struct q2_header *header,
                      struct q2_disk_evidence *ret_evidence);

#endif
