/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What a guest sees of an image, by strict reading. */

#ifndef Q2_FUZZ_SUPPORT_GUEST_H
#define Q2_FUZZ_SUPPORT_GUEST_H

#include "core/image/image.h"

enum { Q2_FUZZ_PIECE = 4096 }; /* bytes */

/* Call `visit` for each piece of the disk that can be read; what cannot is passed over. Of long
 * holes, it gets the ends. Stops after some thousand pieces. */
void q2_fuzz_guest(struct q2_image *image,
                   void (*visit)(void *data, uint64_t offset, const uint8_t *bytes, size_t length),
                   void *data);

#endif
