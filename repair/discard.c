/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/discard.h"

#include "checker/refcounts.h"
#include "core/base/checked.h"

struct freed {
    struct q2_scene *scene;
    struct q2_refcount_reader before, after;
};

static bool
was_freed(struct freed *freed, uint64_t cluster)
{
    return q2_scene_references(freed->scene, cluster) == 0 &&
           q2_refcount_of(&freed->after, cluster) == 0 &&
           q2_refcount_of(&freed->before, cluster) != 0;
}

static int
punch_all(struct freed *freed, struct q2_error *err)
{
    struct q2_scene *scene = freed->scene;
    const struct q2_geometry *geometry = &scene->check->geometry;
    uint64_t end = q2_min(geometry->file_clusters, scene->before->geometry.file_clusters);
    for (uint64_t cluster = 1, stop; cluster < end; cluster = stop) {
        stop = cluster + 1;
        if (!was_freed(freed, cluster))
            continue;
        while (stop < end && was_freed(freed, stop))
            stop++;
        int rc = q2_file_punch(scene->file, cluster << geometry->cluster_bits,
                               (stop - cluster) << geometry->cluster_bits, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int
q2_discard_freed(struct q2_scene *scene, struct q2_error *err)
{
    const struct q2_check *before = scene->before, *after = scene->check;
    /* Where refcounts could not be read as they are now, what was counted is not known. */
    if (!before || before == after || !(before->usable & Q2_USABLE_REFCOUNTS) ||
        before->geometry.cluster_bits != after->geometry.cluster_bits)
        return 0;
    struct freed freed = {.scene = scene};
    int rc = q2_refcount_reader_init(&freed.before, scene->before, err);
    if (rc < 0)
        return rc;
    rc = q2_refcount_reader_init(&freed.after, scene->check, err);
    if (rc == 0)
        rc = punch_all(&freed, err);
    if (rc == 0)
        q2_refcount_reader_destroy(&freed.after);
    q2_refcount_reader_destroy(&freed.before);
    return rc;
}
