/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The healthy images, as users have them: QEMU's tools make them. */

#ifndef Q2_BENCH_RECOVERY_IMAGES_H
#define Q2_BENCH_RECOVERY_IMAGES_H

#include <stdbool.h>

#define IMAGE_SECRET "secret" /* the file with the pass phrase, in the folder of the images */

/* The name of the image at `index`; NULL past the last one. */
const char *image_name(unsigned index);

bool image_has_backing(const char *name);
bool image_is_encrypted(const char *name);

/* The options by which QEMU opens an image of that name as driver qcow2, behind "driver=qcow2,". */
const char *image_key_option(const char *name);

/* Make FOLDER/NAME.qcow2 and what it needs, unless it is there already. False, with a message
 * printed, if that fails. */
bool image_make(const char *folder, const char *name);

#endif
