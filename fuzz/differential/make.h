/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The images: what recipes or the stress model make, changed by the mutator. */

#ifndef Q2_FUZZ_DIFFERENTIAL_MAKE_H
#define Q2_FUZZ_DIFFERENTIAL_MAKE_H

#include "fuzz/mutate/mutate.h"

enum { IMAGE_MAX = 512 * 1024, MAX_COMPANIONS = 4 };

/* A file that a recipe makes beside the image. */
struct companion {
    char *name;
    uint8_t *bytes;
    size_t length;
};

struct base {
    char *name;   /* of a recipe's file, or of a sequence */
    char *script; /* what makes it */
    uint8_t *bytes;
    size_t length;
    struct companion companions[MAX_COMPANIONS];
    unsigned companion_count;
};

struct bases {
    struct base *bases;
    size_t count;
};

/* Build the recipes in a file or folder. What is larger than IMAGE_MAX is left out. */
void bases_add(struct bases *bases, const char *path);
void bases_destroy(struct bases *bases);
void base_destroy(struct base *base);
/* The image that a sequence of that number leaves. False: it is too large. */
bool base_from_model(uint64_t seed, struct base *ret_base);

/* An image: the bytes of a base with changes. */
struct made {
    const struct base *base;
    struct base own; /* that it is where there is no other such image */
    uint8_t *bytes;  /* IMAGE_MAX */
    size_t length;
};

/* The image of that number; the same for the same bases and seed. */
void made_init(struct made *made, const struct bases *bases, uint64_t seed);
void made_destroy(struct made *made);

/* Write it, and what belongs beside it, into the current folder. */
void made_write(const struct made *made, const char *name);

/* Print it as a recipe: the base's, and the bytes that are not as that makes them. */
void made_print(const struct made *made);

/* Make the image more like its base for as long as `fails` says so. */
void made_shrink(struct made *made, bool (*fails)(const struct made *made, void *data), void *data);

#endif
