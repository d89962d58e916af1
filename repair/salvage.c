/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Not there yet. */

#include "repair/salvage.h"

const char *
q2_salvage_state_id(enum q2_salvage_state state)
{
    static const char *const ids[] = {"certain", "likely", "guess", "lost"};
    return (unsigned)state < Q2_SALVAGE_STATE_COUNT ? ids[state] : "unknown";
}

int
q2_salvage_run(struct q2_file *file, const char *out, const struct q2_salvage_options *options,
               struct q2_salvage_result *ret_result, struct q2_error *err)
{
    (void)out;
    (void)options;
    (void)ret_result;
    return q2_error_set(err, Q2_ERR_UNSUPPORTED, "%s: salvage is not built in", file->name);
}

int
q2_salvage_read_map(const char *path, void (*map)(void *data, const struct q2_salvage_map *map),
                    void (*range)(void *data, const struct q2_salvage_range *range), void *data,
                    struct q2_error *err)
{
    (void)map;
    (void)range;
    (void)data;
    return q2_error_set(err, Q2_ERR_UNSUPPORTED, "%s: salvage is not built in", path);
}
