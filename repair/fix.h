/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What all fixes have in common: look at the scene's newest check, begin actions in its plan, edit
 * its overlay. A fix with nothing to do returns 0 at once. An error is one that ends the repair,
 * such as lack of memory; what cannot be mended is left as it is. */

#ifndef Q2_REPAIR_FIX_H
#define Q2_REPAIR_FIX_H

#include "repair/scene.h"

enum q2_stage {
    Q2_STAGE_HEADER, /* afterwards the check has a geometry, if anything can be done at all */
    Q2_STAGE_SNAPSHOTS,
    Q2_STAGE_TABLES,  /* L1 entries and the L2 tables behind them */
    Q2_STAGE_GARBLED, /* L2 tables that are none any more */
    Q2_STAGE_ENTRIES,
    Q2_STAGE_OVERLAPS,
    Q2_STAGE_BITMAPS,
    Q2_STAGE_REFCOUNTS,
    Q2_STAGE_COPIED,
    Q2_STAGE_FEATURES,
    Q2_STAGE_COUNT,
};

#define Q2_FIX(name, stage, level) int q2_fix_##name(struct q2_scene *scene, struct q2_error *err);
#include "repair/fixes.def"
#undef Q2_FIX

#endif
