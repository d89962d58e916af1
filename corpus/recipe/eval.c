/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "corpus/recipe/build.h"

#include "core/base/checked.h"
#include "corpus/recipe/field.h"

#include <string.h>

/* Names that are numbers. Those of extensions stand where an index does: extension[bitmaps]. */
static int
eval_name(struct recipe_build *build, const struct recipe_field_name *field, uint64_t *ret_value)
{
    static const struct {
        const char *name;
        uint32_t value;
    } constants[] = {
        {"bitmaps", Q2_EXTENSION_BITMAPS},
        {"crypto", Q2_EXTENSION_CRYPTO},
        {"data_file", Q2_EXTENSION_DATA_FILE},
        {"features", Q2_EXTENSION_FEATURES},
        {"backing_format", Q2_EXTENSION_BACKING_FORMAT},
    };
    for (size_t i = 0; i < sizeof constants / sizeof constants[0]; i++)
        if (strcmp(constants[i].name, field->key) == 0) {
            *ret_value = constants[i].value;
            return 0;
        }
    bool size = strcmp(field->key, "file.size") == 0;
    if (strcmp(field->key, "cluster_size") == 0 && build->stage != STAGE_SETTINGS) {
        *ret_value = build->geometry.cluster_size;
        return 0;
    }
    if (build->stage != STAGE_BUILT)
        return recipe_fail(build, "fields have values only after the content: '%s'", field->key);
    if (size || strcmp(field->key, "file.clusters") == 0) {
        uint64_t bytes = 0;
        int rc = q2_file_size(build->image, &bytes, build->err);
        if (rc == 0)
            *ret_value = size ? bytes : q2_units(bytes, build->geometry.cluster_bits);
        return rc;
    }
    return recipe_field_get(build, field, ret_value);
}

static int
eval_binary(struct recipe_build *build, const struct recipe_expr *expr, uint64_t *ret_value)
{
    uint64_t left = 0, right = 0;
    int rc = recipe_eval(build, expr->left, &left);
    rc = rc ? rc : recipe_eval(build, expr->right, &right);
    if (rc)
        return rc;
    build->at = expr->at;
    if (expr->sign == '/' && right == 0)
        return recipe_fail(build, "division by zero");
    if ((expr->sign == '<' || expr->sign == '>') && right > 63)
        return recipe_fail(build, "a shift by more than 63 bits");
    *ret_value = expr->sign == '|'   ? left | right
                 : expr->sign == '^' ? left ^ right
                 : expr->sign == '&' ? left & right
                 : expr->sign == '<' ? left << right
                 : expr->sign == '>' ? left >> right
                 : expr->sign == '+' ? left + right
                 : expr->sign == '-' ? left - right
                 : expr->sign == '*' ? left * right
                                     : left / right;
    return 0;
}

int
recipe_eval(struct recipe_build *build, const struct recipe_expr *expr, uint64_t *ret_value)
{
    uint64_t right = 0;
    struct recipe_place place = {0};
    int rc;
    build->at = expr->at;
    switch (expr->kind) {
    case EXPR_NUMBER:
        *ret_value = expr->number;
        return 0;
    case EXPR_FIELD:
        return eval_name(build, &expr->field, ret_value);
    case EXPR_OFFSET_OF:
        if (build->stage != STAGE_BUILT)
            return recipe_fail(build, "offset() is known only after the content");
        rc = recipe_field_find(build, &expr->field, &place);
        if (rc == 0)
            *ret_value = place.offset;
        return rc;
    case EXPR_UNARY:
        rc = recipe_eval(build, expr->right, &right);
        if (rc == 0)
            *ret_value = expr->sign == '~' ? ~right : -right;
        return rc;
    default:
        return eval_binary(build, expr, ret_value);
    }
}

int
recipe_number(struct recipe_build *build, const struct recipe_clause *clause, unsigned argument,
              uint64_t *ret_value)
{
    int rc = recipe_eval(build, clause->arguments[argument].number, ret_value);
    if (rc == 0)
        build->at = clause->at;
    return rc;
}
