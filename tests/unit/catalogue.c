/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The catalogue holds itself to its style: ids follow names, ids are unique, sentences are
 * sentences, and the columns of a line do not contradict each other. */

#include "checker/catalogue.h"

#include <criterion/criterion.h>
#include <ctype.h>
#include <string.h>

static void
expect_id_follows_name(const struct q2_catalogue_entry *entry)
{
    cr_assert_eq(strlen(entry->id), strlen(entry->name), "%s: %s", entry->name, entry->id);
    for (size_t i = 0; entry->name[i]; i++) {
        char want = entry->name[i] == '_' ? '-' : (char)tolower((unsigned char)entry->name[i]);
        cr_assert_eq(entry->id[i], want, "%s: %s", entry->name, entry->id);
    }
}

static void
expect_sentence(const char *whose, const char *sentence)
{
    size_t length = sentence ? strlen(sentence) : 0;
    cr_assert_gt(length, 10, "%s: no sentence", whose);
    cr_expect_eq(sentence[length - 1], '.', "%s: no full stop", whose);
    cr_expect(!islower((unsigned char)sentence[0]) || strchr(sentence, '_'),
              "%s: begins with a small letter that is not a field's", whose);
    for (size_t i = 0; i < length; i++)
        cr_expect(isprint((unsigned char)sentence[i]), "%s: a byte that is not ASCII", whose);
    cr_expect_null(strstr(sentence, "  "), "%s: two spaces", whose);
}

static void
expect_word(const char *id)
{
    cr_assert(id && *id);
    for (; *id; id++)
        cr_expect(islower((unsigned char)*id) || *id == '-');
}

Test(catalogue, entries_obey_the_style)
{
    for (int i = 0; i < Q2_PROBLEM_COUNT; i++) {
        const struct q2_catalogue_entry *entry = q2_catalogue((enum q2_problem)i);
        expect_id_follows_name(entry);
        expect_sentence(entry->id, entry->sentence);
    }
}

Test(catalogue, ids_are_unique_and_found)
{
    for (int i = 0; i < Q2_PROBLEM_COUNT; i++) {
        enum q2_problem found = Q2_PROBLEM_COUNT;
        cr_assert(q2_problem_find(q2_catalogue((enum q2_problem)i)->id, &found));
        /* The first of two equal ids would be found for both. */
        cr_expect_eq(found, (enum q2_problem)i);
        cr_expect_str_eq(q2_problem_id(found), q2_catalogue(found)->id);
    }
    enum q2_problem untouched = Q2_PROBLEM_COUNT;
    cr_expect_not(q2_problem_find("no-such-problem", &untouched));
    cr_expect_eq(untouched, Q2_PROBLEM_COUNT);
}

Test(catalogue, columns_agree)
{
    for (int i = 0; i < Q2_PROBLEM_COUNT; i++) {
        const struct q2_catalogue_entry *entry = q2_catalogue((enum q2_problem)i);
        if (entry->severity == Q2_SEVERITY_LEAK)
            cr_expect_eq(entry->impact, Q2_IMPACT_SPACE, "%s", entry->id);
        if (entry->severity == Q2_SEVERITY_CORRUPTION)
            cr_expect_neq(entry->repair, Q2_REPAIR_NOT_NEEDED, "%s", entry->id);
        if (entry->repair == Q2_REPAIR_NOT_NEEDED)
            cr_expect_eq(entry->severity, Q2_SEVERITY_NOTE, "%s", entry->id);
    }
}

Test(catalogue, columns_have_words)
{
    for (int i = 0; i < Q2_SEVERITY_COUNT; i++)
        expect_word(q2_severity_id((enum q2_severity)i));
    for (int i = 0; i < Q2_PASS_COUNT; i++) {
        expect_word(q2_pass_id((enum q2_pass)i));
        expect_sentence(q2_pass_id((enum q2_pass)i), q2_pass_sentence((enum q2_pass)i));
    }
    for (int i = 0; i < Q2_IMPACT_COUNT; i++) {
        expect_word(q2_impact_id((enum q2_impact)i));
        expect_sentence(q2_impact_id((enum q2_impact)i), q2_impact_sentence((enum q2_impact)i));
    }
    for (int i = 0; i < Q2_REPAIR_COUNT; i++) {
        expect_word(q2_repairable_id((enum q2_repairable)i));
        expect_sentence(q2_repairable_id((enum q2_repairable)i),
                        q2_repairable_sentence((enum q2_repairable)i));
    }
}

Test(catalogue, every_pass_has_a_problem)
{
    bool seen[Q2_PASS_COUNT] = {false};
    for (int i = 0; i < Q2_PROBLEM_COUNT; i++)
        seen[q2_catalogue((enum q2_problem)i)->pass] = true;
    for (int i = 0; i < Q2_PASS_COUNT; i++)
        cr_expect(seen[i], "%s", q2_pass_id((enum q2_pass)i));
}
