/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The images that are measured. They are made when first asked for and then kept in a folder. */

#ifndef Q2_BENCH_IMAGES_H
#define Q2_BENCH_IMAGES_H

enum image {
    IMAGE_LARGE,          /* 1 TiB, 64 KiB clusters, all allocated */
    IMAGE_SMALL_CLUSTERS, /* 64 GiB, 4 KiB clusters, all allocated */
    IMAGE_SNAPSHOT_1,     /* IMAGE_LARGE with 1 internal snapshot */
    IMAGE_SNAPSHOTS_5,
    IMAGE_SNAPSHOTS_20,
    IMAGE_DAMAGED,           /* IMAGE_LARGE with damage in one stretch */
    IMAGE_DAMAGED_SCATTERED, /* the same amount all over it */
    IMAGE_COUNT,
};

enum { IMAGE_PATH_SIZE = 4096 };

struct images {
    const char *folder;
    const char *peer;                         /* qemu-img, which makes the healthy ones */
    char paths[IMAGE_COUNT][IMAGE_PATH_SIZE]; /* of those asked for */
};

/* The path of an image, which exists from now on. NULL, with a message printed, if it could not be
 * made. */
const char *image_path(struct images *images, enum image image);

#endif
