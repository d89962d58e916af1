/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "corpus/recipe/syntax.h"

#include "corpus/recipe/recipe.h"

#include <stdio.h>
#include <stdlib.h>

int
recipe_error(struct q2_error *err, enum q2_error_code code, const char *name,
             struct recipe_position at, const char *format, ...)
{
    char message[Q2_ERROR_MESSAGE_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    return q2_error_set(err, code, "%s:%u:%u: %s", name, at.line, at.column, message);
}

static void
field_name_fini(struct recipe_field_name *field)
{
    for (unsigned i = 0; i < field->count; i++)
        recipe_expr_free(field->indexes[i]);
}

void
recipe_expr_free(struct recipe_expr *expr)
{
    if (!expr)
        return;
    recipe_expr_free(expr->left);
    recipe_expr_free(expr->right);
    field_name_fini(&expr->field);
    free(expr);
}

const struct recipe_clause *
recipe_statement_clause(const struct recipe_statement *statement, enum recipe_word word)
{
    for (size_t i = 0; i < statement->count; i++)
        if (statement->clauses[i].grammar->word == word)
            return &statement->clauses[i];
    return NULL;
}

static void
clause_fini(struct recipe_clause *clause)
{
    for (unsigned i = 0; i < RECIPE_MAX_ARGUMENTS; i++) {
        recipe_expr_free(clause->arguments[i].number);
        free(clause->arguments[i].text);
        free(clause->arguments[i].pattern.literal);
    }
}

void
q2_recipe_free(struct q2_recipe *recipe)
{
    if (!recipe)
        return;
    for (size_t i = 0; i < recipe->count; i++) {
        struct recipe_statement *statement = &recipe->statements[i];
        for (size_t j = 0; j < statement->count; j++)
            clause_fini(&statement->clauses[j]);
        free(statement->clauses);
        field_name_fini(&statement->target);
    }
    free(recipe->statements);
    free(recipe->name);
    free(recipe);
}
