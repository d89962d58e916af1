/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What an image is, for those who ask. */

#include "core/image/internal.h"

uint64_t
q2_image_size(const struct q2_image *image)
{
    return image->size;
}

const struct q2_header *
q2_image_header(const struct q2_image *image)
{
    return &image->header;
}

const struct q2_geometry *
q2_image_geometry(const struct q2_image *image)
{
    return &image->geometry;
}

const char *
q2_image_name(const struct q2_image *image)
{
    return image->file->name;
}

const char *
q2_image_backing_name(const struct q2_image *image)
{
    return image->area.backing_file;
}

const char *
q2_image_backing_format(const struct q2_image *image)
{
    return image->area.backing_format;
}

const char *
q2_image_data_name(const struct q2_image *image)
{
    return image->area.data_file;
}

struct q2_disk *
q2_image_backing(struct q2_image *image)
{
    return image->backing;
}

struct q2_file *
q2_image_file(struct q2_image *image)
{
    return image->file;
}

struct q2_file *
q2_image_data(struct q2_image *image)
{
    return image->data;
}

uint64_t
q2_image_cache_bytes(const struct q2_image *image)
{
    uint64_t bytes = q2_cache_max_bytes(image->l2_cache);
    return bytes + (image->refcount_cache ? q2_cache_max_bytes(image->refcount_cache) : 0);
}
