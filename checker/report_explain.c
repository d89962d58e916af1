/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The catalogue's page on one problem. */

#include "checker/format.h"
#include "checker/report.h"

#include <string.h>

enum { LABEL_COLUMNS = 12 };

static const char *const severity_sentences[Q2_SEVERITY_COUNT] = {
    [Q2_SEVERITY_CORRUPTION] = "The image breaks a rule of the format, and data is wrong, lost or "
                               "in danger. Exit status 2.",
    [Q2_SEVERITY_LEAK] = "Space is lost, nothing else. Exit status 3.",
    [Q2_SEVERITY_ERROR] = "Something could not be checked. Exit status 1.",
    [Q2_SEVERITY_SUSPICIOUS] = "The format allows it, but no sound software leaves an image like "
                               "that. The exit status does not show it.",
    [Q2_SEVERITY_NOTE] = "Worth knowing. The exit status does not show it.",
};

static void
print_field(FILE *out, const char *label, const char *word, const char *sentence)
{
    char text[512];
    size_t used = 0;
    q2_format_append(text, sizeof text, &used, "%s: %s", word, sentence);
    fprintf(out, "  %-*s", LABEL_COLUMNS - 2, label);
    q2_format_wrap(out, LABEL_COLUMNS, LABEL_COLUMNS, text);
}

void
q2_report_explain(enum q2_problem problem, const struct q2_report_style *style, FILE *out)
{
    const struct q2_catalogue_entry *entry = q2_catalogue(problem);
    fprintf(out, "%s%s%s\n  ", style->colour ? "\033[1m" : "", entry->id,
            style->colour ? "\033[m" : "");
    q2_format_wrap(out, 2, 2, entry->sentence);
    fputc('\n', out);
    print_field(out, "Severity", q2_severity_id(entry->severity),
                severity_sentences[entry->severity]);
    print_field(out, "Found by", q2_pass_id(entry->pass), q2_pass_sentence(entry->pass));
    print_field(out, "Guest", q2_impact_id(entry->impact), q2_impact_sentence(entry->impact));
    print_field(out, "Repair", q2_repairable_id(entry->repair),
                q2_repairable_sentence(entry->repair));
}
