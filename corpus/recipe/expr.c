/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Expressions: numbers, fields, and the operators of C on 64 bits, with C's precedence. */

#include "corpus/recipe/parse.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 50 };

static int
new_expr(struct recipe_parser *parser, enum recipe_expr_kind kind, struct recipe_expr **ret_expr)
{
    struct recipe_expr *expr = calloc(1, sizeof *expr);
    if (!expr)
        return q2_error_set(parser->err, Q2_ERR_NOMEM, "out of memory for an expression");
    expr->kind = kind;
    expr->at = parser->token.at;
    *ret_expr = expr;
    return 0;
}

/* ---- field names ---- */

static int
extend_key(struct recipe_parser *parser, struct recipe_field_name *field, const char *part)
{
    size_t used = strlen(field->key), more = strlen(part);
    if (used + more >= sizeof field->key)
        return recipe_parse_fail(parser, "the name of the field is too long");
    memcpy(field->key + used, part, more + 1);
    return 0;
}

static int
parse_index(struct recipe_parser *parser, struct recipe_field_name *field, char close)
{
    if (field->count == RECIPE_MAX_INDEXES)
        return recipe_parse_fail(parser, "no field has that many indexes");
    int rc = recipe_advance(parser);
    rc = rc ? rc : recipe_parse_expr(parser, &field->indexes[field->count]);
    if (rc)
        return rc;
    field->count++;
    if (!recipe_at_sign(parser, close))
        return recipe_parse_fail(parser, "expected '%c' after the index", close);
    rc = extend_key(parser, field, close == ']' ? "[]" : "()");
    return rc ? rc : recipe_advance(parser);
}

int
recipe_parse_field(struct recipe_parser *parser, const char *first, struct recipe_position at,
                   struct recipe_field_name *field)
{
    field->at = at;
    int rc = extend_key(parser, field, first);
    while (rc == 0 && parser->token.glued) {
        if (recipe_at_sign(parser, '[')) {
            rc = parse_index(parser, field, ']');
        } else if (recipe_at_sign(parser, '(')) {
            rc = parse_index(parser, field, ')');
        } else if (recipe_at_sign(parser, '.')) {
            rc = extend_key(parser, field, ".");
            rc = rc ? rc : recipe_advance(parser);
            if (rc == 0 && parser->token.kind != TOKEN_WORD)
                rc = recipe_parse_fail(parser, "expected the name of a field after '.'");
            rc = rc ? rc : extend_key(parser, field, parser->token.word);
            rc = rc ? rc : recipe_advance(parser);
        } else {
            break;
        }
    }
    return rc;
}

/* ---- operands ---- */

/* offset(FIELD): the argument is a name and not a value. */
static int
parse_offset_of(struct recipe_parser *parser, struct recipe_expr *expr)
{
    expr->kind = EXPR_OFFSET_OF;
    int rc = recipe_advance(parser);
    if (rc)
        return rc;
    if (parser->token.kind != TOKEN_WORD)
        return recipe_parse_fail(parser, "expected a field or structure inside offset()");
    char first[RECIPE_MAX_WORD];
    memcpy(first, parser->token.word, sizeof first);
    struct recipe_position at = parser->token.at;
    rc = recipe_advance(parser);
    rc = rc ? rc : recipe_parse_field(parser, first, at, &expr->field);
    if (rc == 0 && !recipe_at_sign(parser, ')'))
        rc = recipe_parse_fail(parser, "expected ')'");
    return rc ? rc : recipe_advance(parser);
}

static int
parse_word(struct recipe_parser *parser, struct recipe_expr *expr)
{
    char first[RECIPE_MAX_WORD];
    memcpy(first, parser->token.word, sizeof first);
    int rc = recipe_advance(parser);
    if (rc)
        return rc;
    if (strcmp(first, "offset") == 0 && recipe_at_sign(parser, '('))
        return parse_offset_of(parser, expr);
    return recipe_parse_field(parser, first, expr->at, &expr->field);
}

static int
parse_group(struct recipe_parser *parser, struct recipe_expr **ret_expr)
{
    int rc = recipe_advance(parser);
    rc = rc ? rc : recipe_parse_expr(parser, ret_expr);
    if (rc)
        return rc;
    if (!recipe_at_sign(parser, ')'))
        return recipe_parse_fail(parser, "expected ')'");
    return recipe_advance(parser);
}

/* On failure *ret_expr may hold a part, which the caller frees. */
static int
parse_operand(struct recipe_parser *parser, struct recipe_expr **ret_expr)
{
    int rc;
    if (recipe_at_sign(parser, '('))
        return parse_group(parser, ret_expr);
    if (recipe_at_sign(parser, '~') || recipe_at_sign(parser, '-')) {
        rc = new_expr(parser, EXPR_UNARY, ret_expr);
        if (rc)
            return rc;
        (*ret_expr)->sign = parser->token.sign;
        if (parser->depth++ > MAX_DEPTH)
            return recipe_parse_fail(parser, "the expression is nested too deeply");
        rc = recipe_advance(parser);
        rc = rc ? rc : parse_operand(parser, &(*ret_expr)->right);
        parser->depth--;
        return rc;
    }
    if (parser->token.kind == TOKEN_WORD) {
        rc = new_expr(parser, EXPR_FIELD, ret_expr);
        return rc ? rc : parse_word(parser, *ret_expr);
    }
    if (parser->token.kind != TOKEN_NUMBER)
        return recipe_parse_fail(parser, "expected a number or the name of a field");
    rc = new_expr(parser, EXPR_NUMBER, ret_expr);
    if (rc)
        return rc;
    (*ret_expr)->number = parser->token.number;
    return recipe_advance(parser);
}

/* ---- operators ---- */

static unsigned
precedence(const struct recipe_token *token)
{
    static const char signs[] = "|^&<>+-*/";
    static const uint8_t levels[] = {1, 2, 3, 4, 4, 5, 5, 6, 6};
    if (token->kind != TOKEN_SIGN || token->assigns)
        return 0;
    const char *found = strchr(signs, token->sign);
    return found ? levels[found - signs] : 0;
}

/* Parse operators that bind at least as tightly as `least`. */
static int
parse_binary(struct recipe_parser *parser, unsigned least, struct recipe_expr **ret_expr)
{
    int rc = parse_operand(parser, ret_expr);
    while (rc == 0 && precedence(&parser->token) >= least) {
        unsigned level = precedence(&parser->token);
        struct recipe_expr *binary = NULL;
        rc = new_expr(parser, EXPR_BINARY, &binary);
        if (rc)
            return rc;
        binary->sign = parser->token.sign;
        binary->left = *ret_expr;
        *ret_expr = binary;
        rc = recipe_advance(parser);
        rc = rc ? rc : parse_binary(parser, level + 1, &binary->right);
    }
    return rc;
}

int
recipe_parse_expr(struct recipe_parser *parser, struct recipe_expr **ret_expr)
{
    if (parser->depth > MAX_DEPTH)
        return recipe_parse_fail(parser, "the expression is nested too deeply");
    parser->depth++;
    struct recipe_expr *expr = NULL;
    int rc = parse_binary(parser, 1, &expr);
    parser->depth--;
    if (rc) {
        recipe_expr_free(expr);
        return rc;
    }
    *ret_expr = expr;
    return 0;
}
