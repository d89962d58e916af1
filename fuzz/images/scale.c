/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A recipe for clusters of 64K, made one for small clusters.
 *
 * What recipes say about clusters they say in numbers with units: 64K is one cluster, 512M what an
 * L2 table maps. Divided by the same factor, the numbers mean the same in small clusters; or
 * almost, as an L2 table maps less than its share. `tables` divides whole multiples of what a table
 * maps by the square of the factor instead. Whether the damage still is what it was, the check
 * tells. */

#include "fuzz/images/seeds.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { USUAL_BITS = 16 };

static const uint64_t usual_reach = UINT64_C(512) << 20;

uint64_t
seed_scaled(uint64_t value, const struct seed_scale *scale)
{
    unsigned less = USUAL_BITS - (scale->cluster_bits ? scale->cluster_bits : USUAL_BITS);
    if (!scale->tables)
        return value >> less;
    return (value / usual_reach * (usual_reach >> 2 * less)) + (value % usual_reach >> less);
}

/* What a letter multiplies by; 0: it is no unit. */
static uint64_t
unit(char letter)
{
    static const char units[] = "KMGTPE";
    const char *found = letter ? strchr(units, letter) : NULL;
    return found ? UINT64_C(1) << (10 * (found - units + 1)) : 0;
}

/* Copy a number, scaled if it has a unit. Returns where it ends. */
static const char *
copy_number(FILE *to, const char *at, const struct seed_scale *scale)
{
    char *end;
    uint64_t value = strtoull(at, &end, 0);
    uint64_t times = unit(*end);
    if (times && !isalnum((unsigned char)end[1])) {
        fprintf(to, "%" PRIu64, seed_scaled(value * times, scale));
        return end + 1;
    }
    while (isalnum((unsigned char)*end))
        end++;
    fwrite(at, 1, (size_t)(end - at), to);
    return end;
}

static void
copy(FILE *to, const char *at, const struct seed_scale *scale)
{
    bool quoted = false, word = false;
    while (*at) {
        if (!quoted && *at == '#') {
            at += strcspn(at, "\n");
        } else if (!quoted && !word && isdigit((unsigned char)*at)) {
            at = copy_number(to, at, scale);
        } else {
            quoted ^= *at == '"';
            word = isalnum((unsigned char)*at) || *at == '_';
            fputc(*at++, to);
        }
    }
}

char *
seed_scale(const char *text, const struct seed_scale *scale)
{
    char *scaled_text = NULL;
    size_t length;
    if (scale->cluster_bits == 0)
        return strdup(text);
    if (strstr(text, "\ncluster-size "))
        return NULL;
    FILE *to = open_memstream(&scaled_text, &length);
    if (!to)
        return NULL;
    fprintf(to, "cluster-size %u\n", 1U << scale->cluster_bits);
    copy(to, text, scale);
    bool bad = ferror(to);
    if (fclose(to) != 0 || bad) {
        free(scaled_text);
        return NULL;
    }
    return scaled_text;
}
