/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Reading and matching rules. */

#include "fuzz/differential/rules.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS = 7 };

/* "# a-reason: words" at the beginning of a line explains a reason. */
static bool
is_explained(const char *text, const char *reason)
{
    char wanted[96];
    snprintf(wanted, sizeof wanted, "\n# %s:", reason);
    return strstr(text, wanted) != NULL;
}

static bool
is_right(const char *word)
{
    static const char *const words[] = {"ours", "theirs", "both", "neither"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(word, words[i]) == 0)
            return true;
    return false;
}

/* Whether a rule is about a field: its pattern, or "counts" for all that a check counts. */
static bool
is_about(const struct rule *rule, const char *field)
{
    static const char counts[] =
        "@(exit|corruptions|leaks|check-errors|image-end-offset|*-clusters)";
    const char *pattern = strcmp(rule->field, "counts") == 0 ? counts : rule->field;
    return fnmatch(pattern, field, FNM_EXTMATCH) == 0;
}

/* What nothing may explain away in passing: a rule for it names it, and what kind of image has it.
 */
static bool
is_content(const struct rule *rule)
{
    static const char *const fields[] = {"bytes", "written"};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (is_about(rule, fields[i]) &&
            (strcmp(rule->field, fields[i]) != 0 || strpbrk(rule->fact, "*?[") ||
             strcmp(rule->trait, "-") == 0))
            return true;
    return false;
}

static bool
parse(const char *path, unsigned number, const char *line, const char *text, struct rule *ret_rule)
{
    struct rule rule = {.text = strdup(line)};
    char **const columns[COLUMNS] = {&rule.trait,  &rule.fact,  &rule.field, &rule.ours,
                                     &rule.theirs, &rule.right, &rule.reason};
    unsigned count = 0;
    char *rest = rule.text;
    for (char *word; (word = strsep(&rest, " "));)
        if (*word && count++ < COLUMNS)
            *columns[count - 1] = word;
    *ret_rule = rule;
    if (count != COLUMNS)
        fprintf(stderr, "%s:%u: %u columns, not %u\n", path, number, count, COLUMNS);
    else if (!is_right(rule.right))
        fprintf(stderr, "%s:%u: '%s' cannot be right\n", path, number, rule.right);
    else if (!is_explained(text, rule.reason))
        fprintf(stderr, "%s:%u: '%s' is not explained\n", path, number, rule.reason);
    else if (is_content(&rule))
        fprintf(stderr, "%s:%u: content that differs is not explained like that\n", path, number);
    else
        return true;
    return false;
}

static char *
read_text(const char *path)
{
    FILE *in = fopen(path, "r");
    char *text = NULL;
    size_t capacity = 0;
    if (!in || getdelim(&text, &capacity, '\0', in) < 0) {
        perror(path);
        exit(2);
    }
    fclose(in);
    return text;
}

bool
rules_read(const char *path, struct rules *ret_rules)
{
    *ret_rules = (struct rules){0};
    char *text = read_text(path), *copy = strdup(text), *rest = copy;
    unsigned number = 0;
    bool fine = true;
    for (char *line; (line = strsep(&rest, "\n"));) {
        number++;
        if (line[strspn(line, " ")] == '\0' || *line == '#')
            continue;
        ret_rules->rules =
            reallocarray(ret_rules->rules, ret_rules->count + 1, sizeof *ret_rules->rules);
        if (!ret_rules->rules)
            abort();
        fine &= parse(path, number, line, text, &ret_rules->rules[ret_rules->count++]);
    }
    free(copy);
    free(text);
    return fine;
}

void
rules_destroy(struct rules *rules)
{
    for (size_t i = 0; i < rules->count; i++)
        free(rules->rules[i].text);
    free(rules->rules);
}

static bool
has_trait(const char *pattern, const char *traits)
{
    char *copy = strdup(traits), *rest = copy;
    bool has = false;
    for (char *trait; !has && (trait = strsep(&rest, ","));)
        has = *trait && fnmatch(pattern, trait, FNM_EXTMATCH) == 0;
    free(copy);
    return has;
}

/* All of those that "&" joins. */
static bool
has_traits(const char *patterns, const char *traits)
{
    if (strcmp(patterns, "-") == 0)
        return true;
    char *copy = strdup(patterns), *rest = copy;
    bool has = true;
    for (char *pattern; has && (pattern = strsep(&rest, "&"));)
        has = has_trait(pattern, traits);
    free(copy);
    return has;
}

static bool
values_match(const struct rule *rule, const struct difference *difference)
{
    if (strcmp(rule->ours, "more") == 0)
        return strtoull(difference->ours, NULL, 10) > strtoull(difference->theirs, NULL, 10);
    if (strcmp(rule->ours, "fewer") == 0)
        return strtoull(difference->ours, NULL, 10) < strtoull(difference->theirs, NULL, 10);
    if (strcmp(rule->ours, "sectors") == 0) {
        uint64_t ours = strtoull(difference->ours, NULL, 10);
        uint64_t theirs = strtoull(difference->theirs, NULL, 10);
        return ours > theirs && ours - theirs <= 512 && theirs % 512 == 0;
    }
    return fnmatch(rule->ours, difference->ours, FNM_EXTMATCH) == 0 &&
           fnmatch(rule->theirs, difference->theirs, FNM_EXTMATCH) == 0;
}

const struct rule *
rules_find(const struct rules *rules, const struct difference *difference)
{
    for (size_t i = 0; i < rules->count; i++) {
        const struct rule *rule = &rules->rules[i];
        if (fnmatch(rule->fact, difference->fact, FNM_EXTMATCH) == 0 &&
            is_about(rule, difference->field) && values_match(rule, difference) &&
            has_traits(rule->trait, difference->traits))
            return rule;
    }
    return NULL;
}
