/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Header extensions, once the header itself is right; but for bitmaps and encryption, which have
 * fixes of their own. */

#ifndef Q2_REPAIR_HEADER_EXTENSIONS_H
#define Q2_REPAIR_HEADER_EXTENSIONS_H

#include "repair/scene.h"

int q2_header_fix_extensions(struct q2_scene *scene, struct q2_error *err);

#endif
