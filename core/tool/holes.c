/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Clusters that are allocated, where the file has a hole. */

#include "core/tool/holes.h"

#include "core/io/file.h"

/* Whether more clusters seem to be allocated than the file occupies. QEMU looks for holes below the
 * clusters of such images only, and counts as generously. */
static bool
is_preallocated(struct q2_image *image)
{
    uint64_t size, occupied, cluster_size = q2_image_geometry(image)->cluster_size;
    if (q2_file_size(q2_image_file(image), &size, NULL) < 0 ||
        q2_file_allocated(q2_image_file(image), &occupied, NULL) < 0)
        return false;
    occupied /= cluster_size;
    uint64_t enough = occupied * 9 / 8 > occupied + 2 ? occupied * 9 / 8 : occupied + 2;
    return size / cluster_size > enough;
}

/* Cut the extent where its file ends; what is behind the end reads as zeros. */
static bool
look_for_end(struct q2_extent *extent, struct q2_file *file, uint64_t *ret_size)
{
    uint64_t size;
    if (q2_file_size(file, &size, NULL) < 0)
        return false;
    if (extent->host >= size)
        extent->zero = true;
    else if (extent->length > size - extent->host)
        extent->length = size - extent->host;
    *ret_size = size;
    return extent->host < size;
}

void
tool_look_for_holes(struct q2_disk *disk, struct q2_extent *extent)
{
    uint64_t size, end;
    bool data;
    if (!extent->data || extent->zero || !extent->has_host)
        return;
    for (unsigned i = 0; disk && i < extent->depth; i++)
        disk = q2_disk_backing(disk);
    struct q2_image *image = disk ? q2_disk_image(disk) : NULL;
    if (disk && !image) {
        /* A raw file need not end with a sector. */
        extent->data = look_for_end(extent, q2_disk_file(disk), &size);
    } else if (image && is_preallocated(image) &&
               look_for_end(extent, q2_image_data(image), &size) &&
               q2_file_extent(q2_image_data(image), extent->host, &data, &end, NULL) == 0) {
        extent->zero = !data;
        if (end - extent->host < extent->length)
            extent->length = end - extent->host;
    }
}
