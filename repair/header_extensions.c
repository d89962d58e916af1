/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/header_extensions.h"

int
q2_header_fix_extensions(struct q2_scene *scene, struct q2_error *err)
{
    (void)scene;
    (void)err;
    return 0;
}
